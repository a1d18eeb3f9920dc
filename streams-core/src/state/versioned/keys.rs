//! How the versions of a key become bytes (numbers are big-endian, times are never negative).
//!
//! | | key | value |
//! |---|---|---|
//! | in the changelog | key, time (i64) | 0: deleted; or 1, the value |
//! | in the engine: a version | 0, key, time with all bits turned (i64) | timestamp (i64), then as above |
//! | in the engine: its place in time | 1, time (i64), key | timestamp (i64) |
//!
//! With their bits turned, later times come first: so the version that was valid at a time is the first
//! one from there on. A null value in the changelog takes a version out of the history.

use broker_api::{RecordRef, Timestamp};

use crate::error::StateError;
use crate::state::entry_codec::{logged_key, put_logged_value};
use crate::state::{ChangelogFormat, EntryBatch};

pub(super) const VERSION: u8 = 0;
pub(super) const PLACE: u8 = 1;

/// What a version's value begins with.
pub(super) const DELETED: u8 = 0;
pub(super) const PRESENT: u8 = 1;

const TIME: usize = 8;

/// The entry of a version.
pub(super) fn version(key: &[u8], time: Timestamp) -> Vec<u8> {
    [&[VERSION], key, &(!time).to_be_bytes()].concat()
}

/// Its place in time.
pub(super) fn place(key: &[u8], time: Timestamp) -> Vec<u8> {
    [&[PLACE], &time.to_be_bytes()[..], key].concat()
}

pub(super) fn is_place(entry: &[u8]) -> bool {
    entry.first() == Some(&PLACE)
}

/// The key and the time of an entry of the engine; what is too short has the last of all times.
pub(super) fn parts(entry: &[u8]) -> (&[u8], Timestamp) {
    let none = (&entry[..0], Timestamp::MAX);
    let Some((kind, rest)) = entry.split_first() else { return none };
    if *kind == PLACE {
        let split = rest.split_first_chunk::<TIME>();
        return split.map_or(none, |(time, key)| (key, Timestamp::from_be_bytes(*time)));
    }
    let split = rest.split_last_chunk::<TIME>();
    split.map_or(none, |(key, time)| (key, !Timestamp::from_be_bytes(*time)))
}

pub(super) fn time_of(entry: &[u8]) -> Timestamp {
    parts(entry).1
}

/// Appends the changelog's key of a version.
pub(super) fn put_logged(entry: &[u8], out: &mut Vec<u8>) {
    let (key, time) = parts(entry);
    out.extend_from_slice(key);
    out.extend_from_slice(&time.to_be_bytes());
}

/// The changelog of a versioned store.
pub(super) struct VersionedFormat;

impl ChangelogFormat for VersionedFormat {
    fn entries(&self, record: &RecordRef<'_>, out: &mut EntryBatch) -> Result<(), StateError> {
        let logged = logged_key(record)?;
        let Some((key, time)) = logged.split_last_chunk::<TIME>() else {
            return Err(StateError::ChangelogRecord {
                reason: format!("record {} has a key without a time", record.offset),
            });
        };
        let time = Timestamp::from_be_bytes(*time);
        let timestamp = record.timestamp.to_be_bytes();
        out.put(&place(key, time), record.value.map(|_| &timestamp[..]));
        out.put_with(
            |out| {
                out.extend_from_slice(&version(key, time));
                Ok(())
            },
            |out| Ok(put_logged_value(record, out)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(version(b"k", 258), [0, b'k', 255, 255, 255, 255, 255, 255, 254, 253]);
        assert_eq!(place(b"k", 258), [1, 0, 0, 0, 0, 0, 0, 1, 2, b'k']);
        let mut logged = Vec::new();
        put_logged(&version(b"k", 258), &mut logged);
        assert_eq!(logged, [b'k', 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn entries_lead_back_to_key_and_time() {
        for entry in [version(b"key", 7), place(b"key", 7)] {
            assert_eq!(parts(&entry), (&b"key"[..], 7));
        }
        for length in 0..8 {
            assert_eq!(time_of(&vec![0; length]), Timestamp::MAX);
            assert_eq!(time_of(&vec![1; length]), Timestamp::MAX);
        }
    }
}
