//! The typed, timestamped key-value store.
//!
//! Values stay as they are in memory between updates; what is not in memory is read from the
//! engine. [`KeyValueStore::update`] changes a value in place after one look-up.
//!
//! A store whose updates are *forwarded at seal* (Kafka's caching) merges them by key:
//! [`KeyValueStore::next_forward`] yields each key changed since the last forward once, in the order
//! of their last updates, with the value last forwarded as old value where that is asked for. A key
//! that was created and deleted in between, and a deletion of an unknown key, yield nothing.
//!
//! A store with [`StoreOptions::max_entries`] (Kafka's LRU map) deletes the entry that was used least
//! recently when there are too many: from memory, engine and changelog, in the commit of what came
//! instead. The order of use is not kept through a restart: then the oldest times go first.
//!
//! After an error, and after a panic in a function of the application, the store must be dropped
//! and opened again.

use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::Timestamp;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::completeness::Completeness;
use super::entry_codec::EntryCodec;
use super::point_cache::{Entry, PointCache, Presence, Slot};
use super::recency::Recency;
use super::{ChangelogWriter, EntryBatch, RawEntry, Store, StoreEngine};
use crate::error::StateError;
use crate::record::{Data, Headers};
use crate::serde::DynSerde;

mod bounded;
mod options;
mod scans;

pub use options::StoreOptions;

/// Bytes that a store holds in memory until [`Store::set_budget`] says otherwise.
pub const DEFAULT_BUDGET: usize = 32 << 20;

/// An update to be forwarded: what a key has now, and had at the last forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward<K, V> {
    /// The key.
    pub key: K,
    /// The value now; `None`: deleted.
    pub new: Option<V>,
    /// The value last forwarded, if old values are kept.
    pub old: Option<V>,
    /// Whether an operator [looked up](KeyValueStore::look_up) what was not forwarded.
    pub was_seen: bool,
    /// The time of the last update.
    pub timestamp: Timestamp,
    /// The headers of the last update, where [`KeyValueStore::forward_with`] gave some.
    pub headers: Headers,
}

/// What an update left, for an operator that forwards at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Updated<'a, V> {
    /// The value now; `None`: deleted, or still absent.
    pub new: Option<&'a V>,
    /// The value before, if old values are kept and updates are not forwarded at the seal.
    pub old: Option<V>,
    /// The time that the update gave it.
    pub timestamp: Timestamp,
}

/// See the module.
pub struct KeyValueStore<K, V> {
    codec: EntryCodec<K, V>,
    engine: Arc<dyn StoreEngine>,
    options: StoreOptions,
    cache: PointCache<K, V>,
    /// The time of a key; 0 if keys have none.
    time_of: fn(&K) -> Timestamp,
    /// Which keys of the engine are in memory; `None`: it was not looked at.
    completeness: Option<Completeness>,
    /// Up to this time keys are of no more use.
    forgotten_to: Timestamp,
    /// How many entries came into memory since old ones were forgotten, and how many were left then.
    inserted: usize,
    left: usize,
    /// The entry that was changed last.
    changed: Option<Slot>,
    /// The order of use, once it is known; always `None` without [`StoreOptions::max_entries`].
    recency: Option<Box<Recency<K>>>,
    /// What entries are forwarded with at the seal; most records have no headers.
    headers: HashMap<Slot, Headers, FixedState>,
    scratch: Vec<u8>,
}

impl<K: Data + Eq + Hash, V: Data> KeyValueStore<K, V> {
    /// A store over `engine`, which must be restored before the first access.
    pub fn new(
        name: &str,
        key_serde: DynSerde<K>,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        options: StoreOptions,
    ) -> Self {
        Self::with_times(name, key_serde, value_serde, engine, options, |_| 0)
    }

    /// A store whose keys have times: the newest are used most. No key in the engine has a later one
    /// than the store's time in its position.
    pub(super) fn with_times(
        name: &str,
        key_serde: DynSerde<K>,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        options: StoreOptions,
        time_of: fn(&K) -> Timestamp,
    ) -> Self {
        Self {
            codec: EntryCodec::new(name, key_serde, value_serde),
            engine,
            cache: PointCache::new(options.keep_old && options.forward_on_seal, DEFAULT_BUDGET),
            options,
            time_of,
            completeness: None,
            forgotten_to: Timestamp::MIN,
            inserted: 0,
            left: 0,
            changed: None,
            recency: None,
            headers: HashMap::with_hasher(FixedState::default()),
            scratch: Vec::new(),
        }
    }

    /// The value of a key and its time.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn get(&mut self, key: &K) -> Result<Option<(&V, Timestamp)>, StateError> {
        self.know_recency()?;
        let slot = match self.cache.find(key) {
            Some(slot) => slot,
            None => match self.read(key)? {
                Some(found) => self.insert(key.clone(), Some(found), Presence::Present)?,
                None => return Ok(None),
            },
        };
        let entry = self.cache.at(slot);
        if let (Some(recency), Some(_)) = (&mut self.recency, &entry.value) {
            recency.used(key);
        }
        Ok(entry.value.as_ref().map(|value| (value, entry.timestamp)))
    }

    /// As [`KeyValueStore::get`], for an operator that makes something of it that a later update has to
    /// correct: should the key be deleted before its value was forwarded, the deletion is forwarded.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn look_up(&mut self, key: &K) -> Result<Option<(&V, Timestamp)>, StateError> {
        if let Some(slot) = self.cache.find(key) {
            self.cache.seen(slot);
        }
        self.get(key)
    }

    /// What was last forwarded of a key that has changed since, in a store that forwards at the seal: the
    /// value, if old values are kept. The outer `None`: it has not.
    pub fn forwarded(&mut self, key: &K) -> Option<Option<&V>> {
        let slot = self.cache.find(key).filter(|_| self.options.forward_on_seal)?;
        self.cache.waits(slot).then(|| self.cache.old(slot))
    }

    /// Sets the value of a key; `None` deletes it. Returns the value before, if old values are kept
    /// and updates are not forwarded at the seal; otherwise what is not in memory is not read.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put(
        &mut self,
        key: K,
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<Option<V>, StateError> {
        self.know_recency()?;
        let slot = match self.cache.find(&key) {
            Some(slot) => slot,
            None if self.options.keep_old => self.load(key)?,
            None => self.insert(key, None, Presence::Unknown)?,
        };
        let old = self.change(slot, |slot, _| {
            *slot = value;
            timestamp
        });
        self.drop_eldest(slot, timestamp)?;
        Ok(old)
    }

    /// Changes the value of a key in place, with one look-up. `change` gets the value (`None`: there
    /// is none) and its time, leaves the new value (`None` deletes) and returns its time.
    ///
    /// ```
    /// # use std::{path::Path, sync::Arc};
    /// # use streams_core::serde::HasSerde;
    /// # use streams_core::state::{KeyValueStore, LossyEngine, StateEngine, StoreOptions};
    /// # let engine = LossyEngine::new().open(Path::new("0_0"), &["counts"])?.remove(0);
    /// # let mut store = KeyValueStore::<String, i64>::new(
    /// #     "counts", HasSerde::serde(), HasSerde::serde(), engine, StoreOptions::default());
    /// let count = |value: &mut Option<i64>, time: Option<i64>| {
    ///     *value.get_or_insert(0) += 1;
    ///     time.map_or(1_000, |time| time.max(1_000))
    /// };
    /// store.update(&"vltava".to_string(), count)?;
    /// let updated = store.update(&"vltava".to_string(), count)?;
    /// assert_eq!(updated.new, Some(&2));
    /// # Ok::<(), streams_core::StateError>(())
    /// ```
    ///
    /// # Errors
    /// [`StateError`]; then `change` was not called.
    pub fn update(
        &mut self,
        key: &K,
        change: impl FnOnce(&mut Option<V>, Option<Timestamp>) -> Timestamp,
    ) -> Result<Updated<'_, V>, StateError> {
        self.know_recency()?;
        let slot = match self.cache.find(key) {
            Some(slot) => slot,
            None => self.load(key.clone())?,
        };
        let mut timestamp = 0;
        let old = self.change(slot, |value, before| {
            timestamp = change(value, before);
            timestamp
        });
        self.drop_eldest(slot, timestamp)?;
        Ok(Updated { new: self.cache.at(slot).value.as_ref(), old, timestamp })
    }

    /// The update that was made last is to be forwarded at the seal with these headers, unless the key
    /// is updated again before.
    pub fn forward_with(&mut self, headers: Headers) {
        let Some(slot) = self.changed else { return };
        if !headers.as_slice().is_empty() {
            self.headers.insert(slot, headers);
        } else if !self.headers.is_empty() {
            self.headers.remove(&slot);
        }
    }

    /// The next update to be forwarded. To be called before [`Store::seal`] until it yields nothing,
    /// by the operator of a store that forwards at the seal.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn next_forward(&mut self) -> Result<Option<Forward<K, V>>, StateError> {
        while let Some((slot, old, before)) = self.cache.next_forward() {
            let Entry { key, value: new, timestamp, .. } = self.cache.at(slot);
            let (key, new, timestamp) = (key.clone(), new.clone(), *timestamp);
            let headers = self.headers.remove(&slot).unwrap_or_default();
            let was_seen = before == Presence::Seen;
            let forward = Forward { key, new, old, was_seen, timestamp, headers };
            let existed = match before {
                Presence::Present | Presence::Seen => true,
                Presence::Absent => false,
                // The engine still has what was there at the last forward: a key of which that is
                // unknown has not been committed since.
                Presence::Unknown => forward.new.is_some() || self.read(&forward.key)?.is_some(),
            };
            if existed || forward.new.is_some() {
                return Ok(Some(forward));
            }
        }
        Ok(None)
    }

    /// Sets the value of a key that has none. Answers what it has otherwise, and its time.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put_if_absent(
        &mut self,
        key: K,
        value: V,
        timestamp: Timestamp,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        let present = self.get(&key)?.map(|(value, timestamp)| (value.clone(), timestamp));
        if present.is_none() {
            self.put(key, Some(value), timestamp)?;
        }
        Ok(present)
    }

    /// Changes an entry that is in memory; returns its value before, where the operator needs it.
    fn change(
        &mut self,
        slot: Slot,
        change: impl FnOnce(&mut Option<V>, Option<Timestamp>) -> Timestamp,
    ) -> Option<V> {
        self.changed = Some(slot);
        let returns_old = self.options.keep_old && !self.options.forward_on_seal;
        let codec = &self.codec;
        let mut old = None;
        let change = |value: &mut Option<V>, before: Option<Timestamp>| {
            if returns_old {
                old = value.clone();
            }
            let timestamp = change(value, before);
            if value.as_ref().is_some_and(|value| codec.is_null(value)) {
                *value = None;
            }
            timestamp
        };
        self.cache.change(slot, change, |value| codec.value_weight(value.as_ref()));
        old
    }

    /// Takes a key that is not in memory into it, with what the engine has.
    fn load(&mut self, key: K) -> Result<Slot, StateError> {
        let found = self.read(&key)?;
        let presence = if found.is_some() { Presence::Present } else { Presence::Absent };
        self.insert(key, found, presence)
    }

    fn evict(&mut self) {
        let evicted = self.cache.evict_all(self.time_of);
        self.note_evicted(evicted);
    }

    /// The newest time of the entries that were evicted.
    fn note_evicted(&mut self, newest: Option<Timestamp>) {
        if let Some(newest) = newest {
            let before = self.completeness.unwrap_or(Completeness::Never);
            self.completeness = Some(before.max(Completeness::after(newest)));
        }
    }

    /// Keys up to this time are of no more use: they go from memory with the flushes.
    pub(super) fn forget_up_to(&mut self, time: Timestamp) {
        self.forgotten_to = self.forgotten_to.max(time);
    }

    /// Forgets what is of no more use, when as many entries have come as were left the last time: so
    /// each of them pays for a look at another.
    fn forget(&mut self) {
        if self.forgotten_to == Timestamp::MIN || self.inserted < self.left {
            return;
        }
        let (time_of, to) = (self.time_of, self.forgotten_to);
        let evicted = self.cache.forget(|key| time_of(key) <= to).then_some(to);
        self.note_evicted(evicted);
        (self.left, self.inserted) = (self.cache.len(), 0);
    }

    fn insert(
        &mut self,
        key: K,
        found: Option<(V, Timestamp)>,
        presence: Presence,
    ) -> Result<Slot, StateError> {
        let evicted = self.cache.evict_some(self.time_of);
        self.note_evicted(evicted);
        self.inserted += 1;
        let weights = (
            self.codec.key_weight(&key),
            self.codec.value_weight(found.as_ref().map(|(value, _)| value)),
        );
        let slot = self.cache.insert(key, found, weights, presence);
        slot.ok_or_else(|| StateError::Io {
            operation: "taking another entry into memory of",
            path: PathBuf::from(self.codec.store()),
            reason: "there are 2^29 already; lower the budget for state memory".into(),
        })
    }

    /// What the engine has for a key.
    fn read(&mut self, key: &K) -> Result<Option<(V, Timestamp)>, StateError> {
        let completeness = match self.completeness {
            Some(completeness) => completeness,
            None => *self.completeness.insert(completeness_at_first(&*self.engine)?),
        };
        self.scratch.clear();
        self.codec.put_key(key, &mut self.scratch)?; // also to refuse a null key
        if completeness.covers((self.time_of)(key)) {
            return Ok(None);
        }
        let Some(found) = self.engine.get(&self.scratch)? else { return Ok(None) };
        let (timestamp, value) = self.codec.split(&found)?;
        Ok(Some((self.codec.value(&value)?, timestamp)))
    }
}

/// Which keys an engine cannot have, before any is in memory.
fn completeness_at_first(engine: &dyn StoreEngine) -> Result<Completeness, StateError> {
    if engine.scan(&[], None)?.next().is_none() {
        return Ok(Completeness::ALWAYS);
    }
    let newest = engine.position()?.map(|position| position.stream_time);
    Ok(newest.filter(|newest| *newest >= 0).map_or(Completeness::Never, Completeness::after))
}

impl<K: Data + Eq + Hash, V: Data> Store for KeyValueStore<K, V> {
    fn name(&self) -> &str {
        self.codec.store()
    }

    fn cache(&self) -> &dyn super::StoreCache {
        self
    }

    fn cache_mut(&mut self) -> &mut dyn super::StoreCache {
        self
    }
}

impl<K: Data + Eq + Hash, V: Data> super::StoreCache for KeyValueStore<K, V> {
    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        debug_assert!(
            !self.options.forward_on_seal || !self.cache.has_forwards(),
            "store '{}' is sealed before its updates were forwarded",
            self.codec.store()
        );
        let (codec, logged, bytes) = (&self.codec, self.options.logged, &mut self.scratch);
        self.cache.commit(|entry| {
            if !logged {
                return Ok(());
            }
            bytes.clear();
            codec.put_key(&entry.key, bytes)?;
            let value_at = bytes.len();
            if let Some(value) = &entry.value {
                codec.put_value(value, bytes)?;
            }
            let (key, value) = bytes.split_at(value_at);
            changelog.put(key, entry.value.is_some().then_some(value), entry.timestamp)
        })
    }

    fn begin_flush(&mut self) -> Result<EntryBatch, StateError> {
        let codec = &self.codec;
        let mut batch = EntryBatch::new();
        self.cache.begin_flush(|entry| {
            batch.put_with(
                |out| codec.put_key(&entry.key, out),
                |out| {
                    let Some(value) = &entry.value else { return Ok(None) };
                    codec.put_timestamp(entry.timestamp, out);
                    codec.put_value(value, out).map(Some)
                },
            )
        })?;
        Ok(batch)
    }

    fn flushed(&mut self) {
        self.cache.flushed();
        self.forget();
        self.evict();
    }

    fn has_uncommitted(&self) -> bool {
        self.cache.has_uncommitted()
    }

    fn unsealed_bytes(&self) -> usize {
        let StoreOptions { logged, forward_on_seal, .. } = self.options;
        self.cache.uncommitted_bytes() * (usize::from(logged) + usize::from(forward_on_seal))
    }

    fn dirty_bytes(&self) -> usize {
        self.cache.dirty_bytes()
    }

    fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    fn set_budget(&mut self, bytes: usize) {
        self.cache.set_budget(bytes);
        self.evict();
    }

    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError> {
        let entries = self.encoded(&[], None)?;
        Ok(entries.into_iter().map(|(k, (time, v))| (k.to_vec(), v.to_vec(), time)).collect())
    }
}

#[cfg(test)]
mod tests;
