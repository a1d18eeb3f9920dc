//! The application under test, and what it must come to.
//!
//! A line is split into words, the words go through a repartition topic, and each word's store
//! value is a digest of all lines in which it stood, in their order. A word with a minus sign
//! deletes its value. Nothing can be lost, doubled or reordered without changing a digest.

use std::collections::BTreeMap;

use streams_core::Topology;
use streams_dsl::{Materialized, StreamsBuilder};

pub(crate) const NAME: &str = "app";
pub(crate) const LINES: &str = "lines";
pub(crate) const TOTALS: &str = "totals";
pub(crate) const STORE: &str = "digests";
pub(crate) const REPARTITION: &str = "app-digests-repartition";
pub(crate) const CHANGELOG: &str = "app-digests-changelog";

pub(crate) fn topology(caching: bool) -> Topology {
    let store = Materialized::<String, String>::named(STORE);
    let store = if caching { store } else { store.with_caching_disabled() };
    let builder = StreamsBuilder::new();
    builder
        .stream::<String, String>(LINES)
        .flat_map(|_, line| split(&line))
        .group_by_key()
        .aggregate_with(String::new, |_, item, so_far| step(&so_far, &item), store)
        .to_stream()
        .to(TOTALS);
    builder.build().expect("the topology is sound")
}

/// A line is its own name and then words: what goes to the repartition topic for it.
pub(crate) fn split(line: &str) -> Vec<(String, String)> {
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
pub(crate) type Values = Vec<Option<String>>;

/// What the words of a repartition topic's partition must lead to.
pub(crate) fn fold<'a>(
    items: impl Iterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, Values> {
    let mut values = BTreeMap::<String, Values>::new();
    for (key, item) in items {
        let history = values.entry(key.to_owned()).or_default();
        let present = history.last().cloned().flatten();
        let next = step(present.as_deref().unwrap_or_default(), item);
        if present.is_some() || next.is_some() {
            history.push(next);
        }
    }
    values
}
