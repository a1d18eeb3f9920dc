//! Where the entries of a cache are, by key.
//!
//! Keys that are asked for together, as the windows of one key, make a *group*: a hash finds it, and its
//! members are in order, by numbers and not by bytes. That spares most of the comparisons, and most of
//! the misses of the processor's cache, that one large tree of keys costs. Keys without a group are in such
//! a tree.

use std::collections::{BTreeMap, btree_map};
use std::hash::BuildHasher;
use std::ops::Bound;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::key::Key;
use super::slots::SlotId;

/// How many bytes of a key are those of its group; `None`: it has none. What follows orders the members: at
/// most [`RANK`] bytes, as many for each key of a group.
pub(in crate::state) type GroupOf = fn(&[u8]) -> Option<usize>;

/// The most bytes that a key of a group can have after those of its group.
pub(in crate::state) const RANK: usize = 16;

/// What follows the group in a key, as numbers.
type Rank = [u64; 2];

/// See the module.
pub(super) struct Index {
    group_of: GroupOf,
    hasher: FixedState,
    groups: HashTable<Group>,
    rest: BTreeMap<Key, SlotId>,
}

struct Group {
    hash: u64,
    name: Key,
    members: Members,
}

/// In most groups there are one or two at a time, for which a tree's node would be large.
enum Members {
    One((Rank, SlotId)),
    /// In order, no more than [`FEW`].
    Few(Vec<(Rank, SlotId)>),
    Many(BTreeMap<Rank, SlotId>),
}

const FEW: usize = if cfg!(test) { 3 } else { 8 };

impl Index {
    pub(super) fn new(group_of: GroupOf) -> Self {
        Self {
            group_of,
            hasher: FixedState::default(),
            groups: HashTable::new(),
            rest: BTreeMap::new(),
        }
    }

    pub(super) fn group_of(&self, key: &[u8]) -> Option<usize> {
        (self.group_of)(key)
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<SlotId> {
        match (self.group_of)(key) {
            Some(length) => {
                let (name, rank) = key.split_at(length);
                self.group(name)?.members.find(rank_of(rank))
            }
            None => self.rest.get(key).copied(),
        }
    }

    /// Adds a key that it does not have.
    pub(super) fn insert(&mut self, key: &[u8], slot: SlotId) {
        let Some(length) = (self.group_of)(key) else {
            self.rest.insert(key.into(), slot);
            return;
        };
        let (name, rank) = key.split_at(length);
        let (hash, rank) = (self.hasher.hash_one(name), rank_of(rank));
        match self.groups.find_mut(hash, |group| group.is(hash, name)) {
            Some(group) => group.members.insert(rank, slot),
            None => {
                let group = Group { hash, name: name.into(), members: Members::One((rank, slot)) };
                self.groups.insert_unique(hash, group, |group| group.hash);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        let Some(length) = (self.group_of)(key) else {
            self.rest.remove(key);
            return;
        };
        let (name, rank) = key.split_at(length);
        let hash = self.hasher.hash_one(name);
        if let Ok(mut entry) = self.groups.find_entry(hash, |group| group.is(hash, name))
            && !entry.get_mut().members.remove(rank_of(rank))
        {
            entry.remove();
        }
    }

    /// Removes the keys of the entries that are `gone`, in one go: that is less than to find each of them.
    pub(super) fn remove_all(&mut self, gone: &[bool]) {
        let stays = |slot: &SlotId| !gone[*slot];
        self.groups.retain(|group| group.members.retain(stays));
        self.rest.retain(|_, slot| stays(slot));
    }

    /// The members of the group that `from` and `to` begin with, in their order: `from` and what follows
    /// up to before `to`.
    pub(super) fn members(
        &self,
        group: usize,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = SlotId> {
        let (name, from) = from.split_at(group);
        let (from, to) = (rank_of(from), rank_of(to.get(group..).unwrap_or_default()));
        let members = self.group(name).filter(|_| from < to).map(|group| &group.members);
        let (few, many) = match members {
            Some(Members::Many(members)) => (&[][..], Some(members.range(from..to))),
            Some(members) => (members.few(), None),
            None => (&[][..], None),
        };
        let few = few.iter().filter(move |(rank, _)| (from..to).contains(rank));
        let many = many.into_iter().flatten().map(|(_, slot)| *slot);
        few.map(|(_, slot)| *slot).chain(many)
    }

    /// What has no group, in the order of keys.
    pub(super) fn rest(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl Iterator<Item = SlotId> {
        let range: btree_map::Range<'_, _, _> = self.rest.range::<[u8], _>(bounds);
        range.map(|(_, slot)| *slot)
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let members = |group: &Group| match &group.members {
            Members::Many(members) => members.len(),
            members => members.few().len(),
        };
        self.rest.len() + self.groups.iter().map(members).sum::<usize>()
    }

    fn group(&self, name: &[u8]) -> Option<&Group> {
        let hash = self.hasher.hash_one(name);
        self.groups.find(hash, |group| group.is(hash, name))
    }
}

impl Group {
    fn is(&self, hash: u64, name: &[u8]) -> bool {
        self.hash == hash && *self.name == *name
    }
}

impl Members {
    /// All of them, unless they are many.
    fn few(&self) -> &[(Rank, SlotId)] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Few(few) => few,
            Self::Many(_) => &[],
        }
    }

    fn find(&self, rank: Rank) -> Option<SlotId> {
        match self {
            Self::Many(members) => members.get(&rank).copied(),
            members => members.few().iter().find(|(at, _)| *at == rank).map(|(_, slot)| *slot),
        }
    }

    fn insert(&mut self, rank: Rank, slot: SlotId) {
        if let Self::Few(few) = self
            && few.len() == FEW
        {
            *self = Self::Many(few.drain(..).collect());
        }
        match self {
            Self::One(one) => {
                let mut few = vec![*one, (rank, slot)];
                few.sort_unstable();
                *self = Self::Few(few);
            }
            Self::Few(few) => few.insert(few.partition_point(|(at, _)| *at < rank), (rank, slot)),
            Self::Many(members) => {
                members.insert(rank, slot);
            }
        }
    }

    /// Answers whether any are left.
    fn remove(&mut self, rank: Rank) -> bool {
        match self {
            Self::One((one, _)) => return *one != rank,
            Self::Few(few) => few.retain(|(at, _)| *at != rank),
            Self::Many(members) => {
                members.remove(&rank);
            }
        }
        self.settle()
    }

    /// Removes those that do not stay. Answers whether any are left.
    fn retain(&mut self, stays: impl Fn(&SlotId) -> bool) -> bool {
        match self {
            Self::One((_, slot)) => return stays(slot),
            Self::Few(few) => few.retain(|(_, slot)| stays(slot)),
            Self::Many(members) => members.retain(|_, slot| stays(slot)),
        }
        self.settle()
    }

    /// Gives the memory for several back if there is just one. Answers whether any are left.
    fn settle(&mut self) -> bool {
        let (length, first) = match self {
            Self::One(_) => return true,
            Self::Few(few) => (few.len(), few.first().copied()),
            Self::Many(members) => {
                (members.len(), members.first_key_value().map(|(r, s)| (*r, *s)))
            }
        };
        if let (1, Some(first)) = (length, first) {
            *self = Self::One(first);
        }
        length > 0
    }
}

/// The bytes as numbers of the same order; those that are missing are taken for zeros.
fn rank_of(bytes: &[u8]) -> Rank {
    debug_assert!(bytes.len() <= RANK);
    let mut all = [0; RANK];
    for (to, from) in all.iter_mut().zip(bytes) {
        *to = *from;
    }
    let all = u128::from_be_bytes(all);
    [(all >> 64) as u64, all as u64]
}
