//! The state that the journal describes: a deterministic fold over its entries. The sequencer
//! changes it by the very entries that it then hands to the journal writer; recovery folds them
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use broker_api::{CommittedOffset, Error, TopicConfig, TopicDescription, TopicId, TopicPartition};

use super::partition::{Log, Partition};
use crate::journal::entry::{Entry, Resolve};

/// Everything that survives a restart.
#[derive(Default)]
pub(crate) struct State {
    /// The number of the next entry.
    pub(crate) next_lsn: u64,
    /// The highest time in any entry: append times never go back, even if the clock does.
    pub(crate) last_time: i64,
    /// By name.
    pub(crate) topics: BTreeMap<Arc<str>, Topic>,
    pub(crate) names: BTreeMap<TopicId, Arc<str>>,
    /// Consumer groups.
    pub(crate) groups: BTreeMap<Arc<str>, Group>,
    /// The epoch of each transactional id.
    pub(crate) producers: BTreeMap<Arc<str>, u32>,
}

/// A topic.
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// A consumer group.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) offsets: BTreeMap<(TopicId, u32), CommittedOffset>,
    /// The highest member number given out.
    pub(crate) member: u64,
    /// The highest assignment epoch given out.
    pub(crate) epoch: u64,
}

impl State {
    /// Changes the state by one entry, but for its batches: those are live or recovered, which the
    /// caller knows. Who must be woken is added to `wakes`.
    pub(crate) fn apply(&mut self, entry: &Entry, wakes: &mut Vec<Waker>) {
        self.next_lsn += 1;
        match entry {
            Entry::Append { now, .. } => self.last_time = self.last_time.max(*now),
            Entry::Commit { now, group, .. } => {
                self.last_time = self.last_time.max(*now);
                if let Some(group) = group {
                    let kept = self.groups.entry(group.group.clone()).or_default();
                    for (partition, committed) in &group.offsets {
                        let key = (partition.topic, partition.name.partition);
                        kept.offsets.insert(key, committed.clone());
                    }
                }
            }
            Entry::Group { group, member, epoch } => {
                let kept = self.groups.entry(group.clone()).or_default();
                kept.member = *member;
                kept.epoch = *epoch;
            }
            Entry::Producer { id, epoch } => {
                self.producers.insert(id.clone(), *epoch);
            }
            Entry::TopicCreate { id, name, partitions, config } => {
                let logs = (0..*partitions).map(|_| Log::default()).collect();
                self.add_topic(*id, name.clone(), config.clone(), logs);
            }
            Entry::TopicConfigure { id, config } => {
                if let Some(topic) = self.names.get(id).and_then(|name| self.topics.get_mut(name)) {
                    topic.config = config.clone();
                }
            }
            Entry::TopicDelete { id } => {
                let topic = self.names.remove(id).and_then(|name| self.topics.remove(&name));
                for partition in topic.iter().flat_map(|topic| &topic.partitions) {
                    partition.delete(wakes);
                }
                for group in self.groups.values_mut() {
                    group.offsets.retain(|(topic, _), _| topic != id);
                }
            }
            Entry::DeleteRecords { partition, before } => partition.hide(*before),
            Entry::ExtentMoved { partition, end } => partition.moved(*end),
            Entry::CompactionHorizon {
                partition,
                tombstones_gone_below,
                compacted_below,
                cleaned,
            } => {
                let mut log = partition.lock();
                let horizon = &mut log.horizon;
                horizon.tombstones_gone_below =
                    horizon.tombstones_gone_below.max(*tombstones_gone_below);
                horizon.compacted_below = horizon.compacted_below.max(*compacted_below);
                log.cleaned = log.cleaned.max(*cleaned);
            }
            Entry::IdleSeal => {}
        }
    }

    /// All partitions of all topics.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&Topic, &Arc<Partition>)> {
        self.topics.values().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)))
    }

    /// The name of a topic.
    pub(crate) fn name_of(&self, id: TopicId) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    /// Adds a topic with what its partitions hold.
    pub(crate) fn add_topic(
        &mut self,
        id: TopicId,
        name: Arc<str>,
        config: TopicConfig,
        logs: Vec<Log>,
    ) {
        let partitions = (0..)
            .zip(logs)
            .map(|(i, log)| Partition::new(id, TopicPartition::new(name.clone(), i), log))
            .collect();
        self.names.insert(id, name.clone());
        self.topics.insert(name, Topic { id, config, partitions });
    }

    pub(crate) fn topic(&self, name: &str) -> Result<&Topic, Error> {
        self.topics.get(name).ok_or_else(|| Error::UnknownTopic { topic: name.into() })
    }

    pub(crate) fn find(&self, tp: &TopicPartition) -> Result<(&Topic, &Arc<Partition>), Error> {
        let topic = self.topic(&tp.topic)?;
        let partition =
            topic.partitions.get(tp.partition as usize).ok_or_else(|| Error::UnknownPartition {
                topic: tp.topic.to_string(),
                partition: tp.partition,
                partitions: topic.partitions.len() as u32,
            })?;
        Ok((topic, partition))
    }

    pub(crate) fn describe(&self) -> Vec<TopicDescription> {
        self.topics.iter().map(|(name, topic)| topic.describe(name)).collect()
    }

    /// What a group has committed, by topic name and partition.
    pub(crate) fn group_offsets(&self, group: &str) -> Vec<(TopicPartition, CommittedOffset)> {
        let offsets = self.groups.get(group).into_iter().flat_map(|group| &group.offsets);
        let mut named: Vec<_> = offsets
            .filter_map(|((topic, partition), committed)| {
                let name = self.names.get(topic)?.clone();
                Some((TopicPartition::new(name, *partition), committed.clone()))
            })
            .collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }
}

impl Resolve for State {
    fn partition(&self, topic: TopicId, partition: u32) -> Option<Arc<Partition>> {
        let topic = self.topics.get(self.names.get(&topic)?)?;
        topic.partitions.get(partition as usize).cloned()
    }
}

impl Topic {
    pub(crate) fn describe(&self, name: &Arc<str>) -> TopicDescription {
        TopicDescription {
            name: name.clone(),
            id: self.id,
            partitions: self.partitions.len() as u32,
            config: self.config.clone(),
        }
    }
}
