//! Looking into the stores of a topology under test.

use std::cell::RefCell;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;

use broker_api::Timestamp;

use super::TestDriverError;
use super::driver::Driver;
use crate::record::Data;
use crate::state::{Found, KeyValueStore, WindowStore};

/// Does something with a store of this type.
pub(super) fn with_store<S: 'static, R>(
    driver: &RefCell<Driver>,
    name: &str,
    work: impl FnOnce(&mut S) -> Result<R, TestDriverError>,
) -> Result<R, TestDriverError> {
    driver.borrow_mut().with_store(name, |store| {
        let found = store.type_name();
        match store.as_any_mut().downcast_mut() {
            Some(store) => work(store),
            None => Err(TestDriverError::StoreType {
                store: name.into(),
                asked: std::any::type_name::<S>(),
                found,
            }),
        }
    })
}

/// A key-value store of a topology under test.
pub struct TestStore<K, V> {
    driver: Rc<RefCell<Driver>>,
    name: String,
    marker: PhantomData<fn(K) -> V>,
}

impl<K: Data + Eq + Hash, V: Data> TestStore<K, V> {
    pub(super) fn new(driver: Rc<RefCell<Driver>>, name: &str) -> Result<Self, TestDriverError> {
        let store = Self { driver, name: name.into(), marker: PhantomData };
        store.with(|_| Ok(()))?;
        Ok(store)
    }

    fn with<R>(
        &self,
        work: impl FnOnce(&mut KeyValueStore<K, V>) -> Result<R, TestDriverError>,
    ) -> Result<R, TestDriverError> {
        with_store(&self.driver, &self.name, work)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn get(&self, key: &K) -> Result<Option<V>, TestDriverError> {
        self.with(|store| Ok(store.get(key)?.map(|(value, _)| value.clone())))
    }

    /// The value of a key and its time.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn get_with_timestamp(&self, key: &K) -> Result<Option<(V, Timestamp)>, TestDriverError> {
        self.with(|store| Ok(store.get(key)?.map(|(value, time)| (value.clone(), time))))
    }

    /// All entries, in the order of their encoded keys.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn all(&self) -> Result<Vec<(K, V)>, TestDriverError> {
        let entries = self.with(|store| Ok(store.all()?))?;
        Ok(entries.into_iter().map(|(key, value, _)| (key, value)).collect())
    }

    /// Sets the value of a key, as if an operator had done so; `None` deletes it.
    ///
    /// # Errors
    /// [`TestDriverError::State`], and [`TestDriverError::Process`] from what follows.
    pub fn put(
        &self,
        key: K,
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<(), TestDriverError> {
        self.with(|store| Ok(store.put(key, value, timestamp).map(|_| ())?))?;
        self.driver.borrow_mut().seal_store(&self.name)
    }
}

/// A store of windows of a fixed size, of a topology under test.
pub struct TestWindowStore<K, V> {
    driver: Rc<RefCell<Driver>>,
    name: String,
    marker: PhantomData<fn(K) -> V>,
}

impl<K: Data, V: Data> TestWindowStore<K, V> {
    pub(super) fn new(driver: Rc<RefCell<Driver>>, name: &str) -> Result<Self, TestDriverError> {
        let store = Self { driver, name: name.into(), marker: PhantomData };
        store.with(|_| Ok(()))?;
        Ok(store)
    }

    fn with<R>(
        &self,
        work: impl FnOnce(&mut WindowStore<K, V>) -> Result<R, TestDriverError>,
    ) -> Result<R, TestDriverError> {
        with_store(&self.driver, &self.name, work)
    }

    /// The value of a key in the window that begins at `start`.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn get(&self, key: &K, start: Timestamp) -> Result<Option<V>, TestDriverError> {
        self.with(|store| Ok(store.get(key, start)?.map(|(value, _)| value)))
    }

    /// All windows that have not expired, by the bytes of their keys and then by time: key, value and
    /// its time.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn all(&self) -> Result<Vec<Found<K, V>>, TestDriverError> {
        self.with(|store| Ok(store.all()?))
    }
}
