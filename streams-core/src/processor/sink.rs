//! Where records leave a task: encoding and partitioning.

use std::sync::Arc;

use broker_api::partitioner::partition_of;
use broker_api::types::check_topic_name;

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
        Self { name: name.into(), to, key, value, partitioner, key_bytes, value_bytes }
    }

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
    fn write(
        &self,
        record: &Record<K, V>,
        (key_bytes, value_bytes): (&mut Vec<u8>, &mut Vec<u8>),
        task: &mut TaskCore,
    ) -> Result<(), ProcessError> {
        let output = self.output(record, task)?;
        let encoded = encode(&*self.key, &record.key, key_bytes)
            .and_then(|key| Ok((key, encode(&*self.value, &record.value, value_bytes)?)));
        let (key, value) = encoded.map_err(|error| unfit(output, error, task))?;
        let outputs = task.outputs_mut();
        let count = outputs.partitions(output);
        let choose = self.partitioner.as_ref();
        let mut chosen = match choose.map(|choose| choose(&record.key, &record.value, count)) {
            None | Some(Partitions::ByKey) => Partitions::One(match key {
                Some(key) => partition_of(key, count),
                None => outputs.next_partition(output),
            }),
            Some(chosen) => chosen,
        };
        let partitions = match &mut chosen {
            Partitions::One(partition) => std::slice::from_ref(partition),
            Partitions::Many(partitions) => {
                partitions.sort_unstable();
                partitions.dedup();
                &partitions[..]
            }
            Partitions::Nowhere | Partitions::ByKey => &[],
        };
        if partitions.is_empty() {
            task.drop_record("no partition");
            return Ok(());
        }
        task.touch();
        let headers = record.headers.as_slice();
        partitions.iter().try_for_each(|&partition| {
            if task.is_traced() {
                let to = task.outputs_mut().topic(output).to_string();
                let text = record_text(key, value, record.timestamp);
                task.trace_note(|| format!("-> {to}-{partition}: {text}"));
            }
            let outputs = task.outputs_mut();
            outputs.send(output, partition, record.timestamp, key, value, headers)
        })
    }
}

#[cold]
fn unfit(output: usize, error: SerdeError, task: &mut TaskCore) -> ProcessError {
    let topic = task.outputs_mut().topic(output).to_string();
    ProcessError::Serialization { topic, error }
}

impl<K: Data, V: Data> Push<K, V> for SinkNode<K, V> {
    fn push(&mut self, record: Record<K, V>, task: &mut TaskCore) {
        if task.has_failed() {
            return;
        }
        let mut key_bytes = std::mem::take(&mut self.key_bytes);
        let mut value_bytes = std::mem::take(&mut self.value_bytes);
        let blame = Blame::on(&self.name);
        let written = self.write(&record, (&mut key_bytes, &mut value_bytes), task);
        blame.lift();
        if let Err(error) = written.or_else(|error| task.settle(Stage::Production, error)) {
            task.fail(error);
        }
        self.key_bytes = key_bytes;
        self.value_bytes = value_bytes;
    }

    fn signal(&mut self, _: &Signal, _: &mut TaskCore) {}
}
