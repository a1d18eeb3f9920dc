//! The logical graph behind a [`StreamsBuilder`](crate::StreamsBuilder).
//!
//! Operators add logical nodes; the physical topology is written when it is built, because later
//! operators decide things upstream: whether a source table is kept in a store, whether old values
//! travel, what a repartition topic has to carry. Numbers and the order of writing are Kafka's, so
//! that names, sub-topologies and `describe()` agree with it.

mod plan;

pub(crate) use plan::Plan;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use streams_core::processor::TimestampExtractor;
use streams_core::serde::DynSerde;
use streams_core::topology::{Pattern, StoreSpec, Topology};
use streams_core::{BuildError, Data, TopologyBuilder};

use crate::optimization::Optimization;

/// A logical node's place in the graph.
pub(crate) type NodeId = usize;

type Write = dyn Fn(&Plan<'_>, &mut TopologyBuilder) -> Result<(), BuildError> + Send + Sync;

/// The graph, shared by a builder and its streams and tables.
#[derive(Clone, Default)]
pub(crate) struct Graph(Arc<Mutex<Nodes>>);

/// What the graph holds.
#[derive(Default)]
pub(crate) struct Nodes {
    all: Vec<Node>,
    /// Stores that belong to no operator of ours, by name.
    stores: BTreeMap<String, StoreSpec>,
    next_number: usize,
    next_priority: usize,
    error: Option<BuildError>,
    /// The stores of versioned tables, and how long their history is in milliseconds.
    histories: BTreeMap<String, i64>,
    /// How long suppressed tables hold updates back at most, in milliseconds.
    held_back: i64,
}

/// A logical node: one or more physical ones.
pub(crate) struct Node {
    pub(crate) parents: Vec<NodeId>,
    /// Of the nodes whose parents are written, the one with the lowest is written next.
    priority: usize,
    /// The physical node that its children hang on.
    output: String,
    source_topics: Option<BTreeSet<String>>,
    /// Instead of the topics' names.
    pattern: Option<Pattern>,
    /// The [`Reading`] of these topics.
    reading: Option<Box<dyn Any + Send + Sync>>,
    table_topic: Option<String>,
    repartition_topic: Option<String>,
    ignores_values: bool,
    keeps_null_keys: bool,
    table: Option<TableNode>,
    closing: Option<Closing>,
    /// Of a side of a join of streams, the other one.
    other_side: Option<NodeId>,
    /// What it does that matters to merging repartition topics.
    pub(crate) way: Way,
    write: Box<Write>,
}

/// How a topic is read.
pub(crate) struct Reading<K, V> {
    pub(crate) key: DynSerde<K>,
    pub(crate) value: DynSerde<V>,
    pub(crate) extractor: TimestampExtractor<K, V>,
}

impl<K: 'static, V: 'static> Reading<K, V> {
    fn is_like(&self, other: &Self) -> bool {
        (*self.key).kind() == (*other.key).kind()
            && (*self.value).kind() == (*other.value).kind()
            && self.extractor.is_like(&other.extractor)
    }
}

/// How the windows of a table close.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    /// How long after its end a window is closed, in milliseconds.
    pub(crate) after: i64,
    /// The names of the operators' times by which it is.
    pub(crate) stream_times: Vec<String>,
}

/// What a node does to the records of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Changes the key, so that what needs the key repartitions.
    ChangesKey,
    /// Passes records on as they are, or not at all.
    Passes,
    /// Repartitions them as they are.
    Repartitions,
    /// Anything else.
    Other,
}

/// What later operators may still ask of a table.
#[derive(Clone, Debug)]
pub(crate) struct TableNode {
    pub(crate) kind: TableKind,
    /// Whether updates carry the value before.
    pub(crate) sends_old_values: bool,
    /// Whether operators look its values up.
    is_looked_into: bool,
}

/// Where a table's values stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// A source or a stream made a table: in a store once something needs it.
    Source {
        /// Whether something does.
        materialized: bool,
        /// The store's name.
        store: String,
    },
    /// In this store of its own.
    Stored(String),
    /// Computed from its parent.
    Derived,
    /// Computed from its parent, with these stores.
    DerivedWith(BTreeSet<String>),
    /// Its parent as it was told last, with what waits in this store.
    Suppressed(String),
    /// Joined from its parents, and perhaps in this store of its own.
    Joined(Option<String>),
}

impl Graph {
    /// The graph, locked for a moment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are the same graph.
    pub(crate) fn is(&self, other: &Graph) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Writes the physical topology.
    pub(crate) fn build(&self, optimization: Optimization) -> Result<Topology, BuildError> {
        let nodes = self.lock();
        match &nodes.error {
            Some(error) => Err(error.clone()),
            None => nodes.write(optimization),
        }
    }
}

impl Nodes {
    /// The next automatic name. Numbers are used up even where the name is not.
    pub(crate) fn new_name(&mut self, prefix: &str) -> String {
        let number = self.next_number;
        self.next_number += 1;
        format!("{prefix}{number:010}")
    }

    /// The next automatic store name.
    pub(crate) fn new_store_name(&mut self, prefix: &str) -> String {
        self.new_name(&format!("{prefix}STATE-STORE-"))
    }

    /// A given name, or else the next automatic one; a number is used up either way, as in Kafka.
    pub(crate) fn name_or(&mut self, given: Option<String>, prefix: &str) -> String {
        let automatic = self.new_name(prefix);
        given.unwrap_or(automatic)
    }

    /// Adds a node; its children hang on the physical node `output`.
    pub(crate) fn add(
        &mut self,
        parents: Vec<NodeId>,
        output: &str,
        write: impl Fn(&Plan<'_>, &mut TopologyBuilder) -> Result<(), BuildError>
        + Send
        + Sync
        + 'static,
    ) -> NodeId {
        self.all.push(Node {
            parents,
            priority: self.next_priority,
            output: output.into(),
            source_topics: None,
            pattern: None,
            reading: None,
            table_topic: None,
            repartition_topic: None,
            ignores_values: false,
            keeps_null_keys: false,
            table: None,
            closing: None,
            other_side: None,
            way: Way::Other,
            write: Box::new(write),
        });
        self.next_priority += 1;
        self.all.len() - 1
    }

    /// Adds a store for processors; the same one may be added again.
    pub(crate) fn add_store(&mut self, store: StoreSpec) {
        let name = store.name.clone();
        match self.stores.get(&name) {
            Some(known) if !Arc::ptr_eq(&known.make, &store.make) => {
                self.fail(BuildError::DuplicateName { name });
            }
            _ => {
                self.stores.insert(name, store);
            }
        }
    }

    /// Says that a node reads topics as a stream. Streams of the same topics become one source, so they must
    /// be read in the same way. (Where their types differ, that is found when the topology is written.)
    pub(crate) fn reads<K: Data, V: Data>(
        &mut self,
        node: NodeId,
        (topics, pattern): (Vec<String>, Option<Pattern>),
        reading: Reading<K, V>,
    ) {
        let names: Vec<_> = pattern.iter().map(Pattern::as_str).collect();
        let topic = if names.is_empty() { topics.join(", ") } else { names.concat() };
        self.all[node].source_topics = Some(topics.into_iter().collect());
        self.all[node].pattern = pattern;
        let earlier = self.merged_into(node).and_then(|first| self.all[first].reading.as_ref());
        let earlier = earlier.and_then(|earlier| earlier.downcast_ref::<Reading<K, V>>());
        if earlier.is_some_and(|earlier| !earlier.is_like(&reading)) {
            self.fail(BuildError::ReadDifferently { topic });
        }
        self.all[node].reading = Some(Box::new(reading));
    }

    /// Says what a node does to the records of a stream.
    pub(crate) fn goes(&mut self, node: NodeId, way: Way) {
        self.all[node].way = way;
    }

    /// Says that a node reads a topic as a table.
    pub(crate) fn reads_as_table(&mut self, node: NodeId, topic: &str) {
        self.all[node].table_topic = Some(topic.into());
    }

    /// Says that a node is a repartition topic.
    pub(crate) fn is_repartition(&mut self, node: NodeId, topic: &str) {
        self.all[node].repartition_topic = Some(topic.into());
    }

    /// Says that a node asks of values only whether they are null.
    pub(crate) fn ignores_values(&mut self, node: NodeId) {
        self.all[node].ignores_values = true;
    }

    /// Says that a node has a use for records without a key.
    pub(crate) fn keeps_null_keys(&mut self, node: NodeId) {
        self.all[node].keeps_null_keys = true;
    }

    /// Says that a node is a table.
    pub(crate) fn is_table(&mut self, node: NodeId, kind: TableKind) {
        let (sends_old_values, is_looked_into) = (false, false);
        self.all[node].table = Some(TableNode { kind, sends_old_values, is_looked_into });
    }

    /// Says that a store is that of a versioned table, with a history of so many milliseconds.
    pub(crate) fn keeps_history(&mut self, store: &str, millis: i64) {
        self.histories.insert(store.into(), millis);
    }

    /// How long the history of a table is, if it is versioned: by its own store, or computed from one
    /// that is.
    pub(crate) fn history(&self, node: NodeId) -> Option<i64> {
        match self.all[node].table.as_ref().map(|table| &table.kind)? {
            TableKind::Source { store, .. }
            | TableKind::Stored(store)
            | TableKind::Joined(Some(store)) => self.histories.get(store).copied(),
            TableKind::Derived | TableKind::DerivedWith(_) => {
                self.history(self.all[node].parents[0])
            }
            TableKind::Suppressed(_) | TableKind::Joined(None) => None,
        }
    }

    /// Says that the windows of a table close: a window is closed once stream time has reached its end
    /// and this many milliseconds more. Of time windows that is their grace, of sliding ones one more,
    /// of sessions gap and grace and one more: their ends belong to them. The operator's stream time is
    /// called after the node's output.
    pub(crate) fn closes_after(&mut self, node: NodeId, millis: i64) {
        let stream_times = vec![format!("{}-time", self.all[node].output)];
        self.all[node].closing = Some(Closing { after: millis, stream_times });
    }

    /// Says that updates are held back for so many milliseconds, and look values up only then.
    pub(crate) fn holds_back(&mut self, millis: i64) {
        self.held_back = self.held_back.max(millis);
    }

    /// How the windows of a table close, if it or what it is made of has windows.
    pub(crate) fn closing(&self, node: NodeId) -> Option<Closing> {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![node]);
        let mut found: Option<Closing> = None;
        while let Some(node) = waiting.pop() {
            if !seen.insert(node) {
                continue;
            }
            let Node { closing, parents, .. } = &self.all[node];
            match (closing, &mut found) {
                (None, _) => waiting.extend(parents.iter().rev()),
                (Some(closing), None) => found = Some(closing.clone()),
                (Some(closing), Some(found)) => {
                    found.after = found.after.max(closing.after);
                    found.stream_times.extend(closing.stream_times.iter().cloned());
                }
            }
        }
        found
    }

    /// Says that two nodes are the sides of a join of streams.
    pub(crate) fn are_sides(&mut self, left: NodeId, right: NodeId) {
        self.all[left].other_side = Some(right);
        self.all[right].other_side = Some(left);
    }

    /// A node that is used once more moves to the end of the order of writing, as in Kafka.
    pub(crate) fn use_again(&mut self, node: NodeId) {
        self.all[node].priority = self.next_priority;
        self.next_priority += 1;
    }

    /// Notes a mistake that only [`Graph::build`] can report; the first one stands.
    pub(crate) fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }

    /// Notes that a node puts together what was made with two builders.
    pub(crate) fn fail_for_two_builders(&mut self, node: &str, what: &str) {
        let reason = format!("{what} of two builders; make both with the same one");
        self.fail(BuildError::Invalid { node: node.into(), reason });
    }

    /// Asks a table to send old values; `force` even if that means keeping it in a store. Answers
    /// whether it will.
    pub(crate) fn send_old_values(&mut self, node: NodeId, force: bool) -> bool {
        let Some(table) = &mut self.all[node].table else {
            return false;
        };
        if table.sends_old_values {
            return true;
        }
        let will = match &mut table.kind {
            TableKind::Stored(_) => true,
            TableKind::Source { materialized, .. } => {
                *materialized |= force;
                *materialized
            }
            TableKind::Derived | TableKind::DerivedWith(_) | TableKind::Suppressed(_) => {
                let parent = self.all[node].parents[0];
                self.send_old_values(parent, force)
            }
            // A join looks its parents' values up, which are kept therefore.
            TableKind::Joined(_) => {
                let parents = self.all[node].parents.clone();
                parents.iter().all(|&parent| self.send_old_values(parent, true))
            }
        };
        if let Some(table) = &mut self.all[node].table {
            table.sends_old_values |= will;
        }
        will
    }

    /// Asks that the values of a table can be looked up with its getter. Answers the stores that this
    /// takes, to which the node that looks them up has to be connected.
    pub(crate) fn look_up(&mut self, node: NodeId) -> BTreeSet<String> {
        let mut table = self.all[node].table.as_mut();
        if let Some(table) = &mut table {
            table.is_looked_into = true;
        }
        let (own, is_all) = match table.map(|table| &mut table.kind) {
            Some(TableKind::Source { materialized, store }) => {
                *materialized = true;
                ([store.clone()].into(), true)
            }
            Some(TableKind::Stored(store) | TableKind::Joined(Some(store))) => {
                ([store.clone()].into(), true)
            }
            Some(TableKind::DerivedWith(stores)) => (stores.clone(), false),
            Some(TableKind::Suppressed(store)) => {
                let own = [store.clone()].into();
                self.send_old_values(node, true); // what was told before the one that waits
                (own, false)
            }
            Some(TableKind::Derived | TableKind::Joined(None)) | None => (BTreeSet::new(), false),
        };
        let parents = if is_all { vec![] } else { self.all[node].parents.clone() };
        parents.into_iter().flat_map(|parent| self.look_up(parent)).chain(own).collect()
    }

    /// Says that a table sends old values because its parent does.
    pub(crate) fn passes_old_values(&mut self, node: NodeId) {
        if let Some(table) = &mut self.all[node].table {
            table.sends_old_values = true;
        }
    }
}
