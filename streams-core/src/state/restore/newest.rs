//! The newest value of every key, in one buffer.
//!
//! With many keys nearly every access misses the processor's caches. Records are therefore taken
//! many at a time: first all are looked up in the index and then all are written, so that the misses
//! of one loop overlap.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::state::EntryBatch;

/// Bytes of the index for an entry, spare room included.
const INDEX_BYTES: usize = 2 * size_of::<(u32, u32)>();

/// The most memory that the numbers of words can address, and half of it in reserve.
pub(super) const MOST_MEMORY: usize = 16 << 30;

/// How many records are looked up before the first is written.
const AT_ONCE: usize = 1024;

const WORD: usize = 8;
const HEAD: usize = 12;
const NOT_FOUND: u32 = u32::MAX;

/// What a table of changelog records comes to: for each key its last value, or that it was deleted.
///
/// An entry of the buffer begins at a word (8 bytes): its length in words (u32), the length of the
/// key (u32; [`Entry::DEAD`]: the entry lies elsewhere now), the length of the value plus one (u32;
/// 0: deleted), key, value, and room up to the next word.
#[derive(Default)]
pub(super) struct Newest {
    index: HashTable<(u32, u32)>, // hash, and the word where the entry begins
    buffer: Vec<u8>,
    hasher: FixedState,
    found: Vec<(u32, u32)>,
}

/// An entry's head.
#[derive(Clone, Copy)]
struct Entry {
    words: u32,
    key_len: u32,
    value_len: u32,
}

impl Entry {
    const DEAD: u32 = u32::MAX;

    #[inline]
    fn read(buffer: &[u8], at: usize) -> Self {
        let field = |n: usize| {
            let at = at + n * 4;
            u32::from_le_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]])
        };
        Self { words: field(0), key_len: field(1), value_len: field(2) }
    }

    #[inline]
    fn write(self, buffer: &mut [u8], at: usize) {
        buffer[at..at + 4].copy_from_slice(&self.words.to_le_bytes());
        buffer[at + 4..at + 8].copy_from_slice(&self.key_len.to_le_bytes());
        buffer[at + 8..at + HEAD].copy_from_slice(&self.value_len.to_le_bytes());
    }

    #[inline]
    fn is_dead(self) -> bool {
        self.key_len == Self::DEAD
    }

    #[inline]
    fn bytes(self) -> usize {
        self.words as usize * WORD
    }

    /// Room for a value.
    #[inline]
    fn capacity(self) -> usize {
        self.bytes() - HEAD - self.key_len as usize
    }

    #[inline]
    fn key(self, buffer: &[u8], at: usize) -> &[u8] {
        &buffer[at + HEAD..at + HEAD + self.key_len as usize]
    }

    #[inline]
    fn value(self, buffer: &[u8], at: usize) -> Option<&[u8]> {
        let at = at + HEAD + self.key_len as usize;
        (self.value_len > 0).then(|| &buffer[at..at + self.value_len as usize - 1])
    }
}

impl Newest {
    /// The memory that it takes, in bytes, without what vectors hold in reserve.
    pub(super) fn memory(&self) -> usize {
        self.buffer.len() + self.index.len() * INDEX_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Takes records in their order; a value of `None` deletes the key. A record is bounded by its
    /// batch, so that lengths fit 31 bits.
    pub(super) fn put_all<'a>(
        &mut self,
        mut records: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
    ) {
        let mut found = std::mem::take(&mut self.found);
        loop {
            found.clear();
            found.extend(records.clone().take(AT_ONCE).map(|(key, _)| {
                let hash = self.hasher.hash_one(key) as u32;
                let entry = self.index.find(spread(hash), |&(h, _)| h == hash);
                (hash, entry.map_or(NOT_FOUND, |&(_, word)| word))
            }));
            // Only reads, so that these misses overlap too; also the key's length settles most.
            for ((_, word), (key, _)) in found.iter_mut().zip(records.clone()) {
                if *word != NOT_FOUND {
                    let entry = Entry::read(&self.buffer, *word as usize * WORD);
                    if entry.key_len as usize != key.len() {
                        *word = NOT_FOUND;
                    }
                }
            }
            for (&(hash, word), (key, value)) in found.iter().zip(&mut records) {
                if word == NOT_FOUND || !self.replace(word, key, value) {
                    self.put(hash, key, value);
                }
            }
            if found.len() < AT_ONCE {
                break;
            }
        }
        self.found = found;
    }

    /// Replaces the value of the entry at `word`, if it is the key's and has room.
    #[inline]
    fn replace(&mut self, word: u32, key: &[u8], value: Option<&[u8]>) -> bool {
        let at = word as usize * WORD;
        let mut entry = Entry::read(&self.buffer, at);
        if entry.is_dead() || entry.key(&self.buffer, at) != key {
            return false;
        }
        let bytes = value.unwrap_or_default();
        if bytes.len() > entry.capacity() {
            return false;
        }
        entry.value_len = value.map_or(0, |value| value.len() as u32 + 1);
        entry.write(&mut self.buffer, at);
        let at = at + HEAD + key.len();
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        true
    }

    /// Adds an entry, or moves a key's entry to where it has room.
    fn put(&mut self, hash: u32, key: &[u8], value: Option<&[u8]>) {
        let find = |&(h, word): &(u32, u32)| {
            let at = word as usize * WORD;
            h == hash && Entry::read(&self.buffer, at).key(&self.buffer, at) == key
        };
        let found = self.index.find(spread(hash), find).copied();
        if let Some((_, word)) = found {
            if self.replace(word, key, value) {
                return;
            }
            let at = word as usize * WORD;
            let entry = Entry::read(&self.buffer, at);
            Entry { key_len: Entry::DEAD, ..entry }.write(&mut self.buffer, at);
        }
        let at = self.buffer.len();
        let bytes = value.unwrap_or_default();
        let entry = Entry {
            words: (HEAD + key.len() + bytes.len()).div_ceil(WORD) as u32,
            key_len: key.len() as u32,
            value_len: value.map_or(0, |value| value.len() as u32 + 1),
        };
        self.buffer.resize(at + HEAD, 0);
        entry.write(&mut self.buffer, at);
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(bytes);
        self.buffer.resize(at + entry.bytes(), 0);
        let word = (at / WORD) as u32;
        let same = |other: &(u32, u32)| found == Some(*other);
        match self.index.find_mut(spread(hash), same) {
            Some(place) => place.1 = word,
            None => {
                self.index.insert_unique(spread(hash), (hash, word), |&(hash, _)| spread(hash));
            }
        }
    }

    /// The entries that count, in the order of the buffer, with the words where they begin.
    fn entries(&self) -> impl Iterator<Item = (u32, Entry)> {
        let mut at = 0;
        let next = move || {
            (at < self.buffer.len()).then(|| {
                let entry = Entry::read(&self.buffer, at);
                let word = (at / WORD) as u32;
                at += entry.bytes();
                (word, entry)
            })
        };
        std::iter::from_fn(next).filter(|(_, entry)| !entry.is_dead())
    }

    #[inline]
    fn key(&self, word: u32) -> &[u8] {
        let at = word as usize * WORD;
        Entry::read(&self.buffer, at).key(&self.buffer, at)
    }

    /// The entries in key order; a value of `None` is a deletion.
    pub(super) fn sorted(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        // Most comparisons are settled by eight bytes beside each other; what all keys begin with
        // would settle none.
        let first = self.entries().next().map_or(&[][..], |(word, _)| self.key(word));
        let common = self.entries().fold(first.len(), |common, (word, _)| {
            first[..common].iter().zip(self.key(word)).take_while(|(a, b)| a == b).count()
        });
        let with_prefix = |(word, _)| (prefix(&self.key(word)[common..]), word);
        let mut order: Vec<(u64, u32)> = self.entries().map(with_prefix).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| self.key(a.1).cmp(self.key(b.1))));
        order.into_iter().map(|(_, word)| {
            let at = word as usize * WORD;
            let entry = Entry::read(&self.buffer, at);
            (entry.key(&self.buffer, at), entry.value(&self.buffer, at))
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
        self.buffer.clear();
    }
}

/// The index takes its buckets from the low bits and its tags from the high ones.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// The first eight bytes as a number with the same order.
#[inline]
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
