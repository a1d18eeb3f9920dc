//! The entries of a store in the order of their keys: changed ones in memory, over an engine.
//!
//! For stores that are asked for ranges: the windows of a key, its sessions, the partners of a join,
//! what a buffer releases next. Keys and values are bytes here; the typed stores encode them.
//!
//! An entry in memory is *uncommitted* (changed since the last [`OrderedCache::commit`]),
//! *committed* (not in the engine yet), *flushing* or *clean* (as in the engine). Uncommitted
//! entries are visited in the order of their last change, as Kafka does.
//!
//! Every key has a time. The cache holds *all* entries from some time on, and evicts the oldest
//! first; so what happens around the present, which is nearly everything with windows, is answered
//! without asking the engine, also when the answer is "nothing".

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::key_value::DEFAULT_BUDGET;
use super::{ChangelogWriter, EntryBatch, RawEntry, StoreCache, StoreEngine, entry_codec};
use crate::error::StateError;

/// What an entry in memory costs besides the bytes of its key and value: its slot, its share of the
/// tree, the key's counters, its place in the order of changes.
const OVERHEAD: usize = size_of::<Slot>() + 96;

/// How many places of the order may be out of date before it is tidied, however few count.
const ORDER_SLACK: usize = if cfg!(test) { 4 } else { 4096 };
/// How many entries are not worth a look for expired ones.
const SWEEP_SLACK: usize = if cfg!(test) { 4 } else { 4096 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Clean,
    Uncommitted,
    Committed,
    Flushing,
}

/// A value and the time that its update gave it.
pub(super) type Timed = (Bytes, Timestamp);

#[derive(Debug)]
struct Slot {
    /// `None`: deleted.
    value: Option<Bytes>,
    timestamp: Timestamp,
    state: State,
    /// Which change was its last; counts only while it is uncommitted.
    change: u64,
    /// What it had at the last forward, if it changed since; kept only where changes are forwarded.
    before: Option<Option<Timed>>,
}

impl Slot {
    /// Bytes of key and value.
    fn payload(&self, key: &[u8]) -> usize {
        key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    fn weight(&self, key: &[u8]) -> usize {
        let before = match &self.before {
            Some(Some((value, _))) => value.len(),
            _ => 0,
        };
        OVERHEAD + self.payload(key) + before
    }
}

/// A change to be forwarded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) key: Arc<[u8]>,
    /// The value now; `None`: deleted.
    pub(super) new: Option<Bytes>,
    /// What was there at the last forward.
    pub(super) old: Option<Timed>,
    pub(super) timestamp: Timestamp,
}

/// See the module.
pub(super) struct OrderedCache {
    store: String,
    engine: Arc<dyn StoreEngine>,
    time_of: fn(&[u8]) -> Timestamp,
    slots: BTreeMap<Arc<[u8]>, Slot>,
    /// Every change, with its number; what has been changed again since no longer counts.
    order: Vec<(u64, Arc<[u8]>)>,
    /// Places of `order` below are forwarded.
    forwarded_to: usize,
    changes: u64,
    logged: bool,
    forwards: bool,
    uncommitted: usize,
    uncommitted_bytes: usize,
    committed: Vec<Arc<[u8]>>,
    flushing: Vec<Arc<[u8]>>,
    /// All entries of the engine from this time on are in memory; `None`: the engine was not looked at.
    complete_from: Option<Timestamp>,
    /// Entries up to this time are of no more use to anybody.
    expired: Timestamp,
    /// With so many entries it is time to look for expired ones.
    sweep_at: usize,
    bytes: usize,
    dirty_bytes: usize,
    budget: usize,
}

impl OrderedCache {
    /// A cache over `engine`, which must be restored before the first access. `time_of` tells the
    /// time of a key. If `logged`, changes are written to a changelog; if `forwards`, they are
    /// remembered for [`OrderedCache::next_changed`].
    pub(super) fn new(
        store: &str,
        engine: Arc<dyn StoreEngine>,
        time_of: fn(&[u8]) -> Timestamp,
        logged: bool,
        forwards: bool,
    ) -> Self {
        Self {
            store: store.to_owned(),
            engine,
            time_of,
            slots: BTreeMap::new(),
            order: Vec::new(),
            forwarded_to: 0,
            changes: 0,
            logged,
            forwards,
            uncommitted: 0,
            uncommitted_bytes: 0,
            committed: Vec::new(),
            flushing: Vec::new(),
            complete_from: None,
            expired: Timestamp::MIN,
            sweep_at: SWEEP_SLACK,
            bytes: 0,
            dirty_bytes: 0,
            budget: DEFAULT_BUDGET,
        }
    }

    /// Whether changes are left that were not forwarded.
    pub(super) fn has_changed(&self) -> bool {
        self.forwards && self.order[self.forwarded_to..].iter().any(|place| self.counts(place))
    }

    /// Entries up to this time need not be kept in memory any longer, nor be written to the engine.
    pub(super) fn expire(&mut self, up_to: Timestamp) {
        self.expired = self.expired.max(up_to);
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Timed>, StateError> {
        if let Some(slot) = self.slots.get(key) {
            return Ok(slot.value.clone().map(|value| (value, slot.timestamp)));
        }
        if self.is_complete((self.time_of)(key))? {
            return Ok(None);
        }
        self.engine.get(key)?.map(|entry| self.split(&entry)).transpose()
    }

    /// Sets the value of a key; `None` deletes it.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.is_complete(Timestamp::MIN)?; // looks at the engine before the first flush changes it
        let known = self.slots.contains_key(key);
        let found = if known || !self.forwards { None } else { self.get(key)? };
        let key: Arc<[u8]> = match self.slots.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => key.into(),
        };
        self.changes += 1;
        let change = self.changes;
        let mut slot = Slot { value, timestamp, state: State::Uncommitted, change, before: None };
        self.uncommitted_bytes += slot.payload(&key);
        match self.slots.entry(Arc::clone(&key)) {
            MapEntry::Vacant(vacant) => {
                slot.before = self.forwards.then_some(found);
                self.uncommitted += 1;
                let weight = slot.weight(&key);
                self.bytes += weight;
                self.dirty_bytes += weight;
                vacant.insert(slot);
            }
            MapEntry::Occupied(mut occupied) => {
                let last = occupied.get_mut();
                let weight = last.weight(&key);
                self.bytes -= weight;
                if last.state != State::Clean {
                    self.dirty_bytes -= weight;
                }
                if last.state == State::Uncommitted {
                    self.uncommitted_bytes -= last.payload(&key);
                } else {
                    self.uncommitted += 1;
                }
                slot.before = match last.before.take() {
                    None if self.forwards => {
                        Some(last.value.take().map(|value| (value, last.timestamp)))
                    }
                    before => before,
                };
                let weight = slot.weight(&key);
                self.bytes += weight;
                self.dirty_bytes += weight;
                *last = slot;
            }
        }
        self.append(change, key);
        self.evict();
        Ok(())
    }

    /// Shows the entries with `from <= key < to` (`None`: to the end) in order, until `visit` breaks
    /// off. All those that matter to the caller must have a time of at least `oldest`: entries before
    /// it may be shown or not.
    pub(super) fn visit(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        oldest: Timestamp,
        mut visit: impl FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let complete = self.is_complete(oldest)?;
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let mut memory = self.slots.range::<[u8], _>(bounds).peekable();
        if !complete {
            for entry in self.engine.scan(from, to)? {
                let (key, value) = entry?;
                let mut shadowed = false;
                while let Some((at, slot)) = memory.next_if(|(at, _)| ***at <= *key) {
                    shadowed |= **at == *key;
                    if let Some(value) = &slot.value
                        && visit(at, value, slot.timestamp).is_break()
                    {
                        return Ok(());
                    }
                }
                if !shadowed {
                    let (value, timestamp) = self.split(&value)?;
                    if visit(&key, &value, timestamp).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        for (key, slot) in memory {
            if let Some(value) = &slot.value
                && visit(key, value, slot.timestamp).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The next change to be forwarded, in the order of last changes. A key that was put and deleted
    /// since the last forward, or deleted without ever having been there, is left out.
    pub(super) fn next_changed(&mut self) -> Option<Changed> {
        while let Some(place) = self.order.get(self.forwarded_to) {
            self.forwarded_to += 1;
            if !self.counts(place) {
                continue;
            }
            let key = Arc::clone(&place.1);
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let weight = slot.weight(&key);
            let Some(old) = slot.before.take() else { continue };
            let freed = weight - slot.weight(&key);
            self.bytes -= freed;
            self.dirty_bytes -= freed;
            if slot.value.is_some() || old.is_some() {
                let (new, timestamp) = (slot.value.clone(), slot.timestamp);
                return Some(Changed { key, new, old, timestamp });
            }
        }
        None
    }

    /// Uncommitted entries become committed; `each` sees them in the order of their last changes, if
    /// they are logged.
    pub(super) fn commit(
        &mut self,
        mut each: impl FnMut(&[u8], Option<&[u8]>, Timestamp) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        for (change, key) in std::mem::take(&mut self.order) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if slot.state != State::Uncommitted || slot.change != change {
                continue;
            }
            if self.logged {
                each(&key, slot.value.as_ref().map(|value| &value[..]), slot.timestamp)?;
            }
            slot.state = State::Committed;
            self.committed.push(key);
        }
        self.forwarded_to = 0;
        self.uncommitted = 0;
        self.uncommitted_bytes = 0;
        self.sweep();
        Ok(())
    }

    /// Forgets what has expired, unless it is uncommitted: when as many entries have come as were left the
    /// last time, so that each of them pays for a look at another. Not only at flushes, which come at
    /// long intervals in which much of what happens can expire: a large tree is a slow one.
    fn sweep(&mut self) {
        if self.expired == Timestamp::MIN || self.slots.len() < self.sweep_at {
            return;
        }
        let (time_of, expired) = (self.time_of, self.expired);
        let (bytes, dirty_bytes) = (&mut self.bytes, &mut self.dirty_bytes);
        self.slots.retain(|key, slot| {
            let goes = match slot.state {
                State::Clean | State::Committed => time_of(key) <= expired,
                State::Uncommitted | State::Flushing => false,
            };
            if goes {
                let weight = slot.weight(key);
                *bytes -= weight;
                if slot.state == State::Committed {
                    *dirty_bytes -= weight;
                }
            }
            !goes
        });
        self.committed.retain(|key| self.slots.contains_key(key));
        self.sweep_at = self.slots.len() * 2 + SWEEP_SLACK;
        let complete_from = self.complete_from.unwrap_or(Timestamp::MAX);
        self.complete_from = Some(complete_from.max(expired.saturating_add(1)));
    }

    /// Whether everything from this time on is in memory.
    fn is_complete(&mut self, from: Timestamp) -> Result<bool, StateError> {
        let complete_from = match self.complete_from {
            Some(complete_from) => complete_from,
            None => {
                let is_empty = self.engine.scan(&[], None)?.next().is_none();
                let complete_from = if is_empty { Timestamp::MIN } else { Timestamp::MAX };
                *self.complete_from.insert(complete_from)
            }
        };
        Ok(from >= complete_from)
    }

    /// Forgets clean entries while memory is over the budget: half of them, those of the oldest times.
    fn evict(&mut self) {
        let clean = self.bytes - self.dirty_bytes;
        if self.bytes <= self.budget || clean == 0 || clean < self.budget / 4 {
            return; // what is dirty cannot go, and too little is gained by the rest
        }
        let is_clean = |slot: &Slot| slot.state == State::Clean;
        let times = self.slots.iter().filter(|(_, slot)| is_clean(slot));
        let mut times: Vec<_> = times.map(|(key, _)| (self.time_of)(key)).collect();
        let middle = times.len() / 2;
        let (_, &mut newest_to_go, _) = times.select_nth_unstable(middle);
        let time_of = self.time_of;
        let bytes = &mut self.bytes;
        self.slots.retain(|key, slot| {
            let goes = is_clean(slot) && time_of(key) <= newest_to_go;
            if goes {
                *bytes -= slot.weight(key);
            }
            !goes
        });
        let complete_from = self.complete_from.unwrap_or(Timestamp::MAX);
        self.complete_from = Some(complete_from.max(newest_to_go.saturating_add(1)));
    }

    fn counts(&self, (change, key): &(u64, Arc<[u8]>)) -> bool {
        let slot = self.slots.get(key);
        slot.is_some_and(|slot| slot.state == State::Uncommitted && slot.change == *change)
    }

    fn append(&mut self, change: u64, key: Arc<[u8]>) {
        let unforwarded = self.order.len() > self.forwarded_to;
        match self.order.last_mut() {
            Some(last) if unforwarded && last.1 == key => last.0 = change,
            _ => {
                if self.order.len() > 4 * self.uncommitted + ORDER_SLACK {
                    self.tidy_order();
                }
                self.order.push((change, key));
            }
        }
    }

    /// Drops the places of the order that no longer count.
    fn tidy_order(&mut self) {
        let order = std::mem::take(&mut self.order);
        let mut forwarded_to = 0;
        for (place, at) in order.into_iter().enumerate() {
            if self.counts(&at) {
                self.order.push(at);
            }
            if place + 1 == self.forwarded_to {
                forwarded_to = self.order.len();
            }
        }
        self.forwarded_to = forwarded_to;
    }

    fn split(&self, entry: &Bytes) -> Result<Timed, StateError> {
        let (timestamp, value) = entry_codec::split(&self.store, entry)?;
        Ok((value, timestamp))
    }
}

impl StoreCache for OrderedCache {
    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        self.commit(|key, value, timestamp| changelog.put(key, value, timestamp))
    }

    fn begin_flush(&mut self) -> Result<EntryBatch, StateError> {
        let mut batch = EntryBatch::new();
        for key in std::mem::take(&mut self.committed) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if slot.state != State::Committed {
                continue; // listed twice
            }
            slot.state = State::Flushing;
            if (self.time_of)(&key) > self.expired {
                let value = slot.value.as_ref();
                let encoded: Result<(), std::convert::Infallible> = batch.put_with(
                    |out| {
                        out.extend_from_slice(&key);
                        Ok(())
                    },
                    |out| {
                        Ok(value.map(|value| {
                            out.extend_from_slice(&slot.timestamp.to_be_bytes());
                            out.extend_from_slice(value);
                        }))
                    },
                );
                let Ok(()) = encoded;
            }
            self.flushing.push(key);
        }
        Ok(batch)
    }

    fn flushed(&mut self) {
        for key in std::mem::take(&mut self.flushing) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if slot.state != State::Flushing {
                continue; // changed since
            }
            let weight = slot.weight(&key);
            slot.state = State::Clean;
            self.dirty_bytes -= weight;
            if slot.value.is_none() || (self.time_of)(&key) <= self.expired {
                self.slots.remove(&key);
                self.bytes -= weight;
            }
        }
        self.sweep();
        self.evict();
    }

    fn has_uncommitted(&self) -> bool {
        self.uncommitted > 0
    }

    fn unsealed_bytes(&self) -> usize {
        self.uncommitted_bytes * (usize::from(self.logged) + usize::from(self.forwards))
    }

    fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    fn cached_bytes(&self) -> usize {
        self.bytes
    }

    fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
        self.evict();
    }

    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError> {
        let mut entries = Vec::new();
        self.visit(&[], None, Timestamp::MIN, |key, value, timestamp| {
            entries.push((key.to_vec(), value.to_vec(), timestamp));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
