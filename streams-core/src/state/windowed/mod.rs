//! The stores of windows and sessions: values by key and time.
//!
//! A store knows the newest time that it was given ([`Store::time`](super::Store::time)); what is
//! older than that by the *retention* or more has expired: it is not shown any more, not taken either,
//! and soon gone from memory, engine and changelog. For a window its start counts, for a session its
//! end.
//!
//! A store that is read by time ([`WindowedOptions::by_time`]), to find what has closed, keeps what
//! it was not told to [release](WindowedStore::release), however old it is. One that operators look
//! into ([`WindowedOptions::look_back`]) keeps what they can [find](WindowStore::look_up).
//!
//! Changes that are *forwarded at seal* are merged by key and window, as in a
//! [`KeyValueStore`](super::KeyValueStore). After an error, and after a panic in a function of the
//! application, the store must be dropped and opened again.

mod entry;
mod forwards;
mod look_back;
mod options;
mod points;
mod scans;
mod session;
mod store;
mod window;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use broker_api::Timestamp;

use super::entry_codec::EntryCodec;
use super::ordered::OrderedCache;
use super::windowed_keys::{Kind, Layout, WindowedFormat};
use super::{ChangelogFormat, StoreEngine};
use crate::record::{Data, Headers};
use crate::serde::DynSerde;
use crate::windowed::Windowed;
use look_back::LookBack;
use points::{Points, WindowKey};

pub use options::WindowedOptions;

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
    /// Only where operators look into it.
    look_back: Option<Box<LookBack>>,
    released: Timestamp,
    scratch: WindowKey,
    /// Of the last visit to a key: where it began and ended.
    bounds: (Vec<u8>, Vec<u8>),
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

impl<K, V, W: WindowKind> WindowedStore<K, V, W> {
    /// How the changelog of such a store becomes its entries.
    pub fn changelog_format(options: &WindowedOptions) -> Arc<dyn ChangelogFormat> {
        // What must be shown for longer is known once the store is open.
        let expires = !options.by_time && options.look_back == 0;
        let retention = expires.then_some(options.retention);
        Arc::new(WindowedFormat { layout: Self::layout(options), retention })
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
        let WindowedOptions { logged, forward_on_seal, look_back, .. } = options;
        let entries = if options.points && !W::IS_SESSION && !options.by_time {
            Entries::Points(Box::new(Points::new(name, value.clone(), engine, &options)))
        } else {
            Entries::Ordered(Box::new(OrderedCache::with_groups(
                name,
                engine,
                (layout.time_of(), layout.group_of()),
                logged,
                forward_on_seal,
            )))
        };
        Self {
            codec: EntryCodec::new(name, key, value),
            entries,
            layout,
            options,
            size,
            time: -1,
            look_back: (look_back > 0).then(|| Box::new(LookBack::new(look_back))),
            released: Timestamp::MIN,
            scratch: WindowKey::default(),
            bounds: Default::default(),
            changed: Vec::new(),
            headers: BTreeMap::new(),
            marker: PhantomData,
        }
    }
}
