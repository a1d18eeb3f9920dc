//! The finished topology: sub-topologies, and the tasks made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_api::{RecordRef, TaskId, Timestamp};
use bytes::Bytes;

use super::spec::{Make, MakeContext, TopicResolver};
use super::{InternalTopic, NodeKind, NodeSpec, StoreSpec};
use crate::error::BuildError;
use crate::processor::{Child, Erased, Source};
use crate::state::{LossyEngine, StateEngine, StoreEngine};
use crate::task::{Globals, OutputTopic, SharedTask, Task, TaskCore, TaskSettings, WrittenTopics};

/// A checked topology. Immutable; share it behind an [`Arc`].
pub struct Topology {
    nodes: Vec<NodeSpec>,
    children: Vec<Vec<usize>>,
    stores: BTreeMap<String, StoreSpec>,
    internal_topics: BTreeMap<String, InternalTopic>,
    copartitioned: Vec<Vec<String>>,
    subtopologies: Vec<SubTopology>,
    globals: BTreeSet<String>,
}

/// A connected part of a topology. Nodes that share a store are connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubTopology {
    /// Its nodes, by their number in [`Topology::nodes`], in the order of their declaration.
    pub nodes: Vec<usize>,
    /// The topics that it reads.
    pub sources: Vec<String>,
    /// The topics that it writes.
    pub sinks: Vec<String>,
    /// Its stores.
    pub stores: Vec<String>,
    /// Whether it fills a global store: then it has no tasks, and every instance runs it whole.
    pub is_global: bool,
}

/// The nodes of a task, ready for records.
pub struct BuiltTask {
    /// What the nodes share.
    pub core: TaskCore,
    /// Its sources.
    pub sources: Vec<TaskSource>,
}

/// A source of a task.
pub struct TaskSource {
    /// The topics that it reads, as the topology names them.
    pub topics: Vec<String>,
    /// The source.
    pub source: Box<dyn Source>,
    goes_by_record_time: bool,
}

impl TaskSource {
    fn new(topics: Vec<String>, source: Box<dyn Source>) -> Self {
        let goes_by_record_time = source.goes_by_record_time();
        Self { topics, source, goes_by_record_time }
    }

    /// As [`Source::time_of`], which is asked only where it finds another time than the record's own.
    #[inline]
    pub fn time_of(
        &self,
        record: &RecordRef<'_>,
        owner: &Bytes,
        partition: Timestamp,
        wall_clock: Timestamp,
    ) -> Timestamp {
        if self.goes_by_record_time {
            return record.timestamp;
        }
        self.source.time_of(record, owner, partition, wall_clock)
    }
}

impl Topology {
    pub(super) fn new(
        nodes: Vec<NodeSpec>,
        stores: BTreeMap<String, StoreSpec>,
        internal_topics: BTreeMap<String, InternalTopic>,
        copartitioned: Vec<Vec<String>>,
        globals: &BTreeSet<String>,
    ) -> Self {
        let mut children = vec![Vec::new(); nodes.len()];
        for (child, node) in nodes.iter().enumerate() {
            for parent in &node.parents {
                if let Some(parent) = nodes.iter().position(|n| *n.name == **parent) {
                    children[parent].push(child);
                }
            }
        }
        let mut subtopologies = cut(&nodes, &children);
        for part in &mut subtopologies {
            part.is_global = part.stores.iter().any(|store| globals.contains(store));
        }
        let globals = globals.clone();
        Self { nodes, children, stores, internal_topics, copartitioned, subtopologies, globals }
    }

    /// The nodes, in the order of their declaration.
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.nodes
    }

    /// The numbers of the nodes that a node forwards to.
    pub fn children(&self, node: usize) -> &[usize] {
        &self.children[node]
    }

    /// The stores, by name.
    pub fn stores(&self) -> &BTreeMap<String, StoreSpec> {
        &self.stores
    }

    /// The groups of topics that must have equal numbers of partitions.
    pub fn copartitioned(&self) -> &[Vec<String>] {
        &self.copartitioned
    }

    /// The topics that the application creates, by name without the application's id.
    pub fn internal_topics(&self) -> &BTreeMap<String, InternalTopic> {
        &self.internal_topics
    }

    /// The connected parts, by number.
    pub fn subtopologies(&self) -> &[SubTopology] {
        &self.subtopologies
    }

    /// Whether a source reads topics that it does not name.
    pub fn has_patterns(&self) -> bool {
        self.nodes.iter().any(|node| node.pattern.is_some())
    }

    /// The sub-topologies whose tasks depend on topics that come and go: those that read such topics,
    /// and those that read what they write.
    pub fn following(&self) -> Vec<u32> {
        let has_pattern =
            |part: &SubTopology| part.nodes.iter().any(|&node| self.nodes[node].pattern.is_some());
        let parts = &self.subtopologies;
        let mut follows: Vec<bool> = parts.iter().map(has_pattern).collect();
        // Each round finds those that are one step further.
        for _ in parts {
            for reader in 0..parts.len() {
                let mut writers = parts.iter().zip(&follows).filter(|(_, follows)| **follows);
                let reads = |topic: &String| parts[reader].sources.contains(topic);
                let reached = writers.any(|(writer, _)| writer.sinks.iter().any(reads));
                follows[reader] |= reached;
            }
        }
        (0..).zip(follows).filter_map(|(number, follows)| follows.then_some(number)).collect()
    }

    /// Whether a topic is read because a pattern is like it.
    pub fn follows(&self, topic: &str) -> bool {
        self.followed().any(|followed| followed == topic)
    }

    /// The topics that are read because a pattern is like them.
    pub fn followed(&self) -> impl Iterator<Item = &str> {
        let patterns = self.nodes.iter().filter(|node| node.pattern.is_some());
        let topics = patterns.flat_map(|node| match &node.kind {
            NodeKind::Source { topics } => &topics[..],
            _ => &[],
        });
        topics.map(String::as_str)
    }

    /// The same where such sources read, of these topics, those that are like their patterns.
    ///
    /// # Errors
    /// [`BuildError::TopicReadTwice`].
    pub fn with_topics<'a>(
        &self,
        existing: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Self, BuildError> {
        let mut nodes = self.nodes.clone();
        let mut read: BTreeSet<String> = BTreeSet::new();
        for node in &mut nodes {
            let NodeKind::Source { topics } = &mut node.kind else { continue };
            if let Some(pattern) = &node.pattern {
                let found = existing.clone().filter(|topic| pattern.matches(topic));
                *topics = found.map(str::to_owned).collect();
            }
            if let Some(topic) = topics.iter().find(|topic| !read.insert((*topic).clone())) {
                return Err(BuildError::TopicReadTwice { topic: topic.clone() });
            }
        }
        let (stores, internal) = (self.stores.clone(), self.internal_topics.clone());
        Ok(Self::new(nodes, stores, internal, self.copartitioned.clone(), &self.globals))
    }

    /// Whether it has global stores.
    pub fn has_globals(&self) -> bool {
        self.subtopologies.iter().any(|part| part.is_global)
    }

    /// Builds the nodes of a task. `engines` are those of [`SubTopology::stores`], in that order.
    ///
    /// # Errors
    /// [`BuildError`] from a processor's `init`, or if `topics` does not know a topic.
    pub fn build_task(
        &self,
        id: TaskId,
        settings: TaskSettings,
        engines: Vec<Arc<dyn StoreEngine>>,
        topics: TopicResolver<'_>,
    ) -> Result<BuiltTask, BuildError> {
        let part = usize::try_from(id.subtopology).ok().and_then(|n| self.subtopologies.get(n));
        let Some(part) = part else {
            let reason = "there is no such sub-topology".into();
            return Err(BuildError::Invalid { node: id.to_string(), reason });
        };
        let mut core = TaskCore::new(id, settings);
        core.follows = part.nodes.iter().any(|&node| self.nodes[node].pattern.is_some());
        for (name, engine) in part.stores.iter().zip(engines) {
            if let Some(spec) = self.stores.get(name) {
                core.stores_mut().add((spec.make)(engine));
            }
        }
        let mut assembly = Assembly { topology: self, core, topics, slots: BTreeMap::new() };
        let mut sources = Vec::new();
        for &index in &part.nodes {
            let node = &self.nodes[index];
            if let (NodeKind::Source { topics }, Make::Source(make)) = (&node.kind, &node.make) {
                let children = assembly.children(index)?;
                sources.push(TaskSource::new(topics.clone(), make(children)?));
            }
        }
        Ok(BuiltTask { core: assembly.core, sources })
    }

    /// Builds a task of each sub-topology on empty stores, to see that it can be done.
    pub(super) fn try_tasks(&self) -> Result<(), BuildError> {
        let mut settings = TaskSettings::default();
        let mut globals = Vec::new();
        for (number, _) in self.numbered(true) {
            let mut built = self.try_task(number, settings.clone())?;
            if !built.core.schedules_mut().is_empty() {
                let node = self.nodes[self.subtopologies[number].nodes[1]].name.to_string();
                let reason = "what fills a global store has no schedules".into();
                return Err(BuildError::Invalid { node, reason });
            }
            let (queues, stores) = (Vec::new(), Vec::new());
            let task = Task::new(built, queues, stores, WrittenTopics::default());
            globals.push(SharedTask::new(task));
        }
        settings.globals = Globals::of(&globals);
        for (number, _) in self.numbered(false) {
            self.try_task(number, settings.clone())?;
        }
        Ok(())
    }

    /// The sub-topologies that fill global stores, or the others.
    fn numbered(&self, is_global: bool) -> impl Iterator<Item = (usize, &SubTopology)> {
        let parts = self.subtopologies.iter().enumerate();
        parts.filter(move |(_, part)| part.is_global == is_global)
    }

    fn try_task(&self, number: usize, settings: TaskSettings) -> Result<BuiltTask, BuildError> {
        let stores = &self.subtopologies[number].stores;
        let names: Vec<&str> = stores.iter().map(String::as_str).collect();
        let engines = LossyEngine::default()
            .open("".as_ref(), &names)
            .map_err(|e| BuildError::Invalid { node: "state".into(), reason: e.to_string() })?;
        let id = TaskId { subtopology: number as u32, partition: 0 };
        let topics = |topic: &str| Ok(OutputTopic::unlimited(topic.into(), 1));
        self.build_task(id, settings, engines, &topics)
    }
}

/// A task while its nodes are built, children first.
struct Assembly<'a> {
    topology: &'a Topology,
    core: TaskCore,
    topics: TopicResolver<'a>,
    /// Nodes with several parents that are built: their places in the arena.
    slots: BTreeMap<usize, usize>,
}

impl Assembly<'_> {
    fn children(&mut self, node: usize) -> Result<Vec<Child>, BuildError> {
        let topology = self.topology;
        topology.children[node]
            .iter()
            .map(|&child| {
                let name = topology.nodes[child].name.clone();
                Ok(Child { name, node: self.reach(child)? })
            })
            .collect()
    }

    /// The node itself for its only parent, a link for each of several.
    fn reach(&mut self, index: usize) -> Result<Erased, BuildError> {
        let spec = &self.topology.nodes[index];
        let Make::Push { slot, link, .. } = &spec.make else {
            return Err(misbuilt(spec));
        };
        if spec.parents.len() < 2 {
            return self.make(index);
        }
        if let Some(&known) = self.slots.get(&index) {
            return Ok(link(known));
        }
        let node = slot(self.make(index)?).ok_or_else(|| misbuilt(spec))?;
        self.core.arena.push(Some(node));
        let place = self.core.arena.len() - 1;
        self.slots.insert(index, place);
        Ok(link(place))
    }

    fn make(&mut self, index: usize) -> Result<Erased, BuildError> {
        let children = self.children(index)?;
        let spec = &self.topology.nodes[index];
        let Make::Push { make, .. } = &spec.make else {
            return Err(misbuilt(spec));
        };
        let (name, stores) = (&*spec.name, &spec.stores[..]);
        make(&mut MakeContext { name, stores, topics: self.topics, task: &mut self.core }, children)
    }
}

fn misbuilt(spec: &NodeSpec) -> BuildError {
    let reason = "a source cannot be the child of a node".into();
    BuildError::Invalid { node: spec.name.to_string(), reason }
}

/// Cuts the graph into its connected parts, numbered in the order of their first nodes, as in Kafka.
fn cut(nodes: &[NodeSpec], children: &[Vec<usize>]) -> Vec<SubTopology> {
    let mut group: Vec<usize> = (0..nodes.len()).collect();
    let merge = |group: &mut Vec<usize>, a: usize, b: usize| {
        let (from, to) = (group[a], group[b]);
        group.iter_mut().filter(|g| **g == from).for_each(|g| *g = to);
    };
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for &child in &children[index] {
            merge(&mut group, child, index);
        }
        for store in &node.stores {
            let first = *users.entry(store).or_insert(index);
            merge(&mut group, index, first);
        }
    }
    let mut order: Vec<usize> = Vec::new();
    for number in &group {
        if !order.contains(number) {
            order.push(*number);
        }
    }
    order
        .into_iter()
        .map(|number| {
            let members: Vec<usize> = (0..nodes.len()).filter(|&i| group[i] == number).collect();
            let mut part = SubTopology { nodes: members, ..SubTopology::default() };
            for &index in &part.nodes {
                match &nodes[index].kind {
                    NodeKind::Source { topics } => part.sources.extend(topics.iter().cloned()),
                    NodeKind::Sink { topic } => part.sinks.push(topic.clone()),
                    NodeKind::Processor | NodeKind::DynamicSink { .. } => {}
                }
                for store in &nodes[index].stores {
                    if !part.stores.contains(store) {
                        part.stores.push(store.clone());
                    }
                }
            }
            part
        })
        .collect()
}
