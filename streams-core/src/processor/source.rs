//! Where records enter a task: decoding, null rules, the deserialization handler.

use broker_api::{RecordRef, Timestamp};
use bytes::Bytes;

use super::blame::Blame;
use super::{Child, Children, Signal, SourceInfo, TimestampExtractor};
use crate::error::{BuildError, ProcessError, SerdeError};
use crate::failure::Stage;
use crate::record::{Data, Headers, Record};
use crate::serde::{DynSerde, Serde};
use crate::task::TaskCore;

/// Takes the encoded records of a topic.
pub trait Source: Send {
    /// The event time of a record of `owner`, the bytes of its batch; negative if it has none.
    /// `partition`: the highest of its partition so far.
    fn time_of(
        &self,
        record: &RecordRef<'_>,
        owner: &Bytes,
        partition: Timestamp,
        wall_clock: Timestamp,
    ) -> Timestamp;

    /// Whether that is always the time that the record was written with.
    fn goes_by_record_time(&self) -> bool;

    /// Whether records without an event time are left out, instead of being an error.
    fn skips_without_time(&self) -> bool;

    /// Decodes a record of `owner`, the bytes of its batch, and forwards it with its event time.
    fn feed(
        &mut self,
        record: &RecordRef<'_>,
        timestamp: Timestamp,
        owner: &Bytes,
        task: &mut TaskCore,
    );

    /// Passes a signal on, depth first.
    fn signal(&mut self, signal: &Signal, task: &mut TaskCore);
}

/// A source and its children.
pub struct SourceNode<K, V> {
    name: String,
    key: DynSerde<K>,
    value: DynSerde<V>,
    extractor: TimestampExtractor<K, V>,
    children: Children<K, V>,
}

impl<K: Data, V: Data> SourceNode<K, V> {
    /// A source that decodes with these serdes.
    ///
    /// # Errors
    /// [`BuildError::TypeMismatch`] for children that take other records.
    pub fn new(
        name: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        extractor: TimestampExtractor<K, V>,
        children: Vec<Child>,
    ) -> Result<Self, BuildError> {
        let children = Children::new(name, children)?;
        Ok(Self { name: name.into(), key, value, extractor, children })
    }
}

impl<K: Data, V: Data> Source for SourceNode<K, V> {
    fn time_of(
        &self,
        record: &RecordRef<'_>,
        owner: &Bytes,
        partition: Timestamp,
        wall_clock: Timestamp,
    ) -> Timestamp {
        let serdes = (&self.key, &self.value);
        let blame = Blame::on(&self.name);
        let time = self.extractor.extract((record, owner), serdes, partition, wall_clock);
        blame.lift();
        time
    }

    fn goes_by_record_time(&self) -> bool {
        self.extractor.is_the_records_own()
    }

    fn skips_without_time(&self) -> bool {
        self.extractor.skips()
    }

    fn feed(
        &mut self,
        record: &RecordRef<'_>,
        timestamp: Timestamp,
        owner: &Bytes,
        task: &mut TaskCore,
    ) {
        let blame = Blame::on(&self.name);
        let decoded = decode(&*self.key, record.key, owner, &KEY)
            .and_then(|key| Ok((key, decode(&*self.value, record.value, owner, &VALUE)?)));
        blame.lift();
        let (key, value) = match decoded {
            Ok(decoded) => decoded,
            Err(missing) => return missing.settle(task),
        };
        let headers = if record.headers.is_empty() {
            Headers::default()
        } else {
            match record.headers.to_vec() {
                Ok(headers) => Headers::from(headers),
                Err(error) => return task.fail_input(error),
            }
        };
        let record = Record { key, value, timestamp, headers };
        self.children.forward(record, task);
    }

    fn signal(&mut self, signal: &Signal, task: &mut TaskCore) {
        self.children.signal(signal, task);
    }
}

/// A part of a record, as errors and metrics call it.
struct Part {
    name: &'static str,
    null: &'static str,
}

const KEY: Part = Part { name: "key", null: "null key" };
const VALUE: Part = Part { name: "value", null: "null value" };

/// A part that is not there.
struct Missing {
    part: &'static Part,
    /// `None`: it is null, and its type has no null.
    error: Option<SerdeError>,
}

#[inline]
fn decode<T: 'static>(
    serde: &dyn Serde<T>,
    bytes: Option<&[u8]>,
    owner: &Bytes,
    part: &'static Part,
) -> Result<T, Missing> {
    match bytes {
        Some(bytes) => {
            serde.get(bytes, owner).map_err(|error| Missing { part, error: Some(error) })
        }
        None => serde.null().ok_or(Missing { part, error: None }),
    }
}

impl Missing {
    #[cold]
    fn settle(self, task: &mut TaskCore) {
        let Part { name: part, null } = *self.part;
        let Some(error) = self.error else {
            return task.drop_record(null);
        };
        let Some(SourceInfo { partition, offset }) = task.source() else {
            return;
        };
        let error = ProcessError::Deserialization { partition, offset, part, error };
        if let Err(error) = task.settle(Stage::Deserialization, error) {
            task.fail(error);
        }
    }
}
