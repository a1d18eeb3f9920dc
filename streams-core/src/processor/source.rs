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
        let (key, value) = ((record.key, "key", "null key"), (record.value, "value", "null value"));
        let Some(key) = decode(&*self.key, key, owner, &self.name, task) else {
            return;
        };
        let Some(value) = decode(&*self.value, value, owner, &self.name, task) else {
            return;
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

fn decode<T: 'static>(
    serde: &dyn Serde<T>,
    (bytes, part, null): (Option<&[u8]>, &'static str, &'static str),
    owner: &Bytes,
    node: &str,
    task: &mut TaskCore,
) -> Option<T> {
    let Some(bytes) = bytes else {
        let value = serde.null();
        if value.is_none() {
            task.drop_record(null);
        }
        return value;
    };
    let blame = Blame::on(node);
    let decoded = serde.get(bytes, owner);
    blame.lift();
    match decoded {
        Ok(value) => Some(value),
        Err(error) => {
            refuse(part, error, task);
            None
        }
    }
}

#[cold]
fn refuse(part: &'static str, error: SerdeError, task: &mut TaskCore) {
    let Some(SourceInfo { partition, offset }) = task.source() else {
        return;
    };
    let error = ProcessError::Deserialization { partition, offset, part, error };
    if let Err(error) = task.settle(Stage::Deserialization, error) {
        task.fail(error);
    }
}
