//! Windows and sessions with caches.
//!
//! How many of the updates between two commits are forwarded depends on the commits. What holds all the
//! same, for each key and window: what was forwarded is a part of what the application forwards without
//! caches, in its order, and the last of it is the last of that. What the stores' changelogs come to does
//! not depend on caches at all.
//!
//! Final results that one commit lets go may take further ones: until then each of them is in the changelog
//! of the buffer instead, as it was there last.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker_api::partitioner::partition_of;
use broker_api::sim::Dice;
use broker_api::{CommittedOffset, Timestamp, TopicPartition};
use streams_core::Topology;
use streams_core::test_driver::TopologyTestDriver;

use crate::Failure;
use crate::applications::{Cacheable, Input, Output};
use crate::history::History;
use crate::oracle::{consumed, ensure, is_subsequence};
use crate::replayed::{
    Entries, Row, answers, change, found_in, log_of, logged_stores, record, replay, results,
    topology,
};
use crate::subject::{INPUT, Subject};

pub(crate) struct Cached {
    application: Box<dyn Fn(Input, bool) -> Output>,
    leap: Option<Duration>,
    /// Whether there was nothing that had still to come of the consumed input, when it was last looked at.
    is_whole: Cell<bool>,
}

/// What was said of a key and window, and the time of that.
type Said = (Option<String>, Timestamp);
/// The results for each key and window.
type Results = BTreeMap<String, Vec<Said>>;

impl Cached {
    /// One of these.
    pub(crate) fn one_of(applications: &[Cacheable], dice: &mut Dice) -> Box<dyn Subject> {
        Self::of(dice.pick(applications), None)
    }

    /// This one, where time leaps by so much.
    pub(crate) fn of(
        application: impl Fn(Input, bool) -> Output + 'static,
        leap: Option<Duration>,
    ) -> Box<dyn Subject> {
        Box::new(Self { application: Box::new(application), leap, is_whole: Cell::default() })
    }
}

/// By key. What deletes nothing is left out, as what came and went between two commits leaves just that; and
/// what is said twice, as both sides of a join do when both have changed.
fn by_key(rows: impl Iterator<Item = Row>) -> Results {
    let mut results = Results::new();
    for (key, value, time) in rows {
        let of_key = results.entry(key).or_default();
        let is_present = of_key.last().is_some_and(|(last, _)| last.is_some());
        let said = (value, time);
        if (said.0.is_some() || is_present) && of_key.last() != Some(&said) {
            of_key.push(said);
        }
    }
    results.retain(|_, of_key| !of_key.is_empty());
    results
}

/// What is true in the end. A session that came and went between two commits is never told of.
fn last(of_key: &[Said]) -> Option<&Said> {
    of_key.last().filter(|(value, _)| value.is_some())
}

/// The application's stores of a partition beside the driver's.
#[derive(Default)]
struct Compared {
    /// The keys of results that buffers hold and that have still to come.
    still_held: BTreeSet<String>,
    /// What else is not the same.
    difference: Option<String>,
}

fn compare(
    (history, p): (&History, u32),
    topology: &Topology,
    driver: &TopologyTestDriver,
) -> Result<Compared, Failure> {
    let mut compared = Compared::default();
    for store in logged_stores(topology) {
        let (mut expected, mut last_put) = (Entries::new(), Entries::new());
        for logged in log_of(driver, store)? {
            change(&mut expected, logged.clone());
            if logged.1.is_some() {
                change(&mut last_put, logged);
            }
        }
        let found = found_in(history, p, store);
        if store.contains("SUPPRESS") {
            let more = found.iter().filter(|(key, _)| !expected.contains_key(*key));
            let more: Entries = more.map(|(key, value)| (key.clone(), value.clone())).collect();
            let updates: BTreeSet<String> = more.keys().filter_map(|key| window(key)).collect();
            // Each is there with its place.
            if more.len() == 2 * updates.len() {
                let is_last = |(key, value): &(Vec<u8>, _)| last_put.get(key) == Some(value);
                expected.extend(more.into_iter().filter(is_last));
                compared.still_held.extend(updates);
            }
        }
        if found != expected {
            compared.difference = Some(format!(
                "the changelog of partition {p} of {store} comes to {found:?} instead of {expected:?}"
            ));
        }
    }
    Ok(compared)
}

/// The key and start of a window as results have them, of the key of an update in a buffer's changelog.
fn window(key: &[u8]) -> Option<String> {
    let (key, start) = key.strip_prefix(&[0])?.split_last_chunk()?;
    Some(format!("{}@{}", String::from_utf8_lossy(key), i64::from_be_bytes(*start)))
}

impl Subject for Cached {
    fn topology(&self) -> Topology {
        topology(|input| (self.application)(input, true))
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        record(name, dice)
    }

    fn leap(&self) -> Option<Duration> {
        self.leap
    }

    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        with_changelogs: bool,
    ) -> Result<(), Failure> {
        self.is_whole.set(true);
        for p in 0..partitions {
            let input = consumed(history, offsets, INPUT, p);
            let driver = replay(topology(|input| (self.application)(input, false)), input)?;
            let output = answers(&driver)?;
            let Compared { still_held, difference } = match with_changelogs {
                true => compare((history, p), &self.topology(), &driver)?,
                false => Compared::default(),
            };
            if !still_held.is_empty() {
                self.is_whole.set(false);
            }
            for to in 0..partitions {
                let goes_there = |key: &str| partition_of(key.as_bytes(), partitions) == to;
                let expected = output.iter().filter(|(key, ..)| goes_there(key));
                let expected = by_key(expected.cloned());
                let found = by_key(results(history, to, p).into_iter());
                let held = still_held.iter().filter(|key| goes_there(key));
                for key in expected.keys().chain(found.keys()).chain(held) {
                    let [expected, found] =
                        [&expected, &found].map(|of| of.get(key).map_or(&[][..], Vec::as_slice));
                    let is_right = match (still_held.contains(key), expected.split_last()) {
                        (false, _) => {
                            last(found) == last(expected) && is_subsequence(found, expected)
                        }
                        (true, Some((_, before))) => is_subsequence(found, before),
                        (true, None) => false,
                    };
                    ensure!(
                        is_right,
                        "{} records of partition {p} are committed; output for '{key}' is {found:?}, without caches it is {expected:?}",
                        input.len()
                    );
                }
            }
            difference.map_or(Ok(()), |what| Err(Failure::violation(what)))?;
        }
        Ok(())
    }

    fn finished(&self, _: &History, _: u32) -> Result<(), Failure> {
        ensure!(self.is_whole.get(), "what the last commits let go has not come");
        Ok(())
    }
}
