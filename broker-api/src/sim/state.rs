//! The state of the broker and the step that moves it on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use super::SimConfig;
use super::dice::Dice;
use super::entries::Entry;
use super::faults::{Fault, Faults};
use super::fetcher::Reader;
use super::log::Log;
use super::members::Application;
use super::producer::Writer;
use super::transactor::Committer;
use crate::clock::Clock;
use crate::{Capabilities, CommittedOffset, Error, TopicConfig, TopicId, TopicPartition};

pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) config: TopicConfig,
    pub(super) logs: Vec<Log>,
}

/// The offsets of a consumer group: as applied, and as synced.
#[derive(Clone, Default)]
pub(super) struct Group {
    pub(super) applied: BTreeMap<TopicPartition, CommittedOffset>,
    pub(super) synced: BTreeMap<TopicPartition, CommittedOffset>,
}

pub(super) struct State {
    pub(super) capabilities: Capabilities,
    pub(super) appends_in_flight: usize,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) faults: Faults,
    pub(super) random: Dice,
    pub(super) steps: u64,
    pub(super) closed: bool,
    pub(super) cluster_id: String,
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    /// The epoch of the newest transactor of each transactional id.
    pub(super) epochs: BTreeMap<Arc<str>, u32>,
    /// Accepted, not yet applied; then applied, not yet durable; then durable, not yet synced: one
    /// order, never broken.
    pub(super) accepted: VecDeque<Entry>,
    pub(super) applied: VecDeque<Entry>,
    pub(super) durable: VecDeque<Entry>,
    /// How many entries were accepted: the number of the last one.
    pub(super) accepted_count: u64,
    pub(super) fail_appends: Option<(u32, bool)>,
    next_number: u64,
    pub(super) readers: BTreeMap<u64, Reader>,
    pub(super) committers: BTreeMap<u64, Committer>,
    pub(super) writers: BTreeMap<u64, Writer>,
    pub(super) applications: BTreeMap<Arc<str>, Application>,
    /// Admin calls that wait for a step.
    pub(super) waiting_admins: Vec<Waker>,
    /// To be woken as soon as the lock is free.
    pub(super) to_wake: Vec<Waker>,
}

impl State {
    pub(super) fn new(config: SimConfig) -> Self {
        let mut random = Dice::new(config.seed);
        let cluster_id = format!("sim-{:016x}", random.number());
        Self {
            capabilities: config.capabilities,
            appends_in_flight: config.appends_in_flight,
            clock: config.clock,
            faults: config.faults,
            random,
            steps: 0,
            closed: false,
            cluster_id,
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            epochs: BTreeMap::new(),
            accepted: VecDeque::new(),
            applied: VecDeque::new(),
            durable: VecDeque::new(),
            accepted_count: 0,
            fail_appends: None,
            next_number: 1,
            readers: BTreeMap::new(),
            committers: BTreeMap::new(),
            writers: BTreeMap::new(),
            applications: BTreeMap::new(),
            waiting_admins: Vec::new(),
            to_wake: Vec::new(),
        }
    }

    /// A number that was never given out: for handles, members, topics.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) fn topic(&self, name: &str) -> Result<&Topic, Error> {
        self.check_open()?;
        self.topics.get(name).ok_or_else(|| Error::UnknownTopic { topic: name.into() })
    }

    pub(super) fn log(&self, tp: &TopicPartition) -> Result<&Log, Error> {
        let topic = self.topic(&tp.topic)?;
        topic.logs.get(tp.partition as usize).ok_or_else(|| Error::UnknownPartition {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            partitions: topic.logs.len() as u32,
        })
    }

    /// The log of a partition, if the topic still is the one of this id.
    pub(super) fn log_mut(&mut self, tp: &TopicPartition, id: TopicId) -> Option<&mut Log> {
        let topic = self.topics.get_mut(&tp.topic).filter(|topic| topic.id == id)?;
        topic.logs.get_mut(tp.partition as usize)
    }

    pub(super) fn step(&mut self) -> bool {
        if self.closed {
            return false;
        }
        self.steps += 1;
        self.settle_durable();
        self.settle_synced();
        self.settle_applied();
        self.strike();
        self.end_holds();
        self.purge();
        self.rebalance();
        self.wake_delayed();
        self.to_wake.append(&mut self.waiting_admins);
        !self.accepted.is_empty()
            || !self.applied.is_empty()
            || !self.durable.is_empty()
            || self.topics.values().flat_map(|t| &t.logs).any(|log| log.hold.is_some())
            || self.readers.values().any(|reader| reader.ready_at > self.steps)
            || self.applications.values().any(|a| a.unsettled)
    }

    /// Lets the random faults of one step happen.
    fn strike(&mut self) {
        let faults = self.faults;
        if self.random.happens(faults.gaps)
            && let Some(partition) = self.any_partition()
        {
            let length = 1 + self.random.up_to(2) as u32;
            self.inject(Fault::Gap { partition, length });
        }
        if self.random.happens(faults.slow_stable_end)
            && let Some(partition) = self.any_partition()
        {
            let steps = 1 + self.random.up_to(19) as u32;
            self.inject(Fault::Hold { partition, steps });
        }
        if self.random.happens(faults.compaction)
            && let Some(partition) = self.any_partition()
        {
            self.inject(Fault::Compact { partition });
        }
        if faults.doubt > 0 {
            let keys: Vec<u64> = self.committers.keys().copied().collect();
            for key in keys {
                if self.random.happens(faults.doubt) {
                    let taken = self.random.up_to(8) as usize;
                    self.put_in_doubt(key, taken);
                }
            }
        }
        if faults.lost_members > 0 {
            let Self { applications, random, to_wake, .. } = self;
            for application in applications.values_mut() {
                application.lose(to_wake, || random.happens(faults.lost_members));
            }
        }
    }

    pub(super) fn inject(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Gap { partition, length } => {
                let Ok(id) = self.topic(&partition.topic).map(|topic| topic.id) else {
                    return false;
                };
                self.accept(Entry::gap(partition, id, length));
                true
            }
            Fault::Hold { partition, steps } => {
                let until = self.steps + u64::from(steps);
                let log = self.existing(&partition);
                let free = log.filter(|log| log.hold.is_none());
                free.map(|log| log.hold = Some((log.end, until))).is_some()
            }
            Fault::Doubt { id, taken } => {
                let newest = self.committers.iter().rev().find(|(_, c)| *c.id == *id);
                let key = newest.map(|(key, _)| *key);
                let taken = if taken { usize::MAX } else { 0 };
                key.is_some_and(|key| self.put_in_doubt(key, taken))
            }
            Fault::FailAppends { count, taken } => {
                self.fail_appends = Some((count, taken));
                true
            }
            Fault::LoseMembers { application } => {
                let application = self.applications.get_mut(&application);
                application.is_some_and(|a| a.lose(&mut self.to_wake, || true))
            }
            Fault::Compact { partition } => {
                let compacts = self
                    .topic(&partition.topic)
                    .is_ok_and(|topic| topic.config.cleanup_policy.compacts());
                let log = self.existing(&partition);
                compacts && log.is_some_and(|log| log.compact().is_ok())
            }
        }
    }

    fn existing(&mut self, tp: &TopicPartition) -> Option<&mut Log> {
        self.topics.get_mut(&tp.topic)?.logs.get_mut(tp.partition as usize)
    }

    fn any_partition(&mut self) -> Option<TopicPartition> {
        let count = self.topics.values().map(|topic| topic.logs.len()).sum();
        let chosen = (count > 0).then(|| self.random.index(count))?;
        self.topics
            .iter()
            .flat_map(|(name, topic)| (0..topic.logs.len()).map(move |p| (name, p)))
            .nth(chosen)
            .map(|(name, p)| TopicPartition::new(name.clone(), p as u32))
    }

    fn end_holds(&mut self) {
        let steps = self.steps;
        let mut freed = Vec::new();
        for (name, topic) in &mut self.topics {
            for (p, log) in topic.logs.iter_mut().enumerate() {
                if log.hold.is_some_and(|(_, until)| until <= steps) {
                    log.hold = None;
                    freed.push(TopicPartition::new(name.clone(), p as u32));
                }
            }
        }
        freed.iter().for_each(|tp| self.wake_readers(tp, |_| true));
    }

    fn purge(&mut self) {
        let mut moved = Vec::new();
        for (name, topic) in &mut self.topics {
            for (p, log) in topic.logs.iter_mut().enumerate() {
                if log.purge() {
                    moved.push(TopicPartition::new(name.clone(), p as u32));
                }
            }
        }
        moved.iter().for_each(|tp| self.wake_readers(tp, |_| true));
    }

    fn rebalance(&mut self) {
        let Self { applications, to_wake, .. } = self;
        applications.values_mut().for_each(|application| application.rebalance(to_wake));
    }

    /// What survives. This state is closed.
    pub(super) fn crash(&mut self) -> State {
        let mut topics = std::mem::take(&mut self.topics);
        topics.values_mut().flat_map(|t| &mut t.logs).for_each(Log::cut_to_synced);
        let mut groups = std::mem::take(&mut self.groups);
        groups.values_mut().for_each(|group| group.applied = group.synced.clone());
        let config = SimConfig {
            seed: self.random.number(),
            faults: self.faults,
            capabilities: self.capabilities,
            appends_in_flight: self.appends_in_flight,
            clock: self.clock.clone(),
        };
        let survivor = State {
            steps: self.steps,
            cluster_id: self.cluster_id.clone(),
            topics,
            groups,
            epochs: std::mem::take(&mut self.epochs),
            next_number: self.next_number,
            ..State::new(config)
        };
        self.close();
        survivor
    }

    fn close(&mut self) {
        self.closed = true;
        self.accepted.clear();
        self.applied.clear();
        self.durable.clear();
        self.committers.values_mut().for_each(Committer::close);
        self.writers.values_mut().for_each(Writer::close);
        for application in self.applications.values_mut() {
            application.lose(&mut self.to_wake, || true);
        }
        self.to_wake.append(&mut self.waiting_admins);
        self.to_wake.extend(self.readers.values().map(|r| r.waker.clone()));
        self.to_wake.extend(self.committers.values().map(|c| c.waker.clone()));
        self.to_wake.extend(self.writers.values().map(|w| w.waker.clone()));
    }
}
