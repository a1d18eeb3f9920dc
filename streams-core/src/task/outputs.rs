//! What a task writes in a generation: one batch after another for each output partition.

use std::sync::Arc;

use broker_api::{Batch, BatchBuilder, Header, Timestamp, TopicDescription, TopicPartition};

use crate::error::ProcessError;

/// A batch is finished when it reaches this many bytes, or when the next record would make it larger
/// than its topic takes.
const BATCH_BYTES: usize = 256 << 10;

/// A topic that a task writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTopic {
    /// Its full name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// The largest batch that it takes, in bytes.
    pub max_message_bytes: u32,
}

impl OutputTopic {
    /// A topic whose batches are as large as any topic may allow.
    pub fn unlimited(name: Arc<str>, partitions: u32) -> Self {
        Self { name, partitions, max_message_bytes: u32::MAX }
    }
}

impl From<&TopicDescription> for OutputTopic {
    fn from(topic: &TopicDescription) -> Self {
        Self {
            name: topic.name.clone(),
            partitions: topic.partitions,
            max_message_bytes: topic.config.max_message_bytes,
        }
    }
}

/// The output topics of a task, with the batches that are being filled.
#[derive(Default)]
pub struct Outputs {
    topics: Vec<Topic>,
    finished: Vec<(TopicPartition, Batch)>,
    finished_bytes: usize,
    /// Which (topic, partition) builders hold records, in order of their first.
    filled: Vec<(usize, u32)>,
}

struct Topic {
    name: Arc<str>,
    partitions: Vec<BatchBuilder>,
    max_message_bytes: usize,
    next_partition: u32,
}

impl Outputs {
    /// Adds a topic; its number is the answer.
    pub fn add(&mut self, topic: OutputTopic) -> usize {
        let OutputTopic { name, partitions, max_message_bytes } = topic;
        if let Some(known) = self.topics.iter().position(|topic| topic.name == name) {
            return known;
        }
        let partitions = (0..partitions).map(|_| BatchBuilder::new()).collect();
        let max_message_bytes = max_message_bytes as usize;
        self.topics.push(Topic { name, partitions, max_message_bytes, next_partition: 0 });
        self.topics.len() - 1
    }

    /// The number of a topic.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| *topic.name == *name)
    }

    /// The name of a topic.
    pub fn topic(&self, topic: usize) -> &Arc<str> {
        &self.topics[topic].name
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: usize) -> u32 {
        self.topics[topic].partitions.len() as u32
    }

    /// The partitions of a topic in turn.
    pub fn next_partition(&mut self, topic: usize) -> u32 {
        let topic = &mut self.topics[topic];
        let chosen = topic.next_partition;
        topic.next_partition = (chosen + 1) % topic.partitions.len() as u32;
        chosen
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`ProcessError::Output`] if the record is larger than the topic takes or the topic lacks the
    /// partition.
    pub fn send(
        &mut self,
        topic: usize,
        partition: u32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), ProcessError> {
        let entry = &mut self.topics[topic];
        let count = entry.partitions.len() as u32;
        let Some(builder) = entry.partitions.get_mut(partition as usize) else {
            let topic = entry.name.to_string();
            let error = broker_api::Error::UnknownPartition {
                topic: topic.clone(),
                partition,
                partitions: count,
            };
            return Err(ProcessError::Output { topic, error });
        };
        let was_empty = builder.is_empty();
        let limit = entry.max_message_bytes;
        if !was_empty && builder.bytes() + most_bytes(key, value, headers) > limit {
            self.finish(topic, partition)?;
        }
        let entry = &mut self.topics[topic];
        let builder = &mut entry.partitions[partition as usize];
        if let Err(error) = builder.push(timestamp, key, value, headers) {
            let error = ProcessError::Output { topic: entry.name.to_string(), error };
            return Err(self.refused(topic, partition, error));
        }
        if builder.bytes() > limit {
            let error = too_large(&entry.name, builder.bytes(), limit);
            *builder = BatchBuilder::new(); // it was alone in its batch
            return Err(self.refused(topic, partition, error));
        }
        if builder.bytes() >= BATCH_BYTES {
            self.finish(topic, partition)?;
            if !was_empty {
                self.filled.retain(|filled| *filled != (topic, partition));
            }
        } else if was_empty {
            self.filled.push((topic, partition));
        }
        Ok(())
    }

    /// A refused record leaves nothing behind, not even an empty batch.
    #[cold]
    fn refused(&mut self, topic: usize, partition: u32, error: ProcessError) -> ProcessError {
        if self.topics[topic].partitions[partition as usize].is_empty() {
            self.filled.retain(|filled| *filled != (topic, partition));
        }
        error
    }

    fn finish(&mut self, topic: usize, partition: u32) -> Result<(), ProcessError> {
        let entry = &mut self.topics[topic];
        let name = &entry.name;
        let batch = entry.partitions[partition as usize]
            .finish()
            .map_err(|error| ProcessError::Output { topic: name.to_string(), error })?;
        self.finished_bytes += batch.bytes().len();
        self.finished.push((TopicPartition { topic: name.clone(), partition }, batch));
        Ok(())
    }

    /// How many bytes wait to be taken.
    pub fn bytes(&self) -> usize {
        let filling: usize =
            self.filled.iter().map(|(t, p)| self.topics[*t].partitions[*p as usize].bytes()).sum();
        self.finished_bytes + filling
    }

    /// Takes all batches, in order for each partition.
    ///
    /// # Errors
    /// [`ProcessError::Output`].
    pub fn take(&mut self) -> Result<Vec<(TopicPartition, Batch)>, ProcessError> {
        for (topic, partition) in std::mem::take(&mut self.filled) {
            self.finish(topic, partition)?;
        }
        self.finished_bytes = 0;
        Ok(std::mem::take(&mut self.finished))
    }
}

/// What a record takes at most, in a batch that has others.
fn most_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    const NUMBERS: usize = 48; // lengths, timestamp, offset: seven numbers, each as long as can be
    const LENGTHS: usize = 10;
    let bytes = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let header = |h: &Header| h.name.len() + bytes(h.value.as_deref()) + LENGTHS;
    NUMBERS + bytes(key) + bytes(value) + headers.iter().map(header).sum::<usize>()
}

#[cold]
fn too_large(topic: &str, size: usize, limit: usize) -> ProcessError {
    let error = broker_api::Error::TooLarge {
        what: format!("a record for {topic}"),
        size: size as u64,
        limit: limit as u64,
        setting: "max.message.bytes",
    };
    ProcessError::Output { topic: topic.into(), error }
}
