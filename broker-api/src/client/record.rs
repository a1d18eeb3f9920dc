//! Records to be sent.

use bytes::Bytes;

use crate::types::Timestamp;
use crate::{Error, Header};

/// A record to be sent. Without a timestamp it gets the time of sending; without a partition, its
/// key's, as Kafka would choose it (murmur2); without a key, any.
///
/// ```
/// use broker_api::client::Record;
/// let record = Record::new("key", "value").at(1_000).with_header("trace", "4711");
/// let tombstone = Record { value: None, ..Record::new("key", "") };
/// assert_ne!(record, tombstone);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The key; may be null.
    pub key: Option<Bytes>,
    /// The value; may be null.
    pub value: Option<Bytes>,
    /// Its time, in milliseconds since the Unix epoch.
    pub timestamp: Option<Timestamp>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Where it must go.
    pub partition: Option<u32>,
}

impl Record {
    /// A record with a key and a value.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }

    /// A record without a key.
    pub fn of_value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// Sets its time, in milliseconds since the Unix epoch, which must not be negative.
    pub fn at(self, timestamp: Timestamp) -> Self {
        Self { timestamp: Some(timestamp), ..self }
    }

    /// Sets the partition that it goes to.
    pub fn to_partition(self, partition: u32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// Adds a header.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { name: name.into(), value: Some(value.into()) });
        self
    }

    /// Whether it may go to `topic`. Readers take a negative timestamp for none.
    ///
    /// # Errors
    /// [`Error::NegativeTimestamp`].
    pub(super) fn check(&self, topic: &str) -> Result<(), Error> {
        match self.timestamp {
            Some(timestamp) if timestamp < 0 => {
                Err(Error::NegativeTimestamp { topic: topic.to_owned(), timestamp })
            }
            _ => Ok(()),
        }
    }

    /// About how much memory it takes until it is written, in bytes.
    pub(super) fn weight(&self) -> usize {
        const FIXED: usize = 64;
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|h| FIXED + h.name.len() + len(&h.value));
        FIXED + len(&self.key) + len(&self.value) + headers.sum::<usize>()
    }
}
