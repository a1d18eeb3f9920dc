//! Testing a topology in process: no broker, no threads, a clock that is advanced by hand.
//!
//! A record that is piped into a topic is processed at once, together with everything that it causes:
//! what is written to a topic that the topology reads is fed back, and there is a commit after every
//! record, so that every update is seen. Of several topics with waiting records, the one whose next
//! record is oldest goes first. Unless the settings say otherwise, every topic has one partition. Calls
//! of async operators run to their end at once, on a small tokio runtime of the driver's own.
//!
//! ```
//! use streams_core::{HasSerde, TopologyBuilder};
//! use streams_core::test_driver::TopologyTestDriver;
//! use streams_core::topology::NodeSpec;
//!
//! let mut builder = TopologyBuilder::new();
//! let (key, value) = (String::serde(), i64::serde());
//! builder.add(NodeSpec::source("in", vec!["a".into()], key.clone(), value.clone()))?;
//! builder.add(NodeSpec::sink("out", vec!["in".into()], "b", key, value, None))?;
//!
//! let driver = TopologyTestDriver::new(builder.build()?)?;
//! driver.input_topic::<String, i64>("a").pipe("k".into(), 5, 1_000)?;
//! let out = driver.output_topic::<String, i64>("b").read_all()?;
//! assert_eq!((out[0].key.as_str(), out[0].value, out[0].timestamp), ("k", 5, 1_000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod driver;
mod error;
mod opening;
mod store;
mod topics;
mod versioned;

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use broker_api::Timestamp;

use crate::failure::ErrorHandlers;
use crate::record::Data;
use crate::serde::{DynSerde, HasSerde};
use crate::state::RawEntry;
use crate::topology::Topology;

use driver::Driver;
pub use error::TestDriverError;
pub use store::{TestSessionStore, TestStore, TestWindowStore, TestWindowedStore};
pub use topics::{TestInputTopic, TestOutputTopic};
pub use versioned::TestVersionedStore;

/// Runs a topology for a test. See the module.
pub struct TopologyTestDriver {
    inner: Rc<RefCell<Driver>>,
}

/// What a driver can be told.
#[derive(Clone)]
pub struct TestDriverSettings {
    /// The application's id, which internal topics carry in front of their names. Default: `test`.
    pub application_id: String,
    /// Where the wall clock starts, in milliseconds since the Unix epoch. Default: 0.
    pub start: Timestamp,
    /// What happens to what cannot be handled. Default: fail.
    pub handlers: ErrorHandlers,
    /// How many partitions each topic has, unless the topology asks for another number. Default: 1.
    pub partitions: u32,
    /// Whether updates are merged until [`TopologyTestDriver::commit`]. Nothing that was written can be
    /// read before. Default: no.
    pub caching: bool,
    /// How long a call of an async operator may take, in real time. Default: 30 s.
    pub call_patience: Duration,
    /// Bytes of outputs, of changes in stores too, after which there is a commit in the midst of what one
    /// record lets go (of windows that close, for instance), as there is in an application. What comes
    /// out is the same. Default: no limit.
    pub seal_bytes: usize,
    /// Whether the application ends without having been asked, and starts again, after each commit in the
    /// midst of what one record lets go. Default: no.
    pub crash_between_parts: bool,
}

impl Default for TestDriverSettings {
    fn default() -> Self {
        Self {
            application_id: "test".into(),
            start: 0,
            handlers: ErrorHandlers::default(),
            partitions: 1,
            caching: false,
            call_patience: Duration::from_secs(30),
            seal_bytes: usize::MAX,
            crash_between_parts: false,
        }
    }
}

impl TopologyTestDriver {
    /// Runs a topology with the default settings.
    ///
    /// # Errors
    /// [`TestDriverError::Build`].
    pub fn new(topology: Topology) -> Result<Self, TestDriverError> {
        Self::with_settings(topology, TestDriverSettings::default())
    }

    /// Runs a topology.
    ///
    /// # Errors
    /// [`TestDriverError::Build`].
    pub fn with_settings(
        topology: Topology,
        settings: TestDriverSettings,
    ) -> Result<Self, TestDriverError> {
        Ok(Self { inner: Rc::new(RefCell::new(Driver::new(topology, settings)?)) })
    }

    /// A topic to pipe records into, encoded by the serdes of these types.
    pub fn input_topic<K: HasSerde, V: HasSerde>(&self, topic: &str) -> TestInputTopic<K, V> {
        self.input_topic_with(topic, K::serde(), V::serde())
    }

    /// The same with serdes by hand.
    pub fn input_topic_with<K: 'static, V: 'static>(
        &self,
        topic: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> TestInputTopic<K, V> {
        TestInputTopic::new(self.inner.clone(), topic, key, value)
    }

    /// A topic to read what the topology has written, decoded by the serdes of these types.
    pub fn output_topic<K: HasSerde, V: HasSerde>(&self, topic: &str) -> TestOutputTopic<K, V> {
        self.output_topic_with(topic, K::serde(), V::serde())
    }

    /// The same with serdes by hand, for instance for
    /// [`Windowed`](crate::Windowed) keys.
    pub fn output_topic_with<K: 'static, V: 'static>(
        &self,
        topic: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> TestOutputTopic<K, V> {
        TestOutputTopic::new(self.inner.clone(), topic, key, value)
    }

    /// A key-value store.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownStore`], [`TestDriverError::StoreType`].
    pub fn key_value_store<K, V>(&self, store: &str) -> Result<TestStore<K, V>, TestDriverError>
    where
        K: Data + Eq + std::hash::Hash,
        V: Data,
    {
        TestStore::new(self.inner.clone(), store)
    }

    /// A store of windows of a fixed size.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownStore`], [`TestDriverError::StoreType`].
    pub fn window_store<K: Data, V: Data>(
        &self,
        store: &str,
    ) -> Result<TestWindowStore<K, V>, TestDriverError> {
        TestWindowStore::new(self.inner.clone(), store)
    }

    /// A versioned store.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownStore`], [`TestDriverError::StoreType`].
    pub fn versioned_store<K, V>(
        &self,
        store: &str,
    ) -> Result<TestVersionedStore<K, V>, TestDriverError>
    where
        K: crate::Data,
        V: crate::Data,
    {
        TestVersionedStore::new(self.inner.clone(), store)
    }

    /// A store of sessions.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownStore`], [`TestDriverError::StoreType`].
    pub fn session_store<K: Data, V: Data>(
        &self,
        store: &str,
    ) -> Result<TestSessionStore<K, V>, TestDriverError> {
        TestSessionStore::new(self.inner.clone(), store)
    }

    /// Any store, by its Rust type.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownStore`], [`TestDriverError::StoreType`], and those of `work`.
    pub fn with_store<S: crate::state::Store, R>(
        &self,
        store: &str,
        work: impl FnOnce(&mut S) -> Result<R, TestDriverError>,
    ) -> Result<R, TestDriverError> {
        store::with_store(&self.inner, store, work)
    }

    /// From now on stores are those of this partition. Default: 0.
    pub fn look_at_partition(&self, partition: u32) {
        self.borrow().look_at(partition);
    }

    /// Commits what was processed, and what follows from that. Only with `caching` there is anything
    /// to commit.
    ///
    /// # Errors
    /// [`TestDriverError::Process`].
    pub fn commit(&self) -> Result<(), TestDriverError> {
        self.borrow().commit()
    }

    /// How many commits there were, of each task one.
    pub fn commits(&self) -> u64 {
        self.borrow().commits
    }

    /// The application ends without having been asked, and starts again: what is not committed is
    /// lost, and all stores with it. They are made anew from their changelogs (those that have none are
    /// empty), and what was not committed is processed again. What was written stays.
    ///
    /// # Errors
    /// [`TestDriverError::Process`].
    pub fn crash(&self) -> Result<(), TestDriverError> {
        self.borrow().crash()
    }

    /// Notes the ways of records through the topology from now on, or no more.
    pub fn trace(&self, on: bool) {
        self.borrow().set_tracing(on);
    }

    /// The ways of records since [`TopologyTestDriver::trace`] or the last call, to be printed: each
    /// record that a task took, the nodes that it or what became of it came to, and what was written.
    pub fn take_trace(&self) -> String {
        self.borrow().take_trace()
    }

    /// The names of all stores.
    pub fn store_names(&self) -> Vec<String> {
        self.borrow().store_names()
    }

    /// The encoded entries of a store, whatever its kind: (key, value, timestamp), by key bytes.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownStore`], [`TestDriverError::State`].
    pub fn dump_store(&self, store: &str) -> Result<Vec<RawEntry>, TestDriverError> {
        self.borrow().with_store(store, |store| Ok(store.dump()?))
    }

    /// Moves the wall clock, and does what is due then.
    ///
    /// # Errors
    /// [`TestDriverError::Process`].
    pub fn advance_wall_clock(&self, by: Duration) -> Result<(), TestDriverError> {
        self.borrow().advance(by)
    }

    /// The names of all topics that were written so far, changelogs included.
    pub fn produced_topic_names(&self) -> Vec<String> {
        self.borrow().outputs.keys().map(ToString::to_string).collect()
    }

    /// How many records were left out, by reason.
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.borrow().dropped()
    }

    fn borrow(&self) -> RefMut<'_, Driver> {
        self.inner.borrow_mut()
    }
}
