//! The newest value of every key, in one buffer.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::state::EntryBatch;

/// Bytes of bookkeeping for an entry: its place, and its share of the index.
const OVERHEAD: usize = size_of::<Place>() + 2 * size_of::<(u32, u32)>();

/// What a table of changelog records comes to: for each key its last value, or that it was deleted.
#[derive(Default)]
pub(super) struct Newest {
    index: HashTable<(u32, u32)>, // hash and number of the entry
    places: Vec<Place>,
    bytes: Vec<u8>,
    hasher: FixedState,
}

/// Where an entry lies: the key, and then its value. A value that does not fit its old place is
/// written with its key anew.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    key_len: u32,
    value_len: u32,
    capacity: u32,
    deleted: bool,
}

impl Newest {
    /// The memory that it takes, in bytes, without what vectors hold in reserve.
    pub(super) fn memory(&self) -> usize {
        self.bytes.len() + self.places.len() * OVERHEAD
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Sets the value of a key; `None` deletes it. A record is bounded by its batch, so that lengths
    /// fit 32 bits.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let hash = self.hasher.hash_one(key);
        let hash = (hash as u32, u64::from(hash as u32) << 32 | u64::from(hash as u32));
        let found = self.index.find(hash.1, |&(h, number)| {
            h == hash.0 && self.places[number as usize].key(&self.bytes) == key
        });
        let (deleted, value) = (value.is_none(), value.unwrap_or_default());
        let value_len = value.len() as u32;
        if let Some(&(_, number)) = found {
            let place = &mut self.places[number as usize];
            place.deleted = deleted;
            if value_len <= place.capacity {
                let at = place.at + place.key_len as usize;
                self.bytes[at..at + value.len()].copy_from_slice(value);
                place.value_len = value_len;
                return;
            }
        }
        let place = Place {
            at: self.bytes.len(),
            key_len: key.len() as u32,
            value_len,
            capacity: value_len,
            deleted,
        };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        match found {
            Some(&(_, number)) => self.places[number as usize] = place,
            None => {
                let number = self.places.len() as u32;
                self.places.push(place);
                self.index.insert_unique(hash.1, (hash.0, number), |&(hash, _)| {
                    u64::from(hash) << 32 | u64::from(hash)
                });
            }
        }
    }

    /// The entries in key order; a value of `None` is a deletion.
    pub(super) fn sorted(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let bytes = &self.bytes;
        // Most comparisons are settled by eight bytes beside each other; what all keys begin with
        // would settle none.
        let first = self.places.first().map_or(&[][..], |place| place.key(bytes));
        let common = self.places.iter().fold(first.len(), |common, place| {
            let same = first[..common].iter().zip(place.key(bytes)).take_while(|(a, b)| a == b);
            same.count()
        });
        let number =
            |(number, place): (usize, &Place)| (prefix(&place.key(bytes)[common..]), number as u32);
        let mut order: Vec<(u64, u32)> = self.places.iter().enumerate().map(number).collect();
        let key = |number: u32| self.places[number as usize].key(bytes);
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
        order.into_iter().map(|(_, number)| {
            let place = &self.places[number as usize];
            (place.key(bytes), (!place.deleted).then(|| place.value(bytes)))
        })
    }

    /// The entries as a batch, in key order.
    pub(super) fn to_batch(&self) -> EntryBatch {
        let mut batch = EntryBatch::new();
        self.sorted().for_each(|(key, value)| batch.put(key, value));
        batch
    }

    /// Forgets all entries and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.index.clear();
        self.places.clear();
        self.bytes.clear();
    }
}

impl Place {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at..self.at + self.key_len as usize]
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let at = self.at + self.key_len as usize;
        &bytes[at..at + self.value_len as usize]
    }
}

/// The first eight bytes as a number with the same order.
fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}
