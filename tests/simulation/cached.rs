//! Windows and sessions with caches.
//!
//! How many of the updates between two commits are forwarded depends on the commits. What holds all the
//! same, for each key and window: what was forwarded is a part of what the application forwards without
//! caches, in its order, and the last of it is the last of that. What the stores' changelogs come to does not depend on caches at all.

use std::collections::BTreeMap;

use broker_api::partitioner::partition_of;
use broker_api::sim::Dice;
use broker_api::{CommittedOffset, Timestamp, TopicPartition};
use streams_core::Topology;

use crate::Failure;
use crate::applications::Cacheable;
use crate::history::History;
use crate::oracle::{consumed, ensure, is_subsequence};
use crate::replayed::{Row, answers, record, replay, results, same_stores, topology};
use crate::subject::{INPUT, Subject};

pub(crate) struct Cached {
    application: Cacheable,
}

/// What was said of a key and window, and the time of that.
type Said = (Option<String>, Timestamp);
/// The results for each key and window.
type Results = BTreeMap<String, Vec<Said>>;

impl Cached {
    /// One of these.
    pub(crate) fn one_of(applications: &[Cacheable], dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(Self { application: dice.pick(applications) })
    }
}

/// By key; what deletes nothing is left out, as what came and went between two commits leaves just that.
fn by_key(rows: impl Iterator<Item = Row>) -> Results {
    let mut results = Results::new();
    for (key, value, time) in rows {
        let of_key = results.entry(key).or_default();
        let is_present = of_key.last().is_some_and(|(last, _)| last.is_some());
        if value.is_some() || is_present {
            of_key.push((value, time));
        }
    }
    results.retain(|_, of_key| !of_key.is_empty());
    results
}

/// What is true in the end. A session that came and went between two commits is never told of.
fn last(of_key: &[Said]) -> Option<&Said> {
    of_key.last().filter(|(value, _)| value.is_some())
}

impl Subject for Cached {
    fn topology(&self) -> Topology {
        topology(|input| (self.application)(input, true))
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, String) {
        record(name, dice)
    }

    fn disorder(&self) -> u64 {
        50
    }

    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        with_changelogs: bool,
    ) -> Result<(), Failure> {
        for p in 0..partitions {
            let input = consumed(history, offsets, INPUT, p);
            let driver = replay(topology(|input| (self.application)(input, false)), input)?;
            let output = answers(&driver)?;
            for to in 0..partitions {
                let goes_there = |key: &str| partition_of(key.as_bytes(), partitions) == to;
                let expected = output.iter().filter(|(key, ..)| goes_there(key));
                let expected = by_key(expected.cloned());
                let found = by_key(results(history, to, p).into_iter());
                for key in expected.keys().chain(found.keys()) {
                    let [expected, found] =
                        [&expected, &found].map(|of| of.get(key).map_or(&[][..], Vec::as_slice));
                    ensure!(
                        last(found) == last(expected) && is_subsequence(found, expected),
                        "{} records of partition {p} are committed; output for '{key}' is {found:?}, without caches it is {expected:?}",
                        input.len()
                    );
                }
            }
            if with_changelogs {
                same_stores(history, p, &self.topology(), &driver)?;
            }
        }
        Ok(())
    }
}
