//! Global stores: a process holds each of them whole, and all its tasks read them.
//!
//! The task that keeps a global store up to date is locked for a look-up, and while it processes a few
//! records; a reader sees the store between two records, as far as it has come by then.

use std::any::Any;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_api::Timestamp;

use super::Task;
use crate::error::{BuildError, StateError};
use crate::record::Data;
use crate::state::{KeyValueStore, Store};

/// The task of a global store, shared with those who read it.
#[derive(Clone)]
pub struct SharedTask(Arc<Mutex<Task>>);

impl SharedTask {
    /// Shares a task.
    pub fn new(task: Task) -> Self {
        Self(Arc::new(Mutex::new(task)))
    }

    /// The task; nobody reads it meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Task> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The global stores of a process, by name.
#[derive(Clone, Default)]
pub struct Globals(Arc<BTreeMap<String, SharedTask>>);

impl Globals {
    /// The stores of these tasks.
    pub fn of<'a>(tasks: impl IntoIterator<Item = &'a SharedTask>) -> Self {
        let mut all = BTreeMap::new();
        for shared in tasks {
            for store in shared.lock().core_mut().stores_mut().iter_mut() {
                all.insert(store.name().to_owned(), shared.clone());
            }
        }
        Self(Arc::new(all))
    }

    /// The store of this name and type, for the node `node`.
    pub(crate) fn store<S: Store>(
        &self,
        node: &str,
        name: &str,
    ) -> Result<GlobalStore<S>, BuildError> {
        let unknown = || BuildError::Unknown { node: node.into(), missing: name.into() };
        let shared = self.0.get(name).ok_or_else(unknown)?;
        let mut task = shared.lock();
        let stores = task.core_mut().stores_mut();
        let index = stores.position(name).ok_or_else(unknown)?;
        let store = stores.at(index);
        if !(store as &dyn Any).is::<S>() {
            return Err(BuildError::StoreType {
                node: node.into(),
                store: name.into(),
                asked: std::any::type_name::<S>(),
                found: store.type_name(),
            });
        }
        Ok(GlobalStore { task: shared.clone(), index, marker: PhantomData })
    }
}

/// A global store, to be read: every instance of the application has all of it. It follows its topic
/// by itself, so what a look-up finds depends on how far it has come.
pub struct GlobalStore<S> {
    task: SharedTask,
    index: usize,
    marker: PhantomData<fn() -> S>,
}

impl<S> Clone for GlobalStore<S> {
    fn clone(&self) -> Self {
        Self { task: self.task.clone(), index: self.index, marker: PhantomData }
    }
}

impl<S: Store> GlobalStore<S> {
    fn read<R>(&self, read: impl FnOnce(&mut S) -> R) -> R {
        let mut task = self.task.lock();
        let store: &mut dyn Any = task.core_mut().stores_mut().at(self.index);
        match store.downcast_mut() {
            Some(store) => read(store),
            // Its type was checked; a task that takes its place is of the same topology.
            None => unreachable!("a global store of another type"),
        }
    }
}

impl<K: Data + Eq + Hash, V: Data> GlobalStore<KeyValueStore<K, V>> {
    /// The value of a key and its time.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn get(&self, key: &K) -> Result<Option<(V, Timestamp)>, StateError> {
        self.read(|store| Ok(store.get(key)?.map(|(value, time)| (value.clone(), time))))
    }

    /// All entries, in the order of their encoded keys.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn all(&self) -> Result<Vec<(K, V, Timestamp)>, StateError> {
        self.read(KeyValueStore::all)
    }
}
