//! UTF-8 text that shares the bytes of the batch it was read from.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use super::primitives::utf8;
use super::{DynSerde, HasSerde, Serde, SerdeError, share};

/// Immutable text without an allocation of its own: a slice of the batch that it came in. It keeps
/// that batch in memory as long as it lives, so turn it into a `String` for long keeping.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked when it was made; without `unsafe` the check is paid again.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

// Equal to the hash of the bytes, so that looking up by bytes finds it.
impl std::hash::Hash for Text {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text.into_bytes()))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

struct TextSerde;

impl Serde<Text> for TextSerde {
    fn put(&self, value: &Text, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.extend_from_slice(&value.0);
        Ok(())
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Text, SerdeError> {
        utf8(bytes)?;
        Ok(Text(share(bytes, owner)))
    }

    fn weight(&self, value: &Text) -> usize {
        size_of::<Text>() + value.0.len()
    }
}

impl HasSerde for Text {
    fn serde() -> DynSerde<Self> {
        Arc::new(TextSerde)
    }
}
