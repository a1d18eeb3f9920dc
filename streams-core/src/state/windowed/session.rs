//! One session of a key at a time, and those that a record may fall into.

use std::sync::Arc;

use broker_api::Timestamp;

use super::{Session, WindowedOptions, WindowedStore};
use crate::error::StateError;
use crate::record::Data;
use crate::serde::DynSerde;
use crate::state::StoreEngine;
use crate::windowed::Window;

impl<K: Data, V: Data> WindowedStore<K, V, Session> {
    /// A store over `engine`, which must be restored before the first access.
    pub fn new(
        name: &str,
        key_serde: DynSerde<K>,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        options: WindowedOptions,
    ) -> Self {
        Self::with_kind(name, (key_serde, value_serde), engine, 0, options)
    }

    /// The value of a session, and its time.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn get(&mut self, key: &K, session: Window) -> Result<Option<(V, Timestamp)>, StateError> {
        self.value(key, session.start, session.end)
    }

    /// As [`WindowStore::look_up`](super::WindowStore::look_up).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn look_up(
        &mut self,
        key: &K,
        session: Window,
        drains: bool,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        self.value_seen(key, (session.start, session.end), drains)
    }

    /// Sets the value of a session; `None` deletes it. Answers whether the store took it: it does
    /// not if the session has expired.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put(
        &mut self,
        key: &K,
        session: Window,
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<bool, StateError> {
        self.set(key, (session.start, session.end, 0), value, timestamp)
    }

    /// The sessions of a key that end at `earliest_end` or later and begin at `latest_start` or
    /// earlier, by rising end.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn find(
        &mut self,
        key: &K,
        earliest_end: Timestamp,
        latest_start: Timestamp,
    ) -> Result<Vec<(Window, V, Timestamp)>, StateError> {
        let mut found = Vec::new();
        self.visit_key(key, earliest_end, Timestamp::MAX, |codec, parts, value, timestamp| {
            if parts.start <= latest_start {
                let window = Window { start: parts.start, end: parts.end };
                found.push((window, codec.value(value)?, timestamp));
            }
            Ok(())
        })?;
        Ok(found)
    }
}
