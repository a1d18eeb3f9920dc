//! How the entries of a timestamped key-value store become bytes.
//!
//! - In the engine: the key; Kafka's `ValueAndTimestamp`, which is the timestamp (i64, big-endian)
//!   and then the value.
//! - In the changelog: a record of key, value and timestamp.

use std::path::PathBuf;

use broker_api::{RecordRef, Timestamp};
use bytes::Bytes;

use super::{ChangelogFormat, EntryBatch};
use crate::error::{SerdeError, StateError};
use crate::record::Data;
use crate::serde::DynSerde;

const TIMESTAMP: usize = 8;

/// Encodes and decodes the entries of one store.
pub(super) struct EntryCodec<K, V> {
    store: String,
    key: DynSerde<K>,
    value: DynSerde<V>,
    nullable: bool,
}

impl<K: 'static, V: 'static> EntryCodec<K, V> {
    pub(super) fn new(store: &str, key: DynSerde<K>, value: DynSerde<V>) -> Self {
        Self { store: store.to_owned(), nullable: value.null().is_some(), key, value }
    }

    pub(super) fn store(&self) -> &str {
        &self.store
    }

    /// Whether this value is written as null, and so is none.
    pub(super) fn is_null(&self, value: &V) -> bool {
        self.nullable && self.value.is_null(value)
    }

    pub(super) fn key_weight(&self, key: &K) -> usize {
        self.key.weight(key)
    }

    pub(super) fn value_weight(&self, value: Option<&V>) -> usize {
        value.map_or(size_of::<V>(), |value| self.value.weight(value))
    }

    pub(super) fn put_key(&self, key: &K, out: &mut Vec<u8>) -> Result<(), StateError> {
        if self.key.is_null(key) {
            return Err(self.error(SerdeError::new("a store has no null keys")));
        }
        self.key.put(key, out).map_err(|error| self.error(error))
    }

    pub(super) fn put_value(&self, value: &V, out: &mut Vec<u8>) -> Result<(), StateError> {
        self.value.put(value, out).map_err(|error| self.error(error))
    }

    /// Begins an engine's value; what follows is the value's own bytes.
    pub(super) fn put_timestamp(&self, timestamp: Timestamp, out: &mut Vec<u8>) {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }

    pub(super) fn key(&self, bytes: &Bytes) -> Result<K, StateError> {
        self.key.get(bytes, bytes).map_err(|error| self.error(error))
    }

    pub(super) fn value(&self, bytes: &Bytes) -> Result<V, StateError> {
        self.value.get(bytes, bytes).map_err(|error| self.error(error))
    }

    /// The two parts of an engine's value.
    pub(super) fn split(&self, entry: &Bytes) -> Result<(Timestamp, Bytes), StateError> {
        split(&self.store, entry)
    }

    fn error(&self, error: SerdeError) -> StateError {
        StateError::Serde { store: self.store.clone(), error }
    }
}

/// The timestamp and the value in an engine's value.
pub(super) fn split(store: &str, entry: &Bytes) -> Result<(Timestamp, Bytes), StateError> {
    let Some((timestamp, _)) = entry.split_first_chunk::<TIMESTAMP>() else {
        return Err(StateError::Corrupt {
            path: PathBuf::from(store),
            reason: format!("an entry of {} bytes, too few for its timestamp", entry.len()),
        });
    };
    Ok((Timestamp::from_be_bytes(*timestamp), entry.slice(TIMESTAMP..)))
}

/// The changelog of a [`KeyValueStore`](super::KeyValueStore).
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyValueFormat;

impl ChangelogFormat for KeyValueFormat {
    fn entries(&self, record: &RecordRef<'_>, out: &mut EntryBatch) -> Result<(), StateError> {
        let record_key = logged_key(record)?;
        out.put_with(
            |key| {
                key.extend_from_slice(record_key);
                Ok(())
            },
            |value| Ok(put_logged_value(record, value)),
        )
    }
}

/// A topic that stands in for the changelog of a [`KeyValueStore`](super::KeyValueStore). Its records were
/// not written by us: those that the application left out when it read them are left out here too.
pub struct TopicFormat<K, V> {
    key: DynSerde<K>,
    value: DynSerde<V>,
}

impl<K, V> TopicFormat<K, V> {
    /// Of a topic that is read with these serdes.
    pub fn new(key: DynSerde<K>, value: DynSerde<V>) -> Self {
        Self { key, value }
    }
}

impl<K: Data, V: Data> ChangelogFormat for TopicFormat<K, V> {
    fn entries(&self, record: &RecordRef<'_>, out: &mut EntryBatch) -> Result<(), StateError> {
        let decodes = |key| {
            let value = |value| self.value.get(value, &Bytes::new()).is_ok();
            self.key.get(key, &Bytes::new()).is_ok() && record.value.is_none_or(value)
        };
        if record.key.is_some_and(decodes) { KeyValueFormat.entries(record, out) } else { Ok(()) }
    }
}

/// The key of a changelog record, which must have one.
pub(super) fn logged_key<'a>(record: &RecordRef<'a>) -> Result<&'a [u8], StateError> {
    record.key.ok_or_else(|| StateError::ChangelogRecord {
        reason: format!("record {} has no key", record.offset),
    })
}

/// Appends what the engine keeps of a changelog record's value; `None`: it deletes.
pub(super) fn put_logged_value(record: &RecordRef<'_>, out: &mut Vec<u8>) -> Option<()> {
    let value = record.value?;
    out.extend_from_slice(&record.timestamp.to_be_bytes());
    out.extend_from_slice(value);
    Some(())
}
