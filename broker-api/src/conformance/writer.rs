//! Writers that wait for their outcome.

use std::task::Poll;

use super::check::{Check, batch};
use crate::{
    Batch, Commit, CommittedOffset, Error, GroupCommit, MemberToken, Offset, Producer,
    ProducerEvent, Ticket, TopicPartition, Transactor, TransactorEvent,
};

pub(super) struct Writer<'c, 'h> {
    pub(super) check: &'c Check<'h>,
    pub(super) producer: Box<dyn Producer>,
}

impl Writer<'_, '_> {
    pub(super) fn next(&mut self) -> ProducerEvent {
        let Self { check, producer } = self;
        check.until("an append's outcome", || match producer.poll() {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        })
    }

    /// Appends and waits until it is durable; gives the base offset.
    pub(super) fn append(&mut self, partition: &TopicPartition, batch: Batch) -> Offset {
        let ticket = self.producer.append(partition, batch).expect("append");
        match self.next() {
            ProducerEvent::Appended { ticket: resolved, base_offset } => {
                assert_eq!(resolved, ticket, "another ticket came first");
                base_offset
            }
            ProducerEvent::Failed { error, .. } => panic!("an append failed: {error}"),
        }
    }

    pub(super) fn words(&mut self, partition: &TopicPartition, words: &[&str]) -> Offset {
        self.append(partition, batch(words))
    }
}

pub(super) struct Committer<'c, 'h> {
    pub(super) check: &'c Check<'h>,
    pub(super) transactor: Box<dyn Transactor>,
}

impl Committer<'_, '_> {
    pub(super) fn next(&mut self) -> TransactorEvent {
        let Self { check, transactor } = self;
        check.until("a commit's outcome", || match transactor.poll() {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        })
    }

    pub(super) fn submit(&mut self, commit: Commit) -> Ticket {
        self.transactor.submit(commit).expect("submit")
    }

    /// Waits for a ticket that is the next to be applied; gives its base offsets.
    pub(super) fn applied(&mut self, ticket: Ticket) -> Vec<Offset> {
        match self.next() {
            TransactorEvent::Applied { ticket: found, base_offsets } if found == ticket => {
                base_offsets
            }
            other => panic!("expected {ticket:?} to be applied, got {other:?}"),
        }
    }

    pub(super) fn durable(&mut self, ticket: Ticket) {
        assert_eq!(self.next(), TransactorEvent::Durable { ticket });
    }

    /// Waits until a durable commit is synced.
    pub(super) fn synced(&mut self, ticket: Ticket) {
        let Self { check, transactor } = self;
        check
            .until("a commit to be synced", || (transactor.synced() >= Some(ticket)).then_some(()));
    }

    /// Submits and waits until it is durable; gives the base offsets.
    pub(super) fn commit(&mut self, commit: Commit) -> Vec<Offset> {
        let ticket = self.submit(commit);
        let base_offsets = self.applied(ticket);
        self.durable(ticket);
        base_offsets
    }

    /// Whether this commit is accepted. A broker may tell a fenced transactor only by its event.
    pub(super) fn attempt(&mut self, commit: Commit) -> Result<(), Error> {
        self.transactor.submit(commit).map_err(|refused| refused.error)?;
        match self.next() {
            TransactorEvent::Applied { .. } => Ok(()),
            TransactorEvent::Fenced => Err(Error::Fenced { id: String::new(), epoch: 0 }),
            TransactorEvent::Failed(error) => Err(error),
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// A commit of words to partitions.
pub(super) fn commit_of(batches: &[(&TopicPartition, &[&str])]) -> Commit {
    let batches = batches.iter().map(|(tp, words)| ((*tp).clone(), batch(words))).collect();
    Commit { batches, group: None }
}

/// Adds one consumed offset of a group to a commit.
pub(super) fn consuming(
    mut commit: Commit,
    group: &str,
    token: Option<MemberToken>,
    partition: &TopicPartition,
    offset: Offset,
) -> Commit {
    let committed = CommittedOffset { offset, metadata: format!("at {offset}") };
    commit.group = Some(GroupCommit {
        group: group.into(),
        token,
        offsets: vec![(partition.clone(), committed)],
    });
    commit
}
