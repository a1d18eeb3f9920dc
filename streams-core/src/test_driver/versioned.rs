//! Looking into the versioned stores of a topology under test.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use broker_api::Timestamp;

use super::TestDriverError;
use super::driver::Driver;
use super::store::with_store;
use crate::error::StateError;
use crate::record::Data;
use crate::state::{Version, VersionedStore};

/// A versioned store of a topology under test.
pub struct TestVersionedStore<K, V> {
    driver: Rc<RefCell<Driver>>,
    name: String,
    marker: PhantomData<fn(K) -> V>,
}

impl<K: Data, V: Data> TestVersionedStore<K, V> {
    pub(super) fn new(driver: Rc<RefCell<Driver>>, name: &str) -> Result<Self, TestDriverError> {
        let store = Self { driver, name: name.into(), marker: PhantomData };
        store.with(|_| Ok(()))?;
        Ok(store)
    }

    fn with<R>(
        &self,
        work: impl FnOnce(&mut VersionedStore<K, V>) -> Result<R, StateError>,
    ) -> Result<R, TestDriverError> {
        with_store(&self.driver, &self.name, |store| Ok(work(store)?))
    }

    /// The value that a key has now, and since when.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn get(&self, key: &K) -> Result<Option<(V, Timestamp)>, TestDriverError> {
        self.with(|store| store.get(key))
    }

    /// The value that a key had at a time, and since when.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn get_as_of(
        &self,
        key: &K,
        time: Timestamp,
    ) -> Result<Option<(V, Timestamp)>, TestDriverError> {
        self.with(|store| store.get_as_of(key, time))
    }

    /// The values that a key had between two times, both included, in their order.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn history(
        &self,
        key: &K,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Version<V>>, TestDriverError> {
        self.with(|store| store.history(key, from, to))
    }
}
