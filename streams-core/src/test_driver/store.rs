//! Looking into the stores of a topology under test.

use std::any::Any;
use std::cell::RefCell;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;

use broker_api::Timestamp;

use super::TestDriverError;
use super::driver::Driver;
use crate::record::Data;
use crate::state::{Fixed, Found, KeyValueStore, Session, WindowKind, WindowedStore};
use crate::windowed::Window;

/// Does something with a store of this type.
pub(super) fn with_store<S: 'static, R>(
    driver: &RefCell<Driver>,
    name: &str,
    work: impl FnOnce(&mut S) -> Result<R, TestDriverError>,
) -> Result<R, TestDriverError> {
    driver.borrow_mut().with_store(name, |store| {
        let found = store.type_name();
        match (store as &mut dyn Any).downcast_mut() {
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

/// A store of windows or of sessions, of a topology under test.
pub struct TestWindowedStore<K, V, W> {
    driver: Rc<RefCell<Driver>>,
    name: String,
    marker: PhantomData<fn(K, W) -> V>,
}

/// A store of windows of a fixed size.
pub type TestWindowStore<K, V> = TestWindowedStore<K, V, Fixed>;

/// A store of sessions.
pub type TestSessionStore<K, V> = TestWindowedStore<K, V, Session>;

impl<K: Data, V: Data, W: WindowKind> TestWindowedStore<K, V, W> {
    pub(super) fn new(driver: Rc<RefCell<Driver>>, name: &str) -> Result<Self, TestDriverError> {
        let store = Self { driver, name: name.into(), marker: PhantomData };
        store.with(|_| Ok(()))?;
        Ok(store)
    }

    fn with<R>(
        &self,
        work: impl FnOnce(&mut WindowedStore<K, V, W>) -> Result<R, TestDriverError>,
    ) -> Result<R, TestDriverError> {
        with_store(&self.driver, &self.name, work)
    }

    /// All windows or sessions that have not expired, by the bytes of their keys and then by time: key,
    /// value and its time.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn all(&self) -> Result<Vec<Found<K, V>>, TestDriverError> {
        self.with(|store| Ok(store.all()?))
    }
}

impl<K: Data, V: Data> TestWindowStore<K, V> {
    /// The value of a key in the window that begins at `start`.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn get(&self, key: &K, start: Timestamp) -> Result<Option<V>, TestDriverError> {
        self.with(|store| Ok(store.get(key, start)?.map(|(value, _)| value)))
    }
}

impl<K: Data, V: Data> TestSessionStore<K, V> {
    /// The value of a session.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn get(&self, key: &K, session: Window) -> Result<Option<V>, TestDriverError> {
        self.with(|store| Ok(store.get(key, session)?.map(|(value, _)| value)))
    }

    /// The sessions of a key that have not expired, by rising end.
    ///
    /// # Errors
    /// [`TestDriverError::State`].
    pub fn sessions(&self, key: &K) -> Result<Vec<(Window, V)>, TestDriverError> {
        let found = self.with(|store| Ok(store.find(key, 0, Timestamp::MAX)?))?;
        Ok(found.into_iter().map(|(session, value, _)| (session, value)).collect())
    }
}
