//! How far back operators see that look into a table of windows: further than its readers.
//!
//! What they look for belongs to an update that took its time: it waited in a cache for the seal, in
//! a buffer for its window to close, or for an answer of another partition; or the other table's time
//! is simply behind. So what expires stays in sight until the store's time has gone on by
//! [`look_back`](super::WindowedOptions::look_back) *after* that: time may leap over everything at
//! once, and then nothing has expired before. It is a matter of the store's times alone, which are
//! committed, and so the same after a crash.
//!
//! Not every moment is remembered, but one now and then (a *mark*): what was not expired at the mark
//! before the last one is seen. When caches are drained it is what was seen as of the last seal: all
//! of a generation's updates are told then, however much time they took.

use broker_api::Timestamp;

/// See the module.
#[derive(Debug)]
pub(super) struct LookBack {
    /// From a mark to the next one at least.
    keep: Timestamp,
    /// What has expired by the first of these times is not seen. The next one follows at the next
    /// mark; the last one is when the last mark was set.
    times: [Timestamp; 3],
    /// The first one as of the last seal.
    sealed: Timestamp,
}

impl LookBack {
    pub(super) fn new(keep: Timestamp) -> Self {
        Self { keep, times: [-1; 3], sealed: -1 }
    }

    /// The store's time goes on.
    pub(super) fn advance(&mut self, from: Timestamp, to: Timestamp) {
        let [_, next, mark] = self.times;
        if to > from && to >= mark.saturating_add(self.keep) {
            self.times = [next, from, to];
        }
    }

    pub(super) fn seal(&mut self) {
        self.sealed = self.times[0];
    }

    /// The time of the store by which it decides what is seen.
    pub(super) fn time(&self, drains: bool) -> Timestamp {
        if drains { self.sealed } else { self.times[0] }
    }

    /// What has to be committed.
    pub(super) fn times(&self) -> &[Timestamp] {
        &self.times
    }

    /// As of a commit.
    pub(super) fn resume(&mut self, times: &[Timestamp]) {
        for (time, committed) in self.times.iter_mut().zip(times) {
            *time = *committed;
        }
        self.seal();
    }
}
