//! Sealing, submitting, and what follows once a commit is applied, durable and synced.

use std::sync::atomic::Ordering;
use std::task::Poll;

use broker_api::{
    Commit, Error, GroupCommit, MemberToken, Offset, TaskId, Ticket, Timestamp, TopicPartition,
    TransactorEvent,
};

use super::super::metrics::{Tally, add};
use super::super::{SealCounters, should_seal};
use super::running::Running;
use super::{StreamThread, StreamsError};
use crate::error::StateError;
use crate::failure::Place;
use crate::state::{EntryBatch, Expiry, Position, Store};
use crate::task::Task;

/// A commit that the broker has taken and that is not synced yet.
pub(super) struct InFlight {
    ticket: Ticket,
    parts: Vec<TaskPart>,
    tally: Tally,
    applied: bool,
}

/// What one task has in a commit.
pub(super) struct TaskPart {
    task: TaskId,
    /// Of each store that was written: its last changelog batch in the commit, and how many
    /// offsets that takes.
    changelogs: Vec<(usize, usize, Offset)>,
    /// Of each store that follows an input: how far it has come.
    followed: Vec<(usize, Offset)>,
    /// What stores have to write as of this commit, once it is synced.
    flushes: Vec<Snapshot>,
    /// What unlogged stores have to write when the broker has accepted it.
    unlogged: Vec<Snapshot>,
    /// Consumed internal input, to be deleted.
    purge: Vec<(TopicPartition, Offset)>,
    left_out: Vec<Place>,
}

/// What a store has to write as of a commit.
struct Snapshot {
    store: usize,
    batch: EntryBatch,
    /// The time of the store.
    time: Timestamp,
    expiry: Option<Expiry>,
    /// Known when the commit is applied.
    position: Option<Position>,
}

impl Snapshot {
    /// To be taken right after the store was sealed.
    fn of(index: usize, store: &mut dyn Store) -> Result<Self, StateError> {
        let batch = store.begin_flush()?;
        let (time, expiry) = (store.time(), store.expiry());
        Ok(Self { store: index, batch, time, expiry, position: None })
    }

    /// Of an unlogged store, whose engine has everything: to bring that into the files.
    fn of_unlogged(index: usize, store: &dyn Store) -> Self {
        let (batch, time, expiry) = (EntryBatch::new(), store.time(), store.expiry());
        Self { store: index, batch, time, expiry, position: None }
    }

    /// The store's position is that of the commit.
    fn at(&mut self, position: &Position) {
        self.position = Some(Position { stream_time: self.time, ..position.clone() });
    }
}

/// A commit that the broker had no room for.
pub(super) struct Unsent {
    commit: Commit,
    parts: Vec<TaskPart>,
    /// What was counted for it.
    tally: Tally,
}

impl Unsent {
    /// A task that has something in it.
    pub(super) fn task(&self) -> Option<TaskId> {
        self.parts.first().map(|part| part.task)
    }

    /// Goes on in the name of a member that has got other tasks meanwhile. Its own are still among them:
    /// none is given up before the commit is sent.
    fn commit_as(&mut self, token: Option<MemberToken>) {
        if let Some(group) = &mut self.commit.group {
            group.token = token;
        }
    }

    /// What was counted for it.
    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }
}

/// A store flush that has ended.
pub(super) struct FlushDone {
    task: TaskId,
    store: usize,
    result: Result<(), StateError>,
}

impl StreamThread {
    pub(super) fn seal_if_due(&mut self) -> Result<bool, StreamsError> {
        if self.token.is_none() {
            return Ok(false); // a commit would be refused
        }
        if !self.stopping && self.retry_at.is_some_and(|at| at > self.env.clock.monotonic()) {
            return Ok(false);
        }
        self.retry_at = None;
        if let Some(mut unsent) = self.unsent.take() {
            unsent.commit_as(self.token);
            self.submit(unsent)?;
            return Ok(self.unsent.is_none());
        }
        let settings = self.env.settings.clone();
        let now = self.env.clock.monotonic();
        let output_bytes = self.running.values_mut().map(|r| r.task.output_bytes()).sum();
        let stores: usize = self.running.values().map(|r| r.task.core().stores().len()).sum();
        let memory = self.store_budget() * stores / 2;
        let counters = SealCounters {
            uncommitted: self.since.is_some() || self.seal_requested,
            caught_up: self.has_nothing_to_process(),
            in_flight: self.in_flight.len(),
            max_in_flight: self.capabilities.commits_in_flight.saturating_sub(self.unsynced.len()),
            age: self.since.map_or_else(Default::default, |since| now.saturating_sub(since)),
            output_bytes,
            requested: self.seal_requested
                || self.generation.causes() >= self.generation_limit
                || self.dirty_bytes() > memory,
        };
        if !self.draining && !should_seal(counters, settings.commit_interval, self.seal_bytes()) {
            return Ok(false);
        }
        self.draining = true;
        if !self.is_drained()? {
            return Ok(false);
        }
        self.draining = false;
        self.seal()?;
        Ok(true)
    }

    /// Whether no call is in flight, also none that follows from draining caches.
    fn is_drained(&mut self) -> Result<bool, StreamsError> {
        if self.calls_in_flight() > 0 {
            return Ok(false);
        }
        let mut failed = None;
        let mut room = self.room();
        for (id, running) in &mut self.running {
            if !running.task.core().is_asynchronous() {
                continue;
            }
            if let Err(error) = room.used_by(&mut running.task, 0, Task::prepare_seal) {
                failed = Some((*id, error));
                break;
            }
        }
        if let Some((task, error)) = failed {
            self.sealing_failed(task, error)?;
            return Ok(false);
        }
        Ok(self.calls_in_flight() == 0)
    }

    fn dirty_bytes(&mut self) -> usize {
        let stores =
            self.running.values_mut().flat_map(|r| r.task.core_mut().stores_mut().iter_mut());
        stores.map(|store| store.dirty_bytes()).sum()
    }

    fn seal(&mut self) -> Result<(), StreamsError> {
        self.since = None;
        self.seal_requested = false;
        let mut tally = std::mem::take(&mut self.generation);
        let now = self.env.clock.monotonic();
        let budget = self.store_budget();
        let mut room = self.room();
        let mut commit = Commit::default();
        let mut offsets = Vec::new();
        let mut parts = Vec::new();
        for (id, running) in &mut self.running {
            if !running.task.has_uncommitted() {
                continue;
            }
            running.sealed = true;
            let bytes = running.task.output_bytes();
            running.task.give_room(room.left(), 0);
            let sealed = match running.task.seal() {
                Ok(sealed) => sealed,
                Err(error) => {
                    let id = *id;
                    self.generation = tally; // given up with the rest
                    return self.sealing_failed(id, error);
                }
            };
            let sealed_bytes: usize = sealed.batches.iter().map(|(_, b)| b.bytes().len()).sum();
            room.take(sealed_bytes.saturating_sub(bytes));
            for (reason, n) in running.task.core_mut().take_dropped() {
                *tally.dropped.entry(reason).or_default() += n;
            }
            let base = commit.batches.len();
            let changelogs = sealed
                .changelogs
                .iter()
                .map(|c| {
                    let batch = &sealed.batches[c.batch].1;
                    (c.store, base + c.batch, batch.next_offset() - batch.base_offset())
                })
                .collect();
            let consumed = sealed.offsets.iter();
            let purge = consumed
                .filter(|(partition, _)| self.env.plan.is_repartition(&partition.topic))
                .map(|(partition, at)| (partition.clone(), at.offset))
                .collect();
            commit.batches.extend(sealed.batches);
            offsets.extend(sealed.offsets);
            let (mut flushes, mut unlogged) = (Vec::new(), Vec::new());
            let is_unlogged = running.unlogged();
            let stores = running.task.core_mut().stores_mut().iter_mut();
            for (index, (store, flush)) in stores.zip(&mut running.flushes).enumerate() {
                if is_unlogged[index] && store.dirty_bytes() > 0 {
                    unlogged.push(Snapshot::of(index, &mut **store)?);
                }
                let dirty = if is_unlogged[index] { 0 } else { store.dirty_bytes() };
                let due = now.saturating_sub(flush.last) >= self.env.settings.flush_interval;
                if flush.is_needed(dirty) && (due || dirty > budget / 2) {
                    flushes.push(match is_unlogged[index] {
                        true => Snapshot::of_unlogged(index, &**store),
                        false => Snapshot::of(index, &mut **store)?,
                    });
                    flush.begin();
                    flush.last = now;
                }
            }
            let (task, followed, left_out) = (*id, sealed.followed, sealed.left_out);
            parts.push(TaskPart { task, changelogs, followed, flushes, unlogged, purge, left_out });
        }
        // Also without offsets: who is no member any more must not write for its former tasks.
        let group = self.env.settings.application_id.clone();
        commit.group = Some(GroupCommit { group, token: self.token, offsets });
        self.finder.sealed();
        self.submit(Unsent { commit, parts, tally })
    }

    fn submit(&mut self, unsent: Unsent) -> Result<(), StreamsError> {
        let Unsent { commit, mut parts, tally } = unsent;
        let refused_before = self.refused_topics(&commit);
        match self.transactor.submit(commit) {
            Ok(ticket) => {
                self.refused_since.retain(|topic, _| !refused_before.contains(topic));
                add(&self.env.counters.commits, 1);
                let grown = self.generation_limit / 8 + 1;
                self.generation_limit = self.generation_limit.saturating_add(grown);
                for part in &mut parts {
                    self.have_left_out(part.task, &part.left_out);
                    if let Some(running) = self.running.get_mut(&part.task) {
                        running.accepted(ticket);
                        write_unlogged(running, std::mem::take(&mut part.unlogged))?;
                    }
                }
                self.in_flight.push_back(InFlight { ticket, parts, tally, applied: false });
                self.poll_transactor()?; // an embedded broker has applied it already
                Ok(())
            }
            Err(refused) => match refused.error {
                Error::Full => {
                    self.unsent = Some(Unsent { commit: *refused.submitted, parts, tally });
                    Ok(())
                }
                Error::StaleMember { .. } => {
                    // The membership will tell; what it takes back is opened anew.
                    tracing::warn!(thread = %self.transactional_id, "a commit was refused: the thread is no member any more");
                    self.generation = tally; // given up with the rest
                    self.start_over()?;
                    self.join_anew()
                }
                error @ (Error::TooLarge { .. }
                | Error::InvalidRecord { .. }
                | Error::UnknownTopic { .. }
                | Error::UnknownPartition { .. }) => {
                    let mut unsent = Unsent { commit: *refused.submitted, parts, tally };
                    if self.leave_out_gone(&mut unsent.commit, &error) {
                        return self.submit(unsent);
                    }
                    self.refused(unsent, error)
                }
                error => Err(error.into()),
            },
        }
    }

    pub(super) fn poll_transactor(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        while let Poll::Ready(event) = self.transactor.poll() {
            busy = true;
            match event {
                TransactorEvent::Applied { ticket, base_offsets } => {
                    self.applied(ticket, &base_offsets);
                }
                TransactorEvent::Durable { ticket } => self.durable(ticket),
                TransactorEvent::Doubt { ticket } => {
                    tracing::warn!(thread = %self.transactional_id, ?ticket, "it is not known whether a commit took effect; its tasks are opened anew");
                    for flight in self.in_flight.drain(..) {
                        self.env.counters.given_up(&flight.tally);
                    }
                    self.start_over()?;
                }
                TransactorEvent::Fenced => {
                    let id = self.transactional_id.clone();
                    return Err(Error::Fenced { id, epoch: 0 }.into());
                }
                TransactorEvent::Failed(error) => return Err(error.into()),
            }
        }
        busy |= self.release_synced();
        Ok(busy)
    }

    fn applied(&mut self, ticket: Ticket, base_offsets: &[Offset]) {
        let Some(flight) = self.in_flight.iter_mut().find(|flight| flight.ticket == ticket) else {
            return;
        };
        flight.applied = true;
        for part in &mut flight.parts {
            let Some(running) = self.running.get_mut(&part.task) else {
                continue;
            };
            let stores = running.task.stores_mut();
            for &(store, batch, span) in &part.changelogs {
                if let (Some(store), Some(base)) = (stores.get_mut(store), base_offsets.get(batch))
                {
                    store.position.next_offset = base + span;
                }
            }
            for &(store, offset) in &part.followed {
                if let Some(store) = stores.get_mut(store) {
                    store.position.next_offset = offset;
                }
            }
            for snapshot in &mut part.flushes {
                if let Some(store) = stores.get(snapshot.store) {
                    snapshot.at(&store.position);
                }
            }
        }
    }

    fn durable(&mut self, ticket: Ticket) {
        while self.in_flight.front().is_some_and(|f| f.ticket <= ticket && f.applied) {
            let Some(mut flight) = self.in_flight.pop_front() else {
                return;
            };
            self.env.counters.committed(std::mem::take(&mut flight.tally));
            self.unsynced.push_back(flight);
        }
    }

    /// A store's files and the deletion of input must not be ahead of the log, whatever the broker
    /// acknowledges: they wait until the commit survives a power cut.
    fn release_synced(&mut self) -> bool {
        if self.unsynced.is_empty() {
            return false;
        }
        let synced = self.transactor.synced();
        let mut busy = false;
        while self.unsynced.front().is_some_and(|f| Some(f.ticket) <= synced) {
            let Some(flight) = self.unsynced.pop_front() else { break };
            busy = true;
            for part in flight.parts {
                if let Some(running) = self.running.get_mut(&part.task)
                    && running.last_commit == Some(flight.ticket)
                {
                    running.last_commit = None;
                }
                for snapshot in part.flushes {
                    self.start_flush(part.task, snapshot);
                }
                for (partition, before) in part.purge {
                    self.purge(partition, before);
                }
            }
        }
        busy
    }

    /// Consumed input of a repartition topic is of no use to anybody.
    fn purge(&mut self, partition: TopicPartition, before: Offset) {
        let now = self.env.clock.monotonic();
        let last = self.last_purge.get(&partition).copied().unwrap_or_default();
        if now.saturating_sub(last) >= self.env.settings.purge_interval {
            self.transactor.purge(&partition, before);
            self.last_purge.insert(partition, now);
        }
    }

    fn start_flush(&mut self, task: TaskId, snapshot: Snapshot) {
        let Snapshot { store, mut batch, expiry, position: Some(position), .. } = snapshot else {
            return;
        };
        let Some(running) = self.running.get_mut(&task) else {
            return;
        };
        let Some(engine) = running.task.stores_mut().get(store).map(|s| s.engine.clone()) else {
            return;
        };
        self.flushes_running.insert((task, store));
        add(&self.env.counters.flushes, 1);
        let (done, waker) = (self.flushes.0.clone(), self.waker.clone());
        let under_way = self.env.flushing.begin(task);
        self.env.background.run(Box::new(move || {
            let mut write = || {
                engine.apply(&mut batch, &position)?;
                if let Some(expiry) = expiry {
                    engine.expire(expiry);
                }
                engine.flush()
            };
            let result = write();
            drop((engine, under_way)); // before the report: the task may then be opened again
            // Without a receiver the thread is gone, and its flushes are of no interest.
            if done.send(FlushDone { task, store, result }).is_ok() {
                waker.wake();
            }
        }));
    }

    /// Writes the stores of tasks that have had nothing to do for the flush interval: else what
    /// their last commits changed would stay out of the files, and be replayed after a crash.
    pub(super) fn flush_idle_tasks(&mut self) -> Result<bool, StreamsError> {
        if self.unsent.is_some() {
            return Ok(false); // what it holds is not in the changelog yet
        }
        let now = self.env.clock.monotonic();
        let mut idle = Vec::new();
        for (id, running) in &mut self.running {
            if running.next_flush(self.env.settings.flush_interval).is_some_and(|due| due <= now)
                && running.last_commit.is_none()
                && !running.flush_under_way()
                && !running.task.has_uncommitted()
            {
                running.flushes.iter_mut().for_each(|flush| flush.last = now);
                idle.push(*id);
            }
        }
        let any = !idle.is_empty();
        for id in idle {
            self.flush_settled(id)?;
        }
        Ok(any)
    }

    /// Starts to write what the stores of a task hold, whose commits are all synced; `false` if
    /// nothing is left to write.
    pub(super) fn flush_settled(&mut self, id: TaskId) -> Result<bool, StreamsError> {
        let mut ready = Vec::new();
        if let Some(running) = self.running.get_mut(&id) {
            let positions: Vec<Position> =
                running.task.stores_mut().iter().map(|s| s.position.clone()).collect();
            let stores = running.task.core_mut().stores_mut().iter_mut();
            for (index, (store, flush)) in stores.zip(&mut running.flushes).enumerate() {
                if flush.is_needed(store.dirty_bytes()) {
                    flush.begin();
                    let mut snapshot = Snapshot::of(index, &mut **store)?;
                    snapshot.at(&positions[index]);
                    ready.push(snapshot);
                }
            }
        }
        let any = !ready.is_empty();
        for snapshot in ready {
            self.start_flush(id, snapshot);
        }
        Ok(any)
    }

    pub(super) fn poll_flushes(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        while let Ok(FlushDone { task, store, result }) = self.flushes.1.try_recv() {
            busy = true;
            self.flushes_running.remove(&(task, store));
            result?;
            if let Some(running) = self.running.get_mut(&task) {
                if let Some(flush) = running.flushes.get_mut(store) {
                    flush.under_way = false;
                }
                // What an unlogged one has at this moment is perhaps in a commit that is not accepted.
                if !running.unlogged()[store] {
                    running.task.core_mut().stores_mut().at(store).flushed();
                }
            }
        }
        Ok(busy)
    }

    /// What the commits under way have of a task's stores is of no interest to it any more: it is made
    /// anew, and has that from the changelog.
    pub(super) fn forget_stores(&mut self, task: TaskId) {
        let flights = self.in_flight.iter_mut().chain(&mut self.unsynced);
        for part in flights.flat_map(|flight| &mut flight.parts).filter(|part| part.task == task) {
            part.changelogs.clear();
            part.followed.clear();
            part.flushes.clear();
        }
    }

    /// Counts and forgets what is not committed yet, before the tasks are opened anew. What the
    /// broker has accepted keeps its place in the order, and will be durable.
    pub(super) fn count_given_up(&mut self) {
        for flight in self.in_flight.drain(..) {
            self.env.counters.committed(flight.tally);
        }
        self.env.counters.given_up(&std::mem::take(&mut self.generation));
        if let Some(unsent) = self.unsent.take() {
            self.env.counters.given_up(&unsent.tally);
        }
    }

    /// How many changelog records the application has replayed.
    pub fn restored(&self) -> u64 {
        self.env.counters.restored.load(Ordering::Relaxed)
    }
}

/// Gives the engines what unlogged stores have in a commit that the broker has accepted. A task that is
/// opened again finds it there, and nothing that is given up.
fn write_unlogged(running: &mut Running, snapshots: Vec<Snapshot>) -> Result<(), StateError> {
    for Snapshot { store, mut batch, time, .. } in snapshots {
        let own = &running.task.stores_mut()[store];
        let position = Position { stream_time: time, ..own.position.clone() };
        own.engine.apply(&mut batch, &position)?;
        running.task.core_mut().stores_mut().at(store).flushed();
        running.flushes[store].engine_ahead = true;
    }
    Ok(())
}
