//! What must be true of everything that is durable.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use broker_api::{BatchBuilder, CommittedOffset, Offset, TopicPartition};
use streams_core::state::{ChangelogFormat, EntryBatch, KeyValueFormat, LossyEngine, StateEngine};
use streams_core::task::OffsetMetadata;

use crate::Failure;
use crate::app::{self, Values};
use crate::history::{History, Seen};

/// What a producer was told: the lines of a batch are at these offsets.
pub(crate) struct Acknowledged {
    pub(crate) partition: u32,
    pub(crate) base_offset: Offset,
    pub(crate) lines: Vec<String>,
}

pub(crate) struct Oracle {
    pub(crate) caching: bool,
    pub(crate) partitions: u32,
    /// The highest times that were committed, by partition.
    pub(crate) times: BTreeMap<TopicPartition, i64>,
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(Failure::violation(format!($($message)*)));
        }
    };
}

impl Oracle {
    /// Everything that was acknowledged is there, where it was said to be.
    pub(crate) fn acknowledged(
        &self,
        history: &History,
        acknowledged: &[Acknowledged],
    ) -> Result<(), Failure> {
        for Acknowledged { partition, base_offset, lines } in acknowledged {
            let seen = history.records(app::LINES, *partition);
            for (line, offset) in lines.iter().zip(*base_offset..) {
                let at = seen.binary_search_by_key(&offset, |record| record.offset).ok();
                let there = at.is_some_and(|at| seen[at].value.as_ref() == Some(line));
                ensure!(there, "the acknowledged line '{line}' is not at {offset}");
            }
        }
        Ok(())
    }

    /// The consumed offsets, the repartition topic, the output and the changelog agree: all that
    /// was read has had its effect, exactly once. `offsets` are the durable ones.
    pub(crate) fn committed(
        &mut self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        with_changelog: bool,
    ) -> Result<(), Failure> {
        let offsets: BTreeMap<&TopicPartition, &CommittedOffset> =
            offsets.iter().map(|(tp, committed)| (tp, committed)).collect();
        for (tp, committed) in &offsets {
            self.times(history, tp, committed)?;
        }
        let consumed = |topic: &str, p| {
            let end = offsets.get(&TopicPartition::new(topic, p)).map_or(0, |c| c.offset);
            let seen = history.records(topic, p);
            &seen[..seen.partition_point(|record| record.offset < end)]
        };
        for p in 0..self.partitions {
            self.first_stage(history, p, consumed(app::LINES, p))?;
            self.second_stage(history, p, consumed(app::REPARTITION, p), with_changelog)?;
        }
        Ok(())
    }

    /// The words of each input partition are in the repartition topic, once each, in order.
    fn first_stage(&self, history: &History, p: u32, lines: &[Seen]) -> Result<(), Failure> {
        let expected = lines.iter().flat_map(|line| app::split(text(line)));
        let mut expected_by_partition = vec![Vec::new(); self.partitions as usize];
        for (word, item) in expected {
            let to = broker_api::partitioner::partition_of(word.as_bytes(), self.partitions);
            expected_by_partition[to as usize].push((word, item));
        }
        let origin = format!("{p}.");
        for (to, expected) in (0..).zip(&expected_by_partition) {
            let found = history.records(app::REPARTITION, to).iter();
            let found = found.map(|r| (r.key.clone(), text(r).to_owned()));
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
        let expected = app::fold(items.iter().map(|r| (r.key.as_str(), text(r))));
        let mut found = BTreeMap::<String, Values>::new();
        for record in history.records(app::TOTALS, p) {
            let values = found.entry(record.key.clone()).or_default();
            let present = values.last().is_some_and(|v: &Option<String>| v.is_some());
            if record.value.is_some() || present {
                values.push(record.value.clone());
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
            let expected: BTreeMap<&str, &str> = expected
                .iter()
                .filter_map(|(key, values)| Some((key.as_str(), values.last()?.as_deref()?)))
                .collect();
            let mut logged = BTreeMap::new();
            for record in history.records(app::CHANGELOG, p) {
                match record.value.as_deref() {
                    Some(value) => logged.insert(record.key.as_str(), value),
                    None => logged.remove(record.key.as_str()),
                };
            }
            ensure!(
                logged == expected,
                "{count} items of partition {p} are committed; the changelog folds to {logged:?} instead of {expected:?}"
            );
        }
        Ok(())
    }

    /// The times that were committed are those of what was read, and never go back.
    fn times(
        &mut self,
        history: &History,
        tp: &TopicPartition,
        committed: &CommittedOffset,
    ) -> Result<(), Failure> {
        let seen = history.records(&tp.topic, tp.partition);
        let read = &seen[..seen.partition_point(|record| record.offset < committed.offset)];
        let highest = read.iter().map(|record| record.timestamp).max().unwrap_or(-1);
        let found = OffsetMetadata::decode(&committed.metadata);
        ensure!(
            found == OffsetMetadata { partition_time: highest, stream_time: highest },
            "{tp} at {}: {found:?} instead of {highest}",
            committed.offset
        );
        let before = self.times.insert(tp.clone(), highest).unwrap_or(-1);
        ensure!(before <= highest, "the time of {tp} went back from {before} to {highest}");
        Ok(())
    }

    /// Each store is the fold of its changelog up to its position, and has nothing that is not
    /// durable.
    pub(crate) fn stores(
        &self,
        history: &History,
        engine: &LossyEngine,
        dir: &Path,
        exactly: bool,
    ) -> Result<(), Failure> {
        for p in 0..self.partitions {
            let store = engine.open(&dir.join(format!("1_{p}")), &[app::STORE])?.remove(0);
            let Some(position) = store.position()? else {
                let entries = store.scan(&[], None)?.count();
                ensure!(entries == 0, "store {p} holds entries, but has no position");
                continue;
            };
            let (at, end) = (position.next_offset, history.end(app::CHANGELOG, p));
            ensure!(at <= end, "store {p} is at {at}, its changelog is durable up to {end}");
            let records = history.records(app::CHANGELOG, p);
            let below = records.partition_point(|record| record.offset < at);
            ensure!(
                !exactly || below == records.len(),
                "store {p} was closed at {at}, its changelog goes on"
            );
            let expected = engine_entries(&records[..below])?;
            let found = store.scan(&[], None)?;
            let found = found
                .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
                .collect::<Result<BTreeMap<_, _>, _>>()?;
            ensure!(
                found == expected,
                "store {p} at {at} is not the fold of its changelog: {} entries instead of {}",
                found.len(),
                expected.len()
            );
        }
        Ok(())
    }
}

/// What an engine holds after these records.
fn engine_entries(records: &[Seen]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Failure> {
    let format: Arc<dyn ChangelogFormat> = Arc::new(KeyValueFormat);
    let mut entries = BTreeMap::new();
    for record in records {
        let mut one = BatchBuilder::new();
        let value = record.value.as_ref().map(String::as_bytes);
        one.push(record.timestamp, Some(record.key.as_bytes()), value, &[])?;
        let batch = one.finish()?;
        for record in batch.records() {
            let mut one = EntryBatch::new();
            format.entries(&record?, &mut one)?;
            for (key, value) in one.iter() {
                match value {
                    Some(value) => entries.insert(key.to_vec(), value.to_vec()),
                    None => entries.remove(key),
                };
            }
        }
    }
    Ok(entries)
}

fn text(record: &Seen) -> &str {
    record.value.as_deref().unwrap_or_default()
}

fn is_subsequence<T: PartialEq>(found: &[T], of: &[T]) -> bool {
    let mut rest = of.iter();
    found.iter().all(|value| rest.any(|candidate| candidate == value))
}

/// Where two lists part.
fn difference<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T]) -> String {
    let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    format!(
        "{} instead of {}; number {same} is {:?} instead of {:?}",
        found.len(),
        expected.len(),
        found.get(same),
        expected.get(same)
    )
}
