//! One entry at a time: its key, its value, and when it has expired.

use std::path::PathBuf;

use broker_api::Timestamp;
use bytes::Bytes;

use super::{Entries, WindowKind, WindowedStore};
use crate::error::StateError;
use crate::record::Data;
use crate::state::windowed_keys::NO_TIME;
use crate::windowed::{Window, Windowed};

impl<K: Data, V: Data, W: WindowKind> WindowedStore<K, V, W> {
    /// Lets go of what is found by time and ends (of windows: begins) at this time or earlier, as far
    /// as it has expired. Without it a store with [`by_time`](super::WindowedOptions::by_time) keeps everything.
    pub fn release(&mut self, up_to: Timestamp) {
        self.released = self.released.max(up_to);
        self.expire_at_once();
    }

    /// What expires by this time or earlier is of no more use.
    pub(super) fn gone(&self) -> Timestamp {
        let time = self.look_back.as_ref().map_or(self.time, |seen| seen.time(true));
        let expired = time.saturating_sub(self.options.retention);
        if self.options.by_time { expired.min(self.released) } else { expired }
    }

    /// Time goes on with an update.
    pub(super) fn observe(&mut self, time: Timestamp) {
        if let Some(look_back) = &mut self.look_back {
            look_back.advance(self.time, time);
        }
        self.time = self.time.max(time);
        self.expire_at_once();
    }

    /// What operators look into stays until the seal, when they are told of changes.
    pub(super) fn expire_at_once(&mut self) {
        if self.look_back.is_none() {
            self.expire();
        }
    }

    pub(super) fn expire(&mut self) {
        let gone = self.gone();
        match &mut self.entries {
            Entries::Points(points) => points.expire(gone),
            Entries::Ordered(cache) => cache.expire(gone),
        }
    }

    /// Whether what expires by this time is shown and taken.
    pub(super) fn is_live(&self, expires_by: Timestamp) -> bool {
        expires_by > self.time.saturating_sub(self.options.retention)
    }

    pub(super) fn value(
        &mut self,
        key: &K,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        if !self.is_live(end) {
            return Ok(None);
        }
        self.encode(key, (start, end, 0))?;
        match &mut self.entries {
            Entries::Points(points) => points.get(&self.scratch),
            Entries::Ordered(cache) => {
                let found = cache.get(&self.scratch.0)?;
                found.map(|(value, time)| Ok((self.codec.value(&value)?, time))).transpose()
            }
        }
    }

    /// As `value`, for operators.
    pub(super) fn value_seen(
        &mut self,
        key: &K,
        (start, end): (Timestamp, Timestamp),
        drains: bool,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        let time = self.look_back.as_ref().map_or(self.time, |seen| seen.time(drains));
        if end <= time.saturating_sub(self.options.retention) {
            return Ok(None);
        }
        self.encode(key, (start, end, 0))?;
        match &mut self.entries {
            Entries::Points(points) => points.look_up(&self.scratch),
            Entries::Ordered(cache) => {
                let found = cache.look_up(&self.scratch.0)?;
                found.map(|(value, time)| Ok((self.codec.value(&value)?, time))).transpose()
            }
        }
    }

    /// As [`KeyValueStore::forwarded`](crate::state::KeyValueStore::forwarded), of a key in a window.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn forwarded(&mut self, key: &K, window: Window) -> Result<Option<Option<V>>, StateError> {
        let end = if W::IS_SESSION { window.end } else { window.start };
        self.encode(key, (window.start, end, 0))?;
        let before = match &mut self.entries {
            Entries::Points(points) => {
                return Ok(points.store.forwarded(&self.scratch).map(Option::<&V>::cloned));
            }
            Entries::Ordered(cache) => cache.forwarded(&self.scratch.0),
        };
        let value = |before: Option<&(Bytes, Timestamp)>| {
            before.map(|(value, _)| self.codec.value(value)).transpose()
        };
        before.map(value).transpose()
    }

    pub(super) fn set(
        &mut self,
        key: &K,
        (start, end, number): (Timestamp, Timestamp, u32),
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<bool, StateError> {
        self.observe(end);
        if !self.is_live(end) {
            return Ok(false);
        }
        let value = value.filter(|value| !self.codec.is_null(value));
        self.encode(key, (start, end, number))?;
        let bytes = &self.scratch.0;
        let cache = match &mut self.entries {
            Entries::Ordered(cache) => cache,
            Entries::Points(points) => {
                points.put(&self.scratch, value, timestamp)?;
                return Ok(true);
            }
        };
        let value = match value {
            Some(value) => {
                let mut bytes = Vec::new();
                self.codec.put_value(&value, &mut bytes)?;
                Some(Bytes::from(bytes))
            }
            None => None,
        };
        if self.layout.by_time {
            let mut by_time = Vec::with_capacity(bytes.len());
            if self.layout.put_by_time(bytes, &mut by_time).is_none() {
                return Err(self.corrupt(&self.scratch.0));
            }
            // It only says that there is a value, whichever.
            if cache.get(&by_time)?.is_some() != value.is_some() {
                cache.put(&by_time, value.is_some().then(Bytes::new), NO_TIME)?;
            }
        }
        cache.put(bytes, value, timestamp)?;
        self.changed.clone_from(&self.scratch.0);
        Ok(true)
    }

    /// Leaves the key of an entry in `scratch`.
    pub(super) fn encode(
        &mut self,
        key: &K,
        (start, end, number): (Timestamp, Timestamp, u32),
    ) -> Result<(), StateError> {
        let bytes = &mut self.scratch.0;
        bytes.clear();
        self.layout.begin(bytes);
        self.codec.put_key(key, bytes)?;
        self.layout.kind.put_suffix(start, end, number, bytes);
        Ok(())
    }

    pub(super) fn windowed(&self, key: &Bytes) -> Result<Windowed<K>, StateError> {
        let parts = self.layout.parts(key).ok_or_else(|| self.corrupt(key))?;
        let end = if W::IS_SESSION { parts.end } else { parts.start.saturating_add(self.size) };
        Ok(Windowed::new(self.codec.key(&key.slice(parts.key))?, parts.start, end))
    }

    pub(super) fn corrupt(&self, key: &[u8]) -> StateError {
        StateError::Corrupt {
            path: PathBuf::from(self.codec.store()),
            reason: format!("a key of {} bytes, which cannot be a window's", key.len()),
        }
    }
}
