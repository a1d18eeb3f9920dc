//! A part of a store's engine: the entries whose keys begin with a byte, which is left out.
//!
//! A store that is made of several kinds of entries has a part for each, and one changelog for all.

use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::{BulkLoad, ChangelogWriter, EntryBatch, Position, Scan, StoreEngine};
use crate::error::StateError;

/// The entries of `engine` that begin with `prefix`. It is only read through: batches are prefixed by
/// [`extend`] and written to the whole.
pub(super) struct Prefixed {
    pub(super) engine: Arc<dyn StoreEngine>,
    pub(super) prefix: u8,
}

impl Prefixed {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        let mut prefixed = Vec::with_capacity(key.len() + 1);
        prefixed.push(self.prefix);
        prefixed.extend_from_slice(key);
        prefixed
    }

    fn refused<T>(&self) -> Result<T, StateError> {
        Err(StateError::Io {
            operation: "writing a part of",
            path: self.prefix.to_string().into(),
            reason: "a part of a store is written with the whole".into(),
        })
    }
}

impl StoreEngine for Prefixed {
    fn position(&self) -> Result<Option<Position>, StateError> {
        self.engine.position()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.engine.get(&self.key(key))
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Result<Scan<'a>, StateError> {
        let to = to.map_or_else(|| vec![self.prefix + 1], |to| self.key(to));
        let entries = self.engine.scan(&self.key(from), Some(&to))?;
        Ok(Box::new(entries.map(|entry| entry.map(|(key, value)| (key.slice(1..), value)))))
    }

    fn apply(&self, _: &mut EntryBatch, _: &Position) -> Result<(), StateError> {
        self.refused()
    }

    fn flush(&self) -> Result<(), StateError> {
        self.engine.flush()
    }

    fn bulk_load(&self) -> Result<Box<dyn BulkLoad>, StateError> {
        self.refused()
    }
}

/// Adds the entries of a part to those of the whole.
pub(super) fn extend(whole: &mut EntryBatch, prefix: u8, part: &EntryBatch) {
    for (key, value) in part.iter() {
        let added: Result<(), std::convert::Infallible> = whole.put_with(
            |out| {
                out.push(prefix);
                out.extend_from_slice(key);
                Ok(())
            },
            |out| Ok(value.map(|value| out.extend_from_slice(value))),
        );
        let Ok(()) = added;
    }
}

/// Writes the changes of a part to the changelog of the whole.
pub(super) struct PrefixedLog<'a> {
    pub(super) log: &'a mut dyn ChangelogWriter,
    pub(super) prefix: u8,
    pub(super) scratch: Vec<u8>,
}

impl ChangelogWriter for PrefixedLog<'_> {
    fn put(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.scratch.clear();
        self.scratch.push(self.prefix);
        self.scratch.extend_from_slice(key);
        self.log.put(&self.scratch, value, timestamp)
    }
}
