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
//! of a generation's updates are told then, however much time they took. Where telling them takes
//! several commits, it is what was seen before the first of these: nothing expires until the last one.

use broker_api::Timestamp;

/// See the module.
#[derive(Debug)]
pub(super) struct LookBack {
    /// From a mark to the next one at least.
    keep: Timestamp,
    /// What has expired by the first of these times is not seen. The next one follows at the next
    /// mark; the third one is when the last mark was set. The fourth one is what the first one was when
    /// all had been told.
    times: [Timestamp; 4],
}

impl LookBack {
    pub(super) fn new(keep: Timestamp) -> Self {
        Self { keep, times: [-1; 4] }
    }

    /// The store's time goes on.
    pub(super) fn advance(&mut self, from: Timestamp, to: Timestamp) {
        let [_, next, mark, told] = self.times;
        if to > from && to >= mark.saturating_add(self.keep) {
            self.times = [next, from, to, told];
        }
    }

    /// All has been told.
    pub(super) fn told(&mut self) {
        self.times[3] = self.times[0];
    }

    /// The time of the store by which it decides what is seen.
    pub(super) fn time(&self, drains: bool) -> Timestamp {
        if drains { self.times[3] } else { self.times[0] }
    }

    /// What has to be committed.
    pub(super) fn times(&self) -> &[Timestamp] {
        &self.times
    }

    /// As of a commit. Before there was a fourth time, all had been told at each.
    pub(super) fn resume(&mut self, times: &[Timestamp]) {
        for (time, committed) in self.times.iter_mut().zip(times) {
            *time = *committed;
        }
        if times.len() < self.times.len() {
            self.told();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_told_is_seen_until_all_is_also_after_a_restart() {
        let mut seen = LookBack::new(5);
        for (from, to) in [(-1, 10), (10, 20), (20, 30)] {
            seen.advance(from, to);
        }
        assert_eq!((seen.time(false), seen.time(true)), (10, -1));
        let mut again = LookBack::new(5);
        again.resume(seen.times());
        assert_eq!((again.time(false), again.time(true)), (10, -1));
        again.told();
        assert_eq!(again.times(), [10, 20, 30, 10]);
    }

    #[test]
    fn at_a_commit_without_the_fourth_time_all_had_been_told() {
        let mut seen = LookBack::new(5);
        seen.resume(&[10, 20, 30]);
        assert_eq!((seen.time(false), seen.time(true)), (10, 10));
    }

    #[test]
    fn a_store_into_which_nobody_has_looked_so_far_shows_all_that_it_has() {
        let mut seen = LookBack::new(5);
        seen.resume(&[]);
        seen.advance(1_000, 1_001);
        assert_eq!((seen.time(false), seen.time(true)), (-1, -1));
        seen.advance(1_001, 1_006);
        assert_eq!((seen.time(false), seen.time(true)), (1_000, -1));
    }
}
