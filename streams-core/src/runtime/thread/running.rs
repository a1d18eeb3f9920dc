//! A running task and what the thread knows of it.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_api::{Ticket, TopicPartition};

use super::super::metrics::Tally;
use super::super::shares::Share;
use super::overtaken::Overtaken;
use crate::task::{Task, TaskStore};

pub(super) struct Running {
    pub(super) task: Task,
    /// Whether all its inputs are internal topics: such tasks are processed first, so that what is
    /// between two sub-topologies stays short.
    pub(super) internal: bool,
    /// Whether it has sealed something, or tried to, that the broker has not accepted yet.
    pub(super) sealed: bool,
    /// How many records it had processed by its last commit, and entries let go when it went on.
    pub(super) committed: (u64, u64),
    /// Its last commit, until that is synced.
    pub(super) last_commit: Option<Ticket>,
    /// Of each store: whether a flush is under way, and when the last one began.
    pub(super) flushes: Vec<StoreFlush>,
    /// Inputs that go on at their ends.
    pub(super) overtaken: BTreeMap<TopicPartition, Overtaken>,
    /// Its stores' part in the memory for state.
    pub(super) _share: Share,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct StoreFlush {
    pub(super) under_way: bool,
    pub(super) last: Duration,
    /// Whether the engine may have got commits of an unlogged store that are not in its files.
    pub(super) engine_ahead: bool,
}

impl StoreFlush {
    /// Whether there is something to write into the files, of a store with so many bytes to write.
    pub(super) fn is_needed(&self, dirty_bytes: usize) -> bool {
        !self.under_way && (dirty_bytes > 0 || self.engine_ahead)
    }

    /// A flush begins.
    pub(super) fn begin(&mut self) {
        (self.under_way, self.engine_ahead) = (true, false);
    }
}

impl Running {
    /// What it has done since its last commit.
    pub(super) fn tally(&self) -> Tally {
        let processed = (self.task.processed() - self.committed.0) as usize;
        let gone_on = (self.task.gone_on() - self.committed.1) as usize;
        let consumed = if self.internal { 0 } else { processed };
        Tally { processed, consumed, gone_on, ..Tally::default() }
    }

    /// The broker has accepted all that it has done.
    pub(super) fn accepted(&mut self, commit: Ticket) {
        self.last_commit = Some(commit);
        self.committed = (self.task.processed(), self.task.gone_on());
        self.sealed = false;
    }

    /// Which of its stores are unlogged.
    pub(super) fn unlogged(&mut self) -> Vec<bool> {
        self.task.stores_mut().iter().map(TaskStore::is_unlogged).collect()
    }

    pub(super) fn flush_under_way(&self) -> bool {
        self.flushes.iter().any(|flush| flush.under_way)
    }

    /// When changes that are in memory only should be in the files.
    pub(super) fn next_flush(&mut self, interval: Duration) -> Option<Duration> {
        let flushes = &self.flushes;
        let stores = self.task.core_mut().stores_mut().iter_mut().zip(flushes);
        let dirty = stores.filter(|(store, flush)| flush.is_needed(store.dirty_bytes()));
        dirty.map(|(_, flush)| flush.last.saturating_add(interval)).min()
    }

    /// Whether a store holds more unflushed changes than it may.
    pub(super) fn memory_full(&mut self, budget: usize) -> bool {
        let flushes = &self.flushes;
        let mut stores = self.task.core_mut().stores_mut().iter_mut().zip(flushes);
        stores.any(|(store, flush)| flush.under_way && store.dirty_bytes() > budget)
    }
}
