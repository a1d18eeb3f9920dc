//! What an application counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of an application, over all its threads, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Records processed, those from internal topics included.
    pub processed: u64,
    /// Records read from the topics that the application does not own.
    pub consumed: u64,
    /// Changelog records replayed into stores.
    pub restored: u64,
    /// Stores that had to be rebuilt from the start of their changelog although they held
    /// something.
    pub rebuilt: u64,
    /// Commits submitted.
    pub commits: u64,
    /// Batches of changes written to store files.
    pub flushes: u64,
    /// Records left out, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) processed: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) restored: AtomicU64,
    pub(super) rebuilt: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) dropped: Mutex<BTreeMap<&'static str, u64>>,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn add_dropped(&self, reason: &'static str, n: u64) {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() +=
            n;
    }

    pub(super) fn snapshot(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            processed: get(&self.processed),
            consumed: get(&self.consumed),
            restored: get(&self.restored),
            rebuilt: get(&self.rebuilt),
            commits: get(&self.commits),
            flushes: get(&self.flushes),
            dropped: self.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
