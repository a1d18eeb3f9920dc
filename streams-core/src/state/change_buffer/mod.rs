//! The store of a table's updates that wait: one for each key, in the order of a time.
//!
//! A key's first update gives it its place in the order, and the value that the table had before; later
//! ones replace the value and keep the place. [`ChangeBuffer::due`] and [`ChangeBuffer::take_first`]
//! find updates in the order of (time, key bytes), each with the value before the first of them:
//! what the receiver was told last.
//!
//! In the engine and in the changelog, which is compacted, a key has two entries (numbers are
//! big-endian):
//!
//! | | key | value |
//! |---|---|---|
//! | update | 0, the key | time (i64), old value, new value, headers |
//! | its place | 1, time (i64), the key | empty |
//!
//! The timestamp of both is that of the update's record. Old and new value are a byte that says whether
//! there is one, and then its length (u32) and the value; headers are as in
//! [`with_headers`](crate::serde::with_headers).
//!
//! After an error, and after a panic in a function of the application, the store must be dropped and
//! opened again.

mod held;
#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::entry_codec::EntryCodec;
use super::key_value::DEFAULT_BUDGET;
use super::ordered::OrderedCache;
use super::prefixed::{self, Prefixed, PrefixedLog};
use super::{
    ChangelogWriter, EntryBatch, KeyValueStore, RawEntry, StoreCache, StoreEngine, StoreOptions,
};
use crate::error::StateError;
use crate::record::{Change, Data, Record};
use crate::serde::DynSerde;

use held::{Held, HeldSerde};

const UPDATE: u8 = 0;
const PLACE: u8 = 1;
const HEAD: usize = 1 + 8;

/// How much waits: keys, and bytes of keys and encoded updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many keys.
    pub keys: usize,
    /// How many bytes, as encoded.
    pub bytes: usize,
}

/// An update that was taken out.
pub struct Taken<'a, K, V> {
    /// It.
    pub update: Record<K, Change<V>>,
    /// What tells it from others that have waited at its place before, unless these were just the same.
    pub content: &'a [u8],
}

/// See the module.
pub struct ChangeBuffer<K, V> {
    codec: EntryCodec<K, Held<V>>,
    updates: KeyValueStore<K, Held<V>>,
    places: OrderedCache,
    /// No update has a place before this one; empty: not known yet.
    first: Bytes,
    /// `None`: not counted yet, or nobody asks.
    waiting: Option<Waiting>,
    scratch: Vec<u8>,
}

impl<K: Data + Eq + Hash, V: Data> ChangeBuffer<K, V> {
    /// A buffer over `engine`, which must be restored before the first access.
    pub fn new(
        name: &str,
        key_serde: DynSerde<K>,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        logged: bool,
    ) -> Self {
        let held: DynSerde<Held<V>> = Arc::new(HeldSerde(value_serde));
        let options = StoreOptions { logged, ..StoreOptions::default() };
        let part = Arc::new(Prefixed { engine: engine.clone(), prefix: UPDATE });
        let mut buffer = Self {
            codec: EntryCodec::new(name, key_serde.clone(), held.clone()),
            updates: KeyValueStore::new(name, key_serde, held, part, options),
            places: OrderedCache::new(name, engine, time_of, logged, false),
            first: Bytes::new(),
            waiting: None,
            scratch: Vec::new(),
        };
        buffer.set_budget(DEFAULT_BUDGET); // of both parts together
        buffer
    }

    /// Keeps an update. `time` gives it its place, unless its key waits already.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put(&mut self, time: Timestamp, record: Record<K, Change<V>>) -> Result<(), StateError> {
        let Record { key, value: Change { new, old, .. }, timestamp, headers } = record;
        let (codec, scratch, mut waiting) = (&self.codec, &mut self.scratch, self.waiting);
        let (mut is_first, mut measured) = (false, Ok(()));
        self.updates.update(&key, |slot, _| {
            is_first = slot.is_none();
            let held = slot.get_or_insert(Held { time, old, ..Held::default() });
            (held.new, held.headers) = (new, headers);
            if let Some(waiting) = &mut waiting {
                waiting.bytes = waiting.bytes.saturating_sub(held.bytes);
                scratch.clear();
                measured = codec.put_value(held, scratch);
                held.bytes = scratch.len();
                waiting.bytes += held.bytes;
            }
            timestamp
        })?;
        measured?;
        if is_first {
            let place = self.place(time, &key)?;
            self.places.put(&place, Some(Bytes::new()), timestamp)?;
            if place[..] < self.first[..] {
                self.first = Bytes::copy_from_slice(&place);
            }
            if let Some(waiting) = &mut waiting {
                waiting.keys += 1;
                waiting.bytes += place.len() - HEAD;
            }
        }
        self.waiting = waiting;
        Ok(())
    }

    /// What waits for a key: its record, with the value before the first update as the old one.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn get(&mut self, key: &K) -> Result<Option<Record<K, Change<V>>>, StateError> {
        let found = self.updates.get(key)?;
        Ok(found.map(|(held, timestamp)| held.clone().into_record(key.clone(), timestamp)))
    }

    /// How much waits. The first call counts what is there; so ask before the first update, or never.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn waiting(&mut self) -> Result<Waiting, StateError> {
        if let Some(waiting) = self.waiting {
            return Ok(waiting);
        }
        let mut waiting = Waiting::default();
        for (key, value, _) in self.updates.dump()? {
            waiting.keys += 1;
            waiting.bytes += key.len() + value.len();
        }
        Ok(*self.waiting.insert(waiting))
    }

    /// Since when an update of a key waits.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn waits_since(&mut self, key: &K) -> Result<Option<Timestamp>, StateError> {
        Ok(self.updates.get(key)?.map(|(held, _)| held.time))
    }

    /// Finds the places of the updates that wait since a time or longer, in their order; at most this many
    /// at once. Whoever asks either [takes](ChangeBuffer::take) them all, or says which he has
    /// [not taken](ChangeBuffer::not_taken).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn due(&mut self, since: Timestamp, most: usize) -> Result<Vec<Bytes>, StateError> {
        self.places(since.checked_add(1), most)
    }

    /// The first places, those of what waits since before a time or all.
    fn places(&mut self, before: Option<Timestamp>, most: usize) -> Result<Vec<Bytes>, StateError> {
        let mut places = Vec::new();
        let to = before.map_or([u8::MAX; HEAD], head);
        if self.first[..] >= to[..] {
            return Ok(places);
        }
        let from = if self.first.is_empty() { &[PLACE][..] } else { &self.first };
        let oldest = if self.first.is_empty() { Timestamp::MIN } else { time_of(&self.first) };
        self.places.visit(from, Some(&to), oldest, |place, _, _| {
            places.push(Bytes::copy_from_slice(place));
            if places.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let last = places.last().filter(|_| places.len() >= most);
        self.first = last.map_or(to.to_vec(), |last| [&last[..], &[0]].concat()).into();
        Ok(places)
    }

    /// What was found stays, from this place on.
    pub fn not_taken(&mut self, place: &Bytes) {
        if *place < self.first {
            self.first = place.clone();
        }
    }

    /// Takes out the updates that wait since before a time, in their order; at most this many at once.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn drain(
        &mut self,
        before: Timestamp,
        most: usize,
    ) -> Result<Vec<Record<K, Change<V>>>, StateError> {
        let mut taken = Vec::new();
        for place in self.places(Some(before), most)? {
            taken.extend(self.take(&place)?.map(|taken| taken.update));
        }
        Ok(taken)
    }

    /// Whether an update waits since a time or longer.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn has_due(&mut self, since: Timestamp) -> Result<bool, StateError> {
        let found = self.due(since, 1)?;
        found.iter().for_each(|place| self.not_taken(place));
        Ok(!found.is_empty())
    }

    /// The place of the first update in the order.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn first_place(&mut self) -> Result<Option<Bytes>, StateError> {
        Ok(self.places(None, 1)?.pop())
    }

    /// Takes out the update at a place that was found.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn take(&mut self, place: &Bytes) -> Result<Option<Taken<'_, K, V>>, StateError> {
        if place.len() < HEAD {
            return Err(StateError::Corrupt {
                path: PathBuf::from(self.codec.store()),
                reason: "a place that is too short".into(),
            });
        }
        let key = self.codec.key(&place.slice(HEAD..))?;
        let found = self.updates.get(&key)?.map(|(held, timestamp)| (held.clone(), timestamp));
        let timestamp = found.as_ref().map_or(0, |(_, timestamp)| *timestamp);
        self.places.put(place, None, timestamp)?;
        let Some((held, timestamp)) = found else { return Ok(None) };
        self.updates.put(key.clone(), None, timestamp)?;
        if let Some(waiting) = &mut self.waiting {
            waiting.keys = waiting.keys.saturating_sub(1);
            waiting.bytes = waiting.bytes.saturating_sub(held.bytes + place.len() - HEAD);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&timestamp.to_be_bytes());
        // What cannot be encoded need not be, as long as it has not to stay: it holds what can be.
        self.codec.put_value(&held, &mut self.scratch).unwrap_or_default();
        let update = held.into_record(key, timestamp);
        Ok(Some(Taken { update, content: &self.scratch }))
    }

    fn place(&self, time: Timestamp, key: &K) -> Result<Vec<u8>, StateError> {
        let mut place = head(time).to_vec();
        self.codec.put_key(key, &mut place)?;
        Ok(place)
    }
}

/// What a place begins with. Times before 0 do not occur.
fn head(time: Timestamp) -> [u8; HEAD] {
    let mut head = [PLACE; HEAD];
    head[1..].copy_from_slice(&time.max(0).to_be_bytes());
    head
}

fn time_of(place: &[u8]) -> Timestamp {
    let time = place.get(1..).and_then(|rest| rest.first_chunk());
    time.map_or(Timestamp::MAX, |bytes| Timestamp::from_be_bytes(*bytes))
}

impl<K: Data + Eq + Hash, V: Data> super::Store for ChangeBuffer<K, V> {
    fn name(&self) -> &str {
        self.codec.store()
    }

    fn cache(&self) -> &dyn StoreCache {
        self
    }

    fn cache_mut(&mut self) -> &mut dyn StoreCache {
        self
    }
}

impl<K: Data + Eq + Hash, V: Data> StoreCache for ChangeBuffer<K, V> {
    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        let mut log = PrefixedLog { log: changelog, prefix: UPDATE, scratch: Vec::new() };
        self.updates.seal(&mut log)?;
        self.places.seal(changelog)
    }

    fn begin_flush(&mut self) -> Result<EntryBatch, StateError> {
        let mut batch = self.places.begin_flush()?;
        prefixed::extend(&mut batch, UPDATE, &self.updates.begin_flush()?);
        Ok(batch)
    }

    fn flushed(&mut self) {
        self.updates.flushed();
        self.places.flushed();
    }

    fn has_uncommitted(&self) -> bool {
        self.updates.has_uncommitted() || self.places.has_uncommitted()
    }

    fn unsealed_bytes(&self) -> usize {
        self.updates.unsealed_bytes() + self.places.unsealed_bytes()
    }

    fn dirty_bytes(&self) -> usize {
        self.updates.dirty_bytes() + self.places.dirty_bytes()
    }

    fn cached_bytes(&self) -> usize {
        self.updates.cached_bytes() + self.places.cached_bytes()
    }

    fn set_budget(&mut self, bytes: usize) {
        self.updates.set_budget(bytes / 2);
        self.places.set_budget(bytes / 2);
    }

    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError> {
        self.updates.dump()
    }
}
