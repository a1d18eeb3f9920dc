//! The entries of a cache in memory. They do not move: a number names each as long as it is there.

use broker_api::Timestamp;
use bytes::Bytes;

use super::Timed;
use super::key::Key;

/// What an entry in memory costs besides the bytes of its key and value: its slot, its share of the
/// index, the key's counters, its place in the order of changes.
const OVERHEAD: usize = size_of::<Option<Slot>>() + 128;

/// Names an entry.
pub(super) type SlotId = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Clean,
    Uncommitted,
    Committed,
    Flushing,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    /// That of its key.
    pub(super) time: Timestamp,
    /// `None`: deleted.
    pub(super) value: Option<Bytes>,
    pub(super) timestamp: Timestamp,
    pub(super) state: State,
    /// Its place in the order of changes; counts only while it is uncommitted.
    pub(super) place: usize,
    /// What it had at the last forward, if it changed since; kept only where changes are forwarded.
    pub(super) before: Option<Option<Timed>>,
    /// An operator looked up what it has had since the last forward.
    pub(super) seen: bool,
}

impl Slot {
    /// Whether it is uncommitted and was changed last at this place of the order.
    pub(super) fn is_changed_last_at(&self, place: usize) -> bool {
        self.state == State::Uncommitted && self.place == place
    }

    /// Bytes of key and value.
    pub(super) fn payload(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    pub(super) fn weight(&self) -> usize {
        let before = match &self.before {
            Some(Some((value, _))) => value.len(),
            _ => 0,
        };
        OVERHEAD + self.payload() + before
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    /// Places of `slots` without an entry.
    free: Vec<SlotId>,
}

impl Slots {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, slot: Slot) -> SlotId {
        if let Some(id) = self.free.pop() {
            self.slots[id] = Some(slot);
            return id;
        }
        self.slots.push(Some(slot));
        self.slots.len() - 1
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.slots.get_mut(id)?.take()?;
        self.free.push(id);
        Some(slot)
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(id)?.as_mut()
    }

    /// An entry that is there.
    pub(super) fn at(&self, id: SlotId) -> &Slot {
        match &self.slots[id] {
            Some(slot) => slot,
            None => unreachable!("entry {id} of a cache has gone"),
        }
    }

    /// As [`Slots::at`].
    pub(super) fn at_mut(&mut self, id: SlotId) -> &mut Slot {
        match &mut self.slots[id] {
            Some(slot) => slot,
            None => unreachable!("entry {id} of a cache has gone"),
        }
    }

    /// All entries, in no useful order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    /// Removes those that `goes` picks, and answers which numbers have no entry now. What comes next takes the
    /// lowest places, so that the memory after the last entry can be given back.
    pub(super) fn remove_all(&mut self, mut goes: impl FnMut(&Slot) -> bool) -> Vec<bool> {
        self.free.clear();
        let mut gone = vec![false; self.slots.len()];
        for (id, place) in self.slots.iter_mut().enumerate() {
            place.take_if(|slot| goes(slot));
            if place.is_none() {
                gone[id] = true;
                self.free.push(id);
            }
        }
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
            self.free.pop();
        }
        self.slots.shrink_to(2 * self.slots.len());
        self.free.reverse();
        gone
    }
}
