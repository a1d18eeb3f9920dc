//! Stores that hold only so many entries: which one goes when another comes.

use std::hash::Hash;

use broker_api::Timestamp;

use super::{Entry, KeyValueStore, Presence, Recency, Slot};
use crate::error::StateError;
use crate::record::Data;

/// How many entries go at most when one comes: more than one only after
/// [`StoreOptions::max_entries`] was made smaller, and then a commit should not burst of it.
const MOST_DROPPED: usize = 16;

impl<K: Data + Eq + Hash, V: Data> KeyValueStore<K, V> {
    /// Looks at what a store that holds only so many entries has, before its first access.
    #[inline]
    pub(super) fn know_recency(&mut self) -> Result<(), StateError> {
        match self.options.max_entries {
            Some(most) if self.recency.is_none() => self.learn_recency(most),
            _ => Ok(()),
        }
    }

    #[cold]
    fn learn_recency(&mut self, most: usize) -> Result<(), StateError> {
        let mut keys = Vec::new();
        for entry in self.engine.scan(&[], None)? {
            let (key, value) = entry?;
            keys.push((self.codec.split(&value)?.0, self.codec.key(&key)?));
        }
        keys.sort_by_key(|(timestamp, _)| *timestamp);
        self.recency = Some(Box::new(Recency::new(most, keys.into_iter().map(|(_, key)| key))));
        Ok(())
    }

    /// An entry was changed: it was used last, and what was used least recently goes at this time, if there
    /// are too many now.
    #[inline]
    pub(super) fn drop_eldest(
        &mut self,
        changed: Slot,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        if self.recency.is_none() {
            return Ok(());
        }
        self.drop_some(changed, timestamp)
    }

    #[inline(never)]
    fn drop_some(&mut self, changed: Slot, timestamp: Timestamp) -> Result<(), StateError> {
        let Some(recency) = &mut self.recency else { return Ok(()) };
        let Entry { key, value, .. } = self.cache.at(changed);
        if value.is_none() {
            recency.remove(key);
            return Ok(());
        }
        recency.used(key);
        for _ in 0..MOST_DROPPED {
            let Some(key) = self.recency.as_mut().and_then(|recency| recency.take_eldest()) else {
                break;
            };
            let slot = match self.cache.find(&key) {
                Some(slot) => slot,
                None => self.insert(key, None, Presence::Unknown)?,
            };
            let delete = |value: &mut Option<V>, _| {
                *value = None;
                timestamp
            };
            self.cache.change(slot, delete, |_| self.codec.value_weight(None));
        }
        Ok(())
    }
}
