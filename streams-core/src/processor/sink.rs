//! Where records leave a task: encoding and partitioning.

use std::sync::Arc;

use broker_api::partitioner::partition_of;
use broker_api::types::check_topic_name;
use broker_api::{Header, Timestamp};

use super::blame::Blame;
use super::{Push, Signal};
use crate::error::{ProcessError, SerdeError};
use crate::failure::Stage;
use crate::record::{Data, Record};
use crate::serde::{DynSerde, encode};
use crate::task::{TaskCore, record_text};

/// Which partitions of its topic a record goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// The one that the key says, as without a partitioner.
    ByKey,
    /// None: the record is left out and counted.
    Nowhere,
    /// This one.
    One(u32),
    /// Each of these, once.
    Many(Vec<u32>),
}

impl From<u32> for Partitions {
    fn from(partition: u32) -> Self {
        Self::One(partition)
    }
}

/// Chooses among as many partitions as the topic has (the last argument).
pub type Partitioner<K, V> = Arc<dyn Fn(&K, &V, u32) -> Partitions + Send + Sync>;

/// Chooses the topic of a record.
pub type TopicChooser<K, V> = Arc<dyn Fn(&Record<K, V>) -> String + Send + Sync>;

/// A sink.
pub struct SinkNode<K, V> {
    name: String,
    writer: Writer<K, V>,
}

/// What a sink does, beside answering for it by its name.
struct Writer<K, V> {
    to: Target<K, V>,
    key: DynSerde<K>,
    value: DynSerde<V>,
    partitioner: Option<Partitioner<K, V>>,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

/// The topics that a sink writes.
pub enum Target<K, V> {
    /// The task's output topic of this number.
    Output(usize),
    /// The one that is chosen for each record.
    Chosen(TopicChooser<K, V>),
}

impl<K: Data, V: Data> SinkNode<K, V> {
    /// A sink. Without a partitioner, records go by the murmur2 hash of their key bytes, and those
    /// without a key are spread evenly.
    pub fn new(
        name: &str,
        to: Target<K, V>,
        key: DynSerde<K>,
        value: DynSerde<V>,
        partitioner: Option<Partitioner<K, V>>,
    ) -> Self {
        let (key_bytes, value_bytes) = (Vec::new(), Vec::new());
        let writer = Writer { to, key, value, partitioner, key_bytes, value_bytes };
        Self { name: name.into(), writer }
    }
}

impl<K: Data, V: Data> Writer<K, V> {
    /// The number of the topic for a record.
    fn output(&self, record: &Record<K, V>, task: &mut TaskCore) -> Result<usize, ProcessError> {
        let choose = match &self.to {
            Target::Output(output) => return Ok(*output),
            Target::Chosen(choose) => choose,
        };
        let topic = choose(record);
        if let Some(known) = task.outputs_mut().position(&topic) {
            return Ok(known);
        }
        if let Err(error) = check_topic_name(&topic) {
            return Err(ProcessError::Output { topic, error }); // there can never be one
        }
        let found = (task.settings().topics)(&topic)?;
        Ok(task.outputs_mut().add(found))
    }

    /// Encodes and sends a record.
    fn write(&mut self, record: &Record<K, V>, task: &mut TaskCore) -> Result<(), ProcessError> {
        let output = self.output(record, task)?;
        let encoded = encode(&*self.key, &record.key, &mut self.key_bytes)
            .and_then(|key| Ok((key, encode(&*self.value, &record.value, &mut self.value_bytes)?)));
        let (key, value) = encoded.map_err(|error| unfit(output, error, task))?;
        let outputs = task.outputs_mut();
        let count = outputs.partitions(output);
        let chosen = match &self.partitioner {
            Some(choose) => choose(&record.key, &record.value, count),
            None => Partitions::ByKey,
        };
        let headers = record.headers.as_slice();
        let encoded = Encoded { timestamp: record.timestamp, key, value, headers };
        let partition = match (chosen, key) {
            (Partitions::ByKey, Some(key)) => partition_of(key, count),
            (Partitions::ByKey, None) => outputs.next_partition(output),
            (Partitions::One(partition), _) => partition,
            (Partitions::Many(many), _) => return encoded.send_to_each(output, many, task),
            (Partitions::Nowhere, _) => return encoded.send_to_each(output, Vec::new(), task),
        };
        task.touch();
        encoded.send(output, partition, task)
    }
}

/// A record as it is sent.
struct Encoded<'a> {
    timestamp: Timestamp,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [Header],
}

impl Encoded<'_> {
    #[inline]
    fn send(&self, output: usize, to: u32, task: &mut TaskCore) -> Result<(), ProcessError> {
        if task.is_traced() {
            self.trace(output, to, task);
        }
        let &Self { timestamp, key, value, headers } = self;
        task.outputs_mut().send(output, to, timestamp, key, value, headers)
    }

    /// Sends it to each of these partitions, once.
    #[inline(never)]
    fn send_to_each(
        &self,
        output: usize,
        mut partitions: Vec<u32>,
        task: &mut TaskCore,
    ) -> Result<(), ProcessError> {
        if partitions.is_empty() {
            task.drop_record("no partition");
            return Ok(());
        }
        partitions.sort_unstable();
        partitions.dedup();
        task.touch();
        partitions.into_iter().try_for_each(|partition| self.send(output, partition, task))
    }

    #[cold]
    fn trace(&self, output: usize, partition: u32, task: &mut TaskCore) {
        let topic = task.outputs_mut().topic(output).to_string();
        let text = record_text(self.key, self.value, self.timestamp);
        task.trace_note(|| format!("-> {topic}-{partition}: {text}"));
    }
}

#[cold]
fn unfit(output: usize, error: SerdeError, task: &mut TaskCore) -> ProcessError {
    let topic = task.outputs_mut().topic(output).to_string();
    ProcessError::Serialization { topic, error }
}

#[cold]
fn refuse(error: ProcessError, task: &mut TaskCore) {
    if let Err(error) = task.settle(Stage::Production, error) {
        task.fail(error);
    }
}

impl<K: Data, V: Data> Push<K, V> for SinkNode<K, V> {
    fn push(&mut self, record: Record<K, V>, task: &mut TaskCore) {
        if task.has_failed() {
            return;
        }
        let blame = Blame::on(&self.name);
        let written = self.writer.write(&record, task);
        blame.lift();
        if let Err(error) = written {
            refuse(error, task);
        }
    }

    fn signal(&mut self, _: &Signal, _: &mut TaskCore) {}
}
