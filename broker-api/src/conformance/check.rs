//! What a running check has at hand.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::reader::Reader;
use super::writer::{Committer, Writer};
use super::{Alarm, Harness, Stop};
use crate::{
    Admin, Batch, BatchBuilder, Broker, CommittedOffset, FetcherConfig, Isolation, NewTopic,
    Offset, OffsetSpec, Start, TopicConfig, TopicPartition, View,
};

/// How many times a check lets the broker make progress before it gives up.
const PATIENCE: usize = 100_000;

/// One running check: the broker, and names that no other check uses.
pub(super) struct Check<'a> {
    harness: &'a dyn Harness,
    /// None only while the broker is being opened again.
    broker: Option<Arc<dyn Broker>>,
    pub(super) alarm: Arc<Alarm>,
    name: &'static str,
}

impl<'a> Check<'a> {
    pub(super) fn new(harness: &'a dyn Harness, name: &'static str) -> Self {
        Self { harness, broker: Some(harness.broker()), alarm: Arc::default(), name }
    }

    pub(super) fn broker(&self) -> &dyn Broker {
        self.broker.as_deref().expect("the broker is open")
    }

    /// Lets the broker make progress until `attempt` gives something.
    pub(super) fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        for _ in 0..PATIENCE {
            if let Some(found) = attempt() {
                return found;
            }
            self.harness.progress(&self.alarm);
        }
        panic!("{}: waited in vain for {what}", self.name);
    }

    /// Runs a call of the admin interface to its end.
    pub(super) fn run<T>(&self, call: impl Future<Output = T>) -> T {
        let waker = self.alarm.waker();
        let mut call = pin!(call);
        self.until("an admin call", || match call.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        })
    }

    pub(super) fn admin(&self) -> Arc<dyn Admin> {
        self.broker().admin()
    }

    /// A name that belongs to this check alone.
    pub(super) fn unique(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Creates a topic of this check and gives its partitions.
    pub(super) fn topic(&self, name: &str, partitions: u32) -> Vec<TopicPartition> {
        self.topic_with(name, partitions, TopicConfig::default())
    }

    pub(super) fn topic_with(
        &self,
        name: &str,
        partitions: u32,
        config: TopicConfig,
    ) -> Vec<TopicPartition> {
        let name = self.unique(name);
        let topic = NewTopic { name: name.clone(), partitions, config };
        self.run(self.admin().create_topic(topic)).expect("create_topic");
        (0..partitions).map(|p| TopicPartition::new(name.as_str(), p)).collect()
    }

    /// A durable, read-committed reader of `partitions` from their beginning.
    pub(super) fn reader(&self, partitions: &[TopicPartition]) -> Reader<'_, 'a> {
        self.reader_from(View::Durable, partitions, Start::Earliest)
    }

    pub(super) fn reader_from(
        &self,
        view: View,
        partitions: &[TopicPartition],
        start: Start,
    ) -> Reader<'_, 'a> {
        let config = FetcherConfig { view, isolation: Isolation::ReadCommitted };
        let mut reader = Reader::new(self, config, self.alarm.waker());
        reader.assign(partitions, start);
        reader
    }

    /// Everything that a new durable reader finds in `partition` up to its end: (offset, value).
    pub(super) fn contents(&self, partition: &TopicPartition) -> Vec<(Offset, String)> {
        let mut reader = self.reader(std::slice::from_ref(partition));
        reader.read_to_end();
        reader.values(partition)
    }

    /// The end of what a durable reader sees.
    pub(super) fn end(&self, partition: &TopicPartition) -> Offset {
        self.offset(partition, OffsetSpec::Stable)
    }

    pub(super) fn offset(&self, partition: &TopicPartition, spec: OffsetSpec) -> Offset {
        let asked = [(partition.clone(), spec)];
        let found = self.run(self.admin().offsets(&asked)).expect("offsets");
        assert_eq!(found.len(), 1, "one offset was asked for");
        found[0]
    }

    pub(super) fn group(&self, group: &str) -> Vec<(TopicPartition, CommittedOffset)> {
        self.run(self.admin().group_offsets(group)).expect("group_offsets")
    }

    /// Whether the group is among those that have committed offsets.
    pub(super) fn is_listed(&self, group: &str) -> bool {
        let groups = self.run(self.admin().groups()).expect("groups");
        assert!(groups.is_sorted(), "groups by name: {groups:?}");
        groups.iter().any(|name| name == group)
    }

    pub(super) fn writer(&self) -> Writer<'_, 'a> {
        let producer = self.broker().producer(self.alarm.waker()).expect("producer");
        Writer { check: self, producer }
    }

    pub(super) fn committer(&self, id: &str) -> Committer<'_, 'a> {
        let id = self.unique(id);
        let transactor = self.broker().transactor(&id, self.alarm.waker()).expect("transactor");
        Committer { check: self, transactor }
    }

    /// Stops the broker and opens it again. False if it cannot.
    pub(super) fn reopen(&mut self, stop: Stop) -> bool {
        self.broker = None;
        let reopened = self.harness.reopen(stop);
        self.broker = Some(self.harness.broker());
        reopened
    }
}

/// A batch of records whose keys and values are these words.
pub(super) fn batch(words: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (i, word) in words.iter().enumerate() {
        let bytes = Some(word.as_bytes());
        builder.push(1_000 + i as i64, bytes, bytes, &[]).expect("push");
    }
    builder.finish().expect("finish")
}

/// A batch of one record of about `size` bytes.
pub(super) fn batch_of_size(size: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(1_000, None, Some(&vec![b'x'; size]), &[]).expect("push");
    builder.finish().expect("finish")
}
