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

mod index;
mod key;
mod slots;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::completeness::Completeness;
use super::key_value::DEFAULT_BUDGET;
use super::{ChangelogWriter, EntryBatch, RawEntry, Scan, StoreCache, StoreEngine, entry_codec};
use crate::error::StateError;
use index::Index;
pub(super) use index::{GroupOf, RANK};
use key::Key;
use slots::{Slot, SlotId, Slots, State};

/// How many places of the order may be out of date before it is tidied, however few count.
const ORDER_SLACK: usize = if cfg!(test) { 4 } else { 4096 };
/// How many entries are not worth a look for expired ones.
const SWEEP_SLACK: usize = if cfg!(test) { 4 } else { 4096 };

/// A value and the time that its update gave it.
pub(super) type Timed = (Bytes, Timestamp);

/// A change to be forwarded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) key: Key,
    /// The value now; `None`: deleted.
    pub(super) new: Option<Bytes>,
    /// What was there at the last forward.
    pub(super) old: Option<Timed>,
    /// See [`OrderedCache::look_up`].
    pub(super) was_seen: bool,
    pub(super) timestamp: Timestamp,
}

/// See the module.
pub(super) struct OrderedCache {
    store: String,
    engine: Arc<dyn StoreEngine>,
    time_of: fn(&[u8]) -> Timestamp,
    slots: Slots,
    index: Index,
    /// The entry of every change; what has been changed again since no longer counts.
    order: Vec<SlotId>,
    /// Places of `order` below are forwarded.
    forwarded_to: usize,
    logged: bool,
    forwards: bool,
    uncommitted: usize,
    uncommitted_bytes: usize,
    committed: Vec<SlotId>,
    flushing: Vec<SlotId>,
    /// Which entries of the engine are in memory; `None`: the engine was not looked at.
    completeness: Option<Completeness>,
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
        Self::with_groups(store, engine, (time_of, |_| None), logged, forwards)
    }

    /// The same for keys that belong together in groups, for [`OrderedCache::visit_group`].
    pub(super) fn with_groups(
        store: &str,
        engine: Arc<dyn StoreEngine>,
        (time_of, group_of): (fn(&[u8]) -> Timestamp, GroupOf),
        logged: bool,
        forwards: bool,
    ) -> Self {
        Self {
            store: store.to_owned(),
            engine,
            time_of,
            slots: Slots::default(),
            index: Index::new(group_of),
            order: Vec::new(),
            forwarded_to: 0,
            logged,
            forwards,
            uncommitted: 0,
            uncommitted_bytes: 0,
            committed: Vec::new(),
            flushing: Vec::new(),
            completeness: None,
            expired: Timestamp::MIN,
            sweep_at: SWEEP_SLACK,
            bytes: 0,
            dirty_bytes: 0,
            budget: DEFAULT_BUDGET,
        }
    }

    /// Whether changes are left that were not forwarded.
    pub(super) fn has_changed(&self) -> bool {
        let mut unforwarded = self.forwarded_to..self.order.len();
        self.forwards && unforwarded.any(|place| self.counts(place))
    }

    /// Bytes of the keys and values that were changed since the last commit.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Entries up to this time need not be kept in memory any longer, nor be written to the engine.
    pub(super) fn expire(&mut self, up_to: Timestamp) {
        self.expired = self.expired.max(up_to);
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Timed>, StateError> {
        if let Some(slot) = self.index.find(key) {
            let slot = self.slots.at(slot);
            return Ok(slot.value.clone().map(|value| (value, slot.timestamp)));
        }
        if self.is_complete((self.time_of)(key))? {
            return Ok(None);
        }
        self.engine.get(key)?.map(|entry| self.split(&entry)).transpose()
    }

    /// As [`OrderedCache::get`], for an operator that makes something of it: should the value go before it
    /// was forwarded, that is forwarded all the same.
    pub(super) fn look_up(&mut self, key: &[u8]) -> Result<Option<Timed>, StateError> {
        if let Some(id) = self.index.find(key) {
            let slot = self.slots.at_mut(id);
            slot.seen |= slot.before.is_some() && slot.value.is_some();
        }
        self.get(key)
    }

    /// What a key had at the last forward, if it has changed since.
    pub(super) fn forwarded(&self, key: &[u8]) -> Option<Option<&Timed>> {
        let slot = self.slots.at(self.index.find(key)?);
        slot.before.as_ref().map(Option::as_ref)
    }

    /// Sets the value of a key; `None` deletes it.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.is_complete(Timestamp::MIN)?; // looks at the engine before the first flush changes it
        if let Some(id) = self.index.find(key) {
            self.replace(id, value, timestamp);
        } else {
            let before = self.forwards.then(|| self.get(key)).transpose()?;
            self.insert(key, value, timestamp, before);
        }
        self.evict();
        Ok(())
    }

    fn insert(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        timestamp: Timestamp,
        before: Option<Option<Timed>>,
    ) {
        let (state, time, place) = (State::Uncommitted, (self.time_of)(key), self.order.len());
        let seen = false;
        let slot = Slot { key: key.into(), time, value, timestamp, state, place, before, seen };
        let weight = slot.weight();
        self.uncommitted += 1;
        self.uncommitted_bytes += slot.payload();
        self.bytes += weight;
        self.dirty_bytes += weight;
        let id = self.slots.insert(slot);
        self.index.insert(key, id);
        self.append(id);
    }

    fn replace(&mut self, id: SlotId, value: Option<Bytes>, timestamp: Timestamp) {
        let slot = self.slots.at_mut(id);
        let weight = slot.weight();
        self.bytes -= weight;
        if slot.state != State::Clean {
            self.dirty_bytes -= weight;
        }
        if slot.state == State::Uncommitted {
            self.uncommitted_bytes -= slot.payload();
        } else {
            self.uncommitted += 1;
        }
        let last = std::mem::replace(&mut slot.value, value).map(|value| (value, slot.timestamp));
        if self.forwards && slot.before.is_none() {
            slot.before = Some(last);
        }
        slot.timestamp = timestamp;
        slot.state = State::Uncommitted;
        let weight = slot.weight();
        self.uncommitted_bytes += slot.payload();
        self.bytes += weight;
        self.dirty_bytes += weight;
        self.append(id);
    }

    /// Shows the entries without a group with `from <= key < to` (`None`: to the end) in order, until
    /// `visit` breaks off. All those that matter to the caller must have a time of at least `oldest`:
    /// entries before it may be shown or not.
    pub(super) fn visit(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        oldest: Timestamp,
        visit: impl FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let is_complete = self.is_complete(oldest)?;
        let scan = (!is_complete).then(|| self.engine.scan(from, to)).transpose()?;
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let memory = self.index.rest(bounds).map(|id| self.slots.at(id));
        self.merge(memory, scan, visit)
    }

    /// As [`OrderedCache::visit`], with the entries of the group that the first `group` bytes of both `from`
    /// and `to` name.
    pub(super) fn visit_group(
        &mut self,
        group: usize,
        from: &[u8],
        to: &[u8],
        oldest: Timestamp,
        visit: impl FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let is_complete = self.is_complete(oldest)?;
        let memory = self.index.members(group, from, to).map(|id| self.slots.at(id));
        if is_complete {
            return self.merge(memory, None, visit);
        }
        // Keys of other groups may lie in between.
        let scan = self.engine.scan(from, Some(to))?.filter(|entry| match entry {
            Ok((key, _)) => self.index.group_of(key) == Some(group),
            Err(_) => true,
        });
        self.merge(memory, Some(Box::new(scan)), visit)
    }

    /// As [`OrderedCache::visit`], with all entries, whether they have a group or not; looks at all that is in
    /// memory.
    pub(super) fn visit_all(
        &mut self,
        oldest: Timestamp,
        visit: impl FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let is_complete = self.is_complete(oldest)?;
        let scan = (!is_complete).then(|| self.engine.scan(&[], None)).transpose()?;
        let mut memory: Vec<&Slot> = self.slots.iter().collect();
        memory.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.merge(memory.into_iter(), scan, visit)
    }

    /// Shows entries in memory, and those of the engine that are not hidden by them.
    fn merge<'a>(
        &self,
        memory: impl Iterator<Item = &'a Slot>,
        engine: Option<Scan<'_>>,
        mut visit: impl FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let shown = |slot: &'a Slot| {
            let value = slot.value.as_ref()?;
            Some((&slot.key, value, slot.timestamp))
        };
        let mut memory = memory.peekable();
        for entry in engine.into_iter().flatten() {
            let (key, value) = entry?;
            let mut hidden = false;
            while let Some(slot) = memory.next_if(|slot| *slot.key <= *key) {
                hidden |= *slot.key == *key;
                if let Some((key, value, timestamp)) = shown(slot)
                    && visit(key, value, timestamp).is_break()
                {
                    return Ok(());
                }
            }
            if !hidden {
                let (value, timestamp) = self.split(&value)?;
                if visit(&key, &value, timestamp).is_break() {
                    return Ok(());
                }
            }
        }
        for (key, value, timestamp) in memory.filter_map(shown) {
            if visit(key, value, timestamp).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The next change to be forwarded, in the order of last changes. A key that was put and deleted
    /// since the last forward, or deleted without ever having been there, is left out, unless an operator
    /// has looked it up.
    pub(super) fn next_changed(&mut self) -> Option<Changed> {
        while let Some(&id) = self.order.get(self.forwarded_to) {
            self.forwarded_to += 1;
            if !self.counts(self.forwarded_to - 1) {
                continue;
            }
            let slot = self.slots.at_mut(id);
            let weight = slot.weight();
            let Some(old) = slot.before.take() else { continue };
            let was_seen = std::mem::take(&mut slot.seen);
            let freed = weight - slot.weight();
            self.bytes -= freed;
            self.dirty_bytes -= freed;
            if slot.value.is_some() || old.is_some() || was_seen {
                let (key, new) = (slot.key.clone(), slot.value.clone());
                return Some(Changed { key, new, old, was_seen, timestamp: slot.timestamp });
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
        for (place, &id) in self.order.iter().enumerate() {
            let slot = self.slots.at_mut(id);
            if !slot.is_changed_last_at(place) {
                continue;
            }
            if self.logged {
                each(&slot.key, slot.value.as_deref(), slot.timestamp)?;
            }
            slot.state = State::Committed;
            self.committed.push(id);
        }
        self.order.clear();
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
        let expired = self.expired;
        let goes = |slot: &Slot| match slot.state {
            State::Clean | State::Committed => slot.time <= expired,
            State::Uncommitted | State::Flushing => false,
        };
        self.committed.retain(|&id| !goes(self.slots.at(id)));
        self.forget(goes);
        self.sweep_at = self.slots.len() * 2 + SWEEP_SLACK;
        self.note_gone(expired);
    }

    /// Forgets entries that are clean or committed; the latter are listed no more.
    fn forget(&mut self, goes: impl Fn(&Slot) -> bool) {
        let (bytes, dirty_bytes) = (&mut self.bytes, &mut self.dirty_bytes);
        let gone = self.slots.remove_all(|slot| {
            let goes = goes(slot);
            if goes {
                *bytes -= slot.weight();
                if slot.state == State::Committed {
                    *dirty_bytes -= slot.weight();
                }
            }
            goes
        });
        self.index.remove_all(&gone);
    }

    /// Whether everything from this time on is in memory.
    fn is_complete(&mut self, from: Timestamp) -> Result<bool, StateError> {
        let completeness = match self.completeness {
            Some(completeness) => completeness,
            None => {
                let is_empty = self.engine.scan(&[], None)?.next().is_none();
                let found = if is_empty { Completeness::ALWAYS } else { Completeness::Never };
                *self.completeness.insert(found)
            }
        };
        Ok(completeness.covers(from))
    }

    /// Entries up to this time may have gone from memory.
    fn note_gone(&mut self, up_to: Timestamp) {
        let before = self.completeness.unwrap_or(Completeness::Never);
        self.completeness = Some(before.max(Completeness::after(up_to)));
    }

    /// Forgets clean entries while memory is over the budget: half of them, those of the oldest times.
    fn evict(&mut self) {
        let clean = self.bytes - self.dirty_bytes;
        if self.bytes <= self.budget || clean == 0 || clean < self.budget / 4 {
            return; // what is dirty cannot go, and too little is gained by the rest
        }
        let is_clean = |slot: &Slot| slot.state == State::Clean;
        let times = self.slots.iter().filter(|slot| is_clean(slot));
        let mut times: Vec<_> = times.map(|slot| slot.time).collect();
        let middle = times.len() / 2;
        let (_, &mut newest_to_go, _) = times.select_nth_unstable(middle);
        self.forget(|slot| is_clean(slot) && slot.time <= newest_to_go);
        self.note_gone(newest_to_go);
    }

    /// Whether the change at a place of the order is the last of its entry.
    fn counts(&self, place: usize) -> bool {
        self.slots.at(self.order[place]).is_changed_last_at(place)
    }

    /// Makes an uncommitted entry the last in the order.
    fn append(&mut self, id: SlotId) {
        let is_forwarded = self.order.len() == self.forwarded_to;
        if is_forwarded || self.order.last() != Some(&id) {
            if self.order.len() > 4 * self.uncommitted + ORDER_SLACK {
                self.tidy_order();
            }
            self.order.push(id);
        }
        self.slots.at_mut(id).place = self.order.len() - 1;
    }

    /// Drops the places of the order that no longer count.
    fn tidy_order(&mut self) {
        let (mut kept, mut forwarded_to) = (0, 0);
        for place in 0..self.order.len() {
            if self.counts(place) {
                let id = self.order[place];
                self.slots.at_mut(id).place = kept;
                self.order[kept] = id;
                kept += 1;
            }
            if place + 1 == self.forwarded_to {
                forwarded_to = kept;
            }
        }
        self.order.truncate(kept);
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
        for id in std::mem::take(&mut self.committed) {
            let slot = self.slots.at_mut(id);
            if slot.state != State::Committed {
                continue; // listed twice
            }
            slot.state = State::Flushing;
            if slot.time > self.expired {
                let value = slot.value.as_ref();
                let encoded: Result<(), std::convert::Infallible> = batch.put_with(
                    |out| {
                        out.extend_from_slice(&slot.key);
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
            self.flushing.push(id);
        }
        Ok(batch)
    }

    fn flushed(&mut self) {
        for id in std::mem::take(&mut self.flushing) {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            if slot.state != State::Flushing {
                continue; // changed since
            }
            let weight = slot.weight();
            slot.state = State::Clean;
            self.dirty_bytes -= weight;
            if slot.value.is_none() || slot.time <= self.expired {
                self.index.remove(&slot.key);
                self.bytes -= weight;
                self.slots.remove(id);
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
        self.visit_all(Timestamp::MIN, |key, value, timestamp| {
            entries.push((key.to_vec(), value.to_vec(), timestamp));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
