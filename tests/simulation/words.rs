//! Words of lines, in two stages, and what they must come to.
//!
//! A line is split into words, the words go through a repartition topic, and each word's store
//! value is a digest of all lines in which it stood, in their order. A word with a minus sign
//! deletes its value. Nothing can be lost, doubled or reordered without changing a digest.

use std::collections::BTreeMap;

use broker_api::sim::Dice;
use broker_api::{CommittedOffset, TopicPartition};
use streams_core::Topology;
use streams_dsl::{Materialized, StreamsBuilder};

use crate::Failure;
use crate::history::{History, Seen};
use crate::oracle::{Keeps, consumed, difference, ensure, is_subsequence};
use crate::subject::{INPUT, OUTPUT, Subject};

const STORE: &str = "digests";
const REPARTITION: &str = "app-digests-repartition";
const CHANGELOG: &str = "app-digests-changelog";

pub(crate) struct Words {
    caching: bool,
    in_memory: bool,
}

impl Words {
    pub(crate) fn subject(dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(Self { caching: dice.one_in(2), in_memory: dice.one_in(4) })
    }

    /// The words of each input partition are in the repartition topic, once each, in order.
    fn first_stage(
        history: &History,
        (p, partitions): (u32, u32),
        lines: &[Seen],
    ) -> Result<(), Failure> {
        let expected = lines.iter().flat_map(|line| split(&text(line)));
        let mut expected_by_partition = vec![Vec::new(); partitions as usize];
        for (word, item) in expected {
            let to = broker_api::partitioner::partition_of(word.as_bytes(), partitions);
            expected_by_partition[to as usize].push((word, item));
        }
        let origin = format!("{p}.");
        for (to, expected) in (0..).zip(&expected_by_partition) {
            let found = history.records(REPARTITION, to).iter();
            let found = found.map(|r| (r.key_text(), text(r)));
            let found: Vec<(String, String)> = found
                .filter(|(_, item)| item.trim_start_matches('-').starts_with(&origin))
                .collect();
            ensure!(
                found == *expected,
                "{} lines of partition {p} are committed; in partition {to} between the stages: {}",
                lines.len(),
                difference(&found, expected)
            );
        }
        Ok(())
    }

    fn second_stage(
        &self,
        history: &History,
        p: u32,
        items: &[Seen],
        with_changelog: bool,
    ) -> Result<(), Failure> {
        let expected = fold(items.iter().map(|r| (r.key_text(), text(r))));
        let mut found = BTreeMap::<String, Values>::new();
        for record in history.records(OUTPUT, p) {
            let values = found.entry(record.key_text()).or_default();
            let present = values.last().is_some_and(|v: &Option<String>| v.is_some());
            if record.value.is_some() || present {
                values.push(record.text());
            }
        }
        let count = items.len();
        for key in expected.keys().chain(found.keys()) {
            let expected = expected.get(key).map_or(&[][..], Vec::as_slice);
            let found = found.get(key).map_or(&[][..], Vec::as_slice);
            if self.caching {
                let last = |values: &[Option<String>]| values.last().cloned().flatten();
                ensure!(
                    last(found) == last(expected) && is_subsequence(found, expected),
                    "{count} items of partition {p} are committed; output for '{key}' is {found:?}, its history {expected:?}",
                );
            } else {
                ensure!(
                    found == expected,
                    "{count} items of partition {p} are committed; output for '{key}': {}",
                    difference(found, expected)
                );
            }
        }
        if with_changelog {
            let expected: BTreeMap<String, String> = expected
                .iter()
                .filter_map(|(key, values)| Some((key.clone(), values.last()?.clone()?)))
                .collect();
            let mut logged = BTreeMap::new();
            for record in history.records(CHANGELOG, p) {
                match record.text() {
                    Some(value) => logged.insert(record.key_text(), value),
                    None => logged.remove(&record.key_text()),
                };
            }
            ensure!(
                logged == expected,
                "{count} items of partition {p} are committed; the changelog folds to {logged:?} instead of {expected:?}"
            );
        }
        Ok(())
    }
}

impl Subject for Words {
    fn topology(&self) -> Topology {
        let store = Materialized::<String, String>::named(STORE);
        let store = if self.caching { store } else { store.with_caching_disabled() };
        let store = if self.in_memory { store.in_memory() } else { store };
        let builder = StreamsBuilder::new();
        builder
            .stream::<String, String>(INPUT)
            .flat_map(|_, line| split(&line))
            .group_by_key()
            .aggregate_with(String::new, |_, item, so_far| step(&so_far, &item), store)
            .to_stream()
            .to(OUTPUT);
        builder.build().expect("the topology is sound")
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        let mut line = name.to_owned();
        for _ in 0..dice.within(0..5) {
            let minus = if dice.one_in(10) { "-" } else { "" };
            let word = dice.pick(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
            line.push_str(&format!(" {minus}{word}"));
        }
        ("k".into(), Some(line))
    }

    fn keeps(&self) -> Keeps {
        Keeps::All
    }

    /// The consumed offsets, the repartition topic, the output and the changelog agree.
    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        with_changelogs: bool,
    ) -> Result<(), Failure> {
        for p in 0..partitions {
            Self::first_stage(history, (p, partitions), consumed(history, offsets, INPUT, p))?;
            let items = consumed(history, offsets, REPARTITION, p);
            self.second_stage(history, p, items, with_changelogs)?;
        }
        Ok(())
    }
}

/// A line is its own name and then words: what goes to the repartition topic for it.
fn split(line: &str) -> Vec<(String, String)> {
    let mut parts = line.split(' ');
    let name = parts.next().unwrap_or_default();
    parts
        .map(|word| match word.strip_prefix('-') {
            Some(word) => (word.to_owned(), format!("-{name}")),
            None => (word.to_owned(), name.to_owned()),
        })
        .collect()
}

/// One step of the fold: a count and a digest; `None` deletes.
fn step(so_far: &str, item: &str) -> Option<String> {
    if item.starts_with('-') {
        return None;
    }
    let (count, digest) = so_far.split_once(':').unwrap_or(("0", "0"));
    let count: u64 = count.parse().unwrap_or(0);
    let mut digest = u64::from_str_radix(digest, 16).unwrap_or(0);
    for byte in item.bytes().chain([b'/']) {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(7);
    }
    Some(format!("{}:{digest:x}", count + 1))
}

/// The values that a key went through: `None` is a deletion; a deletion of nothing is left out.
type Values = Vec<Option<String>>;

/// What the words of a repartition topic's partition must lead to.
fn fold(items: impl Iterator<Item = (String, String)>) -> BTreeMap<String, Values> {
    let mut values = BTreeMap::<String, Values>::new();
    for (key, item) in items {
        let history = values.entry(key).or_default();
        let present = history.last().cloned().flatten();
        let next = step(present.as_deref().unwrap_or_default(), &item);
        if present.is_some() || next.is_some() {
            history.push(next);
        }
    }
    values
}

fn text(record: &Seen) -> String {
    record.text().unwrap_or_default()
}
