//! Transactions.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::hub::Hub;
use super::producer::ProducerConfig;
use super::record::Record;
use crate::partitioner::partition_of;
use crate::{
    Batch, BatchBuilder, Broker, Commit, CommittedOffset, Error, GroupCommit, MemberToken, Ticket,
    TopicPartition, Transactor, TransactorEvent,
};

/// Writes records and consumed offsets that take effect together or not at all.
///
/// Making one fences the earlier ones with the same id: exactly one of them can commit.
///
/// ```
/// use std::sync::Arc;
/// use broker_api::client::{Record, TransactionalProducer};
/// use broker_api::{Broker, CommittedOffset, NewTopic, TopicConfig, TopicPartition};
/// use broker_api::sim::{SimBroker, SimConfig};
///
/// let sim = SimBroker::new(SimConfig::default());
/// let broker: Arc<dyn Broker> = Arc::new(sim.clone());
/// sim.block_on(async {
///     for name in ["input", "output"] {
///         let config = TopicConfig::default();
///         let topic = NewTopic { name: name.into(), partitions: 1, config };
///         broker.admin().create_topic(topic).await?;
///     }
///     let mut producer = TransactionalProducer::new(broker.clone(), "copier-0")?;
///     let mut transaction = producer.begin();
///     transaction.send("output", Record::new("key", "value"))?;
///     let read = CommittedOffset { offset: 1, ..CommittedOffset::default() };
///     transaction.send_offsets("copier", [(TopicPartition::new("input", 0), read)])?;
///     transaction.commit().await?;
///
///     assert_eq!(broker.admin().group_offsets("copier").await?.len(), 1);
///     Ok::<(), broker_api::Error>(())
/// })?;
/// # Ok::<(), broker_api::Error>(())
/// ```
pub struct TransactionalProducer {
    broker: Arc<dyn Broker>,
    id: String,
    config: ProducerConfig,
    hub: Arc<Hub>,
    transactor: Box<dyn Transactor>,
    /// Where the records without a key of the next transaction go.
    keyless: u32,
    /// How many partitions a topic has, and the size limit of its batches.
    topics: BTreeMap<Arc<str>, (u32, usize)>,
}

impl TransactionalProducer {
    /// A producer with the default settings.
    ///
    /// # Errors
    /// Those of [`Broker::transactor`].
    pub fn new(broker: Arc<dyn Broker>, id: impl Into<String>) -> Result<Self, Error> {
        Self::with_config(broker, id, ProducerConfig::default())
    }

    /// A producer with these settings.
    ///
    /// # Errors
    /// Those of [`Broker::transactor`].
    pub fn with_config(
        broker: Arc<dyn Broker>,
        id: impl Into<String>,
        config: ProducerConfig,
    ) -> Result<Self, Error> {
        let (hub, id) = (Arc::new(Hub::default()), id.into());
        let transactor = broker.transactor(&id, hub.waker())?;
        Ok(Self { broker, id, config, hub, transactor, keyless: 0, topics: BTreeMap::new() })
    }

    /// Begins a transaction. Nothing of it reaches the broker before it is committed.
    pub fn begin(&mut self) -> Transaction<'_> {
        Transaction { producer: self, records: Vec::new(), group: None, weight: 0 }
    }

    async fn topic(&mut self, name: &Arc<str>) -> Result<(u32, usize), Error> {
        if let Some(known) = self.topics.get(name) {
            return Ok(*known);
        }
        let found = self.broker.admin().topic(name).await?;
        let known = (found.partitions, found.config.max_message_bytes as usize);
        self.topics.insert(name.clone(), known);
        Ok(known)
    }

    /// Submits, and waits until it is durable.
    async fn commit(&mut self, commit: Commit) -> Result<(), Error> {
        let Self { transactor, hub, id, .. } = self;
        let seat = hub.seat();
        let mut commit = Some(commit);
        let mut submitted: Option<Ticket> = None;
        poll_fn(|context| {
            seat.wait(context.waker());
            if let Some(waiting) = commit.take() {
                match transactor.submit(waiting) {
                    Ok(ticket) => submitted = Some(ticket),
                    Err(refused) if refused.error == Error::Full => {
                        commit = Some(*refused.submitted);
                    }
                    Err(refused) => return Poll::Ready(Err(refused.error)),
                }
            }
            while let Poll::Ready(event) = transactor.poll() {
                match event {
                    // Others are of commits whose futures were dropped.
                    TransactorEvent::Durable { ticket } if Some(ticket) == submitted => {
                        return Poll::Ready(Ok(()));
                    }
                    TransactorEvent::Applied { .. } | TransactorEvent::Durable { .. } => {}
                    TransactorEvent::Doubt { .. } => {
                        let cause = cause_of_failure(transactor.as_mut()).map(Box::new);
                        return Poll::Ready(Err(Error::InDoubt { id: id.clone(), cause }));
                    }
                    TransactorEvent::Fenced => {
                        // Asked for anything, it says which epoch was fenced.
                        let refused = transactor.submit(Commit::default()).err();
                        let error = refused.map_or(Error::Closed, |refused| refused.error);
                        return Poll::Ready(Err(error));
                    }
                    TransactorEvent::Failed(error) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalProducer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An open transaction. Dropping it aborts it.
#[must_use = "a transaction that is dropped is aborted"]
#[derive(Debug)]
pub struct Transaction<'p> {
    producer: &'p mut TransactionalProducer,
    records: Vec<(Arc<str>, Record)>,
    group: Option<GroupCommit>,
    weight: usize,
}

impl Transaction<'_> {
    /// Adds a record.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the transaction would pass [`ProducerConfig::buffer_bytes`],
    /// [`Error::NegativeTimestamp`]; the record is left out then.
    pub fn send(&mut self, topic: impl Into<Arc<str>>, record: Record) -> Result<(), Error> {
        let topic = topic.into();
        record.check(&topic)?;
        let (size, limit) = (self.weight + record.weight(), self.producer.config.buffer_bytes);
        if size > limit {
            return Err(Error::TooLarge {
                what: "a transaction".into(),
                size: size as u64,
                limit: limit as u64,
                setting: "buffer_bytes",
            });
        }
        self.weight = size;
        let now = || self.producer.config.clock.now();
        let timestamp = record.timestamp.unwrap_or_else(now);
        self.records.push((topic, record.at(timestamp)));
        Ok(())
    }

    /// Adds how far a consumer group has read. Later offsets of a partition replace earlier ones.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the transaction has offsets of another group already.
    pub fn send_offsets(
        &mut self,
        group: &str,
        offsets: impl IntoIterator<Item = (TopicPartition, CommittedOffset)>,
    ) -> Result<(), Error> {
        self.send_offsets_as(group, None, offsets)
    }

    /// As [`Transaction::send_offsets`], by a member of the application that the group is.
    ///
    /// # Errors
    /// As [`Transaction::send_offsets`].
    pub fn send_offsets_as(
        &mut self,
        group: &str,
        token: Option<MemberToken>,
        offsets: impl IntoIterator<Item = (TopicPartition, CommittedOffset)>,
    ) -> Result<(), Error> {
        let commit = self.group.get_or_insert_with(|| GroupCommit {
            group: group.into(),
            token,
            offsets: Vec::new(),
        });
        if &*commit.group != group || commit.token != token {
            return Err(Error::InvalidConfig {
                name: "group".into(),
                value: group.into(),
                expected: format!("'{}', as before in this transaction", commit.group),
            });
        }
        for (partition, offset) in offsets {
            commit.offsets.retain(|(known, _)| *known != partition);
            commit.offsets.push((partition, offset));
        }
        Ok(())
    }

    /// Commits: when this returns, all of it is durable. Dropping the future does not take back
    /// what it has submitted.
    ///
    /// # Errors
    /// [`Error::InDoubt`] if its outcome was lost, [`Error::Failed`] or [`Error::Closed`] if the
    /// broker went away meanwhile: it may have taken effect. After any other error nothing of it
    /// was written; those of [`Transactor::submit`], except [`Error::Full`], which is waited out.
    pub async fn commit(self) -> Result<(), Error> {
        let Self { producer, records, group, .. } = self;
        let mut encoder = Encoder { batch_bytes: producer.config.batch_bytes, ..<_>::default() };
        for (topic, record) in records {
            let (partitions, limit) = producer.topic(&topic).await?;
            let partition = match (record.partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_of(key, partitions),
                (None, None) => producer.keyless % partitions,
            };
            encoder.push(TopicPartition::new(topic, partition), &record, limit)?;
        }
        producer.keyless = producer.keyless.wrapping_add(1);
        let commit = Commit { batches: encoder.finish()?, group };
        let outcome = producer.commit(commit).await;
        if outcome.is_err() {
            // A topic may have been made again, or configured: ask anew next time.
            producer.topics.clear();
        }
        outcome
    }

    /// Gives the transaction up: nothing of it takes effect. Dropping it does the same.
    pub fn abort(self) {}
}

/// Builds the batches of a commit.
#[derive(Default)]
struct Encoder {
    batch_bytes: usize,
    building: BTreeMap<TopicPartition, BatchBuilder>,
    batches: Vec<(TopicPartition, Batch)>,
}

impl Encoder {
    /// Adds a record to its partition's batch, and begins another one where that is full.
    fn push(&mut self, tp: TopicPartition, record: &Record, limit: usize) -> Result<(), Error> {
        let builder = self.building.entry(tp.clone()).or_default();
        let full = builder.bytes() + record.weight() > self.batch_bytes.min(limit);
        if full && !builder.is_empty() {
            self.batches.push((tp, builder.finish()?));
        }
        let timestamp = record.timestamp.unwrap_or_default();
        builder.push(timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers)
    }

    fn finish(mut self) -> Result<Vec<(TopicPartition, Batch)>, Error> {
        for (tp, mut builder) in self.building {
            self.batches.push((tp, builder.finish()?));
        }
        Ok(self.batches)
    }
}

/// Why the broker failed: behind commits that are in doubt for this reason it says so.
fn cause_of_failure(transactor: &mut dyn Transactor) -> Option<Error> {
    while let Poll::Ready(event) = transactor.poll() {
        if let TransactorEvent::Failed(error) = event {
            return Some(error);
        }
    }
    None
}
