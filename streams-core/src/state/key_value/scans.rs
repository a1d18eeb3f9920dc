//! Looking at many entries: those of the engine, and over them what memory has changed.

use std::collections::BTreeMap;
use std::hash::Hash;

use broker_api::Timestamp;
use bytes::Bytes;

use super::KeyValueStore;
use crate::error::StateError;
use crate::record::Data;

impl<K: Data + Eq + Hash, V: Data> KeyValueStore<K, V> {
    /// All entries, uncommitted ones included, in the order of their encoded keys.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn all(&mut self) -> Result<Vec<(K, V, Timestamp)>, StateError> {
        self.range(None, None)
    }

    /// The entries between two keys, both included, by the order of their encoded bytes; `None`:
    /// without bound. Uncommitted ones are included.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn range(
        &mut self,
        from: Option<&K>,
        to: Option<&K>,
    ) -> Result<Vec<(K, V, Timestamp)>, StateError> {
        let bound = |key: Option<&K>| {
            let encode = |key| {
                let mut bytes = Vec::new();
                self.codec.put_key(key, &mut bytes).map(|()| bytes)
            };
            key.map(encode).transpose()
        };
        let (from, mut to) = (bound(from)?.unwrap_or_default(), bound(to)?);
        if let Some(to) = &mut to {
            to.push(0); // the smallest key above it
        }
        let decode = |(key, (timestamp, value)): (Bytes, (Timestamp, Bytes))| {
            Ok((self.codec.key(&key)?, self.codec.value(&value)?, timestamp))
        };
        self.encoded(&from, to.as_deref())?.into_iter().map(decode).collect()
    }

    /// The entries whose encoded key begins with these bytes, in the order of their encoded keys.
    /// Uncommitted ones are included.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn prefix_scan(&mut self, prefix: &[u8]) -> Result<Vec<(K, V, Timestamp)>, StateError> {
        // The first key that is above all with this prefix.
        let end = prefix.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        });
        let decode = |(key, (timestamp, value)): (Bytes, (Timestamp, Bytes))| {
            Ok((self.codec.key(&key)?, self.codec.value(&value)?, timestamp))
        };
        self.encoded(prefix, end.as_deref())?.into_iter().map(decode).collect()
    }

    /// The encoded entries of memory and engine with `from <= key < end`.
    pub(in crate::state) fn encoded(
        &self,
        from: &[u8],
        end: Option<&[u8]>,
    ) -> Result<BTreeMap<Bytes, (Timestamp, Bytes)>, StateError> {
        let mut entries = BTreeMap::new();
        if end.is_some_and(|end| end <= from) {
            return Ok(entries);
        }
        for entry in self.engine.scan(from, end)? {
            let (key, value) = entry?;
            entries.insert(key, self.codec.split(&value)?);
        }
        for entry in self.cache.dirty() {
            let mut key = Vec::new();
            self.codec.put_key(&entry.key, &mut key)?;
            if key.as_slice() < from || end.is_some_and(|end| key.as_slice() >= end) {
                continue;
            }
            let key = Bytes::from(key);
            match &entry.value {
                Some(value) => {
                    let mut bytes = Vec::new();
                    self.codec.put_value(value, &mut bytes)?;
                    entries.insert(key, (entry.timestamp, bytes.into()));
                }
                None => {
                    entries.remove(&key);
                }
            }
        }
        Ok(entries)
    }
}
