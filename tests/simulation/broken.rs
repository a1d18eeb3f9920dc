//! Brokers with one promise broken, to see that the oracles notice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use broker_api::{
    Admin, Batch, Broker, Capabilities, Commit, Error, Fetched, Fetcher, FetcherConfig, Membership,
    MembershipConfig, Offset, Producer, ProducerEvent, Start, SubmitError, Ticket, TopicPartition,
    Transactor, TransactorEvent, View,
};

use crate::broken_admin::BrokenAdmin;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Appends are acknowledged when they are applied.
    AcknowledgedIsDurable,
    /// Commits are said to be durable and synced when they are applied: stores are flushed too early.
    FlushedIsDurable,
    /// Commits are said to be synced when they are durable.
    SyncedIsSynced,
    /// Now and then a commit in the middle is swallowed.
    NothingIsLost,
    /// The batches of a commit go first, its consumed offsets follow in another entry.
    CommitsAreAtomic,
    /// [`Admin::sync`] returns at once.
    SyncIsSynced,
    /// Partitions are said to be empty for those who read what is durable, and their records come late.
    EndsAreEnds,
}

pub(crate) struct Broken {
    inner: Arc<dyn Broker>,
    promise: Promise,
}

impl Broken {
    pub(crate) fn between(inner: Arc<dyn Broker>, promise: Promise) -> Arc<dyn Broker> {
        Arc::new(Self { inner, promise })
    }
}

impl Broker for Broken {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn fetcher(&self, config: FetcherConfig, waker: Waker) -> Result<Box<dyn Fetcher>, Error> {
        let inner = self.inner.fetcher(config, waker.clone())?;
        Ok(match (self.promise, config.view) {
            (Promise::EndsAreEnds, View::Durable) => Box::new(Late { inner, waker, polls: 0 }),
            _ => inner,
        })
    }

    fn transactor(&self, id: &str, waker: Waker) -> Result<Box<dyn Transactor>, Error> {
        let inner = self.inner.transactor(id, waker.clone())?;
        Ok(match self.promise {
            Promise::AcknowledgedIsDurable | Promise::SyncIsSynced | Promise::EndsAreEnds => inner,
            Promise::FlushedIsDurable | Promise::SyncedIsSynced => Box::new(Hasty {
                inner,
                waits: self.promise == Promise::SyncedIsSynced,
                events: VecDeque::new(),
                said: None,
            }),
            Promise::NothingIsLost => Box::new(Forgetful {
                inner,
                waker,
                given: 0,
                tickets: VecDeque::new(),
                events: VecDeque::new(),
                said: None,
            }),
            Promise::CommitsAreAtomic => Box::new(Splitting {
                inner,
                waker,
                given: 0,
                second: VecDeque::new(),
                under_way: VecDeque::new(),
                said: None,
            }),
        })
    }

    fn producer(&self, waker: Waker) -> Result<Box<dyn Producer>, Error> {
        let inner = self.inner.producer(waker)?;
        Ok(match self.promise {
            Promise::AcknowledgedIsDurable => {
                Box::new(Eager { broker: self.inner.clone(), inner, events: VecDeque::new() })
            }
            _ => inner,
        })
    }

    fn membership(
        &self,
        config: MembershipConfig,
        waker: Waker,
    ) -> Result<Box<dyn Membership>, Error> {
        self.inner.membership(config, waker)
    }

    fn admin(&self) -> Arc<dyn Admin> {
        let (inner, about_syncs) = (self.inner.admin(), self.promise == Promise::SyncIsSynced);
        match self.promise {
            Promise::SyncIsSynced | Promise::EndsAreEnds => {
                Arc::new(BrokenAdmin { inner, about_syncs })
            }
            _ => inner,
        }
    }
}

/// Gives something now and then only.
struct Late {
    inner: Box<dyn Fetcher>,
    waker: Waker,
    polls: u64,
}

impl Fetcher for Late {
    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), Error> {
        self.inner.assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        self.inner.unassign(partitions);
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.inner.pause(partitions);
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.inner.resume(partitions);
    }

    fn poll(&mut self, max_bytes: usize) -> Poll<Result<Vec<Fetched>, Error>> {
        self.polls += 1;
        if self.polls.is_multiple_of(8) {
            return self.inner.poll(max_bytes);
        }
        self.waker.wake_by_ref();
        Poll::Pending
    }
}

/// Acknowledges what it sees applied.
struct Eager {
    broker: Arc<dyn Broker>,
    inner: Box<dyn Producer>,
    events: VecDeque<ProducerEvent>,
}

impl Producer for Eager {
    fn append(
        &mut self,
        partition: &TopicPartition,
        batch: Batch,
    ) -> Result<Ticket, SubmitError<Batch>> {
        let base_offset = applied_end(&*self.broker, partition);
        let ticket = self.inner.append(partition, batch)?;
        self.events.push_back(ProducerEvent::Appended { ticket, base_offset });
        Ok(ticket)
    }

    fn poll(&mut self) -> Poll<ProducerEvent> {
        while self.inner.poll().is_ready() {}
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The embedded broker answers this at once.
fn applied_end(broker: &dyn Broker, partition: &TopicPartition) -> Offset {
    let admin = broker.admin();
    let asked = [(partition.clone(), broker_api::OffsetSpec::Latest)];
    let mut answer = admin.offsets(&asked);
    match answer.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(offsets)) => offsets[0],
        _ => 0,
    }
}

/// Says `Durable` right after `Applied`, unless it `waits`; what it calls durable, it calls synced.
struct Hasty {
    inner: Box<dyn Transactor>,
    waits: bool,
    events: VecDeque<TransactorEvent>,
    said: Option<Ticket>,
}

impl Transactor for Hasty {
    fn submit(&mut self, commit: Commit) -> Result<Ticket, SubmitError<Commit>> {
        self.inner.submit(commit)
    }

    fn poll(&mut self) -> Poll<TransactorEvent> {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => Poll::Ready(event),
                None => match self.inner.poll() {
                    Poll::Ready(TransactorEvent::Durable { .. }) if !self.waits => continue,
                    event => event,
                },
            };
            match event {
                Poll::Ready(TransactorEvent::Applied { ticket, .. }) if !self.waits => {
                    self.events.push_back(TransactorEvent::Durable { ticket });
                }
                Poll::Ready(TransactorEvent::Durable { ticket }) => self.said = Some(ticket),
                _ => {}
            }
            return event;
        }
    }

    fn synced(&self) -> Option<Ticket> {
        self.said
    }

    /// Left out: only the flush is to be too early.
    fn purge(&mut self, _: &TopicPartition, _: Offset) {}
}

/// Swallows every fifth commit.
struct Forgetful {
    inner: Box<dyn Transactor>,
    waker: Waker,
    given: u64,
    /// Inner and outer ones of what is in flight.
    tickets: VecDeque<(Ticket, Ticket)>,
    events: VecDeque<TransactorEvent>,
    said: Option<Ticket>,
}

impl Transactor for Forgetful {
    fn submit(&mut self, commit: Commit) -> Result<Ticket, SubmitError<Commit>> {
        let ticket = Ticket(self.given);
        if self.given % 5 == 4 && self.tickets.is_empty() {
            let base_offsets = vec![0; commit.batches.len()];
            self.events.push_back(TransactorEvent::Applied { ticket, base_offsets });
            self.events.push_back(TransactorEvent::Durable { ticket });
            self.waker.wake_by_ref();
        } else {
            self.tickets.push_back((self.inner.submit(commit)?, ticket));
        }
        self.given += 1;
        Ok(ticket)
    }

    fn poll(&mut self) -> Poll<TransactorEvent> {
        if let Some(event) = self.events.pop_front() {
            if let TransactorEvent::Durable { ticket } = event {
                self.said = Some(ticket);
            }
            return Poll::Ready(event);
        }
        let Poll::Ready(event) = self.inner.poll() else { return Poll::Pending };
        let outer = |inner| {
            let found = self.tickets.iter().find(|(known, _)| *known == inner);
            found.map_or(inner, |(_, outer)| *outer)
        };
        Poll::Ready(match event {
            TransactorEvent::Applied { ticket, base_offsets } => {
                TransactorEvent::Applied { ticket: outer(ticket), base_offsets }
            }
            TransactorEvent::Durable { ticket } => {
                let ticket = outer(ticket);
                self.tickets.pop_front();
                self.said = Some(ticket);
                TransactorEvent::Durable { ticket }
            }
            other => other,
        })
    }

    fn synced(&self) -> Option<Ticket> {
        self.said
    }

    fn purge(&mut self, partition: &TopicPartition, before: Offset) {
        self.inner.purge(partition, before);
    }
}

/// Makes two entries of each commit.
struct Splitting {
    inner: Box<dyn Transactor>,
    waker: Waker,
    given: u64,
    /// Consumed offsets whose batches are on their way.
    second: VecDeque<Commit>,
    under_way: VecDeque<Halves>,
    said: Option<Ticket>,
}

/// A commit whose two entries are not durable yet.
struct Halves {
    outer: Ticket,
    first: Ticket,
    second: Option<Ticket>,
    base_offsets: Vec<Offset>,
}

impl Transactor for Splitting {
    fn submit(&mut self, mut commit: Commit) -> Result<Ticket, SubmitError<Commit>> {
        let offsets = Commit { group: commit.group.take(), ..Commit::default() };
        let first = match self.inner.submit(commit) {
            Ok(first) => first,
            Err(mut refused) => {
                refused.submitted.group = offsets.group;
                return Err(refused);
            }
        };
        self.second.push_back(offsets);
        let outer = Ticket(self.given);
        self.given += 1;
        self.under_way.push_back(Halves { outer, first, second: None, base_offsets: Vec::new() });
        Ok(outer)
    }

    fn poll(&mut self) -> Poll<TransactorEvent> {
        while let Poll::Ready(event) = self.inner.poll() {
            match event {
                TransactorEvent::Applied { ticket, base_offsets } => {
                    let halves = self.under_way.iter_mut();
                    for half in halves.filter(|half| half.first == ticket) {
                        half.base_offsets.clone_from(&base_offsets);
                    }
                    if let Some(half) = self.under_way.iter().find(|h| h.second == Some(ticket)) {
                        let base_offsets = half.base_offsets.clone();
                        return Poll::Ready(TransactorEvent::Applied {
                            ticket: half.outer,
                            base_offsets,
                        });
                    }
                }
                TransactorEvent::Durable { ticket } => {
                    if self.under_way.front().is_some_and(|half| half.second == Some(ticket)) {
                        let ticket = self.under_way.pop_front().map_or(ticket, |half| half.outer);
                        self.said = Some(ticket);
                        return Poll::Ready(TransactorEvent::Durable { ticket });
                    }
                    let waiting = self.under_way.iter_mut().find(|half| half.first == ticket);
                    if let (Some(half), Some(offsets)) = (waiting, self.second.pop_front()) {
                        match self.inner.submit(offsets) {
                            Ok(second) => half.second = Some(second),
                            Err(refused) => {
                                return Poll::Ready(TransactorEvent::Failed(refused.error));
                            }
                        }
                        self.waker.wake_by_ref();
                    }
                }
                other => return Poll::Ready(other),
            }
        }
        Poll::Pending
    }

    fn synced(&self) -> Option<Ticket> {
        self.said
    }

    fn purge(&mut self, partition: &TopicPartition, before: Offset) {
        self.inner.purge(partition, before);
    }
}
