//! What a broker holds, as plain maps: the model of a history, and what is observed.

use std::collections::BTreeMap;

use broker_api::{CommittedOffset, Horizon, Offset, TopicConfig, TopicPartition};

/// A record as a reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) offset: Offset,
    pub(crate) timestamp: i64,
    pub(crate) append_time: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) horizon: Horizon,
    pub(crate) end: Offset,
    /// All that are at or above the start of the log.
    pub(crate) records: Vec<Rec>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicState {
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<PartitionState>,
}

/// All that survives a restart, as far as it can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<String, TopicState>,
    pub(crate) offsets: BTreeMap<TopicPartition, CommittedOffset>,
    /// Append times never go back. Not visible by itself.
    pub(crate) last_time: i64,
}

impl State {
    pub(crate) fn partition(&mut self, tp: &TopicPartition) -> &mut PartitionState {
        let topic = self.topics.get_mut(&*tp.topic).expect("the script names what exists");
        &mut topic.partitions[tp.partition as usize]
    }

    pub(crate) fn partitions(&self) -> Vec<TopicPartition> {
        let of = |(name, topic): (&String, &TopicState)| {
            let name = name.clone();
            (0..topic.partitions.len())
                .map(move |i| TopicPartition::new(name.clone(), i as u32))
                .collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// Why `found` cannot be this state, if so. Compaction and retention may have taken away what
    /// they may take away.
    pub(crate) fn differs(&self, found: &State) -> Option<String> {
        let names = |state: &State| state.topics.keys().cloned().collect::<Vec<_>>();
        if names(self) != names(found) {
            return Some(format!("topics {:?} instead of {:?}", names(found), names(self)));
        }
        if self.offsets != found.offsets {
            return Some(format!("offsets {:?} instead of {:?}", found.offsets, self.offsets));
        }
        for (name, topic) in &self.topics {
            let other = &found.topics[name];
            if topic.config != other.config || topic.partitions.len() != other.partitions.len() {
                return Some(format!("{name}: {:?} instead of {:?}", other.config, topic.config));
            }
            for (i, (mine, other)) in topic.partitions.iter().zip(&other.partitions).enumerate() {
                if let Some(why) = mine.differs(other, &topic.config) {
                    return Some(format!("{name}-{i}: {why}"));
                }
            }
        }
        None
    }
}

impl PartitionState {
    fn differs(&self, found: &Self, config: &TopicConfig) -> Option<String> {
        let (mine, theirs) = (self.horizon.log_start, found.horizon.log_start);
        let retained = config.retention_bytes.is_some() || config.retention_ms.is_some();
        let start_fits = mine == theirs || (retained && mine < theirs);
        if !start_fits || self.end != found.end {
            return Some(format!("{theirs}..{} instead of {mine}..{}", found.end, self.end));
        }
        let expected: Vec<&Rec> = self.records.iter().filter(|r| r.offset >= theirs).collect();
        let records: Vec<&Rec> = found.records.iter().collect();
        if !config.cleanup_policy.compacts() {
            return (expected != records).then(|| differing(&expected, &records));
        }
        let Horizon { tombstones_gone_below, compacted_below, .. } = found.horizon;
        let untouched = tombstones_gone_below.max(compacted_below);
        let from = |records: &[&Rec], from: Offset| -> Vec<Rec> {
            records.iter().filter(|r| r.offset >= from).map(|r| (*r).clone()).collect()
        };
        if from(&expected, untouched) != from(&records, untouched) {
            return Some(format!("above {untouched}: {}", differing(&expected, &records)));
        }
        if let Some(strange) = records.iter().find(|record| !expected.contains(record)) {
            return Some(format!("a record that nobody wrote: {strange:?}"));
        }
        let start = fold(BTreeMap::new(), &expected, Offset::MIN, compacted_below);
        if start != fold(BTreeMap::new(), &records, Offset::MIN, compacted_below) {
            return Some(format!("the fold as of {compacted_below} is another"));
        }
        let behind = fold(BTreeMap::new(), &expected, Offset::MIN, tombstones_gone_below);
        let full = fold(BTreeMap::new(), &expected, Offset::MIN, Offset::MAX);
        if full != fold(behind, &records, tombstones_gone_below, Offset::MAX) {
            return Some(format!("from {tombstones_gone_below} on, the fold is another"));
        }
        (full != fold(BTreeMap::new(), &records, Offset::MIN, Offset::MAX))
            .then(|| "the fold is another".into())
    }
}

type Fold<'a> = BTreeMap<&'a [u8], &'a [u8]>;

fn fold<'a>(mut state: Fold<'a>, records: &[&'a Rec], from: Offset, to: Offset) -> Fold<'a> {
    for record in records.iter().filter(|r| (from..to).contains(&r.offset)) {
        let key = record.key.as_deref().unwrap_or_default();
        match &record.value {
            Some(value) => state.insert(key, value),
            None => state.remove(key),
        };
    }
    state
}

fn differing(expected: &[&Rec], found: &[&Rec]) -> String {
    let first = expected.iter().zip(found).position(|(a, b)| a != b);
    let at = first.unwrap_or(expected.len().min(found.len()));
    format!(
        "{} records instead of {}; number {at} is {:?} instead of {:?}",
        found.len(),
        expected.len(),
        found.get(at).map(|r| r.offset),
        expected.get(at).map(|r| r.offset),
    )
}
