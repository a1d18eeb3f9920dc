//! Windows, and keys that belong to one.

use std::fmt;

use broker_api::Timestamp;

/// A span of event time, in milliseconds since the Unix epoch. Whether the end belongs to it depends
/// on the kind of window: it does for sliding windows and sessions, not for tumbling and hopping ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Where it begins.
    pub start: Timestamp,
    /// Where it ends.
    pub end: Timestamp,
}

/// A key in a window: what windowed aggregations are kept and forwarded by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windowed<K> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
}

impl<K> Windowed<K> {
    /// A key in the window from `start` to `end`.
    pub fn new(key: K, start: Timestamp, end: Timestamp) -> Self {
        Self { key, window: Window { start, end } }
    }
}

/// As Kafka prints it: `[key@start/end]`.
impl<K: fmt::Display> fmt::Display for Windowed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, window } = self;
        write!(f, "[{key}@{}/{}]", window.start, window.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_printed_as_in_kafka() {
        assert_eq!(Windowed::new("k", 0, 10).to_string(), "[k@0/10]");
    }
}
