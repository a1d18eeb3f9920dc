//! The store of a table, and how its updates go on: at once, or at the seal, merged by key.

use std::hash::Hash;

use streams_core::processor::{Context, InitContext, StoreHandle};
use streams_core::serde::DynSerde;
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::topology::StoreSpec;
use streams_core::{BuildError, Change, Data, ProcessError, Record};

/// How a table is kept.
pub(crate) struct TableStore<K, V> {
    pub(crate) name: String,
    pub(crate) key: DynSerde<K>,
    pub(crate) value: DynSerde<V>,
    pub(crate) caching: bool,
    pub(crate) logging: bool,
    /// How long windows are kept, in milliseconds; `None`: as long as they must be.
    pub(crate) retention: Option<i64>,
}

impl<K: Data + Eq + Hash, V: Data> TableStore<K, V> {
    /// The store for a topology.
    pub(crate) fn spec(&self, sends_old_values: bool) -> StoreSpec {
        let options = StoreOptions {
            logged: self.logging,
            forward_on_seal: self.caching,
            keep_old: sends_old_values,
        };
        StoreSpec::key_value(&self.name, self.key.clone(), self.value.clone(), options)
    }

    /// The same for a processor.
    pub(crate) fn updates(&self) -> Updates<K, V> {
        Updates { store: self.name.clone(), caching: self.caching, handle: None }
    }
}

/// A processor's side of its table's store.
pub(crate) struct Updates<K, V> {
    store: String,
    caching: bool,
    handle: Option<StoreHandle<KeyValueStore<K, V>>>,
}

impl<K, V> Clone for Updates<K, V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), ..*self }
    }
}

impl<K: Data + Eq + Hash, V: Data> Updates<K, V> {
    /// Finds the store.
    pub(crate) fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handle = Some(cx.store(&self.store)?);
        Ok(())
    }

    /// The store.
    pub(crate) fn store<'a>(
        &self,
        cx: &'a mut Context<'_, K, Change<V>>,
    ) -> Result<&'a mut KeyValueStore<K, V>, ProcessError> {
        let handle = self.handle.ok_or_else(|| {
            ProcessError::user(format!("store '{}' was used before it was there", self.store))
        })?;
        Ok(cx.store(handle))
    }

    /// The time of an update. A deletion that is forwarded at the seal has the time of its own
    /// record, as in Kafka, where the cache no longer knows the aggregate's.
    pub(crate) fn time(&self, deletes: bool, own: i64, result: i64) -> i64 {
        if deletes && self.caching { own } else { result }
    }

    /// Puts a value, and forwards it unless that is done at the seal.
    pub(crate) fn put(
        &self,
        record: Record<K, Option<V>>,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let store = self.store(cx)?;
        if self.caching {
            store.put(key, value, timestamp)?;
            store.forward_with(headers);
            return Ok(());
        }
        let old = store.put(key.clone(), value.clone(), timestamp)?;
        cx.forward(Record { key, value: Change::new(value, old), timestamp, headers });
        Ok(())
    }

    /// Changes the value of a record's key, and forwards it unless that is done at the seal.
    /// `change` gets the value and its time, and answers the new time.
    pub(crate) fn update<X>(
        &self,
        record: Record<K, X>,
        change: impl FnOnce(&K, X, &mut Option<V>, Option<i64>) -> i64,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, headers, .. } = record;
        let store = self.store(cx)?;
        let updated = store.update(&key, |slot, time| change(&key, value, slot, time))?;
        if self.caching {
            store.forward_with(headers);
            return Ok(());
        }
        let value = Change::new(updated.new.cloned(), updated.old);
        let timestamp = updated.timestamp;
        cx.forward(Record { key, value, timestamp, headers });
        Ok(())
    }

    /// Forwards what was held back.
    pub(crate) fn drain(&self, cx: &mut Context<'_, K, Change<V>>) -> Result<(), ProcessError> {
        if !self.caching {
            return Ok(());
        }
        while let Some(update) = self.store(cx)?.next_forward()? {
            let value = Change::new(update.new, update.old);
            let (key, timestamp, headers) = (update.key, update.timestamp, update.headers);
            cx.forward(Record { key, value, timestamp, headers });
        }
        Ok(())
    }
}
