//! The typed record that flows through a topology.

use broker_api::{Header, Timestamp};

/// What keys and values of a stream must be able to do. Every type that can is one.
///
/// `Clone` is used only where a node has several children; the last of them gets the original.
pub trait Data: Clone + Send + 'static {}

impl<T: Clone + Send + 'static> Data for T {}

/// A record: key, value, time and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<K, V> {
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: V,
    /// When it happened, in milliseconds since the Unix epoch.
    pub timestamp: Timestamp,
    /// Its headers.
    pub headers: Headers,
}

impl<K, V> Record<K, V> {
    /// A record without headers.
    pub fn new(key: K, value: V, timestamp: Timestamp) -> Self {
        Self { key, value, timestamp, headers: Headers::default() }
    }

    /// The same record with another key.
    pub fn with_key<K2>(self, key: K2) -> Record<K2, V> {
        Record { key, value: self.value, timestamp: self.timestamp, headers: self.headers }
    }

    /// The same record with another value.
    pub fn with_value<V2>(self, value: V2) -> Record<K, V2> {
        Record { key: self.key, value, timestamp: self.timestamp, headers: self.headers }
    }
}

/// The headers of a record: one word when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(#[allow(clippy::box_collection)] Option<Box<Vec<Header>>>); // boxed: records are moved often

impl Headers {
    /// The headers, in order.
    pub fn as_slice(&self) -> &[Header] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Appends a header.
    pub fn push(&mut self, header: Header) {
        self.0.get_or_insert_default().push(header);
    }
}

impl From<Vec<Header>> for Headers {
    fn from(headers: Vec<Header>) -> Self {
        Self((!headers.is_empty()).then(|| Box::new(headers)))
    }
}

/// An update of a table: the value that a key has now, and the one that it had before where
/// something downstream asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<V> {
    /// The value now; `None`: deleted.
    pub new: Option<V>,
    /// The value before.
    pub old: Option<V>,
    /// Whether no later update of the key was there before. It is not only for updates of a versioned
    /// table that come out of order: they change the past, and what goes by the present leaves them out.
    pub is_latest: bool,
    /// Whether something downstream may know of a value that was not forwarded: an operator looked it up
    /// while it waited in a cache. Then a deletion matters although there was no value before either.
    pub was_seen: bool,
}

impl<V> Change<V> {
    /// An update from one present value to another.
    pub fn new(new: Option<V>, old: Option<V>) -> Self {
        Self { new, old, is_latest: true, was_seen: false }
    }
}
