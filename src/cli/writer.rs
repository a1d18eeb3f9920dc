//! Appending single records in batches, with a bounded amount on the way.

use std::collections::VecDeque;
use std::task::Poll;

use broker_api::{
    BatchBuilder, Broker, Error, Producer, ProducerEvent, Ticket, Timestamp, TopicDescription,
    TopicPartition, partitioner,
};

use super::stop::waker;
use super::{Failure, topics};

/// A batch goes out when it has about this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// What a record takes in a batch beside its key and value, at most, and what the batch takes.
const OVERHEAD: usize = 128;
/// How many batches may be on their way.
const IN_FLIGHT: usize = 32;

/// Writes records to one topic.
pub(crate) struct Writer {
    producer: Box<dyn Producer>,
    partitions: Vec<(TopicPartition, BatchBuilder)>,
    batch_bytes: usize,
    next_partition: usize,
    in_flight: VecDeque<(Ticket, u64)>,
    read: u64,
    written: u64,
}

impl Writer {
    pub(crate) fn new(broker: &dyn Broker, topic: &TopicDescription) -> Result<Self, Error> {
        let partitions = topics::partitions(topic).into_iter();
        Ok(Self {
            producer: broker.producer(waker())?,
            partitions: partitions.map(|tp| (tp, BatchBuilder::new())).collect(),
            batch_bytes: BATCH_BYTES.min(topic.config.max_message_bytes as usize),
            next_partition: 0,
            in_flight: VecDeque::new(),
            read: 0,
            written: 0,
        })
    }

    /// How many records were taken.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// How many of them are durable.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Takes a record. A key decides on the partition; without one they come in turn.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: it was not taken. Others: writing has failed.
    pub(crate) fn add(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), Error> {
        let count = self.partitions.len();
        let partition = match key {
            Some(key) => partitioner::partition_of(key, count as u32) as usize,
            None => self.next_partition,
        };
        let size = key.map_or(0, <[u8]>::len) + value.len() + OVERHEAD;
        let builder = &self.partitions[partition].1;
        if !builder.is_empty() && builder.bytes() + size > self.batch_bytes {
            self.send(partition)?;
        }
        let builder = &mut self.partitions[partition].1;
        builder.push(timestamp, key, Some(value), &[])?;
        // A record that fills a batch alone goes out alone, so that its refusal concerns no other.
        if builder.bytes() >= self.batch_bytes {
            self.send(partition)?;
        }
        if key.is_none() {
            self.next_partition = (partition + 1) % count;
        }
        self.read += 1;
        Ok(())
    }

    /// Sends all that was taken.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        for partition in 0..self.partitions.len() {
            if !self.partitions[partition].1.is_empty() {
                self.send(partition).map_err(|error| self.failure(error))?;
            }
        }
        Ok(())
    }

    /// Sends all that was taken and waits until it is durable.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.flush()?;
        self.wait_until_in_flight(0).map_err(|error| self.failure(error))
    }

    /// Notes what has become of batches on their way, without waiting.
    pub(crate) fn take_outcomes(&mut self) -> Result<(), Failure> {
        while self.poll().map_err(|error| self.failure(error))? {}
        Ok(())
    }

    /// Says how much of what was taken is written.
    pub(crate) fn failure(&self, error: Error) -> Failure {
        Failure::Unwritten { error, written: self.written, read: self.read }
    }

    fn send(&mut self, partition: usize) -> Result<(), Error> {
        self.wait_until_in_flight(IN_FLIGHT - 1)?;
        let (name, builder) = &mut self.partitions[partition];
        let records = builder.len() as u64;
        let mut batch = builder.finish()?;
        loop {
            let Err(refused) = self.producer.append(name, batch).map(|ticket| {
                self.in_flight.push_back((ticket, records));
            }) else {
                return Ok(());
            };
            if refused.error != Error::Full {
                return Err(refused.error);
            }
            batch = *refused.submitted;
            std::thread::park();
        }
    }

    fn wait_until_in_flight(&mut self, most: usize) -> Result<(), Error> {
        while self.in_flight.len() > most {
            if !self.poll()? {
                std::thread::park();
            }
        }
        Ok(())
    }

    /// Takes one outcome; `false` if there is none yet.
    fn poll(&mut self) -> Result<bool, Error> {
        match self.producer.poll() {
            Poll::Pending => Ok(false),
            Poll::Ready(ProducerEvent::Appended { ticket, .. }) => {
                let records = self.in_flight.pop_front().filter(|(t, _)| *t == ticket);
                self.written += records.map_or(0, |(_, records)| records);
                Ok(true)
            }
            Poll::Ready(ProducerEvent::Failed { error, .. }) => Err(error),
        }
    }
}
