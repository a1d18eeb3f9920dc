//! Collecting and checking a topology.

use std::collections::{BTreeMap, BTreeSet};

use super::{InternalTopic, NodeKind, NodeSpec, Pattern, StoreSpec, Topology, names};
use crate::error::BuildError;

/// Collects nodes, stores and internal topics. Parents must be added before their children.
///
/// ```
/// use streams_core::{HasSerde, Record, ProcessError};
/// use streams_core::processor::{Context, Processor};
/// use streams_core::topology::{NodeSpec, TopologyBuilder};
///
/// struct Shout;
/// impl Processor for Shout {
///     type KIn = String;
///     type VIn = String;
///     type KOut = String;
///     type VOut = String;
///     fn process(
///         &mut self,
///         record: Record<String, String>,
///         cx: &mut Context<'_, String, String>,
///     ) -> Result<(), ProcessError> {
///         let shouted = record.value.to_uppercase();
///         cx.forward(record.with_value(shouted));
///         Ok(())
///     }
/// }
///
/// let (key, value) = (String::serde(), String::serde());
/// let mut builder = TopologyBuilder::new();
/// builder.add(NodeSpec::source("in", vec!["words".into()], key.clone(), value.clone()))?;
/// builder.add(NodeSpec::processor("shout", vec!["in".into()], || Shout))?;
/// builder.add(NodeSpec::sink("out", vec!["shout".into()], "shouts", key, value, None))?;
/// let topology = builder.build()?;
/// assert_eq!(topology.subtopologies().len(), 1);
/// # Ok::<(), streams_core::BuildError>(())
/// ```
#[derive(Default)]
pub struct TopologyBuilder {
    nodes: Vec<NodeSpec>,
    stores: BTreeMap<String, StoreSpec>,
    internal_topics: BTreeMap<String, InternalTopic>,
    copartitioned: Vec<Vec<String>>,
    /// The names of the global ones among the stores.
    globals: BTreeSet<String>,
}

impl TopologyBuilder {
    /// An empty topology.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node.
    ///
    /// # Errors
    /// [`BuildError`] if its name is none or is taken, its parents are missing, or do not give what it takes.
    pub fn add(&mut self, node: NodeSpec) -> Result<(), BuildError> {
        names::check_node(&node)?;
        if self.node(&node.name).is_some() {
            return Err(BuildError::DuplicateName { name: node.name.to_string() });
        }
        for parent in &node.parents {
            let Some(found) = self.node(parent) else {
                return Err(BuildError::Unknown {
                    node: node.name.to_string(),
                    missing: parent.clone(),
                });
            };
            match (found.output, node.input) {
                (Some(gives), Some(takes)) if gives == takes => {}
                (gives, takes) => {
                    return Err(BuildError::TypeMismatch {
                        node: node.name.to_string(),
                        takes: takes.map_or("nothing (it is a source)", |tag| tag.name),
                        parent: parent.clone(),
                        gives: gives.map_or("nothing (it is a sink)", |tag| tag.name),
                    });
                }
            }
        }
        if node.parents.is_empty() && !matches!(node.kind, NodeKind::Source { .. }) {
            return Err(BuildError::Invalid {
                node: node.name.to_string(),
                reason: "it needs a parent".into(),
            });
        }
        if let NodeKind::Source { topics } = &node.kind {
            if topics.is_empty() && node.pattern.is_none() {
                return Err(invalid(&node.name, "it reads no topic; name one at least"));
            }
            self.check_read_once(topics, node.pattern.as_ref())?;
        }
        self.nodes.push(node);
        Ok(())
    }

    /// That no other source reads these topics, or those of this pattern. Internal topics match no
    /// pattern: they have the application's id in front.
    fn check_read_once(
        &self,
        topics: &[String],
        pattern: Option<&Pattern>,
    ) -> Result<(), BuildError> {
        let mut read: BTreeSet<&String> = BTreeSet::new();
        let mut patterns: Vec<&Pattern> = Vec::new();
        for node in &self.nodes {
            if let NodeKind::Source { topics } = &node.kind {
                read.extend(topics);
                patterns.extend(&node.pattern);
            }
        }
        let is_own = |topic: &String| self.internal_topics.contains_key(topic);
        let matches = |pattern: &Pattern, topic| !is_own(topic) && pattern.matches(topic);
        let by_pattern = pattern.and_then(|its| read.iter().find(|topic| matches(its, topic)));
        let twice = by_pattern.copied().or_else(|| {
            let by_another = |topic| patterns.iter().any(|other| matches(other, topic));
            topics.iter().find(|topic| by_another(topic) || !read.insert(topic))
        });
        match twice {
            Some(topic) => Err(BuildError::TopicReadTwice { topic: topic.clone() }),
            None => Ok(()),
        }
    }

    /// Adds a store, and connects it to these processors.
    ///
    /// # Errors
    /// [`BuildError::Name`], [`BuildError::DuplicateName`], [`BuildError::Unknown`];
    /// [`BuildError::Invalid`] if its options cannot be.
    pub fn add_state_store(
        &mut self,
        store: StoreSpec,
        processors: &[&str],
    ) -> Result<(), BuildError> {
        names::check_store(&store.name)?;
        if self.stores.contains_key(&store.name) {
            return Err(BuildError::DuplicateName { name: store.name });
        }
        if let Some(reason) = store.mistake {
            return Err(invalid(&store.name, reason));
        }
        let name = store.name.clone();
        self.stores.insert(name.clone(), store);
        processors
            .iter()
            .try_for_each(|processor| self.connect_processor_and_state_stores(processor, &[&name]))
    }

    /// Adds a store that every instance of the application keeps whole: `source` reads all partitions of
    /// its only topic, and `processor`, which nothing follows, writes the store. It has no changelog: the
    /// topic is one. Every processor can read it, without being connected
    /// ([`InitContext::global_store`](crate::processor::InitContext::global_store)).
    ///
    /// # Errors
    /// As [`TopologyBuilder::add`]; [`BuildError::Invalid`] if the source has several topics.
    pub fn add_global_store(
        &mut self,
        store: StoreSpec,
        source: NodeSpec,
        processor: NodeSpec,
    ) -> Result<(), BuildError> {
        if !matches!(&source.kind, NodeKind::Source { topics } if topics.len() == 1) {
            return Err(invalid(&source.name, "a global store is filled from one topic"));
        }
        let (name, writer) = (store.name.clone(), processor.name.clone());
        self.add(source)?;
        self.add(processor)?;
        self.add_state_store(StoreSpec { changelog: None, ..store }, &[&writer])?;
        self.globals.insert(name);
        Ok(())
    }

    /// Adds a store that `processor` keeps as a copy of the topic that `source` reads, for other processors
    /// that are connected to it to look into. It has no changelog: it is restored from the topic itself,
    /// record by record, so the processor must put what it gets, and the store must be of a kind whose
    /// changelog has the same form (a key-value store).
    ///
    /// # Errors
    /// As [`TopologyBuilder::add`]; [`BuildError::Invalid`] if the source has several topics, or the
    /// store is of another kind.
    pub fn add_read_only_state_store(
        &mut self,
        store: StoreSpec,
        source: NodeSpec,
        processor: NodeSpec,
    ) -> Result<(), BuildError> {
        let topic = match &source.kind {
            NodeKind::Source { topics } if topics.len() == 1 => topics[0].clone(),
            _ => return Err(invalid(&source.name, "a read-only store is filled from one topic")),
        };
        let (store, writer) = (store.copy_of(&topic)?, processor.name.clone());
        self.add(source)?;
        self.add(processor)?;
        self.add_state_store(store, &[&writer])
    }

    /// Connects a processor to stores.
    ///
    /// # Errors
    /// [`BuildError::Unknown`] if one of them does not exist.
    pub fn connect_processor_and_state_stores(
        &mut self,
        processor: &str,
        stores: &[&str],
    ) -> Result<(), BuildError> {
        if let Some(missing) = stores.iter().find(|store| !self.stores.contains_key(**store)) {
            let (node, missing) = (processor.into(), (*missing).into());
            return Err(BuildError::Unknown { node, missing });
        }
        let Some(node) = self.nodes.iter_mut().find(|node| &*node.name == processor) else {
            let (node, missing) = (stores.join(", "), processor.into());
            return Err(BuildError::Unknown { node, missing });
        };
        for store in stores {
            if !node.stores.iter().any(|known| known == store) {
                node.stores.push((*store).into());
            }
        }
        Ok(())
    }

    /// Declares a topic that the application creates, `<application>-<name>`. One sink writes it.
    pub fn add_internal_topic(&mut self, name: &str, topic: InternalTopic) {
        self.internal_topics.insert(name.into(), topic);
    }

    /// Says that these topics, whose keys meet in one task, must have equal numbers of partitions. One
    /// that the application creates, and that asks for no number, gets that of the others.
    pub fn copartition(&mut self, topics: Vec<String>) {
        self.copartitioned.push(topics);
    }

    /// Checks the whole and makes it immutable. A throw-away task of every sub-topology is built,
    /// so that a processor that asks for a store of another type is found here.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Topology, BuildError> {
        for node in &self.nodes {
            if let Some(missing) = node.stores.iter().find(|s| !self.stores.contains_key(*s)) {
                let (node, missing) = (node.name.to_string(), missing.clone());
                return Err(BuildError::Unknown { node, missing });
            }
            if !node.stores.is_empty() && node.kind != NodeKind::Processor {
                let reason = "it is a source or a sink, which use no stores; connect a processor";
                return Err(invalid(&node.name, reason));
            }
        }
        self.check_internal_topics()?;
        let topology = Topology::new(
            self.nodes,
            self.stores,
            self.internal_topics,
            self.copartitioned,
            &self.globals,
        );
        for part in topology.subtopologies().iter().filter(|part| part.is_global) {
            if let Some(&third) = part.nodes.get(2) {
                let node = &topology.nodes()[third].name;
                let reason = "it is connected to a global store, or follows the processor that fills it; read it by its name, without connecting";
                return Err(invalid(node, reason));
            }
        }
        topology.try_tasks()?;
        Ok(topology)
    }

    /// That the application's own topics can be made, and that nothing else writes them.
    fn check_internal_topics(&self) -> Result<(), BuildError> {
        for (name, topic) in &self.internal_topics {
            if topic.partitions == Some(0) {
                return Err(invalid(name, "a topic has one partition at least, not 0"));
            }
        }
        let mut owners: BTreeMap<&str, &NodeSpec> = BTreeMap::new();
        for node in &self.nodes {
            let NodeKind::Sink { topic } = &node.kind else { continue };
            if !self.internal_topics.contains_key(topic) {
                continue;
            }
            if let Some(owner) = owners.insert(topic, node) {
                let (node, owner) = (node.name.to_string(), owner.name.to_string());
                return Err(BuildError::InternalTopic { node, topic: topic.clone(), owner });
            }
        }
        Ok(())
    }

    fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| &*node.name == name)
    }
}

fn invalid(node: &str, reason: &str) -> BuildError {
    BuildError::Invalid { node: node.into(), reason: reason.into() }
}
