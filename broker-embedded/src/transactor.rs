//! Transactions: a commit is checked, gets its place, and is durable with the next frame.

use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use broker_api::{
    Commit, Error, GroupCommit, Offset, SubmitError, Ticket, TopicPartition, Transactor,
    TransactorEvent,
};

use crate::broker::Client;
use crate::core::Core;
use crate::journal::entry::{Entry, Offsets, Placed};
use crate::mailbox::Mailbox;
use crate::sequencer::state::State;
use crate::sequencer::{Haste, Need, Notify, Sequencer};

/// Commits of one transactor that may wait for the disk or for their events to be fetched.
pub(crate) const COMMITS_IN_FLIGHT: usize = 1024;

/// The transactional writer of the embedded broker.
pub(crate) struct EmbeddedTransactor {
    client: Client,
    id: Arc<str>,
    epoch: u32,
    next_ticket: u64,
    mailbox: Arc<Mailbox<TransactorEvent>>,
}

impl EmbeddedTransactor {
    /// Fences those who had the id before.
    pub(crate) fn new(client: Client, id: &str, waker: Waker) -> Result<Self, Error> {
        let id: Arc<str> = id.into();
        let mailbox = Arc::new(Mailbox::new(waker));
        let epoch = client.core().with(|sequencer, wakes| {
            sequencer.admit(Need::Reserve)?;
            let epoch = sequencer.state.next_epoch(&id);
            let now = sequencer.stamp(client.core().clock.now());
            let entry = Entry::Producer { now, id: id.clone(), epoch };
            sequencer.push(entry, Notify::Nobody, Haste::Lazy, wakes);
            let before = sequencer.transactors.insert(id.clone(), Arc::downgrade(&mailbox));
            if let Some(before) = before.and_then(|before| before.upgrade()) {
                before.farewell(TransactorEvent::Fenced, wakes);
            }
            Ok::<u32, Error>(epoch)
        })?;
        Ok(Self { client, id, epoch, next_ticket: 0, mailbox })
    }

    fn try_submit(
        &self,
        core: &Core,
        sequencer: &mut Sequencer,
        commit: &Commit,
        wakes: &mut Vec<Waker>,
    ) -> Result<Ticket, Error> {
        let reads = commit.group.as_ref().is_some_and(|group| !group.offsets.is_empty());
        sequencer.admit(if reads { Need::Reserve } else { Need::New })?;
        let known = sequencer.state.producers.get(&self.id);
        if known.map(|known| known.epoch) != Some(self.epoch) {
            return Err(Error::Fenced { id: self.id.to_string(), epoch: self.epoch });
        }
        let now = sequencer.stamp(core.clock.now());
        let group = commit.group.as_ref().map(|group| consumed(sequencer, group)).transpose()?;
        let group = group.filter(|group| !group.offsets.is_empty());
        let batches = place(&sequencer.state, commit, now)?;
        let base_offsets: Vec<Offset> = batches.iter().map(|b| b.batch.base_offset()).collect();
        let (producer, epoch) = (self.id.clone(), self.epoch);
        let entry = Entry::Commit { now, producer, epoch, group, batches };
        room(core, sequencer, &entry, &self.mailbox, COMMITS_IN_FLIGHT)?;
        let ticket = Ticket(self.next_ticket);
        self.mailbox.open(Some(TransactorEvent::Applied { ticket, base_offsets }), wakes);
        sequencer.push(entry, Notify::Commit(self.mailbox.clone(), ticket), Haste::Now, wakes);
        Ok(ticket)
    }
}

impl Drop for EmbeddedTransactor {
    fn drop(&mut self) {
        let own = |known: &Weak<_>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&self.mailbox));
        let mut sequencer = self.client.core().lock();
        if sequencer.transactors.get(&self.id).is_some_and(own) {
            sequencer.transactors.remove(&self.id);
        }
    }
}

impl Transactor for EmbeddedTransactor {
    fn submit(&mut self, commit: Commit) -> Result<Ticket, SubmitError<Commit>> {
        let core = self.client.core();
        let size = size_of(&commit);
        let limit = core.settings.max_commit_bytes;
        let result = if size > limit {
            Err(Error::TooLarge {
                what: "a commit".into(),
                size: size as u64,
                limit: limit as u64,
                setting: "max_commit_bytes",
            })
        } else {
            core.with(|sequencer, wakes| self.try_submit(core, sequencer, &commit, wakes))
        };
        match result {
            Ok(ticket) => {
                self.next_ticket += 1;
                Ok(ticket)
            }
            Err(error) => Err(SubmitError { error, submitted: Box::new(commit) }),
        }
    }

    fn poll(&mut self) -> Poll<TransactorEvent> {
        self.mailbox.poll()
    }

    fn synced(&self) -> Option<Ticket> {
        self.mailbox.synced()
    }

    fn purge(&mut self, partition: &TopicPartition, before: Offset) {
        self.client.core().with(|sequencer, wakes| {
            let Ok((_, found)) = sequencer.state.find(partition) else { return };
            let found = found.clone();
            let (log_start, end) = {
                let log = found.lock();
                (log.start, log.end)
            };
            let before = before.min(end);
            if before > log_start && sequencer.admit(Need::Reserve).is_ok() {
                let entry = Entry::DeleteRecords { partition: found, before };
                sequencer.push(entry, Notify::Nobody, Haste::Lazy, wakes);
            }
        });
    }
}

/// The bytes of what a commit carries.
fn size_of(commit: &Commit) -> usize {
    let batches: usize = commit.batches.iter().map(|(_, batch)| batch.bytes().len()).sum();
    let offsets = commit.group.iter().flat_map(|group| &group.offsets);
    batches + offsets.map(|(_, committed)| committed.metadata.len()).sum::<usize>()
}

/// The consumed offsets, if the member may still commit them.
fn consumed(sequencer: &Sequencer, group: &GroupCommit) -> Result<Offsets, Error> {
    let valid = match sequencer.coordinators.get(&group.group) {
        Some(members) => group.token.is_some_and(|token| members.is_valid(token)),
        None => group.token.is_none(),
    };
    if !valid {
        return Err(Error::StaleMember { application: group.group.to_string() });
    }
    let offsets = group
        .offsets
        .iter()
        .map(|(tp, committed)| Ok((sequencer.state.find(tp)?.1.clone(), committed.clone())))
        .collect::<Result<_, Error>>()?;
    Ok(Offsets { group: group.group.clone(), offsets })
}

/// Gives each batch its offsets.
fn place(state: &State, commit: &Commit, now: i64) -> Result<Vec<Placed>, Error> {
    let mut placed: Vec<Placed> = Vec::with_capacity(commit.batches.len());
    for (tp, batch) in &commit.batches {
        let (topic, partition) = state.find(tp)?;
        topic.config.check_batch(tp, batch)?;
        // The commit may have appended to the same partition before.
        let before = placed.iter().rev().find(|other| Arc::ptr_eq(&other.partition, partition));
        let base = match before {
            Some(other) => other.batch.next_offset(),
            None => partition.lock().end,
        };
        let batch = batch.clone().assigned(base, now);
        placed.push(Placed { partition: partition.clone(), batch });
    }
    Ok(placed)
}

/// Refuses what would be too much in the queue; the handle is woken when there is room.
pub(crate) fn room<E>(
    core: &Core,
    sequencer: &mut Sequencer,
    entry: &Entry,
    mailbox: &Mailbox<E>,
    tickets: usize,
) -> Result<(), Error> {
    let queued = sequencer.queued_bytes;
    let full = queued > 0 && queued + entry.weight() > core.settings.max_queued_bytes;
    if full || mailbox.load() >= tickets {
        let waker = mailbox.waker();
        if !sequencer.full.iter().any(|other| other.will_wake(waker)) {
            sequencer.full.push(waker.clone());
        }
        // Room comes with the next frame: what can wait in the queue must not wait now.
        sequencer.urgent |= !sequencer.queue.is_empty();
        return Err(Error::Full);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use broker_api::ManualClock;

    use super::*;
    use crate::Settings;
    use crate::random::Random;
    use crate::vfs::SimVfs;

    #[test]
    fn what_finds_no_room_beside_a_lazy_entry_has_the_writer_make_some() {
        let settings = Settings { max_queued_bytes: 1, reserve_bytes: 0, ..Settings::default() };
        let (vfs, clock) = (Arc::new(SimVfs::new(1)), Arc::new(ManualClock::new(1_000)));
        let random = Random::seeded(7);
        let core = Core::open(vfs, clock, Path::new("/data"), settings, random, true).unwrap();
        let mailbox = Mailbox::<TransactorEvent>::new(Waker::noop().clone());
        let entry = |id: &str| Entry::Producer { now: 1_000, id: id.into(), epoch: 1 };
        core.with(|sequencer, wakes| {
            room(&core, sequencer, &entry("larger than the queue may be"), &mailbox, 1).unwrap();
            assert!(!sequencer.urgent, "nothing is queued");
            sequencer.push(entry("id"), Notify::Nobody, Haste::Lazy, wakes);
            let refused = room(&core, sequencer, &entry("another"), &mailbox, 1);
            assert_eq!(refused, Err(Error::Full));
            assert!(sequencer.urgent, "the writer sleeps, and the handle is never woken");
        });
    }
}
