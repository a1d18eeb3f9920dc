//! The sequencer: gives every decision its place in the one order.
//!
//! A request is checked, becomes an [`Entry`], changes the [`State`] at once, and waits in the
//! queue for the journal writer. Nothing here blocks or touches the disk. What is *applied* has its
//! place; what is *durable* will keep it.

pub(crate) mod extent;
pub(crate) mod partition;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod watched;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::Waker;

use broker_api::{Error, Offset, ProducerEvent, Ticket, Timestamp, TransactorEvent};

use crate::journal::entry::Entry;
use crate::mailbox::Mailbox;
use crate::membership::Coordinator;
use state::State;

/// Whether entries are accepted.
#[derive(Clone, Debug)]
pub(crate) enum Health {
    /// All are.
    Open,
    /// Only those that finish what was begun, or that free space.
    DiskFull(Error),
    /// None; the error says why.
    Stopped(Error),
}

/// How important it is that a request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// New data.
    New,
    /// The outcome of data that was accepted before, or what frees space: has the reserve.
    Reserve,
}

/// How soon an entry must reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Somebody waits.
    Now,
    /// With the next that somebody waits for, or when the journal is sealed.
    Lazy,
}

/// Who is told when an entry is durable.
pub(crate) enum Notify {
    Nobody,
    Commit(Arc<Mailbox<TransactorEvent>>, Ticket),
    Append(Arc<Mailbox<ProducerEvent>>, Ticket, Offset),
}

/// An entry on its way to the disk.
pub(crate) struct Queued {
    pub(crate) entry: Entry,
    pub(crate) weight: usize,
    pub(crate) notify: Notify,
}

/// The sequencer. One lock guards all of it.
pub(crate) struct Sequencer {
    pub(crate) state: State,
    pub(crate) health: Health,
    /// Entries that the writer has not taken.
    pub(crate) queue: VecDeque<Queued>,
    /// Somebody waits for an entry in the queue.
    pub(crate) urgent: bool,
    /// Bytes of entries that are not durable.
    pub(crate) queued_bytes: usize,
    /// Entries below are synced: they survive a power cut, and files that they make unnecessary
    /// can go.
    pub(crate) synced_lsn: u64,
    /// The last entry that changed the topics: admin answers wait for it.
    pub(crate) topics_lsn: u64,
    /// Groups with members in this process.
    pub(crate) coordinators: BTreeMap<Arc<str>, Coordinator>,
    /// The newest handle of each transactional id.
    pub(crate) transactors: BTreeMap<Arc<str>, Weak<Mailbox<TransactorEvent>>>,
    /// Those who were told `Full`.
    pub(crate) full: Vec<Waker>,
    /// Those who wait until an entry is synced.
    pub(crate) waiting: Vec<(u64, Waker)>,
    /// The writer's thread sleeps.
    pub(crate) writer_sleeps: bool,
}

impl Sequencer {
    /// Over a recovered state, all of which is durable.
    pub(crate) fn new(state: State) -> Self {
        Self {
            health: Health::Open,
            queue: VecDeque::new(),
            urgent: false,
            queued_bytes: 0,
            synced_lsn: state.next_lsn,
            topics_lsn: state.next_lsn,
            coordinators: BTreeMap::new(),
            transactors: BTreeMap::new(),
            full: Vec::new(),
            waiting: Vec::new(),
            writer_sleeps: false,
            state,
        }
    }

    /// Entries below are written or on their way; the others wait in the queue.
    pub(crate) fn taken_lsn(&self) -> u64 {
        self.state.next_lsn - self.queue.len() as u64
    }

    /// Whether a request may go on.
    pub(crate) fn admit(&self, need: Need) -> Result<(), Error> {
        match (&self.health, need) {
            (Health::Open, _) | (Health::DiskFull(_), Need::Reserve) => Ok(()),
            (Health::DiskFull(e) | Health::Stopped(e), _) => Err(e.clone()),
        }
    }

    /// The time of the next entry: the clock's, but never before the last one's.
    pub(crate) fn stamp(&self, now: Timestamp) -> Timestamp {
        now.max(self.state.last_time)
    }

    /// Gives the entry its place: it takes effect now. Returns its number plus one: what
    /// `synced_lsn` reaches when it is synced.
    pub(crate) fn push(
        &mut self,
        entry: Entry,
        notify: Notify,
        haste: Haste,
        wakes: &mut Vec<Waker>,
    ) -> u64 {
        self.state.apply(&entry, wakes);
        for placed in entry.batches() {
            placed.partition.append(&placed.batch, wakes);
        }
        let weight = entry.weight();
        self.queued_bytes += weight;
        self.urgent |= haste == Haste::Now;
        self.queue.push_back(Queued { entry, weight, notify });
        self.state.next_lsn
    }

    /// Stops for good: what is queued is lost or in doubt, and whoever waits is told.
    pub(crate) fn stop(&mut self, error: Error, wakes: &mut Vec<Waker>) {
        self.health = Health::Stopped(error.clone());
        for queued in self.queue.drain(..) {
            queued.notify.lost(&error, wakes);
        }
        for transactor in self.transactors.values().filter_map(Weak::upgrade) {
            transactor.farewell(TransactorEvent::Failed(error.clone()), wakes);
        }
        self.queued_bytes = 0;
        self.urgent = false;
        wakes.append(&mut self.full);
        wakes.extend(self.waiting.drain(..).map(|(_, waker)| waker));
        for coordinator in std::mem::take(&mut self.coordinators).into_values() {
            wakes.extend(coordinator.into_wakers());
        }
        for (_, partition) in self.state.partitions() {
            partition.wake_all(wakes);
        }
    }

    /// The entries below `lsn` are synced: whoever waited for that is woken.
    pub(crate) fn synced(&mut self, lsn: u64, wakes: &mut Vec<Waker>) {
        self.synced_lsn = lsn;
        let waiting = self.waiting.extract_if(.., |(until, _)| *until <= lsn);
        wakes.extend(waiting.map(|(_, waker)| waker));
    }

    /// `waker` is woken when the entries below `lsn` are synced.
    pub(crate) fn wait_for(&mut self, lsn: u64, waker: &Waker) {
        if !self.waiting.iter().any(|(until, known)| *until == lsn && known.will_wake(waker)) {
            self.waiting.push((lsn, waker.clone()));
        }
    }
}

impl Notify {
    /// The entry is durable; whether it is synced as well, [`Notify::synced`] tells.
    pub(crate) fn durable(&self, wakes: &mut Vec<Waker>) {
        match self {
            Self::Nobody => {}
            Self::Commit(mailbox, ticket) => {
                mailbox.resolve(TransactorEvent::Durable { ticket: *ticket }, wakes);
            }
            Self::Append(mailbox, ticket, base_offset) => {
                let (ticket, base_offset) = (*ticket, *base_offset);
                mailbox.resolve(ProducerEvent::Appended { ticket, base_offset }, wakes);
            }
        }
    }

    /// The entry may be lost.
    pub(crate) fn lost(self, error: &Error, wakes: &mut Vec<Waker>) {
        match self {
            Self::Nobody => {}
            Self::Commit(mailbox, ticket) => {
                mailbox.resolve(TransactorEvent::Doubt { ticket }, wakes);
            }
            Self::Append(mailbox, ticket, _) => {
                let error = error.clone();
                mailbox.resolve(ProducerEvent::Failed { ticket, error }, wakes);
            }
        }
    }
}
