//! The store of what waits: entries in the order of a time, until that time has come.
//!
//! Unmatched records of a join wait until no partner can come any more, results of windows until they
//! are final, records for a table to catch up. Entries of different classes wait for different times;
//! [`BufferStore::due`] finds them in the order of (time, class, key bytes), and [`BufferStore::take`]
//! takes them out.
//!
//! In the engine and in the changelog, which is compacted, there is one entry for each class, time and
//! key (numbers are big-endian):
//!
//! | | bytes |
//! |---|---|
//! | key | class (u8), time (i64), the key |
//! | value | one after the other: timestamp (i64), length (u32), the value |
//!
//! After an error, and after a panic in a function of the application, the store must be dropped and
//! opened again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::Timestamp;
use bytes::{Buf, Bytes};

use super::entry_codec::EntryCodec;
use super::ordered::OrderedCache;
use super::{Store, StoreCache, StoreEngine};
use crate::error::StateError;
use crate::record::Data;
use crate::serde::DynSerde;

const HEAD: usize = 1 + 8;
const LENGTH: usize = 4;

/// An entry of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffered<K, V> {
    /// The time by which it is ordered.
    pub time: Timestamp,
    /// Of entries with one time, lower classes come first.
    pub class: u8,
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: V,
    /// The timestamp of its record.
    pub timestamp: Timestamp,
}

/// Entries of one time, class and key that were found, and are still there.
#[derive(Debug)]
pub struct Due {
    key: Bytes,
    value: Bytes,
    timestamp: Timestamp,
}

impl Due {
    /// What tells it from all others that wait.
    pub fn id(&self) -> &[u8] {
        &self.key
    }

    /// What tells it from others that have waited there before, unless these were just the same.
    pub fn content(&self) -> &[u8] {
        &self.value
    }

    /// Its place in the order.
    fn place(&self) -> (Timestamp, &[u8], &[u8]) {
        let (head, key) = self.key.split_at(HEAD.min(self.key.len()));
        (time_of(&self.key), &head[..head.len().min(1)], key)
    }
}

/// See the module.
pub struct BufferStore<K, V> {
    codec: EntryCodec<K, V>,
    cache: OrderedCache,
    /// By class: no entry has a key before this. What is not there is not known yet.
    first: BTreeMap<u8, Bytes>,
    scratch: Vec<u8>,
}

impl<K: Data, V: Data> BufferStore<K, V> {
    /// A buffer over `engine`, which must be restored before the first access.
    pub fn new(
        name: &str,
        key_serde: DynSerde<K>,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        logged: bool,
    ) -> Self {
        Self {
            codec: EntryCodec::new(name, key_serde, value_serde),
            cache: OrderedCache::new(name, engine, time_of, logged, false),
            first: BTreeMap::new(),
            scratch: Vec::new(),
        }
    }

    /// Adds an entry behind those with the same time, class and key.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn add(&mut self, entry: &Buffered<K, V>) -> Result<(), StateError> {
        let before = self.find(entry.time, entry.class, &entry.key)?;
        let mut bytes = before.map_or_else(Vec::new, Vec::from);
        bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
        let length_at = bytes.len();
        bytes.extend_from_slice(&[0; LENGTH]);
        self.codec.put_value(&entry.value, &mut bytes)?;
        let length = bytes.len() - length_at - LENGTH;
        let length = u32::try_from(length).map_err(|_| self.corrupt("a value above 4 GiB"))?;
        bytes[length_at..length_at + LENGTH].copy_from_slice(&length.to_be_bytes());
        self.cache.put(&self.scratch, Some(bytes.into()), entry.timestamp)?;
        if let Some(first) = self.first.get_mut(&entry.class).filter(|f| self.scratch[..] < f[..]) {
            *first = Bytes::copy_from_slice(&self.scratch);
        }
        Ok(())
    }

    /// Removes all entries of a time, class and key; answers whether there were any.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn remove(&mut self, time: Timestamp, class: u8, key: &K) -> Result<bool, StateError> {
        let found = self.find(time, class, key)?.is_some();
        if found {
            self.cache.put(&self.scratch, None, time)?;
        }
        Ok(found)
    }

    /// No entry of the class has an earlier time than this; `Timestamp::MAX` if there is none.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn oldest(&mut self, class: u8) -> Result<Timestamp, StateError> {
        if let Some(first) = self.first.get(&class) {
            return Ok(time_of(first));
        }
        let mut first = Bytes::copy_from_slice(&head(class, Timestamp::MAX));
        self.cache.visit(&[class], None, Timestamp::MIN, |key, _, _| {
            if key.first() == Some(&class) {
                first = Bytes::copy_from_slice(key);
            }
            ControlFlow::Break(())
        })?;
        let oldest = time_of(&first);
        self.first.insert(class, first);
        Ok(oldest)
    }

    /// Finds the entries of some classes, each with the time that its entries must be earlier than, in
    /// their order; stops after those of `most` keys, if that is before the end. Whoever asks either
    /// [takes](BufferStore::take) them all, or says which he has [not taken](BufferStore::not_taken).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn due(&mut self, due: &[(u8, Timestamp)], most: usize) -> Result<Vec<Due>, StateError> {
        let mut found = Vec::new();
        for &(class, before) in due {
            let oldest = self.oldest(class)?;
            if oldest >= before {
                continue;
            }
            let to = head(class, before);
            let from = self.first.get(&class).cloned().unwrap_or_default();
            let listed = found.len();
            self.cache.visit(&from, Some(&to), oldest, |key, value, timestamp| {
                found.push(Due {
                    key: Bytes::copy_from_slice(key),
                    value: value.clone(),
                    timestamp,
                });
                if found.len() - listed < most {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            let last = found.last().filter(|_| found.len() - listed >= most);
            let behind = last.map(|last| [&last.key[..], &[0]].concat());
            self.first.insert(class, behind.unwrap_or(to.to_vec()).into());
        }
        found.sort_unstable_by(|a, b| a.place().cmp(&b.place()));
        for beyond in found.iter().skip(most).rev() {
            self.not_taken(beyond);
        }
        found.truncate(most);
        Ok(found)
    }

    /// Takes out what was found: the entries of one time, class and key, in the order of their arrival.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn take(&mut self, found: &Due) -> Result<Vec<Buffered<K, V>>, StateError> {
        let mut taken = Vec::new();
        self.decode(&found.key, found.value.clone(), &mut taken)?;
        self.cache.put(&found.key, None, found.timestamp)?;
        Ok(taken)
    }

    /// What was found stays, from this one on.
    pub fn not_taken(&mut self, found: &Due) {
        let time = time_of(&found.key);
        for (class, first) in &mut self.first {
            // Of one time, lower classes come first.
            let stays = match found.key.first() {
                Some(its) if its == class => found.key.clone(),
                Some(its) if its > class => head(*class, time.saturating_add(1)).to_vec().into(),
                _ => head(*class, time).to_vec().into(),
            };
            if stays < *first {
                *first = stays;
            }
        }
    }

    /// Takes out what [`BufferStore::due`] finds.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn drain(
        &mut self,
        due: &[(u8, Timestamp)],
        most: usize,
    ) -> Result<Vec<Buffered<K, V>>, StateError> {
        let mut drained = Vec::new();
        for found in self.due(due, most)? {
            drained.extend(self.take(&found)?);
        }
        Ok(drained)
    }

    /// All entries, class by class.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn all(&mut self) -> Result<Vec<Buffered<K, V>>, StateError> {
        let mut found = Vec::new();
        self.cache.visit(&[], None, Timestamp::MIN, |key, value, _| {
            found.push((Bytes::copy_from_slice(key), value.clone()));
            ControlFlow::Continue(())
        })?;
        let mut all = Vec::with_capacity(found.len());
        for (key, value) in found {
            self.decode(&key, value, &mut all)?;
        }
        Ok(all)
    }

    /// The encoded values of a time, class and key, which it leaves in `scratch`.
    fn find(&mut self, time: Timestamp, class: u8, key: &K) -> Result<Option<Bytes>, StateError> {
        self.scratch.clear();
        self.scratch.extend_from_slice(&head(class, time));
        self.codec.put_key(key, &mut self.scratch)?;
        Ok(self.cache.get(&self.scratch)?.map(|(values, _)| values))
    }

    /// Appends the entries that these bytes stand for.
    fn decode(
        &self,
        key: &Bytes,
        mut values: Bytes,
        out: &mut Vec<Buffered<K, V>>,
    ) -> Result<(), StateError> {
        if key.len() < HEAD {
            return Err(self.corrupt("a key that is too short"));
        }
        let cut = || self.corrupt("a value that is cut off");
        while !values.is_empty() {
            let timestamp = values.try_get_i64().map_err(|_| cut())?;
            let length = values.try_get_u32().map_err(|_| cut())? as usize;
            if length > values.len() {
                return Err(cut());
            }
            out.push(Buffered {
                time: time_of(key),
                class: key[0],
                key: self.codec.key(&key.slice(HEAD..))?,
                value: self.codec.value(&values.split_to(length))?,
                timestamp,
            });
        }
        Ok(())
    }

    fn corrupt(&self, reason: &str) -> StateError {
        StateError::Corrupt { path: PathBuf::from(self.codec.store()), reason: reason.into() }
    }
}

/// What a key of the engine begins with.
fn head(class: u8, time: Timestamp) -> [u8; HEAD] {
    let mut head = [class; HEAD];
    head[1..].copy_from_slice(&time.to_be_bytes());
    head
}

fn time_of(key: &[u8]) -> Timestamp {
    let time = key.get(1..).and_then(|rest| rest.first_chunk());
    time.map_or(Timestamp::MAX, |bytes| Timestamp::from_be_bytes(*bytes))
}

impl<K: Data, V: Data> Store for BufferStore<K, V> {
    fn name(&self) -> &str {
        self.codec.store()
    }

    fn cache(&self) -> &dyn StoreCache {
        &self.cache
    }

    fn cache_mut(&mut self) -> &mut dyn StoreCache {
        &mut self.cache
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::serde::HasSerde;
    use crate::state::{ChangelogWriter, LossyEngine, StateEngine, engine_suite};

    struct Ignored;

    impl ChangelogWriter for Ignored {
        fn put(&mut self, _: &[u8], _: Option<&[u8]>, _: Timestamp) -> Result<(), StateError> {
            Ok(())
        }
    }

    fn open(engine: &LossyEngine) -> Arc<dyn StoreEngine> {
        engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0)
    }

    fn buffer(engine: &LossyEngine) -> BufferStore<String, i64> {
        BufferStore::new("s", String::serde(), i64::serde(), open(engine), true)
    }

    fn flush(buffer: &mut BufferStore<String, i64>, engine: &LossyEngine) {
        buffer.seal(&mut Ignored).unwrap();
        let mut batch = buffer.begin_flush().unwrap();
        open(engine).apply(&mut batch, &engine_suite::position(1)).unwrap();
        buffer.flushed();
    }

    fn entry(time: Timestamp, class: u8, key: &str, value: i64) -> Buffered<String, i64> {
        Buffered { time, class, key: key.into(), value, timestamp: time + 1 }
    }

    #[test]
    fn golden_bytes() {
        let mut buffer = buffer(&LossyEngine::new());
        buffer.add(&entry(258, 3, "k", 5)).unwrap();
        let key = vec![3, 0, 0, 0, 0, 0, 0, 1, 2, b'k'];
        let value = vec![0, 0, 0, 0, 0, 0, 1, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(buffer.dump().unwrap(), [(key, value, 259)]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Add(Timestamp, u8, String),
        Remove(Timestamp, u8, String),
        Drain(usize, Timestamp, Timestamp),
        Flush,
        Budget(usize),
        Reopen,
    }

    fn op() -> impl Strategy<Value = Op> {
        let name = || prop_oneof![Just(""), Just("a"), Just("a\0\0\0\0")].prop_map(String::from);
        prop_oneof![
            8 => (0..9i64, 0..2u8, name()).prop_map(|(t, c, k)| Op::Add(t, c, k)),
            3 => (0..9i64, 0..2u8, name()).prop_map(|(t, c, k)| Op::Remove(t, c, k)),
            4 => (1..4usize, 0..9i64, 0..9i64).prop_map(|(most, a, b)| Op::Drain(most, a, b)),
            2 => Just(Op::Flush),
            1 => prop_oneof![Just(0), Just(usize::MAX)].prop_map(Op::Budget),
            1 => Just(Op::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn agrees_with_a_sorted_list(ops in proptest::collection::vec(op(), 0..80)) {
            let engine = LossyEngine::new();
            let mut buffer = buffer(&engine);
            let mut model: Vec<Buffered<String, i64>> = Vec::new();
            for (at, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Add(time, class, key) => {
                        let entry = entry(time, class, &key, at as i64);
                        buffer.add(&entry).unwrap();
                        model.push(entry);
                        model.sort_by_key(|e| (e.time, e.class, e.key.clone())); // stable
                    }
                    Op::Remove(time, class, key) => {
                        let before = model.len();
                        model.retain(|e| (e.time, e.class, &e.key) != (time, class, &key));
                        let removed = buffer.remove(time, class, &key).unwrap();
                        assert_eq!(removed, before != model.len());
                    }
                    Op::Drain(most, first, second) => {
                        let mut expected: Vec<Buffered<String, i64>> = Vec::new();
                        let (mut keys, mut last) = (0, None);
                        model.retain(|entry| {
                            let this = Some((entry.time, entry.class, entry.key.clone()));
                            let until = if entry.class == 0 { first } else { second };
                            let goes = (keys < most || this == last) && entry.time < until;
                            if goes {
                                keys += usize::from(this != last);
                                last = this;
                                expected.push(entry.clone());
                            }
                            !goes
                        });
                        let drained = buffer.drain(&[(1, second), (0, first)], most).unwrap();
                        assert_eq!(drained, expected);
                    }
                    Op::Flush => flush(&mut buffer, &engine),
                    Op::Budget(bytes) => buffer.set_budget(bytes),
                    Op::Reopen => {
                        flush(&mut buffer, &engine);
                        buffer = self::buffer(&engine);
                    }
                }
                for class in 0..2 {
                    let first = model.iter().find(|entry| entry.class == class);
                    let first = first.map_or(Timestamp::MAX, |entry| entry.time);
                    assert!(buffer.oldest(class).unwrap() <= first);
                }
            }
            model.sort_by_key(|entry| entry.class);
            assert_eq!(buffer.all().unwrap(), model);
        }
    }
}
