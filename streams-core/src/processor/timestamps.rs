//! When a record happened: how a source finds its event time.

use std::any::TypeId;
use std::sync::Arc;

use broker_api::{RecordRef, Timestamp};
use bytes::Bytes;

use crate::serde::{DynSerde, Serde};

/// How a source finds the event time of its records, and what it does with one that has none, whose time
/// is negative. Event time drives windows, joins, stream time, and which record comes next.
pub struct TimestampExtractor<K, V>(Kind<K, V>);

enum Kind<K, V> {
    Record(OnInvalid),
    WallClock,
    /// Functions are told apart by their type.
    Own(TypeId, Arc<Own<K, V>>),
}

type Own<K, V> = dyn Fn(&K, &V, RecordTimes) -> Timestamp + Send + Sync;

#[derive(Clone, Copy, PartialEq, Eq)]
enum OnInvalid {
    Fail,
    Skip,
    PartitionTime,
}

/// What an extractor knows beside key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTimes {
    /// The time that the record was written with.
    pub record: Timestamp,
    /// The highest event time of its partition so far; -1: none yet.
    pub partition: Timestamp,
}

impl<K, V> Clone for TimestampExtractor<K, V> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Kind::Record(on_invalid) => Kind::Record(*on_invalid),
            Kind::WallClock => Kind::WallClock,
            Kind::Own(kind, extract) => Kind::Own(*kind, extract.clone()),
        })
    }
}

impl<K, V> Default for TimestampExtractor<K, V> {
    /// [`TimestampExtractor::fail_on_invalid`].
    fn default() -> Self {
        Self::fail_on_invalid()
    }
}

impl<K, V> TimestampExtractor<K, V> {
    /// The record's own time; a negative one stops the application.
    pub fn fail_on_invalid() -> Self {
        Self(Kind::Record(OnInvalid::Fail))
    }

    /// The record's own time; a record with a negative one is left out and counted.
    pub fn log_and_skip_on_invalid() -> Self {
        Self(Kind::Record(OnInvalid::Skip))
    }

    /// The record's own time, and instead of a negative one the highest of its partition so far. Before
    /// there is any, it stops the application.
    pub fn use_partition_time_on_invalid() -> Self {
        Self(Kind::Record(OnInvalid::PartitionTime))
    }

    /// The wall clock at the moment when the record's turn comes. Results then depend on when they are
    /// made: after a crash, a record may get another time.
    pub fn wall_clock() -> Self {
        Self(Kind::WallClock)
    }

    /// What a function finds in key and value; a record with a negative time is left out and counted.
    /// Records are decoded twice for it.
    pub fn own<F>(extract: F) -> Self
    where
        F: Fn(&K, &V, RecordTimes) -> Timestamp + Send + Sync + 'static,
    {
        Self(Kind::Own(TypeId::of::<F>(), Arc::new(extract)))
    }

    /// Whether another one finds the same times. Functions that are written at one place are taken for
    /// equal, whatever they capture.
    pub fn is_like(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Record(own), Kind::Record(other)) => own == other,
            (Kind::WallClock, Kind::WallClock) => true,
            (Kind::Own(own, _), Kind::Own(other, _)) => own == other,
            _ => false,
        }
    }

    /// Whether it goes by the records' own times, and leaves none of them out.
    pub fn is_the_records_own(&self) -> bool {
        matches!(self.0, Kind::Record(OnInvalid::Fail))
    }

    /// Whether a record without an event time is left out.
    pub(super) fn skips(&self) -> bool {
        match self.0 {
            Kind::Record(on_invalid) => matches!(on_invalid, OnInvalid::Skip),
            Kind::WallClock | Kind::Own(..) => true,
        }
    }
}

impl<K: 'static, V: 'static> TimestampExtractor<K, V> {
    /// The same where values may be null; the record's own time is that of a null.
    pub fn nullable(self) -> TimestampExtractor<K, Option<V>> {
        TimestampExtractor(match self.0 {
            Kind::Record(on_invalid) => Kind::Record(on_invalid),
            Kind::WallClock => Kind::WallClock,
            Kind::Own(kind, extract) => {
                let nullable = move |key: &K, value: &Option<V>, times| match value {
                    Some(value) => extract(key, value, times),
                    None => times.record,
                };
                Kind::Own(kind, Arc::new(nullable))
            }
        })
    }

    /// The event time of a record.
    #[inline]
    pub(super) fn extract(
        &self,
        (record, owner): (&RecordRef<'_>, &Bytes),
        serdes: (&DynSerde<K>, &DynSerde<V>),
        partition: Timestamp,
        wall_clock: Timestamp,
    ) -> Timestamp {
        match &self.0 {
            Kind::Record(OnInvalid::PartitionTime) if record.timestamp < 0 => partition,
            Kind::Record(_) => record.timestamp,
            Kind::WallClock => wall_clock,
            Kind::Own(_, extract) => own_time(&**extract, (record, owner), serdes, partition),
        }
    }
}

/// The time that a function finds.
#[inline(never)]
fn own_time<K: 'static, V: 'static>(
    extract: &dyn Fn(&K, &V, RecordTimes) -> Timestamp,
    (record, owner): (&RecordRef<'_>, &Bytes),
    (key, value): (&DynSerde<K>, &DynSerde<V>),
    partition: Timestamp,
) -> Timestamp {
    let times = RecordTimes { record: record.timestamp, partition };
    let key = decode(&**key, record.key, owner);
    match key.zip(decode(&**value, record.value, owner)) {
        Some((key, value)) => extract(&key, &value, times),
        // It is left out, or an error, when its turn comes, which should be soon.
        None => record.timestamp.max(0),
    }
}

fn decode<T: 'static>(serde: &dyn Serde<T>, bytes: Option<&[u8]>, owner: &Bytes) -> Option<T> {
    match bytes {
        Some(bytes) => serde.get(bytes, owner).ok(),
        None => serde.null(),
    }
}
