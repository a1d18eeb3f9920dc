//! What must be true of everything that is durable, whatever the application.

use std::collections::BTreeMap;
use std::path::Path;

use broker_api::{BatchBuilder, CommittedOffset, Offset, TopicPartition};
use streams_core::Topology;
use streams_core::state::{ChangelogFormat, EntryBatch, LossyEngine, StateEngine, StoreEngine};
use streams_core::task::OffsetMetadata;

use crate::Failure;
use crate::history::{History, Seen};
use crate::subject::{INPUT, NAME};

/// What a producer was told: the values of a batch are at these offsets.
pub(crate) struct Acknowledged {
    pub(crate) partition: u32,
    pub(crate) base_offset: Offset,
    pub(crate) values: Vec<String>,
}

/// How much of a store is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Everything.
    All,
    /// What is not past its retention. What is may be gone, or be as it once was: nobody reads it.
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
        for Acknowledged { partition, base_offset, values } in acknowledged {
            let seen = history.records(INPUT, *partition);
            for (value, offset) in values.iter().zip(*base_offset..) {
                let at = seen.binary_search_by_key(&offset, |record| record.offset).ok();
                let there = at.is_some_and(|at| seen[at].text().as_ref() == Some(value));
                ensure!(there, "the acknowledged line '{value}' is not at {offset}");
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
    /// durable. `exactly`: up to its end.
    pub(crate) fn stores(
        &self,
        (history, topology): (&History, &Topology),
        (engine, dir): (&LossyEngine, &Path),
        partitions: u32,
        (keeps, exactly): (Keeps, bool),
    ) -> Result<(), Failure> {
        for (number, part) in topology.subtopologies().iter().enumerate() {
            let names: Vec<&str> = part.stores.iter().map(String::as_str).collect();
            for p in 0..if names.is_empty() { 0 } else { partitions } {
                let engines = engine.open(&dir.join(format!("{number}_{p}")), &names)?;
                for (name, store) in names.iter().zip(engines) {
                    let format = &*topology.stores()[*name].format;
                    let changelog = (changelog(name), p);
                    check_store(history, changelog, format, &*store, (keeps, exactly))?;
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

fn check_store(
    history: &History,
    (topic, p): (String, u32),
    format: &dyn ChangelogFormat,
    store: &dyn StoreEngine,
    (keeps, exactly): (Keeps, bool),
) -> Result<(), Failure> {
    let Some(position) = store.position()? else {
        let entries = store.scan(&[], None)?.count();
        ensure!(entries == 0, "{topic}-{p}: the store holds entries, but has no position");
        return Ok(());
    };
    let (at, end) = (position.next_offset, history.end(&topic, p));
    ensure!(at <= end, "{topic}-{p}: the store is at {at}, its changelog is durable up to {end}");
    let records = history.records(&topic, p);
    let below = records.partition_point(|record| record.offset < at);
    ensure!(
        !exactly || below == records.len(),
        "{topic}-{p}: the store was closed at {at}, its changelog goes on"
    );
    let writes = engine_writes(&records[..below], format)?;
    let found = store.scan(&[], None)?;
    let found = found
        .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let is_fold = match keeps {
        Keeps::All => {
            let mut expected = BTreeMap::new();
            for (key, value) in writes {
                match value {
                    Some(value) => expected.insert(key, value),
                    None => expected.remove(&key),
                };
            }
            found == expected
        }
        Keeps::Recent => found.into_iter().all(|(k, v)| writes.contains(&(k, Some(v)))),
    };
    ensure!(is_fold, "{topic}-{p}: the store at {at} is not the fold of its changelog");
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
