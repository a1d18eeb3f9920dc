//! A state engine in memory that can lose power.
//!
//! [`LossyEngine::crash`] takes each store back to some earlier point, as a power cut does to an
//! engine without a write-ahead log: batches that were applied but not flushed go, the newest
//! first; what was flushed or bulk-loaded stays. What has expired vanishes in flushes. Without crashes it is a plain in-memory engine.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{BulkLoad, EntryBatch, Expiry, Position, Scan, StateEngine, StoreEngine};
use crate::error::StateError;

/// How many batches a store can lose; the one before becomes durable by itself, as in an engine
/// that writes its buffers out when they are full.
const MOST_UNFLUSHED: usize = 64;

/// Keeps stores in memory, under the directories that they would lie in. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LossyEngine {
    stores: Arc<Mutex<Stores>>,
}

/// By directory and name.
type Stores = BTreeMap<(PathBuf, String), Arc<LossyStore>>;

impl LossyEngine {
    /// An engine without any store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes every store back. `keep` is asked for each store, in order of directory and name, how
    /// many of its unflushed batches survive; it is given their number. Handles opened before keep
    /// working, on entries that nobody else sees any more.
    pub fn crash(&self, mut keep: impl FnMut(usize) -> usize) {
        for store in lock(&self.stores).values_mut() {
            let mut contents = lock(&store.contents).clone();
            let keep = keep(contents.unflushed.len());
            while contents.unflushed.len() > keep {
                contents.undo();
            }
            contents.unflushed.clear(); // what survived one power cut survives the next
            *store = Arc::new(LossyStore {
                path: store.path.clone(),
                contents: Arc::new(Mutex::new(contents)),
            });
        }
    }
}

impl StateEngine for LossyEngine {
    fn open(&self, dir: &Path, names: &[&str]) -> Result<Vec<Arc<dyn StoreEngine>>, StateError> {
        let mut stores = lock(&self.stores);
        let open = |name: &&str| {
            let store = stores.entry((dir.to_owned(), (*name).to_owned())).or_insert_with(|| {
                Arc::new(LossyStore { path: dir.join(name), contents: Arc::default() })
            });
            Arc::clone(store) as Arc<dyn StoreEngine>
        };
        Ok(names.iter().map(open).collect())
    }
}

#[derive(Debug)]
struct LossyStore {
    path: PathBuf,
    contents: Arc<Mutex<Contents>>,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    entries: BTreeMap<Bytes, Bytes>,
    position: Option<Position>,
    unflushed: VecDeque<Undo>,
    expiry: Option<Expiry>,
    /// How many entries were left when the expired ones last went, and how many were written since.
    swept_to: usize,
    written: usize,
}

/// What takes one batch back.
#[derive(Clone, Debug)]
struct Undo {
    entries: Vec<(Bytes, Option<Bytes>)>,
    position: Option<Position>,
}

impl Contents {
    fn undo(&mut self) {
        let Some(undo) = self.unflushed.pop_back() else { return };
        self.position = undo.position;
        for (key, before) in undo.entries.into_iter().rev() {
            match before {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
    }

    /// Removes what has expired, when as many entries were written as were left the last time: so
    /// each written entry pays for a look at another.
    fn sweep(&mut self) {
        let Some(expiry) = self.expiry.filter(|_| self.written >= self.swept_to) else { return };
        self.entries.retain(|key, _| !expiry.is_over(key));
        (self.swept_to, self.written) = (self.entries.len(), 0);
    }
}

impl StoreEngine for LossyStore {
    fn position(&self) -> Result<Option<Position>, StateError> {
        Ok(lock(&self.contents).position.clone())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(lock(&self.contents).entries.get(key).cloned())
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Result<Scan<'a>, StateError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Box::new(std::iter::empty()));
        }
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let contents = lock(&self.contents);
        let found = contents.entries.range::<[u8], _>(range);
        let found: Vec<_> = found.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        Ok(Box::new(found.into_iter()))
    }

    fn apply(&self, batch: &mut EntryBatch, position: &Position) -> Result<(), StateError> {
        let mut contents = lock(&self.contents);
        let mut undo = Undo { entries: Vec::with_capacity(batch.len()), position: None };
        for (key, value) in batch.iter() {
            let key = Bytes::copy_from_slice(key);
            let before = match value {
                Some(value) => contents.entries.insert(key.clone(), Bytes::copy_from_slice(value)),
                None => contents.entries.remove(&key),
            };
            undo.entries.push((key, before));
        }
        contents.written += batch.len();
        undo.position = contents.position.replace(position.clone());
        contents.unflushed.push_back(undo);
        if contents.unflushed.len() > MOST_UNFLUSHED {
            contents.unflushed.pop_front();
        }
        Ok(())
    }

    fn expire(&self, expiry: Expiry) {
        lock(&self.contents).expiry = Some(expiry);
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut contents = lock(&self.contents);
        contents.unflushed.clear();
        contents.sweep();
        Ok(())
    }

    fn bulk_load(&self) -> Result<Box<dyn BulkLoad>, StateError> {
        Ok(Box::new(LossyLoad {
            path: self.path.clone(),
            contents: Arc::clone(&self.contents),
            entries: Vec::new(),
        }))
    }
}

struct LossyLoad {
    path: PathBuf,
    contents: Arc<Mutex<Contents>>,
    entries: Vec<(Bytes, Bytes)>,
}

impl BulkLoad for LossyLoad {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        if self.entries.last().is_some_and(|(last, _)| last[..] >= *key) {
            return Err(StateError::Io {
                operation: "bulk loading",
                path: self.path.clone(),
                reason: "the keys do not rise".into(),
            });
        }
        self.entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        Ok(())
    }

    fn finish(self: Box<Self>, position: &Position) -> Result<(), StateError> {
        let entries = self.entries.into_iter().collect();
        let mut contents = lock(&self.contents);
        (contents.entries, contents.position) = (entries, Some(position.clone()));
        contents.unflushed.clear();
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::engine_suite;

    #[test]
    fn keeps_the_promises_of_an_engine() {
        engine_suite::run(&LossyEngine::new(), Path::new("0_0"));
    }

    #[test]
    fn a_crash_takes_batches_back_in_order_but_none_that_was_flushed() {
        let engine = LossyEngine::new();
        let dir = Path::new("0_0");
        let open = || engine.open(dir, &["s"]).unwrap().remove(0);
        let store = open();
        for offset in 1..=5i64 {
            let mut batch = EntryBatch::new();
            batch.put(b"last", Some(&offset.to_be_bytes()));
            batch.put(&offset.to_be_bytes(), Some(b"x"));
            batch.put(&(offset - 2).to_be_bytes(), None);
            store.apply(&mut batch, &engine_suite::position(offset)).unwrap();
            if offset == 2 {
                store.flush().unwrap();
            }
        }
        for (keep, offset) in [(3, 5), (1, 5)] {
            // a second crash finds nothing more to lose
            engine.crash(|unflushed| keep.min(unflushed));
            assert_eq!(open().position().unwrap(), Some(engine_suite::position(offset)));
        }
        let after: Vec<_> = open().scan(&[], None).unwrap().map(|e| e.unwrap().0).collect();
        assert_eq!(after, [&4i64.to_be_bytes()[..], &5i64.to_be_bytes(), b"last"]);
    }

    #[test]
    fn a_crash_undoes_overwrites_and_deletions() {
        let engine = LossyEngine::new();
        let open = || engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0);
        let write = |entries: &[(&[u8], Option<&[u8]>)], offset| {
            let mut batch = EntryBatch::new();
            entries.iter().for_each(|(key, value)| batch.put(key, *value));
            open().apply(&mut batch, &engine_suite::position(offset)).unwrap();
        };
        write(&[(b"a", Some(b"1")), (b"b", Some(b"1"))], 1);
        open().flush().unwrap();
        write(&[(b"a", Some(b"2")), (b"b", None), (b"c", Some(b"2"))], 2);
        let zombie = open();
        engine.crash(|_| 0);
        let entries: Vec<_> = open().scan(&[], None).unwrap().map(|e| e.unwrap()).collect();
        let expected: [(Bytes, Bytes); 2] = [("a".into(), "1".into()), ("b".into(), "1".into())];
        assert_eq!(entries, expected);
        assert_eq!(open().position().unwrap(), Some(engine_suite::position(1)));
        zombie.apply(&mut EntryBatch::new(), &engine_suite::position(9)).unwrap();
        assert_eq!(open().position().unwrap(), Some(engine_suite::position(1)));
    }
}
