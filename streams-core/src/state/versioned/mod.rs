//! The store that remembers what each key had, and when.
//!
//! A version of a key is valid from its time until the next one's; without a value it says that the key was
//! deleted. Versions may come in any order, within the *history retention*: what is older than the
//! newest time that the store was given ([`Store::time`]) by more than that is refused. What stopped
//! being valid that long ago is forgotten; the latest value of a key never is.
//!
//! Every version is a record of its own in the changelog, under its key and time. So compaction never
//! takes one that is still wanted: versions that are forgotten are deleted there too.
//!
//! They are deleted in slices: a seal deletes as many bytes of entries as were put since the last one, and
//! a few KiB more; the seals after it go on. So a leap of time that ends a long history makes no commit
//! large, and yet no less is deleted than is put. Reads go by time alone: to them it is all the same
//! whether what is forgotten is deleted yet. What a crash leaves to be deleted is found again in the
//! store.
//!
//! After an error, and after a panic in a function of the application, the store must be dropped and
//! opened again.

mod keys;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::entry_codec::EntryCodec;
use super::ordered::OrderedCache;
use super::{ChangelogFormat, ChangelogWriter, RawEntry, Store, StoreCache, StoreEngine};
use crate::error::StateError;
use crate::record::Data;
use crate::serde::DynSerde;

use keys::VersionedFormat;

/// How many bytes of entries a seal deletes besides as many as were put.
const SLICE: usize = if cfg!(test) { 64 } else { 16 << 10 };

/// What a versioned store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionedOptions {
    /// Changes are written to a changelog.
    pub logged: bool,
    /// How long versions are kept after they were replaced, and how late new ones may come, in
    /// milliseconds of event time.
    pub retention: Timestamp,
}

/// What has become of a version that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is the latest.
    Latest,
    /// It was valid until this time, when a later one begins that was there before.
    Until(Timestamp),
    /// It is older than the history that the store keeps, and was left out.
    Rejected,
}

/// A value that a key had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<V> {
    /// The value.
    pub value: V,
    /// Since when.
    pub from: Timestamp,
    /// Until when, not included; `None`: it has it now.
    pub to: Option<Timestamp>,
}

/// See the module.
pub struct VersionedStore<K, V> {
    codec: EntryCodec<K, V>,
    cache: OrderedCache,
    options: VersionedOptions,
    time: Timestamp,
    /// The places before this one are swept: they and what ended at them are deleted.
    unswept: Vec<u8>,
    scratch: Vec<u8>,
}

/// A version as it lies in the cache: its time, and its value's bytes if it has one.
type Found = (Timestamp, Option<Bytes>);

impl<K: Data, V: Data> VersionedStore<K, V> {
    /// A store over `engine`, which must be restored before the first access.
    pub fn new(
        name: &str,
        key_serde: DynSerde<K>,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        options: VersionedOptions,
    ) -> Self {
        Self {
            codec: EntryCodec::new(name, key_serde, value_serde),
            cache: OrderedCache::new(name, engine, keys::time_of, options.logged, false),
            options,
            time: -1,
            unswept: keys::place(&[], 0),
            scratch: Vec::new(),
        }
    }

    /// How the changelog of such a store becomes its entries.
    pub fn changelog_format() -> Arc<dyn ChangelogFormat> {
        Arc::new(VersionedFormat)
    }

    /// Adds a version of a key, or replaces the one of the same time; `None` says that it was deleted
    /// then.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put(
        &mut self,
        key: &K,
        value: Option<&V>,
        timestamp: Timestamp,
    ) -> Result<Put, StateError> {
        self.time = self.time.max(timestamp);
        if timestamp < self.horizon() {
            return Ok(Put::Rejected);
        }
        let key = self.key(key)?;
        let place = keys::place(&key, timestamp);
        if place < self.unswept {
            self.unswept.clone_from(&place);
        }
        let mut put = Put::Latest;
        self.visit(&key, Timestamp::MAX, |(from, _)| {
            if from <= timestamp {
                return ControlFlow::Break(());
            }
            put = Put::Until(from);
            ControlFlow::Continue(())
        })?;
        let mut bytes = vec![keys::DELETED];
        if let Some(value) = value.filter(|value| !self.codec.is_null(value)) {
            bytes[0] = keys::PRESENT;
            self.codec.put_value(value, &mut bytes)?;
        }
        self.cache.put(&place, Some(Bytes::new()), timestamp)?;
        self.cache.put(&keys::version(&key, timestamp), Some(bytes.into()), timestamp)?;
        Ok(put)
    }

    /// The value that a key has now, and since when.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn get(&mut self, key: &K) -> Result<Option<(V, Timestamp)>, StateError> {
        let key = self.key(key)?;
        match self.newest(&key, Timestamp::MAX)? {
            Some((from, Some(value))) => Ok(Some((self.codec.value(&value)?, from))),
            _ => Ok(None),
        }
    }

    /// The value that a key had at a time, and since when. Of times before the history that the store
    /// keeps only the latest value is known, if it is that old.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn get_as_of(
        &mut self,
        key: &K,
        time: Timestamp,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        if time < self.horizon() {
            return Ok(self.get(key)?.filter(|(_, from)| *from <= time));
        }
        let key = self.key(key)?;
        match self.newest(&key, time)? {
            Some((from, Some(value))) => Ok(Some((self.codec.value(&value)?, from))),
            _ => Ok(None),
        }
    }

    /// The values that a key had between two times, both included, in their order, as far as the store
    /// keeps history.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn history(
        &mut self,
        key: &K,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Version<V>>, StateError> {
        let (key, horizon) = (self.key(key)?, self.horizon());
        let mut found: Vec<(Found, Option<Timestamp>)> = Vec::new();
        let mut next = None;
        self.visit(&key, Timestamp::MAX, |(begin, value)| {
            let end = next.replace(begin);
            if end.is_some_and(|end| end <= from || end <= horizon) {
                return ControlFlow::Break(());
            }
            if begin <= to {
                found.push(((begin, value), end));
            }
            ControlFlow::Continue(())
        })?;
        let mut versions = Vec::new();
        for ((from, value), to) in found.into_iter().rev() {
            if let Some(value) = value {
                versions.push(Version { value: self.codec.value(&value)?, from, to });
            }
        }
        Ok(versions)
    }

    /// What ended up to here is history that is not kept.
    fn horizon(&self) -> Timestamp {
        self.time.saturating_sub(self.options.retention)
    }

    fn key(&self, key: &K) -> Result<Vec<u8>, StateError> {
        let mut bytes = Vec::new();
        self.codec.put_key(key, &mut bytes)?;
        Ok(bytes)
    }

    /// The newest version of a key that is not newer than a time.
    fn newest(&mut self, key: &[u8], time: Timestamp) -> Result<Option<Found>, StateError> {
        let mut newest = None;
        self.visit(key, time, |found| {
            newest = Some(found);
            ControlFlow::Break(())
        })?;
        Ok(newest)
    }

    /// Shows the versions of a key from a time on backwards.
    fn visit(
        &mut self,
        key: &[u8],
        newest: Timestamp,
        mut visit: impl FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if newest < 0 {
            return Ok(()); // nothing is that old
        }
        let (from, mut to) = (keys::version(key, newest), keys::version(key, 0));
        to.push(0); // the smallest key above
        let mut corrupt = None;
        self.cache.visit(&from, Some(&to), Timestamp::MIN, |at, value, _| {
            if at.len() != from.len() {
                return ControlFlow::Continue(()); // of a longer key
            }
            match (keys::time_of(at), value.split_first()) {
                (time, Some((&keys::PRESENT, _))) => visit((time, Some(value.slice(1..)))),
                (time, Some((&keys::DELETED, _))) => visit((time, None)),
                _ => {
                    corrupt = Some(at.to_vec());
                    ControlFlow::Break(())
                }
            }
        })?;
        match corrupt {
            None => Ok(()),
            Some(at) => Err(StateError::Corrupt {
                path: PathBuf::from(self.codec.store()),
                reason: format!("the version {at:02x?} says nothing"),
            }),
        }
    }

    /// Whether places are in the past that may not be swept.
    fn must_sweep(&self) -> bool {
        keys::time_of(&self.unswept) <= self.horizon()
    }

    /// Deletes a slice of what has become history that is not kept: what is older than a version that
    /// began before.
    fn sweep(&mut self) -> Result<(), StateError> {
        if !self.must_sweep() {
            return Ok(());
        }
        let slice = self.cache.uncommitted_bytes() + SLICE;
        let end = keys::place(&[], self.horizon().saturating_add(1));
        let oldest = keys::time_of(&self.unswept);
        let (mut places, mut listed) = (Vec::new(), 0);
        self.cache.visit(&self.unswept, Some(&end), oldest, |place, _, _| {
            places.push(place.to_vec());
            if listed >= slice {
                return ControlFlow::Break(()); // the next slice begins with it
            }
            listed += place.len();
            ControlFlow::Continue(())
        })?;
        let mut deleted = 0;
        for place in places {
            if deleted >= slice {
                self.unswept = place;
                return Ok(());
            }
            let (key, time) = keys::parts(&place);
            let mut gone = Vec::new();
            self.visit(key, time, |(from, value)| {
                // The version itself stays, unless it only says that there is nothing.
                if from < time || value.is_none() {
                    gone.push(from);
                }
                // What was before the one before went when that was swept.
                if from < time { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            for from in gone {
                let version = keys::version(key, from);
                self.cache.put(&version, None, from)?;
                deleted += version.len();
            }
            self.cache.put(&place, None, time)?;
            deleted += place.len();
        }
        self.unswept = end;
        Ok(())
    }
}

impl<K: Data, V: Data> Store for VersionedStore<K, V> {
    fn name(&self) -> &str {
        self.codec.store()
    }

    fn cache(&self) -> &dyn StoreCache {
        &self.cache
    }

    fn cache_mut(&mut self) -> &mut dyn StoreCache {
        &mut self.cache
    }

    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        self.sweep()?;
        let scratch = &mut self.scratch;
        self.cache.commit(|key, value, timestamp| {
            if keys::is_place(key) {
                return Ok(());
            }
            scratch.clear();
            keys::put_logged(key, scratch);
            changelog.put(scratch, value, timestamp)
        })
    }

    /// As many bytes may be deleted as were put.
    fn unsealed_bytes(&self) -> usize {
        self.cache.unsealed_bytes() * (1 + usize::from(self.must_sweep()))
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn advance_time(&mut self, to: Timestamp) {
        self.time = self.time.max(to);
    }

    /// The latest values.
    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError> {
        let mut entries: Vec<RawEntry> = Vec::new();
        let mut last: Vec<u8> = Vec::new();
        self.cache.visit(
            &[keys::VERSION],
            Some(&[keys::PLACE]),
            Timestamp::MIN,
            |at, value, _| {
                let (key, time) = keys::parts(at);
                if last != key {
                    last = key.to_vec();
                    if let Some((&keys::PRESENT, value)) = value.split_first() {
                        entries.push((last.clone(), value.to_vec(), time));
                    }
                }
                ControlFlow::Continue(())
            },
        )?;
        Ok(entries)
    }
}
