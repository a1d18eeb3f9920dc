//! What must be there before the first task: the number of partitions of every topic, the internal
//! topics (created if missing), and the list of tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_api::{Admin, Error, NewTopic, TaskId, TopicConfig, TopicId};

use super::StreamsError;
use crate::error::BuildError;
use crate::topology::{SubTopology, Topology};

/// The topology on the partitions of its topics.
#[derive(Debug, Default)]
pub struct Plan {
    /// Full names and numbers of partitions of the topics, by the names that the topology uses.
    topics: BTreeMap<String, (Arc<str>, u32)>,
    /// The full names of the repartition topics.
    repartition: BTreeSet<Arc<str>>,
    /// The changelog of each store.
    changelogs: BTreeMap<String, (Arc<str>, TopicId)>,
    /// All tasks.
    pub tasks: Vec<TaskId>,
    /// The identity of the broker's data.
    pub cluster_id: String,
}

impl Plan {
    /// Looks at the broker's topics and creates what is missing.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] for a source or sink topic that does not exist,
    /// [`StreamsError::PartitionsChanged`] if an internal topic of an earlier start does not fit.
    pub async fn make(
        topology: &Topology,
        application: &str,
        admin: &dyn Admin,
    ) -> Result<Self, StreamsError> {
        let mut plan = Self { cluster_id: admin.cluster_id().await?, ..Self::default() };
        let parts = topology.subtopologies();
        for topic in parts.iter().flat_map(|p| p.sources.iter().chain(&p.sinks)) {
            if !topology.internal_topics().contains_key(topic) {
                let found = admin.topic(topic).await?;
                plan.topics.insert(topic.clone(), (found.name, found.partitions));
            }
        }
        plan.repartition_topics(topology, application, admin).await?;
        for (number, part) in parts.iter().enumerate() {
            let partitions = plan.partitions_of(part).unwrap_or(0);
            let subtopology = number as u32;
            plan.tasks.extend((0..partitions).map(|partition| TaskId { subtopology, partition }));
            for store in &part.stores {
                if let Some(config) = topology.stores().get(store).and_then(|s| s.changelog.clone())
                {
                    let name = format!("{application}-{store}-changelog");
                    let id = ensure(admin, &name, partitions, config).await?;
                    plan.changelogs.insert(store.clone(), (name.into(), id));
                }
            }
        }
        Ok(plan)
    }

    /// A repartition topic has as many partitions as it asks for, else as the sub-topology that
    /// writes it has tasks; found from the sources on.
    async fn repartition_topics(
        &mut self,
        topology: &Topology,
        application: &str,
        admin: &dyn Admin,
    ) -> Result<(), StreamsError> {
        let mut missing: Vec<&String> = topology.internal_topics().keys().collect();
        while !missing.is_empty() {
            let before = missing.len();
            let mut left = Vec::new();
            for topic in missing {
                let asked = topology.internal_topics().get(topic).and_then(|t| t.partitions);
                let writers = topology.subtopologies().iter().filter(|p| p.sinks.contains(topic));
                let known = writers.map(|p| self.partitions_of(p)).try_fold(None, |most, n| {
                    n.map(|n| Some(n.max(most.unwrap_or(0)))) // none known yet: wait
                });
                let Some(partitions) = asked.or(known.flatten()) else {
                    left.push(topic);
                    continue;
                };
                let name = format!("{application}-{topic}");
                ensure(admin, &name, partitions, TopicConfig::default()).await?;
                let name: Arc<str> = name.into();
                self.repartition.insert(name.clone());
                self.topics.insert(topic.clone(), (name, partitions));
            }
            if left.len() == before {
                let node = left.first().map(ToString::to_string).unwrap_or_default();
                let reason =
                    "its number of partitions depends on itself; give it one (repartition)".into();
                return Err(BuildError::Invalid { node, reason }.into());
            }
            missing = left;
        }
        Ok(())
    }

    /// The largest number of partitions among the sources; `None` while one is not known.
    fn partitions_of(&self, part: &SubTopology) -> Option<u32> {
        let counts = part.sources.iter().map(|topic| self.topics.get(topic).map(|t| t.1));
        counts.collect::<Option<Vec<u32>>>().map(|counts| counts.into_iter().max().unwrap_or(0))
    }

    /// The full name and number of partitions of a topic.
    ///
    /// # Errors
    /// [`BuildError::Unknown`].
    pub fn topic(&self, name: &str) -> Result<(Arc<str>, u32), BuildError> {
        self.topics.get(name).cloned().ok_or_else(|| BuildError::Unknown {
            node: "the topology".into(),
            missing: format!("topic {name}"),
        })
    }

    /// Whether a topic, by its full name, is one of the application's repartition topics.
    pub fn is_repartition(&self, topic: &str) -> bool {
        self.repartition.contains(topic)
    }

    /// The changelog topic of a store; `None`: it is not logged.
    pub fn changelog(&self, store: &str) -> Option<&(Arc<str>, TopicId)> {
        self.changelogs.get(store)
    }
}

async fn ensure(
    admin: &dyn Admin,
    name: &str,
    partitions: u32,
    config: TopicConfig,
) -> Result<TopicId, StreamsError> {
    let new = NewTopic { name: name.into(), partitions, config };
    match admin.create_topic(new).await {
        Ok(id) => Ok(id),
        Err(Error::TopicExists { .. }) => {
            let found = admin.topic(name).await?;
            if found.partitions != partitions {
                return Err(StreamsError::PartitionsChanged {
                    topic: name.into(),
                    found: found.partitions,
                    needed: partitions,
                });
            }
            Ok(found.id)
        }
        Err(error) => Err(error.into()),
    }
}
