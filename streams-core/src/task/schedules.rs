//! Punctuations: what is due when.
//!
//! A stream-time schedule first fires with the first record, then at each multiple of its
//! interval, whatever restarts there are; a wall-clock schedule first fires one interval from its start. An anchored one fires at
//! its start and whole intervals after it, and never for a moment that lies behind when it is made.
//! However late the check comes, a schedule fires once, and is due again at the next multiple.

use std::collections::BTreeMap;

use broker_api::Timestamp;

use crate::processor::PunctuationKind;

/// The schedules of a task.
#[derive(Debug, Default)]
pub struct Schedules {
    /// By number. Numbers are not used again, so that the handle of a cancelled one stands for nothing.
    all: BTreeMap<usize, Entry>,
    next_number: usize,
}

/// What goes by the wall clock in a task that is opened again in its thread. A stream time has its commits;
/// this is all that the wall clock has.
#[derive(Debug, Default)]
pub struct WallClocks {
    /// By number: when its schedules are due.
    due: BTreeMap<usize, Entry>,
    /// What its operators have noted, by name.
    pub(super) notes: Vec<(String, WallClockNote)>,
}

/// A time of the wall clock, and what an operator's own time was then; `None`: nothing is noted.
pub type WallClockNote = Option<(Timestamp, Timestamp)>;

#[derive(Clone, Debug)]
struct Entry {
    interval: Timestamp,
    kind: PunctuationKind,
    anchor: Option<Timestamp>,
    /// `None` until the task starts, and when no time can come any more.
    next: Option<Timestamp>,
}

impl Entry {
    fn first(&self, now: Timestamp) -> Option<Timestamp> {
        match (self.anchor, self.kind) {
            (Some(start), _) if start >= now => Some(start),
            (Some(start), _) => self.after(start, now),
            (None, PunctuationKind::StreamTime) => Some(0),
            (None, PunctuationKind::WallClock) => now.checked_add(self.interval),
        }
    }

    /// The first call of a task that goes on at a stream time: those up to there were in its last commit.
    fn resumed(&self, stream_time: Timestamp) -> Option<Timestamp> {
        match self.anchor {
            Some(start) if start > stream_time => Some(start),
            anchor => self.after(anchor.unwrap_or(0), stream_time),
        }
    }

    /// The first moment beyond `now` that is whole intervals from `start`, if time goes that far.
    fn after(&self, start: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let passed = now.saturating_sub(start) / self.interval;
        start.checked_add(passed.checked_add(1)?.checked_mul(self.interval)?)
    }
}

impl Schedules {
    /// Adds a schedule; its number is the answer. `now` is the time of its kind, or `None` before the
    /// task has started.
    pub fn add(
        &mut self,
        interval: Timestamp,
        kind: PunctuationKind,
        anchor: Option<Timestamp>,
        now: Option<Timestamp>,
    ) -> usize {
        let mut entry = Entry { interval, kind, anchor, next: None };
        entry.next = now.and_then(|now| entry.first(now));
        let number = self.next_number;
        self.all.insert(number, entry);
        self.next_number += 1;
        number
    }

    /// Takes a schedule away.
    pub fn cancel(&mut self, number: usize) {
        self.all.remove(&number);
    }

    /// Tells where the times stand when the task starts.
    pub fn start(&mut self, wall_clock: Timestamp, stream_time: Timestamp) {
        for entry in self.all.values_mut().filter(|entry| entry.next.is_none()) {
            entry.next = match entry.kind {
                PunctuationKind::StreamTime if stream_time >= 0 => entry.resumed(stream_time),
                PunctuationKind::StreamTime => entry.first(stream_time),
                PunctuationKind::WallClock => entry.first(wall_clock),
            };
        }
    }

    /// When those of the wall clock are due.
    pub fn wall_clocks(&self) -> WallClocks {
        let is_it = |entry: &Entry| entry.kind == PunctuationKind::WallClock;
        let wall = self.all.iter().filter(|(_, entry)| is_it(entry));
        let due = wall.map(|(number, entry)| (*number, entry.clone())).collect();
        WallClocks { due, notes: Vec::new() }
    }

    /// Before the start of a task that was open before: its schedules of the wall clock keep the times at
    /// which they were due, or they would never be while it is opened again and again. Nodes are made in the
    /// same order each time, so a schedule that one makes at once has the number that it had.
    pub fn keep(&mut self, before: &WallClocks) {
        for (number, entry) in &mut self.all {
            let like = |old: &&Entry| {
                (old.kind, old.interval, old.anchor) == (entry.kind, entry.interval, entry.anchor)
            };
            entry.next = before.due.get(number).filter(like).and_then(|old| old.next);
        }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The first schedule of this kind that is due at `now`; it is set to its next time.
    pub fn take_due(&mut self, kind: PunctuationKind, now: Timestamp) -> Option<usize> {
        let due = |e: &Entry| e.kind == kind && e.next.is_some_and(|next| next <= now);
        let (number, entry) = self.all.iter_mut().find(|(_, entry)| due(entry))?;
        entry.next = entry.next.and_then(|next| entry.after(next, now));
        Some(*number)
    }

    /// When the next wall-clock schedule is due.
    pub fn next_wall_clock(&self) -> Option<Timestamp> {
        let wall = self.all.values().filter(|e| e.kind == PunctuationKind::WallClock);
        wall.filter_map(|e| e.next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example F24 of the semantics.
    #[test]
    fn stream_time_fires_with_the_first_record_and_then_at_multiples() {
        let mut schedules = Schedules::default();
        schedules.add(10, PunctuationKind::StreamTime, None, Some(-1));
        let mut time = -1;
        let mut calls = Vec::new();
        for ts in [20, 25, 142, 145, 155, 159, 160, 161] {
            time = time.max(ts);
            if schedules.take_due(PunctuationKind::StreamTime, time).is_some() {
                calls.push(time);
                assert_eq!(schedules.take_due(PunctuationKind::StreamTime, time), None);
            }
        }
        assert_eq!(calls, [20, 142, 155, 160]);
    }

    /// Example F24 of the semantics.
    #[test]
    fn wall_clock_fires_one_interval_from_its_start() {
        let mut schedules = Schedules::default();
        schedules.add(10, PunctuationKind::WallClock, None, None);
        schedules.start(0, -1);
        let mut now = 0;
        let mut calls = Vec::new();
        for step in [100, 10, 12, 8, 105, 5] {
            now += step;
            if schedules.take_due(PunctuationKind::WallClock, now).is_some() {
                calls.push(now);
            }
        }
        assert_eq!(calls, [100, 110, 122, 130, 235, 240]);
    }

    #[test]
    fn the_wall_clock_does_not_start_anew_when_a_task_is_opened_again() {
        let (wall, stream) = (PunctuationKind::WallClock, PunctuationKind::StreamTime);
        let make = |intervals: [i64; 3]| {
            let mut schedules = Schedules::default();
            for (interval, kind) in intervals.into_iter().zip([wall, stream, wall]) {
                schedules.add(interval, kind, None, None);
            }
            schedules
        };
        let mut schedules = make([10, 10, 30]);
        schedules.start(100, -1);
        schedules.add(1, wall, None, Some(105)); // by a record
        assert_eq!(schedules.next_wall_clock(), Some(106));
        let mut again = make([10, 10, 20]);
        again.keep(&schedules.wall_clocks());
        again.start(109, -1);
        assert_eq!(again.next_wall_clock(), Some(110));
        assert_eq!(again.take_due(wall, 110), Some(0));
        assert_eq!(again.take_due(wall, 128), Some(0));
        assert_eq!(again.take_due(wall, 129), Some(2), "another interval, another schedule");
        assert_eq!(again.take_due(wall, 129), None, "what a record made is gone");
        assert_eq!(again.take_due(stream, 0), Some(1));
    }

    fn due(schedules: &mut Schedules, times: &[i64]) -> Vec<i64> {
        let kind = PunctuationKind::StreamTime;
        times.iter().copied().filter(|&now| schedules.take_due(kind, now).is_some()).collect()
    }

    #[test]
    fn an_anchored_schedule_keeps_to_its_anchor_and_never_fires_for_the_past() {
        let kind = PunctuationKind::StreamTime;
        let mut schedules = Schedules::default();
        schedules.add(10, kind, Some(17), Some(5));
        assert_eq!(due(&mut schedules, &[5, 16, 17, 26, 27, 60, 66, 67]), [17, 27, 60, 67]);
        let mut late = Schedules::default();
        late.add(10, kind, Some(17), Some(30));
        assert_eq!(due(&mut late, &[30, 36, 37, 46, 47]), [37, 47]);
    }

    #[test]
    fn a_task_that_goes_on_calls_nothing_that_its_last_commit_has_called() {
        let mut schedules = Schedules::default();
        let kind = PunctuationKind::StreamTime;
        schedules.add(10, kind, None, None);
        schedules.start(0, 20);
        assert_eq!(due(&mut schedules, &[20, 29, 30]), [30]);
        for (anchor, first) in [(20, 30), (25, 25), (7, 27)] {
            let mut anchored = Schedules::default();
            anchored.add(10, kind, Some(anchor), None);
            anchored.start(0, 20);
            assert_eq!(due(&mut anchored, &[20, first - 1, first]), [first], "from {anchor}");
        }
    }

    #[test]
    fn at_the_end_of_time_a_schedule_fires_once_and_not_for_ever() {
        let mut schedules = Schedules::default();
        let kind = PunctuationKind::StreamTime;
        schedules.add(10, kind, None, Some(-1));
        schedules.add(10, kind, Some(i64::MAX), Some(-1));
        let mut fired = Vec::new();
        fired.extend((0..5).filter_map(|_| schedules.take_due(kind, i64::MAX)));
        assert_eq!(fired, [0, 1]);
        let mut resumed = Schedules::default();
        resumed.add(10, kind, None, None);
        resumed.start(0, i64::MAX);
        assert_eq!(resumed.take_due(kind, i64::MAX), None);
    }

    #[test]
    fn a_cancelled_schedule_does_not_fire_and_its_number_stays_its_own() {
        let mut schedules = Schedules::default();
        let kind = PunctuationKind::StreamTime;
        let first = schedules.add(10, kind, None, Some(-1));
        schedules.cancel(first);
        assert!(schedules.is_empty());
        let second = schedules.add(10, kind, None, Some(-1));
        assert_ne!(first, second);
        schedules.cancel(first);
        assert_eq!(schedules.take_due(kind, 0), Some(second));
    }
}
