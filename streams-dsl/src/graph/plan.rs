//! From the logical graph to the physical topology: in which order nodes are written, what they hang
//! on, and what each may ask of the others when its turn comes.

use std::collections::BTreeSet;

use streams_core::topology::{NodeSpec, Topology};
use streams_core::{BuildError, TopologyBuilder};

use super::{Node, NodeId, Nodes, TableKind, TableNode};
use crate::layout::Layout;
use crate::optimization::Optimization;
use crate::repartition::Names;

/// How long what has expired is still found by the operators downstream, at least.
const LOOK_BACK: i64 = 60 * 60 * 1000;

/// What a node may ask when it is written.
pub(crate) struct Plan<'a> {
    nodes: &'a Nodes,
    layout: &'a Layout,
    optimization: Optimization,
    node: NodeId,
    parents: Vec<String>,
}

impl Plan<'_> {
    /// A processor or sink that hangs on its parents: once on each, as in Kafka.
    pub(crate) fn below(&self, spec: &NodeSpec) -> NodeSpec {
        let mut spec = spec.clone();
        let mut seen = BTreeSet::new();
        spec.parents = self.parents();
        spec.parents.retain(|parent| seen.insert(parent.clone()));
        spec
    }

    /// The physical nodes that it hangs on.
    pub(crate) fn parents(&self) -> Vec<String> {
        self.parents.clone()
    }

    /// What has become of it as a table.
    pub(crate) fn table(&self) -> Option<&TableNode> {
        self.nodes.all[self.node].table.as_ref()
    }

    /// Whether a source table has to be kept in a store.
    pub(crate) fn is_materialized(&self) -> bool {
        let kind = self.table().map(|table| &table.kind);
        matches!(kind, Some(TableKind::Source { materialized: true, .. }))
    }

    /// Whether it sends old values.
    pub(crate) fn sends_old_values(&self) -> bool {
        self.table().is_some_and(|table| table.sends_old_values)
    }

    /// How many milliseconds its store has to look back, if it is one of windows: as long as it keeps
    /// them, or as updates are held back anywhere, or an hour if that is more.
    pub(crate) fn look_back(&self, retention: i64) -> i64 {
        let is_looked_into = self.table().is_some_and(|table| table.is_looked_into);
        if is_looked_into { retention.max(self.nodes.held_back).max(LOOK_BACK) } else { 0 }
    }

    /// The topics from which it has its records.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.nodes.topics_of(self.layout, &[self.node])
    }

    /// The same, and those from which another node has its records.
    pub(crate) fn topics_with(&self, other: NodeId) -> Vec<String> {
        self.nodes.topics_of(self.layout, &[self.node, other])
    }

    /// Whether something downstream has a use for records without a key.
    pub(crate) fn null_keys_are_kept(&self) -> bool {
        let mut merged = self.layout.merged(self.node);
        self.nodes.null_keys_are_kept(self.node)
            || merged.any(|node| self.nodes.null_keys_are_kept(node))
    }

    /// Whether all its children ask of values only whether they are null.
    pub(crate) fn values_are_ignored(&self) -> bool {
        !self.is_merged() && self.nodes.values_are_ignored(self.node)
    }

    /// Whether it is a repartition that stands for others too.
    pub(crate) fn is_merged(&self) -> bool {
        self.layout.is_merged(self.node)
    }

    /// Whether it is a side of a join of a stream with itself.
    pub(crate) fn is_beside_other_side(&self) -> bool {
        let other = self.nodes.all[self.node].other_side;
        other.is_some_and(|other| self.nodes.outputs_above(self.layout, other) == self.parents)
    }

    /// Which rewritings are made.
    pub(crate) fn optimization(&self) -> Optimization {
        self.optimization
    }

    /// Whether its only parent is a repartition topic that carries values as `Option<()>`.
    pub(crate) fn values_are_skipped(&self) -> bool {
        let parent = self.layout.parents(self.node)[0];
        self.nodes.all[parent].repartition_topic.is_some()
            && !self.layout.is_merged(parent)
            && self.nodes.values_are_ignored(parent)
    }
}

impl Nodes {
    pub(super) fn write(&self, optimization: Optimization) -> Result<Topology, BuildError> {
        let layout = Layout::new(&self.all, optimization.merge_repartition_topics);
        let mut builder = TopologyBuilder::new();
        let mut written = vec![false; self.all.len()];
        while let Some(next) = self.next_to_write(&layout, &written) {
            written[next] = true;
            if self.merged_into(next).is_some() || layout.is_gone(next) {
                continue;
            }
            let parents = self.outputs_above(&layout, next);
            let plan = Plan { nodes: self, layout: &layout, optimization, node: next, parents };
            (self.all[next].write)(&plan, &mut builder)?;
        }
        for store in self.stores.values() {
            builder.add_state_store(store.clone(), &[])?;
        }
        builder.build()
    }

    fn values_are_ignored(&self, node: NodeId) -> bool {
        let mut children = self.all.iter().filter(|child| child.parents.contains(&node));
        children.all(|child| child.ignores_values)
    }

    /// Whether something below a node has a use for records without a key.
    fn null_keys_are_kept(&self, node: NodeId) -> bool {
        // Parents come before their children.
        let mut below = BTreeSet::from([node]);
        for (id, node) in self.all.iter().enumerate().skip(node + 1) {
            if node.parents.iter().any(|parent| below.contains(parent)) {
                if node.keeps_null_keys {
                    return true;
                }
                below.insert(id);
            }
        }
        false
    }

    /// The topics from which nodes have their records.
    fn topics_of(&self, layout: &Layout, nodes: &[NodeId]) -> Vec<String> {
        let (mut topics, mut seen, mut waiting) =
            (BTreeSet::new(), BTreeSet::new(), nodes.to_vec());
        while let Some(node) = waiting.pop() {
            let node = layout.merged_into(node).unwrap_or(node);
            if !seen.insert(node) {
                continue;
            }
            let Node { source_topics, table_topic, repartition_topic, parents, .. } =
                &self.all[node];
            match repartition_topic {
                Some(topic) => {
                    topics.insert(topic.clone());
                }
                None => {
                    topics.extend(source_topics.iter().flatten().chain(table_topic).cloned());
                    waiting.extend(parents);
                }
            }
        }
        topics.into_iter().collect()
    }

    fn next_to_write(&self, layout: &Layout, written: &[bool]) -> Option<NodeId> {
        let ready = |id: &NodeId| !written[*id] && layout.parents(*id).iter().all(|&p| written[p]);
        // A repartition that serves others follows at once on what it stands behind.
        let priority = |id: &NodeId| match layout.is_merged(*id) {
            true => self.all[layout.parents(*id)[0]].priority,
            false => self.all[*id].priority,
        };
        (0..self.all.len()).filter(ready).min_by_key(priority)
    }

    /// The first source of the same topics, if this is not it.
    pub(super) fn merged_into(&self, node: NodeId) -> Option<NodeId> {
        let Node { source_topics, pattern, .. } = &self.all[node];
        let is_same =
            |earlier: &Node| earlier.source_topics == *source_topics && earlier.pattern == *pattern;
        source_topics.as_ref()?;
        self.all[..node].iter().position(is_same)
    }

    /// The physical nodes that a node hangs on: as many as it was declared with, although several of them
    /// may have become one.
    fn outputs_above(&self, layout: &Layout, node: NodeId) -> Vec<String> {
        layout.parents(node).iter().map(|&parent| self.output(layout, parent)).collect()
    }

    fn output(&self, layout: &Layout, node: NodeId) -> String {
        let Node { output, repartition_topic, .. } =
            &self.all[self.merged_into(node).unwrap_or(node)];
        match repartition_topic {
            Some(topic) if layout.is_merged(node) => Names::merged(topic).source().into(),
            _ => output.clone(),
        }
    }
}
