//! What an application counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of an application, over all its threads, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Records processed, those from internal topics included. What is given up is taken back, so
    /// that each record counts once.
    pub processed: u64,
    /// Of these, the records from topics that the application does not own.
    pub consumed: u64,
    /// Records processed in vain: for commits that were refused, and for tasks that were lost. They
    /// are processed again. Also those whose commit is in doubt, some of which may have taken effect.
    pub given_up: u64,
    /// Changelog records replayed into stores.
    pub restored: u64,
    /// Stores that had to be rebuilt from the start of their changelog although they held
    /// something: it was damaged, or too old to be trusted.
    pub rebuilt: u64,
    /// Those of them whose changelog was compacted while it was read for them, which took deletions away;
    /// or was cut, which took away what was to be read next.
    pub overtaken: u64,
    /// Commits submitted.
    pub commits: u64,
    /// Batches of changes written to store files.
    pub flushes: u64,
    /// Records left out, by reason; counted when their commits are durable. Those of global tables are
    /// counted when they are read: by each instance, and again if it rebuilds its store.
    pub dropped: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) processed: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) given_up: AtomicU64,
    pub(super) restored: AtomicU64,
    pub(super) rebuilt: AtomicU64,
    pub(super) overtaken: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) dropped: Mutex<BTreeMap<&'static str, u64>>,
}

/// What one generation has counted: taken back if it is given up, so that what is processed again
/// counts once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) processed: usize,
    pub(super) consumed: usize,
    /// Entries that tasks have let go when they went on.
    pub(super) gone_on: usize,
    pub(super) dropped: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// What there is to be blamed if a commit fails: records, and entries that were let go.
    pub(super) fn causes(&self) -> usize {
        self.processed + self.gone_on
    }

    /// Part of the generation is of no effect.
    pub(super) fn take_back(&mut self, part: &Self) {
        self.processed = self.processed.saturating_sub(part.processed);
        self.consumed = self.consumed.saturating_sub(part.consumed);
        self.gone_on = self.gone_on.saturating_sub(part.gone_on);
    }
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    /// The generation will not be processed again.
    pub(super) fn committed(&self, tally: Tally) {
        self.dropped(tally.dropped);
    }

    /// Records are left out for good.
    pub(super) fn dropped(&self, more: BTreeMap<&'static str, u64>) {
        if more.is_empty() {
            return;
        }
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, n) in more {
            *dropped.entry(reason).or_default() += n;
        }
    }

    /// The generation is of no effect, or nobody knows.
    pub(super) fn given_up(&self, tally: &Tally) {
        add(&self.given_up, tally.processed as u64);
        self.processed.fetch_sub(tally.processed as u64, Ordering::Relaxed);
        self.consumed.fetch_sub(tally.consumed as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            processed: get(&self.processed),
            consumed: get(&self.consumed),
            given_up: get(&self.given_up),
            restored: get(&self.restored),
            rebuilt: get(&self.rebuilt),
            overtaken: get(&self.overtaken),
            commits: get(&self.commits),
            flushes: get(&self.flushes),
            dropped: self.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
