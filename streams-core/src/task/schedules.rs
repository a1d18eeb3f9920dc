//! Punctuations: what is due when.
//!
//! A stream-time schedule first fires with the first record, then at each multiple of its
//! interval; a wall-clock schedule first fires one interval from its start. However late the
//! check comes, a schedule fires once, and is due again at the next multiple.

use broker_api::Timestamp;

use crate::processor::PunctuationKind;

/// The schedules of a task.
#[derive(Debug, Default)]
pub struct Schedules {
    all: Vec<Schedule>,
    /// Wall-clock schedules that were added before the first check of the wall clock.
    wall_start: Option<Timestamp>,
}

#[derive(Debug)]
struct Schedule {
    interval: Timestamp,
    kind: PunctuationKind,
    next: Option<Timestamp>,
}

impl Schedules {
    /// Adds a schedule; its number is the answer.
    pub fn add(&mut self, interval: Timestamp, kind: PunctuationKind) -> usize {
        let next = match kind {
            PunctuationKind::StreamTime => Some(0),
            PunctuationKind::WallClock => self.wall_start.map(|now| now.saturating_add(interval)),
        };
        self.all.push(Schedule { interval, kind, next });
        self.all.len() - 1
    }

    /// Tells where the wall clock stands when the task starts.
    pub fn start(&mut self, now: Timestamp) {
        self.wall_start = Some(now);
        for schedule in &mut self.all {
            schedule.next.get_or_insert(now.saturating_add(schedule.interval));
        }
    }

    /// Which time drives a schedule.
    pub fn kind(&self, schedule: usize) -> PunctuationKind {
        self.all.get(schedule).map_or(PunctuationKind::StreamTime, |s| s.kind)
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The first schedule of this kind that is due at `now`; it is set to its next time.
    pub fn take_due(&mut self, kind: PunctuationKind, now: Timestamp) -> Option<usize> {
        let due = |s: &Schedule| s.kind == kind && s.next.is_some_and(|next| next <= now);
        let index = self.all.iter().position(due)?;
        let schedule = &mut self.all[index];
        let next = schedule.next.unwrap_or(now);
        let missed = (now - next) / schedule.interval + 1;
        schedule.next = Some(next.saturating_add(missed.saturating_mul(schedule.interval)));
        Some(index)
    }

    /// When the next wall-clock schedule is due.
    pub fn next_wall_clock(&self) -> Option<Timestamp> {
        let wall = self.all.iter().filter(|s| s.kind == PunctuationKind::WallClock);
        wall.filter_map(|s| s.next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example F24 of the semantics.
    #[test]
    fn stream_time_fires_with_the_first_record_and_then_at_multiples() {
        let mut schedules = Schedules::default();
        schedules.add(10, PunctuationKind::StreamTime);
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
        schedules.add(10, PunctuationKind::WallClock);
        schedules.start(0);
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
}
