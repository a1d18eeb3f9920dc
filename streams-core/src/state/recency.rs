//! Which keys of a store were used least recently, for a store that holds only so many entries.
//!
//! Only the keys are here, each twice: by key and by use. They are those of the entries that the store has, uncommitted
//! ones included.

use std::collections::BTreeMap;
use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// See the module.
pub(super) struct Recency<K> {
    most: usize,
    /// The number of each key's last use.
    uses: HashMap<K, u64, FixedState>,
    order: BTreeMap<u64, K>,
    /// The number of the next use.
    next: u64,
}

impl<K: Clone + Eq + Hash> Recency<K> {
    /// Of a store that holds `most` entries; `keys` are those that it has, the least recently used first.
    pub(super) fn new(most: usize, keys: impl IntoIterator<Item = K>) -> Self {
        let uses = HashMap::with_hasher(FixedState::default());
        let mut recency = Self { most, uses, order: BTreeMap::new(), next: 0 };
        keys.into_iter().for_each(|key| recency.add(key));
        recency
    }

    /// An entry was read or written.
    pub(super) fn used(&mut self, key: &K) {
        let Some(last) = self.uses.get_mut(key) else { return self.add(key.clone()) };
        if let Some(key) = self.order.remove(last) {
            *last = self.next;
            self.order.insert(self.next, key);
            self.next += 1;
        }
    }

    fn add(&mut self, key: K) {
        self.uses.insert(key.clone(), self.next);
        self.order.insert(self.next, key);
        self.next += 1;
    }

    /// An entry was deleted.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(last) = self.uses.remove(key) {
            self.order.remove(&last);
        }
    }

    /// Takes out the key that was used least recently, if there are more than may be.
    pub(super) fn take_eldest(&mut self) -> Option<K> {
        if self.order.len() <= self.most {
            return None;
        }
        let (_, eldest) = self.order.pop_first()?;
        self.uses.remove(&eldest);
        Some(eldest)
    }
}
