//! Where records leave a task: encoding and partitioning.

use std::sync::Arc;

use broker_api::partitioner::partition_of;

use super::{Push, Signal};
use crate::error::{ProcessError, SerdeError};
use crate::failure::Stage;
use crate::record::{Data, Record};
use crate::serde::{DynSerde, encode};
use crate::task::TaskCore;

/// Chooses the partition of a record among as many as the topic has (the last argument).
pub type Partitioner<K, V> = Arc<dyn Fn(&K, &V, u32) -> u32 + Send + Sync>;

/// A sink.
pub struct SinkNode<K, V> {
    output: usize,
    key: DynSerde<K>,
    value: DynSerde<V>,
    partitioner: Option<Partitioner<K, V>>,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl<K: Data, V: Data> SinkNode<K, V> {
    /// A sink for the task's output topic `output`. Without a partitioner, records go by the
    /// murmur2 hash of their key bytes, and those without a key are spread evenly.
    pub fn new(
        output: usize,
        key: DynSerde<K>,
        value: DynSerde<V>,
        partitioner: Option<Partitioner<K, V>>,
    ) -> Self {
        Self { output, key, value, partitioner, key_bytes: Vec::new(), value_bytes: Vec::new() }
    }

    #[cold]
    fn unfit(&self, error: SerdeError, task: &mut TaskCore) -> ProcessError {
        let topic = task.outputs_mut().topic(self.output).to_string();
        ProcessError::Serialization { topic, error }
    }
}

impl<K: Data, V: Data> Push<K, V> for SinkNode<K, V> {
    fn push(&mut self, record: Record<K, V>, task: &mut TaskCore) {
        if task.has_failed() {
            return;
        }
        let mut key_bytes = std::mem::take(&mut self.key_bytes);
        let mut value_bytes = std::mem::take(&mut self.value_bytes);
        let encoded = encode(&*self.key, &record.key, &mut key_bytes)
            .and_then(|key| Ok((key, encode(&*self.value, &record.value, &mut value_bytes)?)));
        let written = match encoded {
            Ok((key, value)) => {
                task.touch();
                let outputs = task.outputs_mut();
                let partitions = outputs.partitions(self.output);
                let partition = match (&self.partitioner, key) {
                    (Some(choose), _) => choose(&record.key, &record.value, partitions),
                    (None, Some(key)) => partition_of(key, partitions),
                    (None, None) => outputs.next_partition(self.output),
                };
                let headers = record.headers.as_slice();
                outputs.send(self.output, partition, record.timestamp, key, value, headers)
            }
            Err(error) => Err(self.unfit(error, task)),
        };
        if let Err(error) = written.or_else(|error| task.settle(Stage::Production, error)) {
            task.fail(error);
        }
        self.key_bytes = key_bytes;
        self.value_bytes = value_bytes;
    }

    fn signal(&mut self, _: &Signal, _: &mut TaskCore) {}
}
