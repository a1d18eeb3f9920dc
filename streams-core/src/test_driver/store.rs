//! Looking into the stores of a topology under test.

use std::cell::RefCell;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;

use broker_api::Timestamp;

use super::TestDriverError;
use super::driver::Driver;
use crate::record::Data;
use crate::state::KeyValueStore;

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
        let mut driver = self.driver.borrow_mut();
        let store = driver.store(&self.name)?;
        let found = store.type_name();
        match store.as_any_mut().downcast_mut() {
            Some(store) => work(store),
            None => Err(TestDriverError::StoreType {
                store: self.name.clone(),
                asked: std::any::type_name::<KeyValueStore<K, V>>(),
                found,
            }),
        }
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
        let mut driver = self.driver.borrow_mut();
        let task = driver.task_of(&self.name)?;
        driver.seal(task)
    }
}
