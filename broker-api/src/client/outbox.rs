//! What a producer has taken and not yet brought to its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;

use futures::channel::oneshot;

use super::producer::ProducerConfig;
use super::record::Record;
use crate::partitioner::partition_of;
use crate::{Batch, BatchBuilder, Error, Offset, Producer, ProducerEvent, Ticket, TopicPartition};

/// What a sender hears: where its record is.
pub(super) type Outcome = Result<(TopicPartition, Offset), Error>;

/// The batch of a partition that is being filled.
#[derive(Default)]
struct Filling {
    builder: BatchBuilder,
    senders: Senders,
    /// Batches of this partition that are in flight or wait for room at the broker.
    under_way: usize,
}

/// Who waits for the records of a batch, in their order, and what they weigh.
#[derive(Default)]
struct Senders {
    waiting: Vec<oneshot::Sender<Outcome>>,
    weight: usize,
}

/// A finished batch on its way.
struct Parcel {
    partition: TopicPartition,
    senders: Senders,
}

pub(super) struct Outbox {
    config: ProducerConfig,
    producer: Box<dyn Producer>,
    /// How many partitions a topic has.
    partitions: BTreeMap<Arc<str>, u32>,
    /// Where the records without a key of a topic go for now.
    keyless: BTreeMap<Arc<str>, u32>,
    filling: BTreeMap<TopicPartition, Filling>,
    /// Finished, and refused by a full broker so far.
    ready: VecDeque<(Parcel, Batch)>,
    in_flight: VecDeque<(Ticket, Parcel)>,
    weight: usize,
}

impl Outbox {
    pub(super) fn new(config: ProducerConfig, producer: Box<dyn Producer>) -> Self {
        Self {
            config,
            producer,
            partitions: BTreeMap::new(),
            keyless: BTreeMap::new(),
            filling: BTreeMap::new(),
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            weight: 0,
        }
    }

    pub(super) fn partitions(&self, topic: &str) -> Option<u32> {
        self.partitions.get(topic).copied()
    }

    pub(super) fn learn(&mut self, topic: Arc<str>, partitions: u32) {
        self.partitions.insert(topic, partitions);
    }

    /// Whether there is room for a record of this weight. An empty outbox takes any.
    pub(super) fn has_room(&self, weight: usize) -> bool {
        self.weight == 0 || self.weight + weight <= self.config.buffer_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weight == 0
    }

    /// Takes a record. Its outcome comes through the receiver.
    pub(super) fn take(
        &mut self,
        topic: &Arc<str>,
        partitions: u32,
        record: &Record,
    ) -> Result<oneshot::Receiver<Outcome>, Error> {
        record.check(topic)?;
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, partitions),
            (None, None) => self.keyless.get(topic).map_or(0, |next| next % partitions),
        };
        let partition = TopicPartition::new(topic.clone(), partition);
        let timestamp = record.timestamp.unwrap_or_else(|| self.config.clock.now());
        if let Some(filling) = self.filling.get(&partition)
            && !filling.builder.is_empty()
            && filling.builder.bytes() + record.weight() > self.config.batch_bytes
        {
            // A large record travels alone: if it is too large, no other one suffers.
            self.finish(&partition);
        }
        let filling = self.filling.entry(partition.clone()).or_default();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        filling.builder.push(timestamp, key, value, &record.headers)?;
        let (sender, receiver) = oneshot::channel();
        filling.senders.waiting.push(sender);
        filling.senders.weight += record.weight();
        self.weight += record.weight();
        Ok(receiver)
    }

    /// Hears what the broker has to say, and gives it what it can take. A partition's next batch
    /// is filled while its last one is under way: that is all the lingering there is.
    pub(super) fn drive(&mut self) {
        while let Poll::Ready(event) = self.producer.poll() {
            self.settle(event);
        }
        let idle = self.filling.iter().filter(|(_, f)| f.under_way == 0 && !f.builder.is_empty());
        let idle: Vec<TopicPartition> = idle.map(|(tp, _)| tp.clone()).collect();
        idle.iter().for_each(|tp| self.finish(tp));
        while let Some((parcel, batch)) = self.ready.pop_front() {
            match self.producer.append(&parcel.partition, batch) {
                Ok(ticket) => self.in_flight.push_back((ticket, parcel)),
                Err(refused) if refused.error == Error::Full => {
                    self.ready.push_front((parcel, *refused.submitted));
                    break;
                }
                Err(refused) => self.resolve(parcel, Err(refused.error)),
            }
        }
    }

    /// Closes the batch that is being filled.
    fn finish(&mut self, partition: &TopicPartition) {
        let Some(filling) = self.filling.get_mut(partition) else { return };
        let senders = std::mem::take(&mut filling.senders);
        let parcel = Parcel { partition: partition.clone(), senders };
        filling.under_way += 1;
        // The next records without a key go elsewhere.
        *self.keyless.entry(partition.topic.clone()).or_default() =
            partition.partition.wrapping_add(1);
        match filling.builder.finish() {
            Ok(batch) => self.ready.push_back((parcel, batch)),
            Err(error) => self.resolve(parcel, Err(error)),
        }
    }

    fn settle(&mut self, event: ProducerEvent) {
        let (ticket, outcome) = match event {
            ProducerEvent::Appended { ticket, base_offset } => (ticket, Ok(base_offset)),
            ProducerEvent::Failed { ticket, error } => (ticket, Err(error)),
        };
        // Tickets resolve in the order in which they were given out.
        if self.in_flight.front().is_some_and(|(first, _)| *first == ticket)
            && let Some((_, parcel)) = self.in_flight.pop_front()
        {
            self.resolve(parcel, outcome);
        }
    }

    fn resolve(&mut self, parcel: Parcel, outcome: Result<Offset, Error>) {
        let Parcel { partition, senders } = parcel;
        if matches!(outcome, Err(Error::UnknownTopic { .. } | Error::UnknownPartition { .. })) {
            // Deleted, or made again with other partitions: ask anew next time.
            self.partitions.remove(&partition.topic);
        }
        if let Some(filling) = self.filling.get_mut(&partition) {
            filling.under_way -= 1;
            if filling.under_way == 0 && filling.builder.is_empty() {
                self.filling.remove(&partition);
            }
        }
        self.weight -= senders.weight;
        for (i, sender) in senders.waiting.into_iter().enumerate() {
            let place = |base| (partition.clone(), base + i as Offset);
            // A sender that has gone away does not want to know.
            let _ = sender.send(outcome.clone().map(place));
        }
    }
}
