//! The entries of a store that are in memory, found by key.
//!
//! Entries live in slots that do not move; a hash index finds them. An entry is
//! - *uncommitted*: changed since the last [`PointCache::commit`],
//! - *committed*: not in the engine yet,
//! - *flushing*: on its way there,
//! - *clean*: as in the engine. Only clean entries are evicted (second chance).
//!
//! Uncommitted entries are visited in the order of their last change: that is Kafka's order, and the
//! order of hashes never shows. The order is a log of slots, appended to at every change; a place in
//! it counts only if its entry names it as its last. That costs one sequential write a change, where
//! a linked list would touch two more entries.

use std::hash::{BuildHasher, Hash};

use broker_api::Timestamp;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Names an entry as long as it is not clean, or nothing else is inserted.
pub(super) type Slot = u32;

/// How many places of the order may be out of date before it is tidied, however few count.
const ORDER_SLACK: usize = if cfg!(test) { 4 } else { 4096 };

/// How many entries an insertion looks at to find one to evict.
const SWEEP: usize = 64;

/// Four places of the order for each, and some, are numbered by a `u32`.
const MOST_SLOTS: u32 = 1 << 29;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Clean,
    Uncommitted,
    Committed,
    Flushing,
}

/// Whether a key had a value at the last forward or commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It was not looked up.
    Unknown,
    Absent,
    Present,
    /// Whatever it had then: a value that came since was looked up by an operator.
    Seen,
}

impl Presence {
    fn of<V>(value: &Option<V>) -> Self {
        if value.is_some() { Self::Present } else { Self::Absent }
    }
}

#[derive(Debug)]
pub(super) struct Entry<K, V> {
    pub(super) key: K,
    /// `None`: deleted, or known to be absent.
    pub(super) value: Option<V>,
    pub(super) timestamp: Timestamp,
    pub(super) forwarded: Presence,
    state: State,
    /// Its place in `order`; counts only while it is uncommitted.
    last: u32,
    weight: u32,
    value_weight: u32,
    /// Used since the eviction's hand last passed.
    used: bool,
    /// In the list `committed`, whatever its state is now.
    listed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PointCache<K, V> {
    index: HashTable<(u32, Slot)>, // with the hash: growing does not visit the entries
    slots: Vec<Option<Entry<K, V>>>,
    free: Vec<Slot>,
    hasher: FixedState,
    order: Vec<Slot>,
    /// Places of `order` below are forwarded.
    forwarded_to: usize,
    uncommitted: usize,
    /// Bytes of the keys and values that are uncommitted.
    uncommitted_bytes: usize,
    committed: Vec<Slot>,
    flushing: Vec<Slot>,
    /// By slot, with their weight: the values at the last forward of entries changed since. Empty
    /// unless they are kept.
    olds: Vec<Option<(V, u32)>>,
    keep_olds: bool,
    bytes: usize,
    dirty_bytes: usize,
    budget: usize,
    hand: usize,
}

impl<K: Hash + Eq, V: Clone> PointCache<K, V> {
    pub(super) fn new(keep_olds: bool, budget: usize) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hasher: FixedState::default(),
            order: Vec::new(),
            forwarded_to: 0,
            uncommitted: 0,
            uncommitted_bytes: 0,
            committed: Vec::new(),
            flushing: Vec::new(),
            olds: Vec::new(),
            keep_olds,
            bytes: 0,
            dirty_bytes: 0,
            budget,
            hand: 0,
        }
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the keys and values of uncommitted entries.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Bytes of an entry beside its key and value.
    const fn overhead() -> usize {
        let entry = size_of::<Option<Entry<K, V>>>() + size_of::<(u32, Slot)>();
        entry.saturating_sub(size_of::<K>() + size_of::<V>()) // in their weights
    }

    /// Bytes of entries that are not clean.
    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    #[inline]
    pub(super) fn find(&mut self, key: &K) -> Option<Slot> {
        let hash = self.hash(key);
        let found = self.index.find(spread(hash), |&(h, slot)| {
            h == hash && self.slots[slot as usize].as_ref().is_some_and(|e| e.key == *key)
        });
        let slot = found?.1;
        self.at_mut(slot).used = true;
        Some(slot)
    }

    /// An entry in use. Slots come from this cache, so there is one.
    #[inline]
    pub(super) fn at(&self, slot: Slot) -> &Entry<K, V> {
        match &self.slots[slot as usize] {
            Some(entry) => entry,
            None => unreachable!("slot {slot} of a cache is empty"),
        }
    }

    #[inline]
    fn at_mut(&mut self, slot: Slot) -> &mut Entry<K, V> {
        match &mut self.slots[slot as usize] {
            Some(entry) => entry,
            None => unreachable!("slot {slot} of a cache is empty"),
        }
    }

    /// Adds a clean entry for a key that has none. `None`: there is no slot left.
    pub(super) fn insert(
        &mut self,
        key: K,
        value: Option<(V, Timestamp)>,
        (key_weight, value_weight): (usize, usize),
        forwarded: Presence,
    ) -> Option<Slot> {
        let weight =
            saturated(key_weight.saturating_add(value_weight).saturating_add(Self::overhead()));
        let (value, timestamp) = value.map_or((None, 0), |(value, time)| (Some(value), time));
        let hash = self.hash(&key);
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot =
                    Slot::try_from(self.slots.len()).ok().filter(|slot| *slot < MOST_SLOTS)?;
                self.slots.push(None);
                slot
            }
        };
        self.slots[slot as usize] = Some(Entry {
            key,
            value,
            timestamp,
            forwarded,
            state: State::Clean,
            last: 0,
            weight,
            value_weight: saturated(value_weight),
            used: true,
            listed: false,
        });
        self.index.insert_unique(spread(hash), (hash, slot), |&(hash, _)| spread(hash));
        self.bytes += weight as usize;
        Some(slot)
    }

    /// Changes an entry in place: `change` gets the value and its time, and returns the new time;
    /// `weigh` is the weight of what it left. An entry that was and stays absent is left alone.
    #[inline]
    pub(super) fn change(
        &mut self,
        slot: Slot,
        change: impl FnOnce(&mut Option<V>, Option<Timestamp>) -> Timestamp,
        weigh: impl FnOnce(&Option<V>) -> usize,
    ) {
        let forwarded_to = self.forwarded_to;
        let keep_olds = self.keep_olds;
        let entry = self.at_mut(slot);
        let was_uncommitted = entry.state == State::Uncommitted;
        let is_first = !was_uncommitted || (entry.last as usize) < forwarded_to;
        let old = if keep_olds && is_first { entry.value.clone() } else { None };
        let was_absent = entry.value.is_none() && entry.forwarded != Presence::Unknown;

        let time_before = entry.value.is_some().then_some(entry.timestamp);
        let timestamp = change(&mut entry.value, time_before);
        if was_absent && entry.value.is_none() && !was_uncommitted {
            return;
        }
        entry.timestamp = timestamp;
        let (before, before_value) = (entry.weight, entry.value_weight);
        entry.value_weight = saturated(weigh(&entry.value));
        entry.weight = (before - before_value).saturating_add(entry.value_weight);
        let weight = entry.weight as usize;
        let was_dirty = entry.state != State::Clean;
        entry.state = State::Uncommitted;

        self.bytes = self.bytes - before as usize + weight;
        self.dirty_bytes = self.dirty_bytes - if was_dirty { before as usize } else { 0 } + weight;
        if was_uncommitted {
            self.uncommitted_bytes = self.uncommitted_bytes + weight - before as usize;
        } else {
            self.uncommitted += 1;
            self.uncommitted_bytes += weight.saturating_sub(Self::overhead());
        }
        if let Some(old) = old {
            self.remember(slot, old, before_value);
        }
        self.append(slot, is_first);
    }

    fn remember(&mut self, slot: Slot, old: V, weight: u32) {
        if self.olds.len() <= slot as usize {
            self.olds.resize_with(self.slots.len(), || None);
        }
        self.olds[slot as usize] = Some((old, weight));
        self.bytes += weight as usize;
        self.dirty_bytes += weight as usize;
    }

    fn forget_old(&mut self, slot: Slot) -> Option<V> {
        let (old, weight) = self.olds.get_mut(slot as usize)?.take()?;
        self.bytes -= weight as usize;
        self.dirty_bytes -= weight as usize;
        Some(old)
    }

    /// Makes an uncommitted entry the last in the order.
    #[inline]
    fn append(&mut self, slot: Slot, is_first: bool) {
        if !is_first && self.order.last() == Some(&slot) {
            return;
        }
        if self.order.len() > 4 * self.uncommitted + ORDER_SLACK {
            self.tidy_order();
        }
        self.at_mut(slot).last = self.order.len() as u32;
        self.order.push(slot);
    }

    /// Drops the places of the order that no longer count.
    fn tidy_order(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        let (mut place, mut kept, mut forwarded_to) = (0, 0, 0);
        order.retain(|&slot| {
            let counts = self.counts(slot, place);
            if counts {
                self.at_mut(slot).last = kept as u32;
                kept += 1;
            }
            place += 1;
            if place == self.forwarded_to {
                forwarded_to = kept;
            }
            counts
        });
        self.order = order;
        self.forwarded_to = forwarded_to;
    }

    #[inline]
    fn counts(&self, slot: Slot, place: usize) -> bool {
        let entry = self.at(slot);
        entry.state == State::Uncommitted && entry.last as usize == place
    }

    /// Somebody has seen the value of an entry: should it be deleted before it was forwarded, that is to
    /// be told all the same.
    pub(super) fn seen(&mut self, slot: Slot) {
        let waits = self.waits(slot);
        let entry = self.at_mut(slot);
        if waits && entry.value.is_some() {
            entry.forwarded = Presence::Seen;
        }
    }

    /// Whether an entry changed since it was last forwarded.
    pub(super) fn waits(&self, slot: Slot) -> bool {
        let entry = self.at(slot);
        entry.state == State::Uncommitted && entry.last as usize >= self.forwarded_to
    }

    /// The value at the last forward of an entry that changed since, where it is kept.
    pub(super) fn old(&self, slot: Slot) -> Option<&V> {
        self.olds.get(slot as usize)?.as_ref().map(|(old, _)| old)
    }

    /// The next entry in the order that changed since it was last forwarded: its slot, the value
    /// then (where kept), and whether it had one.
    pub(super) fn next_forward(&mut self) -> Option<(Slot, Option<V>, Presence)> {
        loop {
            let place = self.forwarded_to;
            let slot = *self.order.get(place)?;
            self.forwarded_to += 1;
            if self.counts(slot, place) {
                let old = self.forget_old(slot);
                let entry = self.at_mut(slot);
                let before = entry.forwarded;
                entry.forwarded = Presence::of(&entry.value);
                return Some((slot, old, before));
            }
        }
    }

    /// Whether uncommitted entries are left that were not forwarded.
    pub(super) fn has_forwards(&self) -> bool {
        let rest = self.forwarded_to..self.order.len();
        rest.into_iter().any(|place| self.counts(self.order[place], place))
    }

    /// Hands every uncommitted entry to `each`, in order; they are committed then.
    pub(super) fn commit<E>(
        &mut self,
        mut each: impl FnMut(&Entry<K, V>) -> Result<(), E>,
    ) -> Result<(), E> {
        for place in 0..self.order.len() {
            let slot = self.order[place];
            if !self.counts(slot, place) {
                continue;
            }
            let entry = self.at_mut(slot);
            each(entry)?;
            entry.state = State::Committed;
            entry.forwarded = Presence::of(&entry.value);
            if !std::mem::replace(&mut entry.listed, true) {
                self.committed.push(slot);
            }
            self.forget_old(slot);
        }
        self.order.clear();
        self.forwarded_to = 0;
        self.uncommitted = 0;
        self.uncommitted_bytes = 0;
        Ok(())
    }

    /// Hands every committed entry to `each`; they are flushing then.
    pub(super) fn begin_flush<E>(
        &mut self,
        mut each: impl FnMut(&Entry<K, V>) -> Result<(), E>,
    ) -> Result<(), E> {
        for slot in std::mem::take(&mut self.committed) {
            let entry = self.at_mut(slot);
            entry.listed = false;
            if entry.state == State::Committed {
                each(entry)?;
                entry.state = State::Flushing;
                self.flushing.push(slot);
            }
        }
        Ok(())
    }

    /// Entries that are still flushing are clean; deleted ones are forgotten.
    pub(super) fn flushed(&mut self) {
        for slot in std::mem::take(&mut self.flushing) {
            let entry = self.at_mut(slot);
            if entry.state == State::Flushing {
                entry.state = State::Clean;
                let (weight, deleted) = (entry.weight as usize, entry.value.is_none());
                self.dirty_bytes -= weight;
                if deleted {
                    self.remove(slot);
                }
            }
        }
    }

    pub(super) fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Makes room before an insertion. Answers the newest time of what was forgotten.
    pub(super) fn evict_some(&mut self, time_of: fn(&K) -> Timestamp) -> Option<Timestamp> {
        self.evict(SWEEP, time_of)
    }

    /// Forgets clean entries until the budget is kept, or none is left. Answers as
    /// [`PointCache::evict_some`].
    pub(super) fn evict_all(&mut self, time_of: fn(&K) -> Timestamp) -> Option<Timestamp> {
        self.evict(2 * self.slots.len(), time_of)
    }

    /// Forgets the clean entries of some keys. True: there was one.
    pub(super) fn forget(&mut self, mut goes: impl FnMut(&K) -> bool) -> bool {
        let before = self.index.len();
        for slot in 0..self.slots.len() {
            let Some(entry) = &self.slots[slot] else { continue };
            if entry.state == State::Clean && goes(&entry.key) {
                self.remove(slot as Slot);
            }
        }
        self.index.len() < before
    }

    fn evict(&mut self, steps: usize, time_of: fn(&K) -> Timestamp) -> Option<Timestamp> {
        let mut evicted = None;
        for _ in 0..steps {
            if self.bytes <= self.budget || self.bytes == self.dirty_bytes {
                break;
            }
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let Some(entry) = &mut self.slots[self.hand] else { continue };
            if entry.state == State::Clean && !std::mem::take(&mut entry.used) {
                evicted = evicted.max(Some(time_of(&entry.key)));
                self.remove(self.hand as Slot);
            }
        }
        evicted
    }

    fn remove(&mut self, slot: Slot) {
        let Some(entry) = self.slots[slot as usize].take() else { return };
        self.bytes -= entry.weight as usize;
        let hash = self.hash(&entry.key);
        if let Ok(found) = self.index.find_entry(spread(hash), |&(_, s)| s == slot) {
            found.remove();
        }
        self.free.push(slot);
    }

    /// The entries that are not clean, in no useful order.
    pub(super) fn dirty(&self) -> impl Iterator<Item = &Entry<K, V>> {
        self.slots.iter().flatten().filter(|entry| entry.state != State::Clean)
    }

    pub(super) fn has_uncommitted(&self) -> bool {
        self.uncommitted > 0
    }

    #[cfg(test)]
    pub(super) fn order_len(&self) -> usize {
        self.order.len()
    }

    #[inline]
    fn hash(&self, key: &K) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}

/// The index takes its buckets from the low bits and its tags from the high ones.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[inline]
fn saturated(weight: usize) -> u32 {
    u32::try_from(weight).unwrap_or(u32::MAX)
}
