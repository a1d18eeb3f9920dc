//! What an application counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of an application, over all its threads, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Records processed whose commits are durable, those from internal topics included.
    pub processed: u64,
    /// Of these, the records from topics that the application does not own.
    pub consumed: u64,
    /// Records processed in vain: for commits that were refused, and for tasks that were lost. They
    /// are processed again. Also those whose commit is in doubt, some of which may have taken effect.
    pub given_up: u64,
    /// Changelog records replayed into stores.
    pub restored: u64,
    /// Stores that had to be rebuilt from the start of their changelog although they held
    /// something.
    pub rebuilt: u64,
    /// Commits submitted.
    pub commits: u64,
    /// Batches of changes written to store files.
    pub flushes: u64,
    /// Records left out, by reason; counted when their commits are durable.
    pub dropped: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) processed: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) given_up: AtomicU64,
    pub(super) restored: AtomicU64,
    pub(super) rebuilt: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) dropped: Mutex<BTreeMap<&'static str, u64>>,
}

/// What one generation has counted. It goes into the counters when its commit is durable, so that
/// what is processed again is counted once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) processed: usize,
    pub(super) consumed: usize,
    pub(super) dropped: BTreeMap<&'static str, u64>,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn committed(&self, tally: Tally) {
        add(&self.processed, tally.processed as u64);
        add(&self.consumed, tally.consumed as u64);
        if tally.dropped.is_empty() {
            return;
        }
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, n) in tally.dropped {
            *dropped.entry(reason).or_default() += n;
        }
    }

    pub(super) fn snapshot(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            processed: get(&self.processed),
            consumed: get(&self.consumed),
            given_up: get(&self.given_up),
            restored: get(&self.restored),
            rebuilt: get(&self.rebuilt),
            commits: get(&self.commits),
            flushes: get(&self.flushes),
            dropped: self.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
