//! What must be there before the first task: the number of partitions of every topic, the internal
//! topics (created if missing), and the list of tasks.
//!
//! Everything is looked at before anything is created. An internal topic that is missing is made
//! anew only if no committed offset of the application relies on it ([`WrittenTopics`]): else input
//! that was consumed would never be seen again, and its results would be gone in silence. A store
//! that is new in the topology has no such offset, and starts empty, as in Kafka. Nor is a changelog
//! read by a store of another kind than the one that has written it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_api::{
    Admin, CommittedOffset, Error, NewTopic, TaskId, TopicConfig, TopicDescription, TopicPartition,
};

use super::StreamsError;
use crate::error::{BuildError, ProcessError};
use crate::state::StoreKind;
use crate::task::{OutputTopic, WrittenTopics, no_topic};
use crate::topology::{NodeKind, NodeSpec, StoreSpec, SubTopology, Topology};

/// The topology on the partitions of its topics.
#[derive(Debug, Default)]
pub struct Plan {
    /// The topics that are read and written, by the names that the topology uses.
    topics: BTreeMap<String, TopicDescription>,
    /// What else exists, if the topology chooses topics record by record.
    others: BTreeMap<Arc<str>, TopicDescription>,
    /// Which of them the application owns.
    repartition: Vec<String>,
    /// The changelog of each store.
    changelogs: BTreeMap<String, TopicDescription>,
    /// All tasks.
    pub tasks: Vec<TaskId>,
    /// The identity of the broker's data.
    pub cluster_id: String,
}

impl Plan {
    /// Looks at the broker's topics and creates what is missing.
    ///
    /// # Errors
    /// [`BuildError::Empty`] if there is nothing to run, [`Error::UnknownTopic`] for a source or sink
    /// topic that does not exist, [`StreamsError::PartitionsChanged`] or
    /// [`StreamsError::FollowedTopicTooLarge`] if an internal topic of an earlier start does not fit,
    /// [`StreamsError::InternalTopicLost`] if one is gone that is needed, [`StreamsError::StoreKindChanged`]
    /// if one was written by a store of another kind. Then nothing is created.
    pub async fn make(
        topology: &Topology,
        application: &str,
        admin: &dyn Admin,
    ) -> Result<Self, StreamsError> {
        let offsets = admin.group_offsets(application).await?;
        let existing = admin.topics().await?.into_iter().map(|t| (t.name.clone(), t)).collect();
        Self::on(topology, application, admin, &offsets, existing).await
    }

    /// The same for a topology with patterns, which reads the topics that are like them now. What was
    /// found `before` and has a name in the topology is still there for it: if it is not, those who use
    /// it will notice.
    ///
    /// # Errors
    /// Those of [`Plan::make`], and [`BuildError::TopicReadTwice`].
    pub async fn follow(
        topology: &Arc<Topology>,
        application: &str,
        admin: &dyn Admin,
        before: Option<&Self>,
    ) -> Result<(Arc<Topology>, Self), StreamsError> {
        loop {
            // First the offsets: another one may begin meanwhile, make topics, and commit.
            let offsets = admin.group_offsets(application).await?;
            let topics = admin.topics().await?;
            let existing = topics.iter().map(|topic| (topic.name.clone(), topic.clone())).collect();
            match Self::among(topology, application, admin, &offsets, existing, before).await {
                // Or it has found more topics, and made its own for those.
                Err(StreamsError::PartitionsChanged { .. }) if admin.topics().await? != topics => {}
                done => return done,
            }
        }
    }

    /// The same, where these topics are found.
    async fn among(
        topology: &Arc<Topology>,
        application: &str,
        admin: &dyn Admin,
        offsets: &[(TopicPartition, CommittedOffset)],
        mut existing: BTreeMap<Arc<str>, TopicDescription>,
        before: Option<&Self>,
    ) -> Result<(Arc<Topology>, Self), StreamsError> {
        let repartition = topology.internal_topics().keys();
        let own: BTreeSet<String> = repartition
            .map(|topic| full_name(application, topic))
            .chain(topology.stores().keys().map(|store| changelog_name(application, store)))
            .collect();
        let names = existing.keys().map(|name| &**name).filter(|name| !own.contains(*name));
        let found = match topology.has_patterns() {
            true => Arc::new(topology.with_topics(names)?),
            false => topology.clone(),
        };
        let before = before.into_iter().flat_map(|before| &before.topics);
        for (name, topic) in before.filter(|(name, _)| !topology.follows(name)) {
            if !topology.internal_topics().contains_key(name) {
                existing.entry(topic.name.clone()).or_insert_with(|| topic.clone());
            }
        }
        let plan = Self::on(&found, application, admin, offsets, existing).await?;
        Ok((found, plan))
    }

    async fn on(
        topology: &Topology,
        application: &str,
        admin: &dyn Admin,
        offsets: &[(TopicPartition, CommittedOffset)],
        existing: BTreeMap<Arc<str>, TopicDescription>,
    ) -> Result<Self, StreamsError> {
        if topology.subtopologies().is_empty() {
            return Err(BuildError::Empty.into());
        }
        let cluster_id = admin.cluster_id().await?;
        let mut draft = Draft { application, existing, ..Draft::default() };
        draft.check_sinks(topology)?;
        draft.own_topics(topology)?;
        draft.check_copartitioned(topology)?;
        draft.repartition_topics(topology)?;
        draft.changelogs(topology);
        draft.check(topology, offsets)?;

        let Draft { mut topics, internal, tasks, existing, .. } = draft;
        let mut plan = Self { tasks, cluster_id, ..Self::default() };
        for (usage, wanted) in internal {
            let config = wanted.config.clone();
            let made = ensure(admin, application, wanted).await?;
            match usage {
                Usage::Repartition(topic) => {
                    plan.repartition.push(topic.clone());
                    topics.insert(topic, made);
                }
                Usage::Changelog(store) => {
                    plan.changelogs.insert(store, keep_longer(admin, made, &config).await?);
                }
            }
        }
        plan.topics = topics;
        let is_dynamic = |node: &NodeSpec| matches!(node.kind, NodeKind::DynamicSink { .. });
        if topology.nodes().iter().any(is_dynamic) {
            plan.others = existing;
        }
        Ok(plan)
    }

    /// Adds a topic that the topology does not name.
    pub fn add_topic(&mut self, topic: TopicDescription) {
        self.topics.entry(topic.name.to_string()).or_insert(topic);
    }

    /// A topic that the topology names.
    ///
    /// # Errors
    /// [`BuildError::Unknown`].
    pub fn topic(&self, name: &str) -> Result<&TopicDescription, BuildError> {
        self.topics.get(name).ok_or_else(|| BuildError::Unknown {
            node: "the topology".into(),
            missing: format!("topic {name}"),
        })
    }

    /// The same, for who writes it.
    ///
    /// # Errors
    /// [`ProcessError::Output`].
    pub(super) fn output(&self, name: &str) -> Result<OutputTopic, ProcessError> {
        self.topics.get(name).map(OutputTopic::from).ok_or_else(|| no_topic(name))
    }

    /// The topics that a record may choose, as far as they are known.
    pub(super) fn others(&self) -> impl Iterator<Item = &TopicDescription> {
        self.others.values()
    }

    /// Whether a topic, by its full name, is one of the application's repartition topics.
    pub fn is_repartition(&self, topic: &str) -> bool {
        self.repartition.iter().any(|own| self.topics.get(own).is_some_and(|t| *t.name == *topic))
    }

    /// The changelog topic of a store; `None`: it is not logged.
    pub fn changelog(&self, store: &str) -> Option<&TopicDescription> {
        self.changelogs.get(store)
    }

    /// The input topic that stands in for the changelog of a store, if one does.
    pub fn source_of(&self, topology: &Topology, store: &str) -> Option<&TopicDescription> {
        let topic = topology.stores().get(store)?.source_topic.as_ref()?;
        self.topics.get(topic)
    }

    /// The internal topics that the tasks of a sub-topology write.
    pub fn written_by(&self, topology: &Topology, part: &SubTopology) -> WrittenTopics {
        let changelogs = part.stores.iter().filter_map(|store| {
            let kind = topology.stores().get(store).map(|spec| spec.kind);
            Some((self.changelogs.get(store)?, kind))
        });
        let sinks = part.sinks.iter().filter(|sink| self.repartition.contains(sink));
        let repartition = sinks.filter_map(|sink| self.topics.get(sink));
        let all = changelogs.chain(repartition.map(|topic| (topic, None)));
        WrittenTopics::of(all.map(|(topic, kind)| (&*topic.name, topic.id, kind)))
    }
}

/// What an internal topic is for.
enum Usage {
    /// Under this name in the topology.
    Repartition(String),
    /// Of this store.
    Changelog(String),
}

/// A plan as it is found out, before anything is created.
#[derive(Default)]
struct Draft<'a> {
    application: &'a str,
    existing: BTreeMap<Arc<str>, TopicDescription>,
    topics: BTreeMap<String, TopicDescription>,
    partitions: BTreeMap<String, u32>,
    internal: Vec<(Usage, NewTopic)>,
    tasks: Vec<TaskId>,
}

impl Draft<'_> {
    /// The topics that the application does not own must exist.
    fn own_topics(&mut self, topology: &Topology) -> Result<(), Error> {
        let parts = topology.subtopologies();
        for topic in parts.iter().flat_map(|p| p.sources.iter().chain(&p.sinks)) {
            if !topology.internal_topics().contains_key(topic) {
                let found = self.existing.get(&**topic).cloned();
                let found = found.ok_or_else(|| Error::UnknownTopic { topic: topic.clone() })?;
                self.partitions.insert(topic.clone(), found.partitions);
                self.topics.insert(topic.clone(), found);
            }
        }
        Ok(())
    }

    /// The numbers of partitions that are fixed must be equal where topics are joined.
    fn check_copartitioned(&self, topology: &Topology) -> Result<(), StreamsError> {
        for group in topology.copartitioned() {
            let fixed = group.iter().filter_map(|t| Some((t, self.fixed_partitions(topology, t)?)));
            let fixed: Vec<_> = fixed.collect();
            if fixed.windows(2).any(|pair| pair[0].1 != pair[1].1) {
                let topics = fixed.iter().map(|(topic, n)| format!("{topic} ({n})"));
                let topics = topics.collect::<Vec<_>>().join(", ");
                return Err(StreamsError::NotCopartitioned { topics });
            }
        }
        Ok(())
    }

    /// How many partitions a topic has or asks for.
    fn fixed_partitions(&self, topology: &Topology, topic: &String) -> Option<u32> {
        match topology.internal_topics().get(topic) {
            Some(internal) => internal.partitions,
            None => self.partitions.get(topic).copied(),
        }
    }

    /// As many partitions as the sub-topologies that write a topic have tasks; `None` while one of
    /// them is not known.
    fn written_partitions(&self, topology: &Topology, topic: &String) -> Option<u32> {
        let mut writers = topology.subtopologies().iter().filter(|p| p.sinks.contains(topic));
        // Topics that were followed and are gone leave behind what they needed.
        let full = full_name(self.application, topic);
        let present = topology.has_patterns().then(|| self.existing.get(&*full)).flatten();
        let present = present.map(|found| found.partitions);
        let most = writers.try_fold(present, |most: Option<u32>, part| {
            self.partitions_of(topology, part).map(|n| Some(most.map_or(n, |most| most.max(n))))
        });
        most.flatten()
    }

    /// The same by the sources that are known, of whatever sub-topology.
    fn written_partitions_so_far(&self, topology: &Topology, topic: &String) -> Option<u32> {
        let writers = topology.subtopologies().iter().filter(|p| p.sinks.contains(topic));
        writers
            .flat_map(|p| &p.sources)
            .filter_map(|source| self.partitions.get(source))
            .copied()
            .max()
    }

    /// The topics with which a topic is joined, and itself.
    fn joined_with<'t>(topology: &'t Topology, topic: &'t String) -> BTreeSet<&'t String> {
        let groups = topology.copartitioned().iter().filter(|group| group.contains(topic));
        groups.flatten().chain([topic]).collect()
    }

    /// How many partitions a repartition topic gets; `None` while that is not known.
    fn wanted_partitions(&self, topology: &Topology, topic: &String) -> Option<u32> {
        if let Some(asked) = self.fixed_partitions(topology, topic) {
            return Some(asked);
        }
        let joined = Self::joined_with(topology, topic);
        let mut fixed = joined.iter().filter_map(|other| self.fixed_partitions(topology, other));
        let mut decided = joined.iter().filter_map(|other| self.partitions.get(*other).copied());
        if let Some(partitions) = fixed.next().or_else(|| decided.next()) {
            return Some(partitions);
        }
        let written = joined.iter().map(|other| self.written_partitions(topology, other));
        written.collect::<Option<Vec<u32>>>()?.into_iter().max()
    }

    /// Where two sub-topologies answer each other, neither is known before the other: then by what is
    /// known of those that write a topic or one that it is joined with.
    fn partitions_so_far(&self, topology: &Topology, topic: &String) -> Option<u32> {
        let joined = Self::joined_with(topology, topic);
        joined.iter().filter_map(|other| self.written_partitions_so_far(topology, other)).max()
    }

    /// A repartition topic has as many partitions as it asks for, else as the topics with which it is
    /// joined, else as the sub-topology that writes it has tasks; found from the sources on.
    fn repartition_topics(&mut self, topology: &Topology) -> Result<(), BuildError> {
        let mut missing: Vec<&String> = topology.internal_topics().keys().collect();
        while !missing.is_empty() {
            let before = missing.len();
            let mut left = Vec::new();
            for topic in missing {
                match self.wanted_partitions(topology, topic) {
                    Some(partitions) => self.repartition_topic(topic, partitions),
                    None => left.push(topic),
                }
            }
            if left.len() == before {
                let so_far = |topic: &&String| self.partitions_so_far(topology, topic);
                let found = left.iter().enumerate().find_map(|(at, t)| Some((at, so_far(t)?)));
                let Some((at, partitions)) = found else {
                    let node = left.first().map(ToString::to_string).unwrap_or_default();
                    let reason =
                        "its number of partitions depends on itself; give it one (repartition)";
                    return Err(BuildError::Invalid { node, reason: reason.into() });
                };
                self.repartition_topic(left.remove(at), partitions);
            }
            missing = left;
        }
        Ok(())
    }

    fn repartition_topic(&mut self, topic: &str, partitions: u32) {
        let name = full_name(self.application, topic);
        let new = NewTopic { name, partitions, config: TopicConfig::default() };
        self.wants(Usage::Repartition(topic.into()), new);
        self.partitions.insert(topic.into(), partitions);
    }

    /// Who follows topics of which there is none yet needs no internal topics yet.
    fn wants(&mut self, usage: Usage, topic: NewTopic) {
        if topic.partitions > 0 {
            self.internal.push((usage, topic));
        }
    }

    /// A changelog has a partition for each task.
    fn changelogs(&mut self, topology: &Topology) {
        let parts = topology.subtopologies().iter().enumerate();
        for (number, part) in parts.filter(|(_, part)| !part.is_global) {
            let partitions = self.partitions_of(topology, part).unwrap_or(0);
            let subtopology = number as u32;
            self.tasks.extend((0..partitions).map(|partition| TaskId { subtopology, partition }));
            for store in &part.stores {
                if let Some(config) = topology.stores().get(store).and_then(|s| s.changelog.clone())
                {
                    let name = changelog_name(self.application, store);
                    let new = NewTopic { name, partitions, config };
                    self.wants(Usage::Changelog(store.clone()), new);
                }
            }
        }
    }

    /// The largest number of partitions among the sources; `None` while one is not known. Who follows
    /// topics has no fewer than its changelogs: its state outlives a topic that is deleted.
    fn partitions_of(&self, topology: &Topology, part: &SubTopology) -> Option<u32> {
        let counts = part.sources.iter().map(|topic| self.partitions.get(topic).copied());
        let sources = counts.collect::<Option<Vec<u32>>>()?.into_iter();
        let follows = part.nodes.iter().any(|&node| topology.nodes()[node].pattern.is_some());
        let stores = part.stores.iter().filter(|_| follows);
        let changelogs = stores.map(|store| changelog_name(self.application, store));
        let present = changelogs.filter_map(|name| Some(self.existing.get(&*name)?.partitions));
        Some(sources.chain(present).max().unwrap_or(0))
    }

    /// An internal topic must not be written as if it were an output, by its whole name. Asked first: before
    /// the first start there is no such topic, and nobody should be told to create it.
    fn check_sinks(&self, topology: &Topology) -> Result<(), BuildError> {
        let repartition = topology.internal_topics().keys();
        let repartition = repartition.map(|topic| (full_name(self.application, topic), topic));
        let logged = topology.stores().iter().filter(|(_, spec)| spec.changelog.is_some());
        let changelogs = logged.map(|(store, _)| (changelog_name(self.application, store), store));
        let own: BTreeMap<String, &String> = repartition.chain(changelogs).collect();
        for node in topology.nodes() {
            let NodeKind::Sink { topic } = &node.kind else { continue };
            if let Some(&owner) = own.get(topic) {
                let (node, owner) = (node.name.to_string(), owner.clone());
                return Err(BuildError::InternalTopic { node, topic: topic.clone(), owner });
            }
        }
        Ok(())
    }

    /// Whether the internal topics that there are fit, and those that `offsets` rely on are what they were.
    fn check(
        &self,
        topology: &Topology,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), StreamsError> {
        for (usage, wanted) in &self.internal {
            let found = self.existing.get(&*wanted.name);
            let id = found.map(|found| found.id);
            let lost =
                |at: &CommittedOffset| WrittenTopics::is_lost(&at.metadata, &wanted.name, id);
            if offsets.iter().any(|(_, at)| lost(at)) {
                return Err(StreamsError::InternalTopicLost {
                    application: self.application.into(),
                    topic: wanted.name.clone(),
                });
            }
            if let Usage::Changelog(store) = usage
                && let Some(spec) = topology.stores().get(store)
            {
                self.check_kind(spec, &wanted.name, offsets)?;
            }
            if let Some(found) = found {
                self.check_followed(topology, found, wanted.partitions)?;
                fits(self.application, found, wanted.partitions)?;
            }
        }
        Ok(())
    }

    /// Whether no store of another kind has written a changelog.
    fn check_kind(
        &self,
        store: &StoreSpec,
        changelog: &str,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), StreamsError> {
        let kinds =
            offsets.iter().filter_map(|(_, at)| WrittenTopics::kind_of(&at.metadata, changelog));
        match kinds.into_iter().find(|was| *was != store.kind.logged().letter()) {
            None => Ok(()),
            Some(was) => Err(StreamsError::StoreKindChanged {
                application: self.application.into(),
                store: store.name.clone(),
                was: StoreKind::of_letter(was),
                now: store.kind.logged(),
            }),
        }
    }

    /// Whether a topic that is followed has more partitions than an internal topic.
    fn check_followed(
        &self,
        topology: &Topology,
        internal: &TopicDescription,
        needed: u32,
    ) -> Result<(), StreamsError> {
        let has = |topic: &&str| self.partitions.get(*topic) == Some(&needed);
        match topology.followed().find(has) {
            Some(topic) if needed > internal.partitions => {
                Err(StreamsError::FollowedTopicTooLarge {
                    application: self.application.into(),
                    topic: topic.into(),
                    partitions: needed,
                    internal: internal.name.to_string(),
                    found: internal.partitions,
                })
            }
            _ => Ok(()),
        }
    }
}

fn full_name(application: &str, topic: &str) -> String {
    format!("{application}-{topic}")
}

fn changelog_name(application: &str, store: &str) -> String {
    format!("{application}-{store}-changelog")
}

async fn ensure(
    admin: &dyn Admin,
    application: &str,
    wanted: NewTopic,
) -> Result<TopicDescription, StreamsError> {
    let (name, partitions) = (wanted.name.clone(), wanted.partitions);
    match admin.create_topic(wanted).await {
        Ok(_) | Err(Error::TopicExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let found = admin.topic(&name).await?;
    fits(application, &found, partitions)?;
    Ok(found)
}

/// A changelog of an earlier version may keep less than this one needs. It is never told to keep less.
async fn keep_longer(
    admin: &dyn Admin,
    found: TopicDescription,
    wanted: &TopicConfig,
) -> Result<TopicDescription, StreamsError> {
    let mut config = found.config.clone();
    if let (Some(found), Some(wanted)) = (&mut config.retention_ms, wanted.retention_ms) {
        *found = wanted.max(*found);
    }
    config.min_compaction_lag_ms = wanted.min_compaction_lag_ms.max(config.min_compaction_lag_ms);
    if config != found.config {
        let (retention_ms, lag_ms) = (config.retention_ms, config.min_compaction_lag_ms);
        tracing::info!(topic = %found.name, ?retention_ms, lag_ms, "the changelog keeps longer from now on");
        admin.configure_topic(&found.name, config.clone()).await?;
    }
    Ok(TopicDescription { config, ..found })
}

fn fits(application: &str, found: &TopicDescription, needed: u32) -> Result<(), StreamsError> {
    if found.partitions == needed {
        return Ok(());
    }
    Err(StreamsError::PartitionsChanged {
        application: application.into(),
        topic: found.name.to_string(),
        found: found.partitions,
        needed,
    })
}
