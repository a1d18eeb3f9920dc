//! The state that the journal describes: a deterministic fold over its entries. The sequencer
//! changes it by the very entries that it then hands to the journal writer; recovery folds them
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use broker_api::{
    CommittedOffset, Error, Timestamp, TopicConfig, TopicDescription, TopicId, TopicPartition,
};

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
    /// By transactional id.
    pub(crate) producers: BTreeMap<Arc<str>, Known>,
    /// Epochs of transactional ids that were forgotten are below: none comes back.
    pub(crate) epoch_floor: u32,
    /// As well the numbers of groups, which are at most this.
    pub(crate) group_floor: u64,
}

/// A transactional id.
pub(crate) struct Known {
    pub(crate) epoch: u32,
    /// When it was last used.
    pub(crate) used: Timestamp,
}

/// A topic.
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// A consumer group.
pub(crate) struct Group {
    pub(crate) offsets: BTreeMap<(TopicId, u32), CommittedOffset>,
    /// The highest member number given out.
    pub(crate) member: u64,
    /// The highest assignment epoch given out.
    pub(crate) epoch: u64,
    /// When it last committed, gave out a number, or lost its last member.
    pub(crate) used: Timestamp,
}

impl State {
    /// Changes the state by one entry, but for its batches: those are live or recovered, which the
    /// caller knows. Who must be woken is added to `wakes`.
    pub(crate) fn apply(&mut self, entry: &Entry, wakes: &mut Vec<Waker>) {
        self.next_lsn += 1;
        match entry {
            Entry::Append { now, .. } => self.last_time = self.last_time.max(*now),
            Entry::Commit { now, producer, group, .. } => {
                self.last_time = self.last_time.max(*now);
                if let Some(known) = self.producers.get_mut(producer) {
                    known.used = *now;
                }
                if let Some(group) = group {
                    let kept = self.group(&group.group, *now);
                    for (partition, committed) in &group.offsets {
                        let key = (partition.topic, partition.name.partition);
                        kept.offsets.insert(key, committed.clone());
                    }
                }
            }
            Entry::Group { now, group, member, epoch } => {
                self.last_time = self.last_time.max(*now);
                let kept = self.group(group, *now);
                kept.member = *member;
                kept.epoch = *epoch;
            }
            Entry::Producer { now, id, epoch } => {
                self.last_time = self.last_time.max(*now);
                self.producers.insert(id.clone(), Known { epoch: *epoch, used: *now });
            }
            Entry::ProducerExpired { id } => {
                if let Some(known) = self.producers.remove(id) {
                    self.epoch_floor = self.epoch_floor.max(known.epoch.saturating_add(1));
                }
            }
            Entry::GroupExpired { group } => {
                if let Some(known) = self.groups.remove(group) {
                    self.group_floor = self.group_floor.max(known.member).max(known.epoch);
                }
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

    /// A group that is used now; it begins if it is not known.
    fn group(&mut self, name: &Arc<str>, now: Timestamp) -> &mut Group {
        let floor = self.group_floor;
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group {
            offsets: BTreeMap::new(),
            member: floor,
            epoch: floor,
            used: now,
        });
        group.used = now;
        group
    }

    /// The highest member number and assignment epoch that a group has given out.
    pub(crate) fn group_numbers(&self, group: &str) -> (u64, u64) {
        let known = self.groups.get(group);
        known.map_or((self.group_floor, self.group_floor), |group| (group.member, group.epoch))
    }

    /// The epoch that the next user of a transactional id gets.
    pub(crate) fn next_epoch(&self, id: &str) -> u32 {
        self.producers.get(id).map_or(self.epoch_floor, |known| known.epoch + 1)
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

    /// The groups that have committed offsets.
    pub(crate) fn group_names(&self) -> Vec<String> {
        let committed = self.groups.iter().filter(|(_, group)| !group.offsets.is_empty());
        committed.map(|(name, _)| name.to_string()).collect()
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
