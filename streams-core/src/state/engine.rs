//! The seam to whatever keeps a store's bytes on disk.
//!
//! A [`StateEngine`] opens the stores of a task; a [`StoreEngine`] is one of them. Stores above
//! this seam keep typed values in memory and hand down encoded entries, always together with the
//! [`Position`] in the changelog that they stand for. An engine promises:
//!
//! - [`StoreEngine::apply`] is atomic, visible at once, and durable some time later, in order: a
//!   crash leaves the state as of some earlier `apply`, with just that position.
//! - What [`BulkLoad::finish`] swaps in replaces everything at once; a crash before leaves the old
//!   entries and the old position.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Expiry, Position};
use crate::error::StateError;

/// Opens the stores of tasks.
pub trait StateEngine: Send + Sync + 'static {
    /// Opens the stores of one task, which lie in `dir` (made if missing); in the order of `names`.
    /// A store that the directory does not know is empty and has no position. Damaged state is set
    /// aside and opened empty, with a warning, because a changelog can rebuild it.
    ///
    /// # Errors
    /// [`StateError`] if the directory cannot be used at all.
    fn open(&self, dir: &Path, names: &[&str]) -> Result<Vec<Arc<dyn StoreEngine>>, StateError>;
}

/// The entries of one store, ordered by key bytes.
pub trait StoreEngine: Send + Sync {
    /// How far in its changelog the store has come; `None`: it is empty and was never written.
    ///
    /// # Errors
    /// [`StateError::Corrupt`], [`StateError::NewerFormat`].
    fn position(&self) -> Result<Option<Position>, StateError>;

    /// Whether what it held was damaged and set aside when it was opened.
    fn was_damaged(&self) -> bool {
        false
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`StateError`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError>;

    /// The entries with `from <= key < to` (`None`: to the end), ascending, as of now.
    ///
    /// # Errors
    /// [`StateError`], also as an item.
    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Result<Scan<'a>, StateError>;

    /// Writes a batch of entries and the position that the store then has.
    ///
    /// # Errors
    /// [`StateError`]; then nothing was written.
    fn apply(&self, batch: &mut EntryBatch, position: &Position) -> Result<(), StateError>;

    /// What is over by `expiry` may vanish from now on, one by one and at any moment. Said again
    /// whenever time has moved on, by a store that has such entries, and never taken back: not
    /// before the commit that moved it is synced, and after it was applied. An engine may keep them.
    fn expire(&self, _expiry: Expiry) {}

    /// Makes durable what was applied.
    ///
    /// # Errors
    /// [`StateError`].
    fn flush(&self) -> Result<(), StateError>;

    /// Begins to replace all entries.
    ///
    /// # Errors
    /// [`StateError`].
    fn bulk_load(&self) -> Result<Box<dyn BulkLoad>, StateError>;
}

/// Entries in key order.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StateError>> + 'a>;

/// Replaces all entries of a store. Dropping it before the end changes nothing.
pub trait BulkLoad: Send {
    /// Adds an entry; keys must rise.
    ///
    /// # Errors
    /// [`StateError`].
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError>;

    /// Swaps the new entries in; durable when it returns.
    ///
    /// # Errors
    /// [`StateError`]; then the old entries stand.
    fn finish(self: Box<Self>, position: &Position) -> Result<(), StateError>;
}

/// Entries to be written: puts and deletions, at most one for each key. One buffer holds all bytes.
#[derive(Debug, Default)]
pub struct EntryBatch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key_at: usize,
    value_at: usize,
    end: usize,
    delete: bool,
}

impl EntryBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry whose key and value are written by closures straight into the buffer; `None`
    /// from `value` deletes the key.
    ///
    /// # Errors
    /// Those of the closures; then nothing is added.
    pub fn put_with<E>(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<Option<()>, E>,
    ) -> Result<(), E> {
        let key_at = self.bytes.len();
        let write = || {
            key(&mut self.bytes)?;
            let value_at = self.bytes.len();
            Ok((value_at, value(&mut self.bytes)?.is_none()))
        };
        match write() {
            Ok((value_at, delete)) => {
                let end = self.bytes.len();
                self.entries.push(Entry { key_at, value_at, end, delete });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(key_at);
                Err(error)
            }
        }
    }

    /// Adds an entry; `None` deletes the key.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let key_at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_at = self.bytes.len();
        self.bytes.extend_from_slice(value.unwrap_or_default());
        let end = self.bytes.len();
        self.entries.push(Entry { key_at, value_at, end, delete: value.is_none() });
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The size of its keys and values in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all entries and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Orders the entries by key.
    pub fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries
            .sort_unstable_by(|a, b| bytes[a.key_at..a.value_at].cmp(&bytes[b.key_at..b.value_at]));
    }

    /// The entries, as (key, value); a value of `None` deletes the key.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> + Clone {
        self.entries.iter().map(|e| {
            let value = (!e.delete).then(|| &self.bytes[e.value_at..e.end]);
            (&self.bytes[e.key_at..e.value_at], value)
        })
    }
}
