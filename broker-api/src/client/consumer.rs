//! The consumer that is a stream.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures::Stream;
use futures::task::AtomicWaker;

use crate::batch::Cursor;
use crate::types::{Offset, Timestamp};
use crate::{
    Batch, Broker, CommittedOffset, Error, Fetched, Fetcher, FetcherConfig, Header, Isolation,
    OffsetSpec, Start, TopicPartition, View,
};

/// A record that was read. Key and value share the memory of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Where it is from.
    pub partition: TopicPartition,
    /// Its place there.
    pub offset: Offset,
    /// Its time.
    pub timestamp: Timestamp,
    /// Its key; may be null.
    pub key: Option<Bytes>,
    /// Its value; may be null.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// How a [`Consumer`] is to read. Begins as: all that is durable and committed, from the beginning,
/// without end.
#[must_use]
pub struct ConsumerBuilder {
    broker: Arc<dyn Broker>,
    topics: Vec<String>,
    partitions: Vec<(TopicPartition, Option<Start>)>,
    start: Start,
    isolation: Isolation,
    until_end: bool,
    fetch_bytes: usize,
}

impl ConsumerBuilder {
    /// Adds all partitions of a topic.
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.topics.push(name.into());
        self
    }

    /// Adds one partition.
    pub fn partition(mut self, partition: TopicPartition) -> Self {
        self.partitions.push((partition, None));
        self
    }

    /// Adds one partition with a start of its own, also where its topic is read as a whole.
    pub fn partition_from(mut self, partition: TopicPartition, start: Start) -> Self {
        self.partitions.push((partition, Some(start)));
        self
    }

    /// Where to start. Default: [`Start::Earliest`].
    pub fn from(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// Which transactions to see. Default: [`Isolation::ReadCommitted`].
    pub fn isolation(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }

    /// Lets the stream end where its partitions end when it is built.
    pub fn until_end(self) -> Self {
        Self { until_end: true, ..self }
    }

    /// How many bytes are fetched ahead. Default: 1 MiB.
    pub fn fetch_bytes(self, fetch_bytes: usize) -> Self {
        Self { fetch_bytes, ..self }
    }

    /// The consumer.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::Closed`].
    pub async fn build(self) -> Result<Consumer, Error> {
        let admin = self.broker.admin();
        let mut assignment = Vec::new();
        for name in &self.topics {
            let topic = admin.topic(name).await?;
            let partitions = 0..topic.partitions;
            assignment
                .extend(partitions.map(|p| (TopicPartition::new(topic.name.clone(), p), None)));
        }
        assignment.extend(self.partitions); // last, so that a start of its own counts
        let assignment: BTreeMap<TopicPartition, Start> =
            assignment.into_iter().map(|(tp, start)| (tp, start.unwrap_or(self.start))).collect();
        let end = match self.isolation {
            Isolation::ReadCommitted => OffsetSpec::Stable,
            Isolation::ReadUncommitted => OffsetSpec::Latest,
        };
        let ends = if self.until_end {
            let asked: Vec<_> = assignment.keys().map(|tp| (tp.clone(), end)).collect();
            Some(admin.offsets(&asked).await?)
        } else {
            None
        };
        let bell = Arc::new(Bell::default());
        let config = FetcherConfig { view: View::Durable, isolation: self.isolation };
        let mut fetcher = self.broker.fetcher(config, Waker::from(bell.clone()))?;
        let assigned: Vec<_> = assignment.iter().map(|(tp, s)| (tp.clone(), *s)).collect();
        fetcher.assign(&assigned)?;
        let places = assigned.into_iter().enumerate().map(|(i, (tp, start))| {
            let position = if let Start::At(offset) = start { Some(offset) } else { None };
            let end = ends.as_ref().and_then(|ends| ends.get(i).copied());
            (tp, Place { position, given: None, end })
        });
        Ok(Consumer {
            fetcher,
            bell,
            places: places.collect(),
            fetched: Vec::new(),
            fetch_bytes: self.fetch_bytes,
            until_end: self.until_end,
            over: false,
        })
    }
}

/// Wakes the task that polls the consumer.
#[derive(Default)]
struct Bell(AtomicWaker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

/// How far a partition was read.
struct Place {
    /// Below it nothing is to be given; unknown before the first fetch.
    position: Option<Offset>,
    /// Where to go on after what the stream has given.
    given: Option<Offset>,
    /// Where the stream ends.
    end: Option<Offset>,
}

/// What was fetched of a partition and not yet given.
struct Waiting {
    partition: TopicPartition,
    /// The last one first.
    batches: Vec<Batch>,
    cursor: Cursor,
    /// Records below were given before, or are not to be given.
    from: Offset,
    position: Offset,
}

/// A stream of records: in offset order within a partition, the partitions taking turns.
///
/// The first error ends it. See [`crate::client`] for an example.
pub struct Consumer {
    fetcher: Box<dyn Fetcher>,
    bell: Arc<Bell>,
    places: BTreeMap<TopicPartition, Place>,
    /// The next one last.
    fetched: Vec<Waiting>,
    fetch_bytes: usize,
    until_end: bool,
    over: bool,
}

impl Consumer {
    /// Begins to describe a consumer.
    pub fn builder(broker: Arc<dyn Broker>) -> ConsumerBuilder {
        ConsumerBuilder {
            broker,
            topics: Vec::new(),
            partitions: Vec::new(),
            start: Start::Earliest,
            isolation: Isolation::default(),
            until_end: false,
            fetch_bytes: 1 << 20,
        }
    }

    /// Where to go on after the records that the stream has given: what a group commits. Partitions
    /// of which nothing was given yet are left out.
    pub fn offsets(&self) -> Vec<(TopicPartition, CommittedOffset)> {
        let given = self.places.iter().filter_map(|(tp, place)| {
            let offset = place.given?;
            Some((tp.clone(), CommittedOffset { offset, ..CommittedOffset::default() }))
        });
        given.collect()
    }

    fn take(&mut self, fetched: Vec<Fetched>) {
        for Fetched { partition, mut batches, position, log_start, .. } in fetched {
            let Some(place) = self.places.get_mut(&partition) else { continue };
            let from = place.position.unwrap_or(log_start);
            place.position = Some(position);
            batches.reverse();
            let cursor = Cursor::default();
            self.fetched.push(Waiting { partition, batches, cursor, from, position });
        }
        self.fetched.reverse();
    }

    /// The next record of what was fetched.
    fn give(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        while let Some(waiting) = self.fetched.last_mut() {
            let place = self.places.get_mut(&waiting.partition)?;
            while let Some(batch) = waiting.batches.last() {
                let Some(record) = batch.next_record(&mut waiting.cursor) else {
                    waiting.batches.pop();
                    waiting.cursor = Cursor::default();
                    continue;
                };
                let record = match record {
                    Ok(record) => record,
                    Err(error) => return Some(Err(error)),
                };
                if record.offset < waiting.from || place.end.is_some_and(|e| record.offset >= e) {
                    continue;
                }
                place.given = Some(record.offset + 1);
                let slice = |bytes: &[u8]| batch.bytes().slice_ref(bytes);
                return Some(record.headers.to_vec().map(|headers| ConsumedRecord {
                    partition: waiting.partition.clone(),
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key.map(slice),
                    value: record.value.map(slice),
                    headers,
                }));
            }
            // What takes offsets behind the last record is passed as well.
            place.given = Some(place.end.map_or(waiting.position, |e| e.min(waiting.position)));
            self.fetched.pop();
        }
        None
    }

    fn at_its_end(&self) -> bool {
        let is_there = |place: &Place| place.end.is_some_and(|end| place.position >= Some(end));
        self.until_end && self.places.values().all(is_there)
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let next = loop {
            if let Some(record) = this.give() {
                break Some(record);
            }
            if this.at_its_end() {
                break None;
            }
            this.bell.0.register(context.waker());
            match this.fetcher.poll(this.fetch_bytes) {
                Poll::Ready(Ok(fetched)) => this.take(fetched),
                Poll::Ready(Err(error)) => break Some(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        };
        this.over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partitions = self.places.keys();
        f.debug_struct("Consumer").field("partitions", &partitions).finish_non_exhaustive()
    }
}
