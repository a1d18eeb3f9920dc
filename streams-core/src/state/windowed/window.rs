//! One window of a key at a time, found by its start, and the windows of a key.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::Timestamp;

use super::{Entries, Fixed, WindowedOptions, WindowedStore};
use crate::error::StateError;
use crate::record::Data;
use crate::serde::DynSerde;
use crate::state::StoreEngine;

/// How many values of one window are looked at one by one.
const STEPS: u32 = 16;

impl<K: Data, V: Data> WindowedStore<K, V, Fixed> {
    /// A store over `engine`, which must be restored before the first access; its windows are `size`
    /// milliseconds long.
    pub fn new(
        name: &str,
        key_serde: DynSerde<K>,
        value_serde: DynSerde<V>,
        engine: Arc<dyn StoreEngine>,
        size: Timestamp,
        options: WindowedOptions,
    ) -> Self {
        Self::with_kind(name, (key_serde, value_serde), engine, size, options)
    }

    /// The value of a key in the window that begins at `start`, and its time.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn get(&mut self, key: &K, start: Timestamp) -> Result<Option<(V, Timestamp)>, StateError> {
        self.value(key, start, start)
    }

    /// As [`get`](super::WindowStore::get), for an operator that is told of updates late: what has expired
    /// is found too, as far as the store [looks back](WindowedOptions::look_back). `drains`: it is told
    /// as caches are drained ([`StoreAccess::drains`](crate::processor::StoreAccess::drains)), so that
    /// it needs all that could be found at the last seal.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn look_up(
        &mut self,
        key: &K,
        start: Timestamp,
        drains: bool,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        self.value_seen(key, (start, start), drains)
    }

    /// Sets the value of a key in a window; `None` deletes it. Answers whether the store took it: it
    /// does not if the window has expired.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn put(
        &mut self,
        key: &K,
        start: Timestamp,
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<bool, StateError> {
        self.set(key, (start, start, 0), value, timestamp)
    }

    /// Changes the value of a key in a window, without copying it where the store has it as it is.
    /// `change` gets the value and its time, and answers the new time. Answers as
    /// [`put`](super::WindowStore::put); if the window has expired, `change` is not called.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn update(
        &mut self,
        key: &K,
        start: Timestamp,
        change: impl FnOnce(&mut Option<V>, Option<Timestamp>) -> Timestamp,
    ) -> Result<bool, StateError> {
        self.observe(start);
        if !self.is_live(start) {
            return Ok(false);
        }
        if matches!(self.entries, Entries::Ordered(_)) {
            let (mut value, before) = self.value(key, start, start)?.unzip();
            let timestamp = change(&mut value, before);
            return self.set(key, (start, start, 0), value, timestamp);
        }
        self.encode(key, (start, start, 0))?;
        let Self { entries, scratch, codec, .. } = self;
        if let Entries::Points(points) = entries {
            points.update(scratch, |value, before| {
                let timestamp = change(value, before);
                *value = value.take().filter(|value| !codec.is_null(value));
                timestamp
            })?;
        }
        Ok(true)
    }

    /// Adds a value beside those that the key has in this window already. Answers as
    /// [`put`](super::WindowStore::put).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn add(
        &mut self,
        key: &K,
        start: Timestamp,
        value: V,
        timestamp: Timestamp,
    ) -> Result<bool, StateError> {
        let number = match self.last_number(key, start)? {
            Some(last) => last.checked_add(1).ok_or_else(|| StateError::Corrupt {
                path: PathBuf::from(self.codec.store()),
                reason: "a window with more than 2^32 values of a key".into(),
            })?,
            None => 0,
        };
        self.set(key, (start, start, number), Some(value), timestamp)
    }

    /// The number of the last value that a key has in a window. The values are not looked at one by one,
    /// if they are many: a key may have thousands of one millisecond, where times are rounded.
    fn last_number(&mut self, key: &K, start: Timestamp) -> Result<Option<u32>, StateError> {
        let (mut last, mut next, mut stride) = (None, 0, u64::from(STEPS));
        let mut above = 1 << 32; // none has this number or a higher one
        loop {
            match self.walk(key, start, next as u32)? {
                (Some(found), STEPS) => last = Some(found),
                (None, _) => above = next,
                (end, _) => return Ok(end),
            }
            let least = last.map_or(0, |last| u64::from(last) + 1);
            if least >= above {
                return Ok(last);
            }
            // Ever further, until that is too far; then there is less and less between.
            next = (least + stride).min(least + (above - least) / 2);
            stride *= 2;
        }
    }

    /// Looks at some values that a key has in a window, from a number on: the last number seen, and how
    /// many there were.
    fn walk(
        &mut self,
        key: &K,
        start: Timestamp,
        number: u32,
    ) -> Result<(Option<u32>, u32), StateError> {
        let (mut last, mut steps) = (None, 0);
        self.visit_from(key, (start, number), start, |_, parts, _, _| {
            (last, steps) = (Some(parts.number), steps + 1);
            let more = steps < STEPS;
            Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok((last, steps))
    }

    /// The windows of a key that begin between `from` and `to`, both included, in their order.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn fetch(
        &mut self,
        key: &K,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, V, Timestamp)>, StateError> {
        let mut found = Vec::new();
        self.visit_key(key, from, to, |codec, parts, value, timestamp| {
            if parts.start <= to {
                found.push((parts.start, codec.value(value)?, timestamp));
            }
            Ok(())
        })?;
        Ok(found)
    }
}
