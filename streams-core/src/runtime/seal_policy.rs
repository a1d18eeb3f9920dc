//! When a generation is sealed. A pure function, so that it can be tested by itself.
//!
//! Caught up, a thread seals as soon as nothing is left to process and no earlier seal waits for
//! the disk: latency is then two syncs at most. Behind, it seals at every commit interval, because
//! merging updates is the throughput. And it seals early when outputs or changed state grow large.

use std::time::Duration;

/// What the decision depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SealCounters {
    /// Whether a commit would have something to say.
    pub uncommitted: bool,
    /// Whether nothing is left to process.
    pub caught_up: bool,
    /// Commits that are not durable yet.
    pub in_flight: usize,
    /// How many the broker takes.
    pub max_in_flight: usize,
    /// Time since the generation's first record.
    pub age: Duration,
    /// Bytes of output so far, and about how many the seal will add.
    pub output_bytes: usize,
    /// Whether something (a processor, a full memory budget, a task to give up) asks for a seal.
    pub requested: bool,
}

/// Whether to seal now.
pub fn should_seal(now: SealCounters, commit_interval: Duration, seal_bytes: usize) -> bool {
    if !now.uncommitted || now.in_flight >= now.max_in_flight {
        return false;
    }
    now.requested
        || now.output_bytes >= seal_bytes
        || now.age >= commit_interval
        || (now.caught_up && now.in_flight == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn seal(change: impl FnOnce(&mut SealCounters)) -> bool {
        let mut counters =
            SealCounters { uncommitted: true, max_in_flight: 4, ..SealCounters::default() };
        change(&mut counters);
        should_seal(counters, INTERVAL, 1000)
    }

    #[test]
    fn seals_at_once_when_caught_up_and_the_disk_is_free() {
        assert!(seal(|c| c.caught_up = true));
        assert!(!seal(|c| (c.caught_up, c.in_flight) = (true, 1)));
        assert!(!seal(|c| (c.caught_up, c.uncommitted) = (true, false)));
    }

    #[test]
    fn merges_updates_while_behind() {
        assert!(!seal(|c| c.age = Duration::from_millis(99)));
        assert!(seal(|c| c.age = INTERVAL));
        assert!(seal(|c| (c.age, c.in_flight) = (INTERVAL, 3)));
        assert!(!seal(|c| (c.age, c.in_flight) = (INTERVAL, 4)));
    }

    #[test]
    fn seals_early_by_bytes_or_on_request() {
        assert!(seal(|c| c.output_bytes = 1000));
        assert!(seal(|c| c.requested = true));
    }
}
