//! The entries of a window store that is asked for one window at a time: counts and other folds in
//! tumbling and hopping windows, where most records meet the windows of the records before.
//!
//! They are a key-value store whose keys are the encoded ones: values stay as they are between
//! updates, and a hash finds them. As long as nothing is evicted it is known that a window that has
//! just begun has no entry in the engine. Scans look at the engine and at everything that is not
//! clean.

use std::ops::ControlFlow;
use std::sync::Arc;

use broker_api::Timestamp;
use bytes::Bytes;

use super::WindowedOptions;
use crate::error::{SerdeError, StateError};
use crate::record::Data;
use crate::serde::{DynSerde, Serde};
use crate::state::windowed_keys::{Kind, Layout};
use crate::state::{Forward, KeyValueStore, StoreEngine, StoreOptions};

/// An encoded key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct WindowKey(pub(super) Vec<u8>);

struct AsItIs;

impl Serde<WindowKey> for AsItIs {
    fn put(&self, key: &WindowKey, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.extend_from_slice(&key.0);
        Ok(())
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<WindowKey, SerdeError> {
        Ok(WindowKey(bytes.to_vec()))
    }

    fn weight(&self, key: &WindowKey) -> usize {
        size_of::<WindowKey>() + key.0.len()
    }
}

const LAYOUT: Layout = Layout { kind: Kind::Window, by_time: false };

/// See the module.
pub(super) struct Points<V> {
    pub(super) store: KeyValueStore<WindowKey, V>,
}

impl<V: Data> Points<V> {
    pub(super) fn new(
        name: &str,
        value: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        options: &WindowedOptions,
    ) -> Self {
        let WindowedOptions { logged, forward_on_seal, keep_old, .. } = *options;
        let keep_old = keep_old && forward_on_seal;
        let options = StoreOptions { logged, forward_on_seal, keep_old, ..StoreOptions::default() };
        let time_of = |key: &WindowKey| LAYOUT.expires_by(&key.0);
        let store =
            KeyValueStore::with_times(name, Arc::new(AsItIs), value, engine, options, time_of);
        Self { store }
    }

    pub(super) fn get(&mut self, key: &WindowKey) -> Result<Option<(V, Timestamp)>, StateError> {
        Ok(self.store.get(key)?.map(|(value, timestamp)| (value.clone(), timestamp)))
    }

    /// As [`KeyValueStore::look_up`].
    pub(super) fn look_up(
        &mut self,
        key: &WindowKey,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        Ok(self.store.look_up(key)?.map(|(value, timestamp)| (value.clone(), timestamp)))
    }

    pub(super) fn put(
        &mut self,
        key: &WindowKey,
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.update(key, |present, _| {
            *present = value;
            timestamp
        })
    }

    pub(super) fn update(
        &mut self,
        key: &WindowKey,
        change: impl FnOnce(&mut Option<V>, Option<Timestamp>) -> Timestamp,
    ) -> Result<(), StateError> {
        self.store.update(key, change).map(|_| ())
    }

    /// As [`OrderedCache::visit`](crate::state::ordered::OrderedCache::visit).
    pub(super) fn visit(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        for (key, (timestamp, value)) in self.store.encoded(from, to)? {
            if visit(&key, &value, timestamp).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn next_forward(&mut self) -> Result<Option<Forward<Bytes, V>>, StateError> {
        let forward = self.store.next_forward()?;
        Ok(forward.map(|Forward { key, new, old, was_seen, timestamp, headers }| Forward {
            key: Bytes::from(key.0),
            new,
            old,
            was_seen,
            timestamp,
            headers,
        }))
    }

    /// What is over need not be kept in memory.
    pub(super) fn expire(&mut self, up_to: Timestamp) {
        self.store.forget_up_to(up_to);
    }
}
