//! [`Topology::describe`]: the topology as text, byte for byte as Kafka Streams writes it, so that
//! existing viewers read it.
//!
//! The order in Kafka's text stems from Java's collections: nodes are visited in the order of a
//! `HashMap`, and links are kept in `TreeSet`s that compare the sizes that nodes have *so far*. This
//! file emulates both, and nothing else does.

use std::cmp::Ordering;
use std::fmt::Write;

use super::{NodeKind, Topology};

impl Topology {
    /// The topology in Kafka's text format.
    ///
    /// ```
    /// # use streams_core::{HasSerde, TopologyBuilder};
    /// # use streams_core::topology::NodeSpec;
    /// let mut builder = TopologyBuilder::new();
    /// let (key, value) = (String::serde(), String::serde());
    /// builder.add(NodeSpec::source("in", vec!["a".into()], key.clone(), value.clone()))?;
    /// builder.add(NodeSpec::sink("out", vec!["in".into()], "b", key, value, None))?;
    /// let text = "\
    /// Topologies:
    ///    Sub-topology: 0
    ///     Source: in (topics: [a])
    ///       --> out
    ///     Sink: out (topic: b)
    ///       <-- in
    ///
    /// ";
    /// assert_eq!(builder.build()?.describe(), text);
    /// # Ok::<(), streams_core::BuildError>(())
    /// ```
    pub fn describe(&self) -> String {
        let mut text = String::from("Topologies:\n ");
        for (number, part) in self.subtopologies().iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "  Sub-topology: {number}");
            text.push_str(match part.is_global {
                true => " for global store (will not generate tasks)\n",
                false => "\n",
            });
            self.describe_nodes(&part.nodes, &mut text);
            if !part.is_global {
                text.push('\n');
            }
        }
        text
    }

    fn describe_nodes(&self, members: &[usize], text: &mut String) {
        let names: Vec<&str> = members.iter().map(|&m| &*self.nodes()[m].name).collect();
        let links = Links::of(&names, |node| {
            let parents = self.nodes()[members[node]].parents.iter();
            parents.filter_map(|parent| names.iter().position(|name| name == parent)).collect()
        });
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|&a, &b| links.compare(a, b));
        for node in order {
            let spec = &self.nodes()[members[node]];
            let after = links.list(&links.successors[node]);
            let before = links.list(&links.predecessors[node]);
            let name = &spec.name;
            let _ = match &spec.kind {
                NodeKind::Source { topics } => {
                    let topics = match &spec.pattern {
                        Some(pattern) => pattern.as_str().to_owned(),
                        None => format!("[{}]", hash_ordered(topics).join(", ")),
                    };
                    writeln!(text, "    Source: {name} (topics: {topics})\n      --> {after}")
                }
                NodeKind::Processor => {
                    let stores = hash_ordered(&spec.stores).join(", ");
                    writeln!(
                        text,
                        "    Processor: {name} (stores: [{stores}])\n      --> {after}\n      <-- {before}"
                    )
                }
                NodeKind::DynamicSink { extractor } => writeln!(
                    text,
                    "    Sink: {name} (extractor class: {extractor})\n      <-- {before}"
                ),
                NodeKind::Sink { topic } => {
                    writeln!(text, "    Sink: {name} (topic: {topic})\n      <-- {before}")
                }
            };
        }
    }
}

/// The nodes of a sub-topology, linked in the order in which Kafka links them.
struct Links<'a> {
    names: &'a [&'a str],
    /// One for the node itself, and the sizes of its successors.
    sizes: Vec<u64>,
    successors: Vec<TreeSet>,
    predecessors: Vec<TreeSet>,
}

impl<'a> Links<'a> {
    fn of(names: &'a [&'a str], parents: impl Fn(usize) -> Vec<usize>) -> Self {
        let empty = || names.iter().map(|_| TreeSet::default()).collect();
        let mut links =
            Self { names, sizes: vec![1; names.len()], successors: empty(), predecessors: empty() };
        // A set of names first, then a map that is filled from the set.
        let set = hash_order(names, 0);
        let in_set: Vec<&str> = set.iter().map(|&node| names[node]).collect();
        for node in hash_order(&in_set, 0).into_iter().map(|place| set[place]) {
            for parent in parents(node) {
                let mut predecessors = std::mem::take(&mut links.predecessors[node]);
                predecessors.insert(parent, |a, b| links.compare(a, b));
                links.predecessors[node] = predecessors;
                let mut successors = std::mem::take(&mut links.successors[parent]);
                successors.insert(node, |a, b| links.compare(a, b));
                links.successors[parent] = successors;
                links.grow(parent, links.sizes[node]);
            }
        }
        links
    }

    fn grow(&mut self, node: usize, by: u64) {
        self.sizes[node] = self.sizes[node].saturating_add(by);
        for predecessor in self.predecessors[node].in_order() {
            self.grow(predecessor, by);
        }
    }

    /// Larger ones first, then by name.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let by_name = || self.names[a].encode_utf16().cmp(self.names[b].encode_utf16());
        self.sizes[b].cmp(&self.sizes[a]).then_with(by_name)
    }

    fn list(&self, nodes: &TreeSet) -> String {
        let names: Vec<&str> = nodes.in_order().into_iter().map(|n| self.names[n]).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }
}

/// Names in the order of a Java `HashSet` that is a copy of another one.
fn hash_ordered(names: &[String]) -> Vec<&str> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let first: Vec<&str> = hash_order(&names, 0).into_iter().map(|n| names[n]).collect();
    let expected = first.len() * 4 / 3 + 1; // what the copying constructor asks for
    hash_order(&first, expected).into_iter().map(|n| first[n]).collect()
}

/// The order in which a Java `HashMap` visits keys that were put in this order: by bucket, and
/// within one in order of insertion. It starts with `expected` buckets (at least 16), rounded up to
/// a power of two, and has at most three quarters as many keys as buckets.
fn hash_order(keys: &[&str], expected: usize) -> Vec<usize> {
    let mut buckets = expected.max(16).next_power_of_two();
    while keys.len() * 4 > buckets * 3 {
        buckets *= 2;
    }
    let bucket = |key: &str| {
        let hash = key.encode_utf16().fold(0u32, |h, c| h.wrapping_mul(31).wrapping_add(c.into()));
        (hash ^ (hash >> 16)) as usize & (buckets - 1)
    };
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&key| bucket(keys[key]));
    order
}

/// A Java `TreeSet`: a red-black tree. Its shape matters, because what it compares by changes while
/// elements are in it.
#[derive(Default)]
struct TreeSet {
    nodes: Vec<TreeNode>,
    root: Option<usize>,
}

struct TreeNode {
    element: usize,
    children: [Option<usize>; 2],
    parent: Option<usize>,
    red: bool,
}

impl TreeSet {
    fn insert(&mut self, element: usize, compare: impl Fn(usize, usize) -> Ordering) {
        let (mut parent, mut side, mut at) = (None, 0, self.root);
        while let Some(here) = at {
            side = match compare(element, self.nodes[here].element) {
                Ordering::Less => 0,
                Ordering::Greater => 1,
                Ordering::Equal => return,
            };
            (parent, at) = (Some(here), self.nodes[here].children[side]);
        }
        let new = self.nodes.len();
        self.nodes.push(TreeNode { element, children: [None; 2], parent, red: true });
        match parent {
            Some(parent) => self.nodes[parent].children[side] = Some(new),
            None => self.root = Some(new),
        }
        self.balance(new);
    }

    fn balance(&mut self, mut node: usize) {
        while let Some(mut parent) = self.nodes[node].parent.filter(|&p| self.nodes[p].red) {
            let Some(grandparent) = self.nodes[parent].parent else { break };
            let side = self.side(parent, grandparent);
            let uncle = self.nodes[grandparent].children[1 - side];
            if let Some(uncle) = uncle.filter(|&uncle| self.nodes[uncle].red) {
                self.nodes[parent].red = false;
                self.nodes[uncle].red = false;
                self.nodes[grandparent].red = true;
                node = grandparent;
                continue;
            }
            if self.side(node, parent) != side {
                self.rotate(parent, side);
                (node, parent) = (parent, node);
            }
            self.nodes[parent].red = false;
            self.nodes[grandparent].red = true;
            self.rotate(grandparent, 1 - side);
            debug_assert_eq!(self.nodes[node].parent, Some(parent));
        }
        if let Some(root) = self.root {
            self.nodes[root].red = false;
        }
    }

    fn side(&self, child: usize, parent: usize) -> usize {
        usize::from(self.nodes[parent].children[1] == Some(child))
    }

    /// Moves a node down to `side`; its child on the other side takes its place.
    fn rotate(&mut self, node: usize, side: usize) {
        let Some(child) = self.nodes[node].children[1 - side] else { return };
        let inner = self.nodes[child].children[side];
        self.nodes[node].children[1 - side] = inner;
        if let Some(inner) = inner {
            self.nodes[inner].parent = Some(node);
        }
        let parent = self.nodes[node].parent;
        self.nodes[child].parent = parent;
        match parent {
            Some(parent) => {
                let side = self.side(node, parent);
                self.nodes[parent].children[side] = Some(child);
            }
            None => self.root = Some(child),
        }
        self.nodes[child].children[side] = Some(node);
        self.nodes[node].parent = Some(child);
    }

    fn in_order(&self) -> Vec<usize> {
        fn visit(tree: &TreeSet, at: Option<usize>, out: &mut Vec<usize>) {
            if let Some(at) = at {
                visit(tree, tree.nodes[at].children[0], out);
                out.push(tree.nodes[at].element);
                visit(tree, tree.nodes[at].children[1], out);
            }
        }
        let mut out = Vec::with_capacity(self.nodes.len());
        visit(self, self.root, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_set_is_sorted_and_balanced() {
        let mut tree = TreeSet::default();
        for n in 0..1000 {
            tree.insert(n * 377 % 1000, |a, b| a.cmp(&b));
        }
        assert_eq!(tree.in_order(), (0..1000).collect::<Vec<_>>());
        fn depth(tree: &TreeSet, at: Option<usize>) -> usize {
            at.map_or(0, |at| {
                1 + tree.nodes[at]
                    .children
                    .map(|child| depth(tree, child))
                    .into_iter()
                    .max()
                    .unwrap()
            })
        }
        assert!(depth(&tree, tree.root) <= 20);
    }

    /// `banana` has bucket 0 of 16, `apple` and `cherry` share bucket 1.
    #[test]
    fn keys_come_in_the_order_of_javas_hashes() {
        assert_eq!(hash_order(&["cherry", "apple", "banana"], 0), [2, 0, 1]);
        assert_eq!(hash_order(&["apple", "cherry", "banana"], 0), [2, 0, 1]);
    }
}
