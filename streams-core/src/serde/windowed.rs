//! Keys of windows, as Kafka writes them into topics.
//!
//! | | bytes |
//! |---|---|
//! | time window | key, start (i64) |
//! | session | key, end (i64), start (i64) |
//!
//! The bytes do not tell which of the two they are, nor how long a time window is, so these serdes
//! are given by hand. Tables of windows bring theirs, and what is made of them inherits it.

use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::{DynSerde, HasSerde, Serde, SerdeError};
use crate::windowed::Windowed;

/// The serde of keys in windows of a fixed size, which is given in milliseconds: Kafka's
/// `TimeWindowedSerde`. For sliding windows it is their time difference, for unlimited ones `i64::MAX`.
pub fn time_windowed<K: 'static>(key: DynSerde<K>, size: Timestamp) -> DynSerde<Windowed<K>> {
    Arc::new(TimeWindowed { key, size })
}

/// The serde of keys in sessions: Kafka's `SessionWindowedSerde`.
pub fn session_windowed<K: 'static>(key: DynSerde<K>) -> DynSerde<Windowed<K>> {
    Arc::new(SessionWindowed { key })
}

struct TimeWindowed<K> {
    key: DynSerde<K>,
    size: Timestamp,
}

impl<K: 'static> Serde<Windowed<K>> for TimeWindowed<K> {
    fn put(&self, value: &Windowed<K>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        self.key.put(&value.key, out)?;
        out.extend_from_slice(&value.window.start.to_be_bytes());
        Ok(())
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Windowed<K>, SerdeError> {
        let (key, start) = last_time(bytes)?;
        Ok(Windowed::new(self.key.get(key, owner)?, start, start.saturating_add(self.size)))
    }

    fn check(&self) -> Result<(), SerdeError> {
        self.key.check()
    }

    fn weight(&self, value: &Windowed<K>) -> usize {
        self.key.weight(&value.key) + size_of::<Windowed<()>>()
    }
}

struct SessionWindowed<K> {
    key: DynSerde<K>,
}

impl<K: 'static> Serde<Windowed<K>> for SessionWindowed<K> {
    fn put(&self, value: &Windowed<K>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        self.key.put(&value.key, out)?;
        out.extend_from_slice(&value.window.end.to_be_bytes());
        out.extend_from_slice(&value.window.start.to_be_bytes());
        Ok(())
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Windowed<K>, SerdeError> {
        let (rest, start) = last_time(bytes)?;
        let (key, end) = last_time(rest)?;
        Ok(Windowed::new(self.key.get(key, owner)?, start, end))
    }

    fn check(&self) -> Result<(), SerdeError> {
        self.key.check()
    }

    fn weight(&self, value: &Windowed<K>) -> usize {
        self.key.weight(&value.key) + size_of::<Windowed<()>>()
    }
}

fn last_time(bytes: &[u8]) -> Result<(&[u8], Timestamp), SerdeError> {
    let Some((rest, time)) = bytes.split_last_chunk() else {
        return Err(SerdeError::new(format!("{} bytes are no windowed key", bytes.len())));
    };
    Ok((rest, Timestamp::from_be_bytes(*time)))
}

/// Stands where nobody said which windows these are.
struct Unknown;

impl Unknown {
    fn error() -> SerdeError {
        SerdeError::new(
            "nobody said which windows these keys belong to; give their serde by hand: \
             serde::time_windowed or serde::session_windowed",
        )
    }
}

impl<K: 'static> Serde<Windowed<K>> for Unknown {
    fn put(&self, _: &Windowed<K>, _: &mut Vec<u8>) -> Result<(), SerdeError> {
        Err(Self::error())
    }

    fn get(&self, _: &[u8], _: &Bytes) -> Result<Windowed<K>, SerdeError> {
        Err(Self::error())
    }

    fn check(&self) -> Result<(), SerdeError> {
        Err(Self::error())
    }
}

/// Only a stand-in, so that tables of windows need no more words than others: they bring a serde of
/// their own. Where there is none to inherit, a source or sink with this one is an error of `build()`
/// that says what to do.
impl<K: HasSerde> HasSerde for Windowed<K> {
    fn serde() -> DynSerde<Self> {
        Arc::new(Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let windowed = Windowed::new("k".to_string(), 258, 268);
        let time = time_windowed(String::serde(), 10);
        let session = session_windowed(String::serde());
        for (serde, bytes) in [
            (time, &[b'k', 0, 0, 0, 0, 0, 0, 1, 2][..]),
            (session, &[b'k', 0, 0, 0, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 0, 1, 2]),
        ] {
            let mut out = Vec::new();
            serde.put(&windowed, &mut out).unwrap();
            assert_eq!(out, bytes);
            assert_eq!(serde.get(&out, &Bytes::new()).unwrap(), windowed);
            assert!(serde.get(&out[..7], &Bytes::new()).is_err());
        }
    }

    #[test]
    fn a_window_without_an_end_ends_with_time() {
        let serde = time_windowed(String::serde(), i64::MAX);
        let windowed = Windowed::new("k".to_string(), 20, i64::MAX);
        let mut out = Vec::new();
        serde.put(&windowed, &mut out).unwrap();
        assert_eq!(serde.get(&out, &Bytes::new()).unwrap(), windowed);
    }

    #[test]
    fn the_serde_of_the_type_says_that_one_has_to_be_given() {
        let error = Windowed::<String>::serde().get(b"k", &Bytes::new()).unwrap_err();
        assert!(error.to_string().contains("serde::time_windowed"), "{error}");
    }
}
