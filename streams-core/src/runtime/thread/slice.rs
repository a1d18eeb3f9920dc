//! How many records a task processes at once, before other tasks, the clock and the disk get a turn.
//!
//! It goes by how long they take, so that commits, punctuations and the end of an application are in time
//! also where a record takes long. It promises turns of about [`TURN`], or of one record.

use std::time::Duration;

/// A task's slice.
#[derive(Debug)]
pub(super) struct Slice {
    records: usize,
}

/// How long a turn is to be.
const TURN: Duration = Duration::from_millis(10);

/// How many records the first slice of a task has, of which nothing is known.
const FIRST: usize = 16;

/// The most, however quick they are.
const MOST: usize = 1_000;

impl Default for Slice {
    fn default() -> Self {
        Self { records: FIRST }
    }
}

impl Slice {
    /// How many records the next turn may have.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// A turn of `done` records has taken so long.
    pub(super) fn took(&mut self, done: usize, time: Duration) {
        if time > TURN {
            let fit = done as u128 * TURN.as_micros() / time.as_micros();
            self.records = usize::try_from(fit).unwrap_or(MOST).clamp(1, MOST);
        } else if done >= self.records && time < TURN / 2 {
            self.records = MOST.min(self.records * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(turns: usize, each: Duration) -> usize {
        let mut slice = Slice::default();
        for _ in 0..turns {
            slice.took(slice.records(), each * slice.records() as u32);
        }
        slice.records()
    }

    #[test]
    fn quick_records_come_by_the_thousand_and_slow_ones_one_by_one() {
        assert_eq!(after(20, Duration::ZERO), MOST);
        assert_eq!(after(20, Duration::from_micros(1)), MOST);
        assert_eq!(after(1, Duration::from_millis(5)), 2);
        assert_eq!(after(20, Duration::from_millis(5)), 2);
        assert_eq!(after(20, Duration::from_secs(3)), 1);
    }

    #[test]
    fn a_turn_that_was_cut_short_does_not_make_the_next_one_longer() {
        let mut slice = Slice::default();
        slice.took(1, Duration::ZERO);
        assert_eq!(slice.records(), FIRST);
    }

    #[test]
    fn records_that_become_slow_get_shorter_turns_at_once() {
        let mut slice = Slice { records: MOST };
        slice.took(MOST, Duration::from_secs(1));
        assert_eq!(slice.records(), 10);
    }
}
