//! The bytes of a key in memory.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

/// As many bytes as fit beside a kind and a length into half a line of the processor's cache.
const SHORT: usize = 30;

/// Short keys, as most are, lie where the key itself does: they cost no allocation, and to compare
/// them no look elsewhere.
#[derive(Clone)]
pub(in crate::state) enum Key {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length).min(SHORT)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        match u8::try_from(key.len()) {
            Ok(length) if key.len() <= SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..key.len()].copy_from_slice(key);
                Self::Short(length, bytes)
            }
            _ => Self::Long(key.into()),
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_are_their_bytes_in_the_order_of_bytes() {
        assert_eq!(size_of::<Key>(), SHORT + 2);
        let keys: Vec<Vec<u8>> = (0..300).map(|length| vec![7; length]).collect();
        for pair in keys.windows(2) {
            let [shorter, longer] = [&pair[0], &pair[1]].map(|key| Key::from(&key[..]));
            assert_eq!((&*shorter, &*longer), (&pair[0][..], &pair[1][..]));
            assert!(shorter < longer && shorter == shorter.clone());
        }
    }
}
