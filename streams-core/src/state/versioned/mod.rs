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
    /// What ended up to this time is deleted.
    swept: Timestamp,
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
            swept: -1,
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
        self.swept = self.swept.min(timestamp - 1);
        let key = self.key(key)?;
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
        self.cache.put(&keys::place(&key, timestamp), Some(Bytes::new()), timestamp)?;
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

    /// Deletes what has become history that is not kept: what is older than a version that began before.
    fn sweep(&mut self) -> Result<(), StateError> {
        let horizon = self.horizon();
        if horizon <= self.swept {
            return Ok(());
        }
        let from = keys::place(&[], self.swept.saturating_add(1));
        let to = keys::place(&[], horizon.saturating_add(1));
        let mut places = Vec::new();
        self.cache.visit(&from, Some(&to), self.swept.saturating_add(1), |place, _, _| {
            places.push(place.to_vec());
            ControlFlow::Continue(())
        })?;
        for place in places {
            let (key, time) = keys::parts(&place);
            let mut gone = Vec::new();
            self.visit(key, time, |(from, value)| {
                // The version itself stays, unless it only says that there is nothing.
                if from < time || value.is_none() {
                    gone.push(from);
                }
                ControlFlow::Continue(())
            })?;
            for from in gone {
                self.cache.put(&keys::version(key, from), None, from)?;
            }
            self.cache.put(&place, None, time)?;
        }
        self.swept = horizon;
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

    fn time(&self) -> Timestamp {
        self.time
    }

    fn advance_time(&mut self, to: Timestamp) {
        // What was committed at that time was swept at that time.
        self.time = self.time.max(to);
        self.swept = self.horizon().max(-1);
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
