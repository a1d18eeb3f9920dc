//! Transactional writers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::Shared;
use super::entries::{Entry, Source};
use super::state::State;
use crate::{
    Batch, Commit, Error, GroupCommit, Offset, SubmitError, Ticket, TopicId, TopicPartition,
    Transactor, TransactorEvent,
};

/// A transactor as the broker knows it.
pub(super) struct Committer {
    pub(super) id: Arc<str>,
    epoch: u32,
    pub(super) waker: Waker,
    pub(super) events: VecDeque<TransactorEvent>,
    /// In flight, in their order.
    pub(super) tickets: VecDeque<Ticket>,
    next_ticket: u64,
    pub(super) synced: Option<Ticket>,
    fenced: bool,
    in_doubt: bool,
    pub(super) told_full: bool,
}

impl Committer {
    /// The last event of the ticket that is the next to end.
    pub(super) fn resolve(&mut self, event: TransactorEvent) {
        self.tickets.pop_front();
        self.events.push_back(event);
        self.tell_if_fenced();
    }

    pub(super) fn doubt_all(&mut self) {
        self.in_doubt = true;
        let doubts = self.tickets.drain(..).map(|ticket| TransactorEvent::Doubt { ticket });
        self.events.extend(doubts);
        self.tell_if_fenced();
    }

    fn fence(&mut self) {
        if !self.fenced {
            self.fenced = true;
            self.tell_if_fenced();
        }
    }

    fn tell_if_fenced(&mut self) {
        if self.fenced && self.tickets.is_empty() {
            self.events.push_back(TransactorEvent::Fenced);
        }
    }

    pub(super) fn close(&mut self) {
        self.tickets.clear();
        self.events.push_back(TransactorEvent::Failed(Error::Closed));
    }
}

/// The handle.
pub(super) struct SimTransactor {
    shared: Shared,
    key: u64,
}

impl SimTransactor {
    pub(super) fn open(shared: &Shared, id: &str, waker: Waker) -> Result<Self, Error> {
        let key = shared.with(|state| {
            state.check_open()?;
            let id: Arc<str> = id.into();
            for older in state.committers.values_mut().filter(|c| c.id == id) {
                older.fence();
                state.to_wake.push(older.waker.clone());
            }
            let epoch = state.epochs.get(&id).map_or(0, |epoch| epoch + 1);
            state.epochs.insert(id.clone(), epoch);
            let committer = Committer {
                id,
                epoch,
                waker,
                events: VecDeque::new(),
                tickets: VecDeque::new(),
                next_ticket: 0,
                synced: None,
                fenced: false,
                in_doubt: false,
                told_full: false,
            };
            let key = state.number();
            state.committers.insert(key, committer);
            Ok(key)
        })?;
        Ok(Self { shared: shared.clone(), key })
    }
}

impl State {
    fn submit(&mut self, key: u64, commit: Commit) -> Result<Ticket, SubmitError<Commit>> {
        match self.check_commit(key, &commit) {
            Ok((ticket, ids)) => {
                let Commit { batches, group } = commit;
                let batches = batches.into_iter().zip(ids);
                let batches = batches.map(|((tp, batch), id)| (tp, id, batch)).collect();
                self.accept(Entry::new(Source::Committer(key, ticket), batches, group));
                Ok(ticket)
            }
            Err(error) => Err(SubmitError { error, submitted: Box::new(commit) }),
        }
    }

    fn check_commit(&mut self, key: u64, commit: &Commit) -> Result<(Ticket, Vec<TopicId>), Error> {
        self.check_open()?;
        let committer = self.committers.get(&key).ok_or(Error::Closed)?;
        if committer.fenced {
            return Err(Error::Fenced { id: committer.id.to_string(), epoch: committer.epoch });
        }
        if committer.in_doubt {
            return Err(Error::Failed { reason: "an earlier commit is in doubt".into() });
        }
        let in_flight = committer.tickets.len();
        let size: usize = commit.batches.iter().map(|(_, batch)| batch.bytes().len()).sum();
        let limit = self.capabilities.max_commit_bytes;
        if size > limit {
            let (size, limit) = (size as u64, limit as u64);
            let (what, setting) = ("a commit".into(), "max_commit_bytes");
            return Err(Error::TooLarge { what, size, limit, setting });
        }
        let offsets = commit.group.iter().flat_map(|group| &group.offsets);
        let longest = offsets.map(|(_, committed)| committed.metadata.len()).max();
        let limit = self.capabilities.max_offset_metadata_bytes;
        if let Some(size) = longest.filter(|size| *size > limit) {
            let (size, limit) = (size as u64, limit as u64);
            let (what, setting) = ("the text of an offset".into(), "max_offset_metadata_bytes");
            return Err(Error::TooLarge { what, size, limit, setting });
        }
        let ids = commit.batches.iter().map(|(tp, batch)| self.check_batch(tp, batch));
        let ids = ids.collect::<Result<_, _>>()?;
        commit.group.as_ref().map_or(Ok(()), |group| self.check_member(group))?;
        let full = in_flight >= self.capabilities.commits_in_flight
            || self.random.happens(self.faults.full);
        let committer = self.committers.get_mut(&key).ok_or(Error::Closed)?;
        if full {
            committer.told_full = true;
            return Err(Error::Full);
        }
        let ticket = Ticket(committer.next_ticket);
        committer.next_ticket += 1;
        committer.tickets.push_back(ticket);
        Ok((ticket, ids))
    }

    /// Whether a batch may go to this partition; gives the topic's identity.
    pub(super) fn check_batch(&self, tp: &TopicPartition, batch: &Batch) -> Result<TopicId, Error> {
        self.log(tp)?;
        let topic = self.topic(&tp.topic)?;
        topic.config.check_batch(tp, batch)?;
        Ok(topic.id)
    }

    fn check_member(&self, commit: &GroupCommit) -> Result<(), Error> {
        for (tp, _) in &commit.offsets {
            self.log(tp)?;
        }
        let application = self.applications.get(&commit.group);
        let valid = match commit.token {
            Some(token) => application.is_some_and(|a| a.accepts(token)),
            None => application.is_none_or(|a| a.is_empty()),
        };
        if valid {
            Ok(())
        } else {
            Err(Error::StaleMember { application: commit.group.to_string() })
        }
    }
}

impl Transactor for SimTransactor {
    fn submit(&mut self, commit: Commit) -> Result<Ticket, SubmitError<Commit>> {
        self.shared.with(|state| state.submit(self.key, commit))
    }

    fn poll(&mut self) -> Poll<TransactorEvent> {
        let event = self
            .shared
            .with(|state| state.committers.get_mut(&self.key).and_then(|c| c.events.pop_front()));
        event.map_or(Poll::Pending, Poll::Ready)
    }

    fn synced(&self) -> Option<Ticket> {
        self.shared.with(|state| state.committers.get(&self.key).and_then(|c| c.synced))
    }

    fn purge(&mut self, partition: &TopicPartition, before: Offset) {
        self.shared.with(|state| {
            if let Ok(id) = state.topic(&partition.topic).map(|topic| topic.id)
                && let Some(log) = state.log_mut(partition, id)
            {
                log.purge = log.purge.max(before);
            }
        });
    }
}

impl Drop for SimTransactor {
    fn drop(&mut self) {
        // What it has submitted takes its course; nobody is told.
        self.shared.with(|state| state.committers.remove(&self.key));
    }
}
