//! The stores of windows and sessions: values by key and time.
//!
//! A store knows the newest time that it was given ([`Store::time`]); what is older than
//! that by the *retention* or more has expired: it is not shown any more, not taken either, and soon
//! gone from memory, engine and changelog. For a window its start counts, for a session its end.
//!
//! A store that is read by time ([`WindowedOptions::by_time`]), to find what has closed, keeps what
//! it was not told to [release](WindowedStore::release), however old it is.
//!
//! Changes that are *forwarded at seal* are merged by key and window, as in a
//! [`KeyValueStore`](super::KeyValueStore). After an error, and after a panic in a function of the
//! application, the store must be dropped and opened again.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::{CleanupPolicy, RetentionBy, Timestamp, TopicConfig};
use bytes::Bytes;

use super::entry_codec::EntryCodec;
use super::key_value::{DEFAULT_BUDGET, Forward};
use super::ordered::OrderedCache;
use super::windowed_keys::{Kind, Layout, NO_TIME, Parts, WindowedFormat};
use super::{ChangelogFormat, ChangelogWriter, EntryBatch, Expiry, RawEntry, Store, StoreEngine};
use crate::error::StateError;
use crate::record::{Data, Headers};
use crate::serde::DynSerde;
use crate::windowed::{Window, Windowed};
use points::{Points, WindowKey};

/// What a windowed store does beyond storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowedOptions {
    /// Changes are written to a changelog.
    pub logged: bool,
    /// Changes are forwarded at the seal, merged by key and window (caching), as with
    /// [`StoreOptions::forward_on_seal`](super::StoreOptions::forward_on_seal).
    pub forward_on_seal: bool,
    /// Forwarded changes come with the value before.
    pub keep_old: bool,
    /// How long windows are kept, in milliseconds of stream time.
    pub retention: Timestamp,
    /// Windows are also found by time, whatever their key.
    pub by_time: bool,
    /// Values are added beside each other ([`WindowStore::add`]) and none is ever replaced, as in the
    /// stores of a join: there is nothing to compact in the changelog.
    pub duplicates: bool,
    /// Nearly all is asked for one window at a time ([`WindowStore::get`], [`WindowStore::put`]), as for
    /// counts in tumbling and hopping windows. That is then several times faster, and scans are slower.
    /// Of no effect on sessions, and with `by_time`.
    pub points: bool,
}

/// A changelog keeps what has expired for a day more, as in Kafka.
const DAY: Timestamp = 24 * 60 * 60 * 1000;

impl WindowedOptions {
    /// Logged, not forwarded at the seal, without old values, not found by time; kept for `retention`
    /// milliseconds.
    pub fn new(retention: Timestamp) -> Self {
        Self {
            logged: true,
            forward_on_seal: false,
            keep_old: false,
            retention,
            by_time: false,
            duplicates: false,
            points: false,
        }
    }

    /// The settings of the changelog of such a store. It is compacted, unless there is nothing to
    /// compact, and records go when they are older than the newest one by the retention and a day: by
    /// the time of records and not by the wall clock, or what comes of input of last year would
    /// be gone at once. With windows longer than a day (`size`, in milliseconds) it is the retention and
    /// a window, as a window counts by its start, and may have been updated up to its end.
    pub fn changelog(&self, size: Timestamp) -> TopicConfig {
        let retention = self.retention.saturating_add(size.max(DAY));
        TopicConfig {
            cleanup_policy: match self.duplicates {
                true => CleanupPolicy::Delete,
                false => CleanupPolicy::CompactDelete,
            },
            retention_ms: Some(u64::try_from(retention).unwrap_or_default()),
            retention_by: RetentionBy::StreamTime,
            ..TopicConfig::default()
        }
    }
}

/// A kind of windowed store: [`Fixed`] or [`Session`].
pub trait WindowKind: Send + 'static {
    #[doc(hidden)]
    const IS_SESSION: bool;
}

/// Windows of a fixed size: the store of them knows their starts.
#[derive(Debug)]
pub struct Fixed;

/// Sessions: each has a start and an end.
#[derive(Debug)]
pub struct Session;

impl WindowKind for Fixed {
    const IS_SESSION: bool = false;
}

impl WindowKind for Session {
    const IS_SESSION: bool = true;
}

/// Values by key and start of a window.
pub type WindowStore<K, V> = WindowedStore<K, V, Fixed>;

/// Values by key and session.
pub type SessionStore<K, V> = WindowedStore<K, V, Session>;

/// See the module.
pub struct WindowedStore<K, V, W> {
    codec: EntryCodec<K, V>,
    entries: Entries<V>,
    layout: Layout,
    options: WindowedOptions,
    /// Added to the start of a window to get its end.
    size: Timestamp,
    time: Timestamp,
    released: Timestamp,
    scratch: WindowKey,
    /// The key in the engine of the change that was made last.
    changed: Vec<u8>,
    /// What changes are forwarded with at the seal, by key in the engine; most records have no headers.
    headers: BTreeMap<Vec<u8>, Headers>,
    marker: PhantomData<fn() -> W>,
}

/// How the entries are kept in memory.
enum Entries<V> {
    Points(Box<Points<V>>),
    Ordered(Box<OrderedCache>),
}

/// A value that was found, with its time.
pub type Found<K, V> = (Windowed<K>, V, Timestamp);

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
    /// `change` gets the value and its time, and answers the new time. Answers as [`WindowStore::put`]; if
    /// the window has expired, `change` is not called.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn update(
        &mut self,
        key: &K,
        start: Timestamp,
        change: impl FnOnce(&mut Option<V>, Option<Timestamp>) -> Timestamp,
    ) -> Result<bool, StateError> {
        self.advance_time(start);
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
    /// [`WindowStore::put`].
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
        let mut number = Some(0);
        self.visit_key(key, start, start, |parts, _, _| {
            number = parts.number.checked_add(1);
            ControlFlow::Continue(())
        })?;
        let number = number.ok_or_else(|| StateError::Corrupt {
            path: PathBuf::from(self.codec.store()),
            reason: "a window with more than 2^32 values of a key".into(),
        })?;
        self.set(key, (start, start, number), Some(value), timestamp)
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
        self.visit_key(key, from, to, |parts, value, timestamp| {
            if parts.start <= to {
                found.push((parts.start, value.clone(), timestamp));
            }
            ControlFlow::Continue(())
        })?;
        let decode = |(start, value, timestamp)| Ok((start, self.codec.value(&value)?, timestamp));
        found.into_iter().map(decode).collect()
    }
}

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
        self.visit_key(key, earliest_end, Timestamp::MAX, |parts, value, timestamp| {
            if parts.start <= latest_start {
                let window = Window { start: parts.start, end: parts.end };
                found.push((window, value.clone(), timestamp));
            }
            ControlFlow::Continue(())
        })?;
        let decode = |(window, value, time)| Ok((window, self.codec.value(&value)?, time));
        found.into_iter().map(decode).collect()
    }
}

impl<K, V, W: WindowKind> WindowedStore<K, V, W> {
    /// How the changelog of such a store becomes its entries.
    pub fn changelog_format(options: &WindowedOptions) -> Arc<dyn ChangelogFormat> {
        Arc::new(WindowedFormat { layout: Self::layout(options), retention: options.retention })
    }

    fn layout(options: &WindowedOptions) -> Layout {
        let kind = if W::IS_SESSION { Kind::Session } else { Kind::Window };
        Layout { kind, by_time: options.by_time }
    }
}

impl<K: Data, V: Data, W: WindowKind> WindowedStore<K, V, W> {
    fn with_kind(
        name: &str,
        (key, value): (DynSerde<K>, DynSerde<V>),
        engine: Arc<dyn StoreEngine>,
        size: Timestamp,
        options: WindowedOptions,
    ) -> Self {
        let layout = Self::layout(&options);
        let (time_of, forwards) = (layout.time_of(), options.forward_on_seal);
        let entries = if options.points && !W::IS_SESSION && !options.by_time {
            Entries::Points(Box::new(Points::new(name, value.clone(), engine, &options)))
        } else {
            Entries::Ordered(Box::new(OrderedCache::new(
                name,
                engine,
                time_of,
                forwards,
                DEFAULT_BUDGET,
            )))
        };
        Self {
            codec: EntryCodec::new(name, key, value),
            entries,
            layout,
            options,
            size,
            time: -1,
            released: Timestamp::MIN,
            scratch: WindowKey::default(),
            changed: Vec::new(),
            headers: BTreeMap::new(),
            marker: PhantomData,
        }
    }

    /// Lets go of what is found by time and ends (of windows: begins) at this time or earlier, as far
    /// as it has expired. Without it a store with [`WindowedOptions::by_time`] keeps everything.
    pub fn release(&mut self, up_to: Timestamp) {
        self.released = self.released.max(up_to);
        self.expire();
    }

    /// What begins (a session: ends) between two times, both included, whatever its key and whether
    /// it has expired or not; ordered by this time and then by key bytes. The store must be found by
    /// time. No more than `at_most` of it, the first ones, or those that come `after` one that was found
    /// before. If they are fewer, that is all.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn find_by_time(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Windowed<K>>,
        at_most: usize,
    ) -> Result<Vec<Found<K, V>>, StateError> {
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        self.layout.put_time(from, &mut begin);
        self.layout.put_time(to.saturating_add(1), &mut end);
        if let Some(Windowed { key, window }) = after {
            let mut by_key = Vec::new();
            self.layout.begin(&mut by_key);
            self.codec.put_key(key, &mut by_key)?;
            self.layout.kind.put_suffix(window.start, window.end, 0, &mut by_key);
            begin.clear();
            self.layout.put_by_time(&by_key, &mut begin).ok_or_else(|| self.corrupt(&by_key))?;
            begin.push(0); // the next key that there can be
        }
        let mut found = Vec::new();
        while found.len() < at_most {
            let Entries::Ordered(cache) = &mut self.entries else { break };
            let (mut keys, wanted) = (Vec::new(), at_most - found.len());
            cache.visit(&begin, Some(&end), from, |key, _, _| {
                keys.push(Bytes::copy_from_slice(key));
                match keys.len() < wanted {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            let is_all = keys.len() < wanted;
            for by_time in keys {
                let mut by_key = Vec::new();
                let is_key = self.layout.put_by_key(&by_time, &mut by_key);
                is_key.ok_or_else(|| self.corrupt(&by_time))?;
                begin.clear();
                begin.extend_from_slice(&by_time);
                begin.push(0);
                let Entries::Ordered(cache) = &mut self.entries else { break };
                // Of what is of no more use, one entry may vanish before the other.
                let Some((value, timestamp)) = cache.get(&by_key)? else { continue };
                let windowed = self.windowed(&by_key.into())?;
                found.push((windowed, self.codec.value(&value)?, timestamp));
            }
            if is_all {
                break;
            }
        }
        Ok(found)
    }

    /// All windows that have not expired, ordered by key bytes and then by time.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn all(&mut self) -> Result<Vec<Found<K, V>>, StateError> {
        self.range(None, None, 0, Timestamp::MAX)
    }

    /// The windows of the keys between two, both included, by the order of their encoded bytes (`None`:
    /// without bound), that begin (sessions: end) between `first` and `last`, both included, and have
    /// not expired. Ordered as by [`WindowedStore::all`]; looks at all entries of the store.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn range(
        &mut self,
        from: Option<&K>,
        to: Option<&K>,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<Vec<Found<K, V>>, StateError> {
        let bound = |key: Option<&K>| {
            let encode = |key| {
                let mut bytes = Vec::new();
                self.codec.put_key(key, &mut bytes).map(|()| bytes)
            };
            key.map(encode).transpose()
        };
        let (from, to) = (bound(from)?.unwrap_or_default(), bound(to)?);
        let mut found = Vec::new();
        for (bytes, value, timestamp) in self.shown()? {
            let parts = self.layout.parts(&bytes).ok_or_else(|| self.corrupt(&bytes))?;
            let key = &bytes[parts.key.clone()];
            let in_keys = key >= &from[..] && to.as_ref().is_none_or(|to| key <= &to[..]);
            if in_keys && (first..=last).contains(&parts.end) {
                found.push((self.windowed(&bytes)?, self.codec.value(&value)?, timestamp));
            }
        }
        Ok(found)
    }

    /// The change that was made last is to be forwarded at the seal with these headers, unless the same
    /// window is changed again.
    pub fn forward_with(&mut self, headers: Headers) {
        if let Entries::Points(points) = &mut self.entries {
            points.store.forward_with(headers);
        } else if !headers.as_slice().is_empty() {
            self.headers.insert(self.changed.clone(), headers);
        } else if !self.headers.is_empty() {
            self.headers.remove(&self.changed);
        }
    }

    /// The next change to be forwarded. To be called before [`Store::seal`] until it yields nothing,
    /// by the operator of a store that forwards at the seal.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn next_forward(&mut self) -> Result<Option<Forward<Windowed<K>, V>>, StateError> {
        let cache = match &mut self.entries {
            Entries::Ordered(cache) => cache,
            Entries::Points(points) => {
                let Some(forward) = points.next_forward()? else { return Ok(None) };
                let Forward { key, new, old, timestamp, headers } = forward;
                let key = self.windowed(&key)?;
                return Ok(Some(Forward { key, new, old, timestamp, headers }));
            }
        };
        while let Some(changed) = cache.next_changed() {
            if self.layout.is_by_time(&changed.key) {
                continue;
            }
            let key = self.windowed(&Bytes::copy_from_slice(&changed.key))?;
            let value = |bytes: Bytes| self.codec.value(&bytes);
            let new = changed.new.map(value).transpose()?;
            let old = changed.old.filter(|_| self.options.keep_old);
            let old = old.map(|(bytes, _)| value(bytes)).transpose()?;
            let headers = self.headers.remove(&*changed.key).unwrap_or_default();
            return Ok(Some(Forward { key, new, old, timestamp: changed.timestamp, headers }));
        }
        self.headers.clear(); // those of what was not forwarded after all
        Ok(None)
    }

    /// What expires by this time or earlier is of no more use.
    fn gone(&self) -> Timestamp {
        let expired = self.time.saturating_sub(self.options.retention);
        if self.options.by_time { expired.min(self.released) } else { expired }
    }

    fn expire(&mut self) {
        let gone = self.gone();
        match &mut self.entries {
            Entries::Points(points) => points.expire(gone),
            Entries::Ordered(cache) => cache.expire(gone),
        }
    }

    /// Whether what expires by this time is shown and taken.
    fn is_live(&self, expires_by: Timestamp) -> bool {
        expires_by > self.time.saturating_sub(self.options.retention)
    }

    fn value(
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

    /// Leaves the key of an entry in `scratch`.
    fn encode(
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

    fn set(
        &mut self,
        key: &K,
        (start, end, number): (Timestamp, Timestamp, u32),
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<bool, StateError> {
        self.advance_time(end);
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

    /// Shows what a key has with a first time (start of a window, end of a session) from `from` to
    /// `to`, as far as it has not expired.
    fn visit_key(
        &mut self,
        key: &K,
        from: Timestamp,
        to: Timestamp,
        mut visit: impl FnMut(&Parts, &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let oldest_live = self.time.saturating_sub(self.options.retention).saturating_add(1);
        let from = from.max(oldest_live).max(0);
        if to < from {
            return Ok(());
        }
        let mut begin = Vec::new();
        self.layout.begin(&mut begin);
        self.codec.put_key(key, &mut begin)?;
        let key_ends = begin.len();
        let mut end = begin.clone();
        begin.extend_from_slice(&from.to_be_bytes());
        match to.checked_add(1) {
            Some(above) => end.extend_from_slice(&above.to_be_bytes()),
            None => end.extend_from_slice(&[u8::MAX; 8]), // above every time, as they are positive
        }
        let layout = self.layout;
        self.visit(&begin, Some(&end), from, |found, value, timestamp| {
            // Longer keys may lie in between.
            match layout.parts(found) {
                Some(parts) if parts.key.end == key_ends => visit(&parts, value, timestamp),
                _ => ControlFlow::Continue(()),
            }
        })
    }

    /// As [`OrderedCache::visit`].
    fn visit(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        oldest: Timestamp,
        visit: impl FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        match &mut self.entries {
            Entries::Points(points) => points.visit(from, to, visit),
            Entries::Ordered(cache) => cache.visit(from, to, oldest, visit),
        }
    }

    fn windowed(&self, key: &Bytes) -> Result<Windowed<K>, StateError> {
        let parts = self.layout.parts(key).ok_or_else(|| self.corrupt(key))?;
        let end = if W::IS_SESSION { parts.end } else { parts.start.saturating_add(self.size) };
        Ok(Windowed::new(self.codec.key(&key.slice(parts.key))?, parts.start, end))
    }

    fn corrupt(&self, key: &[u8]) -> StateError {
        StateError::Corrupt {
            path: PathBuf::from(self.codec.store()),
            reason: format!("a key of {} bytes, which cannot be a window's", key.len()),
        }
    }

    /// The encoded entries by key that have not expired.
    fn shown(&mut self) -> Result<Vec<(Bytes, Bytes, Timestamp)>, StateError> {
        let mut shown = Vec::new();
        let (layout, oldest) = (self.layout, self.time.saturating_sub(self.options.retention));
        self.visit(&[], None, oldest.saturating_add(1), |key, value, timestamp| {
            if layout.is_by_time(key) {
                return ControlFlow::Break(()); // they come after all others
            }
            if layout.expires_by(key) > oldest {
                shown.push((Bytes::copy_from_slice(key), value.clone(), timestamp));
            }
            ControlFlow::Continue(())
        })?;
        Ok(shown)
    }
}

impl<K: Data, V: Data, W: WindowKind> Store for WindowedStore<K, V, W> {
    fn name(&self) -> &str {
        self.codec.store()
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        let cache = match &mut self.entries {
            Entries::Ordered(cache) => cache,
            Entries::Points(points) => return points.store.seal(changelog),
        };
        debug_assert!(
            !cache.has_changed(),
            "store '{}' is sealed before its changes were forwarded",
            self.codec.store()
        );
        let (layout, logged) = (self.layout, self.options.logged);
        cache.commit(|key, value, timestamp| {
            if !logged || layout.is_by_time(key) {
                return Ok(());
            }
            changelog.put(layout.logged(key), value.map(|value| &value[..]), timestamp)
        })
    }

    fn begin_flush(&mut self) -> Result<EntryBatch, StateError> {
        match &mut self.entries {
            Entries::Points(points) => points.store.begin_flush(),
            Entries::Ordered(cache) => Ok(cache.begin_flush()),
        }
    }

    fn flushed(&mut self) {
        match &mut self.entries {
            Entries::Points(points) => points.store.flushed(),
            Entries::Ordered(cache) => cache.flushed(),
        }
    }

    fn has_uncommitted(&self) -> bool {
        match &self.entries {
            Entries::Points(points) => points.store.has_uncommitted(),
            Entries::Ordered(cache) => cache.has_uncommitted(),
        }
    }

    fn unsealed_bytes(&self) -> usize {
        let WindowedOptions { logged, forward_on_seal, .. } = self.options;
        match &self.entries {
            Entries::Points(points) => points.store.unsealed_bytes(),
            Entries::Ordered(cache) => {
                cache.uncommitted_bytes() * (usize::from(logged) + usize::from(forward_on_seal))
            }
        }
    }

    fn dirty_bytes(&self) -> usize {
        match &self.entries {
            Entries::Points(points) => points.store.dirty_bytes(),
            Entries::Ordered(cache) => cache.dirty_bytes(),
        }
    }

    fn cached_bytes(&self) -> usize {
        match &self.entries {
            Entries::Points(points) => points.store.cached_bytes(),
            Entries::Ordered(cache) => cache.bytes(),
        }
    }

    fn set_budget(&mut self, bytes: usize) {
        match &mut self.entries {
            Entries::Points(points) => points.store.set_budget(bytes),
            Entries::Ordered(cache) => cache.set_budget(bytes),
        }
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn advance_time(&mut self, to: Timestamp) {
        self.time = self.time.max(to);
        self.expire();
    }

    fn expiry(&self) -> Option<Expiry> {
        Some(Expiry { expires_by: self.layout.time_of(), up_to: self.gone() })
    }

    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError> {
        let layout = self.layout;
        let raw = |(key, value, time): (Bytes, Bytes, Timestamp)| {
            (layout.logged(&key).to_vec(), value.to_vec(), time)
        };
        Ok(self.shown()?.into_iter().map(raw).collect())
    }
}

mod points;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
