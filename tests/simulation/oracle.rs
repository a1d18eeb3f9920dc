//! What must be true of everything that is durable, whatever the application.

use std::collections::BTreeMap;
use std::path::Path;

use broker_api::{BatchBuilder, CommittedOffset, Offset, TopicPartition};
use streams_core::Topology;
use streams_core::state::{ChangelogFormat, EntryBatch, LossyEngine, StateEngine, StoreEngine};
use streams_core::task::OffsetMetadata;

use crate::Failure;
use crate::history::{History, Seen};
use crate::subject::NAME;

/// What a producer was told: the values of a batch are at these offsets.
pub(crate) struct Acknowledged {
    pub(crate) of: TopicPartition,
    pub(crate) base_offset: Offset,
    pub(crate) values: Vec<Option<String>>,
}

/// How much of a store is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Everything.
    All,
    /// What is not past its retention. What is may be gone, or be as it once was: nobody reads it. A
    /// store that is read by time also lets go of what it is told to release.
    Recent,
}

/// What is remembered from one look to the next.
#[derive(Default)]
pub(crate) struct Oracle {
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
pub(crate) use ensure;

/// The records of a partition that are consumed.
pub(crate) fn consumed<'a>(
    history: &'a History,
    offsets: &[(TopicPartition, CommittedOffset)],
    topic: &str,
    partition: u32,
) -> &'a [Seen] {
    let of = TopicPartition::new(topic, partition);
    let end = offsets.iter().find(|(tp, _)| *tp == of).map_or(0, |(_, committed)| committed.offset);
    let seen = history.records(topic, partition);
    &seen[..seen.partition_point(|record| record.offset < end)]
}

impl Oracle {
    /// Everything that was acknowledged is there, where it was said to be.
    pub(crate) fn acknowledged(
        &self,
        history: &History,
        acknowledged: &[Acknowledged],
    ) -> Result<(), Failure> {
        for Acknowledged { of, base_offset, values } in acknowledged {
            let seen = history.records(&of.topic, of.partition);
            for (value, offset) in values.iter().zip(*base_offset..) {
                let at = seen.binary_search_by_key(&offset, |record| record.offset).ok();
                let there = at.is_some_and(|at| seen[at].text() == *value);
                ensure!(there, "the acknowledged line {value:?} is not at {offset} of {of}");
            }
        }
        Ok(())
    }

    /// The times that were committed are those of what was read, and never go back.
    pub(crate) fn times(
        &mut self,
        history: &History,
        tp: &TopicPartition,
        committed: &CommittedOffset,
    ) -> Result<(), Failure> {
        let seen = history.records(&tp.topic, tp.partition);
        let read = &seen[..seen.partition_point(|record| record.offset < committed.offset)];
        let highest = read.iter().map(|record| record.timestamp).max().unwrap_or(-1);
        let found = OffsetMetadata::decode(&committed.metadata);
        // A task's stream time is that of all its partitions.
        ensure!(
            found.partition_time == highest && found.stream_time >= highest,
            "{tp} at {}: {found:?} instead of {highest}",
            committed.offset
        );
        let before = self.times.insert(tp.clone(), highest).unwrap_or(-1);
        ensure!(before <= highest, "the time of {tp} went back from {before} to {highest}");
        Ok(())
    }

    /// Each store is the fold of its changelog up to its position, and has nothing that is not
    /// durable. `exactly`: up to its end, or in a global store to where nothing changes it any more.
    pub(crate) fn stores(
        &self,
        (history, topology): (&History, &Topology),
        (engine, dir): (&LossyEngine, &Path),
        partitions: u32,
        (keeps, exactly): (Keeps, bool),
    ) -> Result<(), Failure> {
        for (number, part) in topology.subtopologies().iter().enumerate() {
            let names = part.stores.iter().map(String::as_str);
            let names: Vec<_> = names.filter(|name| !topology.stores()[*name].in_memory).collect();
            let format = |name: &str| &*topology.stores()[name].format;
            if part.is_global {
                let reach = if exactly { Reach::Content } else { Reach::Anywhere };
                let engines = engine.open(&dir.join("global"), &names)?;
                for ((name, topic), store) in names.iter().zip(&part.sources).zip(engines) {
                    let all = (0..partitions).map(|p| TopicPartition::new(&**topic, p));
                    let logs: Vec<_> = all.collect();
                    check_store(history, &logs, format(name), &*store, (Keeps::All, reach))?;
                }
                continue;
            }
            let reach = if exactly { Reach::Position } else { Reach::Anywhere };
            for p in 0..if names.is_empty() { 0 } else { partitions } {
                let engines = engine.open(&dir.join(format!("{number}_{p}")), &names)?;
                for (name, store) in names.iter().zip(engines) {
                    let source = topology.stores()[*name].source_topic.clone();
                    // Not everything in such a topic changes the store, which then is not written.
                    let reach = if exactly && source.is_some() { Reach::Content } else { reach };
                    let log = TopicPartition::new(source.unwrap_or_else(|| changelog(name)), p);
                    check_store(history, &[log], format(name), &*store, (keeps, reach))?;
                }
            }
        }
        Ok(())
    }
}

/// The changelog topic of a store.
pub(crate) fn changelog(store: &str) -> String {
    format!("{NAME}-{store}-changelog")
}

/// How far a store has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Anywhere,
    /// Its position is the end.
    Position,
    /// What it holds is what it is at the end: its position may be before records that change nothing.
    Content,
}

/// Looks at a store that is the fold of these partitions of a topic.
fn check_store(
    history: &History,
    logs: &[TopicPartition],
    format: &dyn ChangelogFormat,
    store: &dyn StoreEngine,
    (keeps, reach): (Keeps, Reach),
) -> Result<(), Failure> {
    let position = store.position()?;
    let offsets = position.iter().flat_map(|p| [p.next_offset].into_iter().chain(p.others.clone()));
    let mut writes = Writes::new();
    // Without a position it has read nothing.
    for (log, at) in logs.iter().zip(offsets.chain(std::iter::repeat(0))) {
        let end = history.end(&log.topic, log.partition);
        ensure!(at <= end, "{log}: the store is at {at}, its changelog is durable up to {end}");
        let records = history.records(&log.topic, log.partition);
        let below = records.partition_point(|record| record.offset < at);
        ensure!(
            reach != Reach::Position || below == records.len(),
            "{log}: the store was closed at {at}, its changelog goes on"
        );
        let read = if reach == Reach::Content { records } else { &records[..below] };
        writes.extend(engine_writes(read, format)?);
    }
    let found = store.scan(&[], None)?;
    let found = found
        .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut fold = BTreeMap::new();
    for (key, value) in &writes {
        match value {
            Some(value) => fold.insert(key, value),
            None => fold.remove(key),
        };
    }
    let is_there = |(key, value): (&&Vec<u8>, &&Vec<u8>)| found.get(*key) == Some(*value);
    let time = position.as_ref().map_or(-1, |position| position.stream_time);
    let is_fold = match (keeps, format.expiry(time)) {
        (Keeps::All, _) => found.len() == fold.len() && fold.iter().all(is_there),
        (Keeps::Recent, expiry) => {
            // Without an expiry nobody knows from outside what the store was told to release.
            let may_go = |key: &[u8]| expiry.is_none_or(|expiry| expiry.is_over(key));
            let once_was = |(key, value): (&Vec<u8>, &Vec<u8>)| {
                writes.iter().any(|(k, v)| k == key && v.as_ref() == Some(value))
            };
            let is_right = |(key, value): (&Vec<u8>, &Vec<u8>)| {
                fold.get(key) == Some(&value) || may_go(key) && once_was((key, value))
            };
            fold.iter().all(|entry| may_go(entry.0) || is_there(entry))
                && found.iter().all(is_right)
        }
    };
    ensure!(is_fold, "{logs:?}: the store at {position:?} is not the fold of its changelog");
    Ok(())
}

/// What these records write into an engine, in order.
fn engine_writes(records: &[Seen], format: &dyn ChangelogFormat) -> Result<Writes, Failure> {
    let mut writes = Writes::new();
    for record in records {
        let mut one = BatchBuilder::new();
        one.push(record.timestamp, Some(&record.key), record.value.as_deref(), &[])?;
        for record in one.finish()?.records() {
            let mut one = EntryBatch::new();
            format.entries(&record?, &mut one)?;
            writes.extend(one.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))));
        }
    }
    Ok(writes)
}

/// Keys, and their values unless they are deleted.
type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Where two lists part.
pub(crate) fn difference<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T]) -> String {
    let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    format!(
        "{} instead of {}; number {same} is {:?} instead of {:?}",
        found.len(),
        expected.len(),
        found.get(same),
        expected.get(same)
    )
}

/// Whether one list is a part of the other, in its order.
pub(crate) fn is_subsequence<T: PartialEq>(found: &[T], of: &[T]) -> bool {
    let mut rest = of.iter();
    found.iter().all(|value| rest.any(|candidate| candidate == value))
}
