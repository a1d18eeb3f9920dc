//! Who hangs on whom when a topology is written: as declared, or with repartition topics merged.
//!
//! Merging moves the first repartition behind the node that changed the key, with what led from there
//! to the repartitions behind it; the other repartitions go. What hung on a repartition then hangs on
//! what that hung on.

use std::collections::BTreeMap;

use crate::graph::{Node, NodeId, Way};

/// See the module.
pub(crate) struct Layout {
    parents: Vec<Vec<NodeId>>,
    /// The repartitions that go, and where their records go through instead.
    gone: BTreeMap<NodeId, NodeId>,
    /// The repartitions that moved.
    moved: Vec<NodeId>,
}

impl Layout {
    pub(crate) fn new(nodes: &[Node], merge_repartitions: bool) -> Self {
        let parents = nodes.iter().map(|node| node.parents.clone()).collect();
        let mut layout = Self { parents, gone: BTreeMap::new(), moved: Vec::new() };
        if merge_repartitions {
            layout.merge(nodes);
        }
        layout
    }

    /// The nodes that a node hangs on.
    pub(crate) fn parents(&self, node: NodeId) -> &[NodeId] {
        &self.parents[node]
    }

    /// Whether a node is not there any more.
    pub(crate) fn is_gone(&self, node: NodeId) -> bool {
        self.gone.contains_key(&node)
    }

    /// Whether a repartition was moved, to stand for others too.
    pub(crate) fn is_merged(&self, node: NodeId) -> bool {
        self.moved.contains(&node)
    }

    /// The repartition that stands for this one.
    pub(crate) fn merged_into(&self, node: NodeId) -> Option<NodeId> {
        self.gone.get(&node).copied()
    }

    /// The repartitions that this one stands for.
    pub(crate) fn merged(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        self.gone.iter().filter(move |(_, into)| **into == node).map(|(gone, _)| *gone)
    }

    fn merge(&mut self, nodes: &[Node]) {
        let mut first_behind: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        for (id, node) in nodes.iter().enumerate() {
            if node.way != Way::Repartitions {
                continue;
            }
            let Some(Path { changes_key, between }) = Path::of(nodes, id) else { continue };
            let first = *first_behind.entry(changes_key).or_insert(id);
            if let Some(top) = between.last() {
                replace(&mut self.parents[*top], changes_key, first);
            }
            let below = between.first().copied().unwrap_or(first);
            for (child, declared) in nodes.iter().enumerate() {
                if declared.parents.contains(&id) {
                    replace(&mut self.parents[child], id, below);
                }
            }
            if first == id {
                self.parents[id] = vec![changes_key];
                self.moved.push(id);
            } else {
                self.gone.insert(id, first);
            }
        }
    }
}

fn replace(parents: &mut [NodeId], from: NodeId, to: NodeId) {
    parents.iter_mut().filter(|parent| **parent == from).for_each(|parent| *parent = to);
}

/// The way from a repartition up to where the key was changed.
struct Path {
    /// The node that changed it, or where streams were merged of which one had.
    changes_key: NodeId,
    /// The nodes between them, from the repartition on.
    between: Vec<NodeId>,
}

impl Path {
    /// `None` if something on the way changes the records.
    fn of(nodes: &[Node], repartition: NodeId) -> Option<Self> {
        let mut between = Vec::new();
        let mut at = *nodes[repartition].parents.first()?;
        loop {
            match (nodes[at].way, &nodes[at].parents[..]) {
                (Way::Passes, [parent]) => {
                    between.push(at);
                    at = *parent;
                }
                (Way::Passes, [_, _, ..]) | (Way::ChangesKey, _) => {
                    return Some(Self { changes_key: at, between });
                }
                _ => return None,
            }
        }
    }
}
