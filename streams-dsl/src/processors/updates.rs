//! The store of a table, and how its updates go on: at once, or at the seal, merged by key.

use std::hash::Hash;

use streams_core::processor::{Context, InitContext, StoreHandle};
use streams_core::serde::DynSerde;
use streams_core::state::{
    Forward, KeyValueStore, Put, StoreOptions, VersionedOptions, VersionedStore,
};
use streams_core::topology::StoreSpec;
use streams_core::{BuildError, Change, Data, ProcessError, Record};

/// How a table is kept.
pub(crate) struct TableStore<K, V> {
    pub(crate) name: String,
    pub(crate) key: DynSerde<K>,
    pub(crate) value: DynSerde<V>,
    pub(crate) caching: bool,
    pub(crate) logging: bool,
    pub(crate) in_memory: bool,
    /// How long windows are kept, in milliseconds; `None`: as long as they must be.
    pub(crate) retention: Option<i64>,
    /// How long the history of a versioned table is, in milliseconds.
    pub(crate) history: Option<i64>,
    /// How many keys it has at most.
    pub(crate) max_entries: Option<usize>,
}

impl<K: Data + Eq + Hash, V: Data> TableStore<K, V> {
    /// The store for a topology.
    pub(crate) fn spec(&self, sends_old_values: bool) -> StoreSpec {
        let (key, value) = (self.key.clone(), self.value.clone());
        if let Some(retention) = self.history {
            let options = VersionedOptions { logged: self.logging, retention };
            return self.kept(StoreSpec::versioned(&self.name, key, value, options));
        }
        let options = StoreOptions {
            logged: self.logging,
            forward_on_seal: self.caching,
            keep_old: sends_old_values,
            max_entries: self.max_entries,
        };
        self.kept(StoreSpec::key_value(&self.name, key, value, options))
    }

    /// Whether its changelog would be what the table is made of.
    pub(crate) fn is_copy(&self) -> bool {
        self.logging && self.history.is_none() && self.max_entries.is_none()
    }

    /// Why it cannot keep windows or sessions, if so.
    pub(crate) fn unfit_for_windows(&self) -> Option<&'static str> {
        match self {
            Self { history: Some(_), .. } => Some(
                "windows have no history; give their store a retention (with_retention) instead",
            ),
            Self { max_entries: Some(_), .. } => {
                Some("windows go by their age; give their store a retention instead of lru_map")
            }
            _ => None,
        }
    }

    /// A store of any kind where the table wants it: in files or in memory.
    pub(crate) fn kept(&self, spec: StoreSpec) -> StoreSpec {
        if self.in_memory { spec.in_memory() } else { spec }
    }

    /// The same for a processor.
    pub(crate) fn updates(&self) -> Updates<K, V> {
        let is_versioned = self.history.is_some();
        Updates { store: self.name.clone(), caching: self.caching, is_versioned, handle: None }
    }
}

/// A processor's side of its table's store.
pub(crate) struct Updates<K, V> {
    store: String,
    caching: bool,
    is_versioned: bool,
    handle: Option<Kept<K, V>>,
}

/// The store that a table is kept in.
enum Kept<K, V> {
    Latest(StoreHandle<KeyValueStore<K, V>>),
    Versioned(StoreHandle<VersionedStore<K, V>>),
}

impl<K, V> Clone for Kept<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Kept<K, V> {}

impl<K, V> Clone for Updates<K, V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), ..*self }
    }
}

impl<K: Data + Eq + Hash, V: Data> Updates<K, V> {
    /// Finds the store.
    pub(crate) fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handle = Some(match self.is_versioned {
            true => Kept::Versioned(cx.store(&self.store)?),
            false => Kept::Latest(cx.store(&self.store)?),
        });
        Ok(())
    }

    fn kept(&self) -> Result<Kept<K, V>, ProcessError> {
        self.handle.ok_or_else(|| {
            ProcessError::user(format!("store '{}' was used before it was there", self.store))
        })
    }

    /// Whether a key has a value now.
    pub(crate) fn has(
        &self,
        key: &K,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<bool, ProcessError> {
        Ok(match self.kept()? {
            Kept::Latest(store) => cx.stores().look_into(store).get(key)?.is_some(),
            Kept::Versioned(store) => cx.stores().look_into(store).get(key)?.is_some(),
        })
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
        let store = match self.kept()? {
            Kept::Latest(store) => cx.store(store),
            Kept::Versioned(store) => return put_version(store, record, cx),
        };
        let Record { key, value, timestamp, headers } = record;
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
        let store = match self.kept()? {
            Kept::Latest(store) => cx.store(store),
            Kept::Versioned(store) => {
                let (mut slot, time) = cx.store(store).get(&key)?.unzip();
                let timestamp = change(&key, value, &mut slot, time);
                return put_version(store, Record { key, value: slot, timestamp, headers }, cx);
            }
        };
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
        let Kept::Latest(store) = self.kept()? else { return Ok(()) };
        if !self.caching {
            return Ok(());
        }
        while let Some(update) = cx.store(store).next_forward()? {
            let Forward { key, new, old, was_seen, timestamp, headers } = update;
            let value = Change { was_seen, ..Change::new(new, old) };
            cx.forward(Record { key, value, timestamp, headers });
        }
        Ok(())
    }
}

/// Puts a version, and forwards it unless it is older than the history. One that is not the latest is
/// forwarded as such.
fn put_version<K: Data, V: Data>(
    store: StoreHandle<VersionedStore<K, V>>,
    record: Record<K, Option<V>>,
    cx: &mut Context<'_, K, Change<V>>,
) -> Result<(), ProcessError> {
    let Record { key, value: new, timestamp, headers } = record;
    let store = cx.store(store);
    let old = store.get(&key)?.map(|(value, _)| value);
    let is_latest = match store.put(&key, new.as_ref(), timestamp)? {
        Put::Latest => true,
        Put::Until(_) => false,
        Put::Rejected => {
            cx.drop_record("older than the history of a versioned table");
            return Ok(());
        }
    };
    let value = Change { is_latest, ..Change::new(new, old) };
    cx.forward(Record { key, value, timestamp, headers });
    Ok(())
}
