//! What housekeeping could not do, and when it is tried again: soon at first, then ever more rarely.
//! What is in trouble rests meanwhile, everything else goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use broker_api::{Error, TopicId};

/// The first rest; each further one is twice as long…
const FIRST_REST: Duration = Duration::from_secs(1);
/// …up to this.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Who is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A kind of work.
    Chore(&'static str),
    /// A partition.
    Partition(TopicId, u32),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chore(name) => f.write_str(name),
            Self::Partition(topic, partition) => {
                write!(f, "partition {partition} of topic {topic}")
            }
        }
    }
}

/// All that is in trouble: at most one entry for each partition and chore.
#[derive(Default)]
pub(super) struct Troubles(BTreeMap<Subject, Trouble>);

struct Trouble {
    error: Error,
    rest: Duration,
    /// `None`: it may be tried again now.
    until: Option<Duration>,
}

impl Troubles {
    pub(super) fn add(&mut self, subject: Subject, error: Error, now: Duration) {
        let rest = match self.0.get(&subject) {
            Some(trouble) => (trouble.rest * 2).min(LONGEST_REST),
            None => FIRST_REST,
        };
        self.0.insert(subject, Trouble { error, rest, until: Some(now + rest) });
    }

    /// Whether it must not be tried now.
    pub(super) fn rests(&self, subject: Subject) -> bool {
        self.0.get(&subject).is_some_and(|trouble| trouble.until.is_some())
    }

    /// Ends rests that are over; whether there were any.
    pub(super) fn wake(&mut self, now: Duration) -> bool {
        let over = |trouble: &&mut Trouble| trouble.until.is_some_and(|until| until <= now);
        let woken = self.0.values_mut().filter(over).map(|trouble| trouble.until = None);
        woken.count() > 0
    }

    /// All that does not rest has been tried again, and nothing came of it: it is in order.
    pub(super) fn all_tried(&mut self) {
        self.0.retain(|_, trouble| trouble.until.is_some());
    }

    /// How long until something can be tried again.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        self.0.values().filter_map(|trouble| trouble.until).min().map(|at| at.saturating_sub(now))
    }

    pub(super) fn errors(&self) -> Vec<Error> {
        self.0.values().map(|trouble| trouble.error.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_what_succeeds_is_forgotten() {
        let (mut troubles, subject) = (Troubles::default(), Subject::Chore("c"));
        let mut now = Duration::ZERO;
        for rest in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(Duration::from_secs) {
            troubles.add(subject, Error::Closed, now);
            assert_eq!(troubles.due(now), Some(rest));
            assert!(!troubles.wake(now + rest - Duration::from_millis(1)));
            now += rest;
            assert!(troubles.rests(subject) && troubles.wake(now) && !troubles.rests(subject));
        }
        assert_eq!((troubles.due(now), troubles.errors().len()), (None, 1));
        troubles.all_tried();
        assert!(troubles.errors().is_empty());
    }
}
