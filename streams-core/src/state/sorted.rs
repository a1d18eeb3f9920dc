//! A key-value store that is read in the order of its keys' bytes, in slices.
//!
//! Keys are bytes, made by whoever uses it: what belongs together has keys that begin alike. What was
//! changed is in memory in order, over the engine, so that a slice costs what is in it, however much
//! else was changed. In the engine and in the changelog, which is compacted, it looks like a
//! [`KeyValueStore`](super::KeyValueStore).
//!
//! After an error, and after a panic in a function of the application, the store must be dropped and
//! opened again.

use std::ops::ControlFlow;
use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::entry_codec::EntryCodec;
use super::ordered::OrderedCache;
use super::{Store, StoreCache, StoreEngine};
use crate::error::StateError;
use crate::record::Data;
use crate::serde::{DynSerde, HasSerde};

/// See the module.
pub struct SortedStore<V> {
    codec: EntryCodec<Bytes, V>,
    cache: OrderedCache,
}

impl<V: Data> SortedStore<V> {
    /// A store over `engine`, which must be restored before the first access.
    pub fn new(
        name: &str,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        logged: bool,
    ) -> Self {
        // No key is older than another one: under pressure memory is left with what was changed.
        let time_of = |_: &[u8]| 0;
        Self {
            codec: EntryCodec::new(name, Bytes::serde(), value_serde),
            cache: OrderedCache::new(name, engine, time_of, logged, false),
        }
    }

    /// Sets the value of a key; `None` deletes it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put(
        &mut self,
        key: &[u8],
        value: Option<&V>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        let encode = |value| {
            let mut bytes = Vec::new();
            self.codec.put_value(value, &mut bytes).map(|()| Bytes::from(bytes))
        };
        let value = value.map(encode).transpose()?;
        self.cache.put(key, value, timestamp)
    }

    /// The first entries, `most` at most, with `from <= key < to`, in order.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn slice(
        &mut self,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<(Bytes, V)>, StateError> {
        let mut found = Vec::new();
        self.cache.visit(from, Some(to), 0, |key, value, _| {
            if found.len() == most {
                return ControlFlow::Break(());
            }
            found.push((Bytes::copy_from_slice(key), value.clone()));
            ControlFlow::Continue(())
        })?;
        found.into_iter().map(|(key, value)| Ok((key, self.codec.value(&value)?))).collect()
    }
}

impl<V: Data> Store for SortedStore<V> {
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
    use std::collections::BTreeMap;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
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

    fn store(engine: &LossyEngine) -> SortedStore<i64> {
        SortedStore::new("s", i64::serde(), open(engine), true)
    }

    fn flush(store: &mut SortedStore<i64>, engine: &LossyEngine) {
        store.seal(&mut Ignored).unwrap();
        let mut batch = store.begin_flush().unwrap();
        open(engine).apply(&mut batch, &engine_suite::position(1)).unwrap();
        store.flushed();
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(Vec<u8>, Option<i64>),
        Slice(Vec<u8>, Vec<u8>, usize),
        Flush,
        Budget(usize),
        Reopen,
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = || proptest::collection::vec(0..3u8, 0..3);
        prop_oneof![
            8 => (key(), proptest::option::weighted(0.7, 0..9i64)).prop_map(|(k, v)| Op::Put(k, v)),
            4 => (key(), key(), 0..4usize).prop_map(|(from, to, most)| Op::Slice(from, to, most)),
            2 => Just(Op::Flush),
            1 => prop_oneof![Just(0), Just(usize::MAX)].prop_map(Op::Budget),
            1 => Just(Op::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn agrees_with_a_sorted_map(ops in proptest::collection::vec(op(), 0..80)) {
            let engine = LossyEngine::new();
            let mut store = store(&engine);
            let mut model: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Put(key, value) => {
                        store.put(&key, value.as_ref(), 7).unwrap();
                        match value {
                            Some(value) => drop(model.insert(key, value)),
                            None => drop(model.remove(&key)),
                        }
                    }
                    Op::Slice(from, to, most) => {
                        let expected = model.iter().filter(|(key, _)| from <= **key && **key < to);
                        let expected: Vec<_> = expected
                            .take(most)
                            .map(|(key, value)| (Bytes::from(key.clone()), *value))
                            .collect();
                        assert_eq!(store.slice(&from, &to, most).unwrap(), expected);
                    }
                    Op::Flush => flush(&mut store, &engine),
                    Op::Budget(bytes) => store.set_budget(bytes),
                    Op::Reopen => {
                        flush(&mut store, &engine);
                        store = self::store(&engine);
                    }
                }
            }
            let dumped: Vec<_> = store.dump().unwrap().into_iter().map(|(key, ..)| key).collect();
            assert_eq!(dumped, model.into_keys().collect::<Vec<_>>());
        }
    }
}
