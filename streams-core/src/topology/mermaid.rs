//! [`Topology::to_mermaid`]: the topology as a diagram, for people. Kafka has no such thing; the text for
//! programs is [`Topology::describe`].

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{NodeKind, Topology};

impl Topology {
    /// A [Mermaid](https://mermaid.js.org) flow chart: sub-topologies as boxes with their nodes and
    /// stores, and the topics between them. Nodes that change a store and nodes that read it are both
    /// joined to it, without an arrow.
    ///
    /// ```
    /// # use streams_core::{HasSerde, TopologyBuilder};
    /// # use streams_core::topology::NodeSpec;
    /// let mut builder = TopologyBuilder::new();
    /// let (key, value) = (String::serde(), String::serde());
    /// builder.add(NodeSpec::source("in", vec!["a".into()], key.clone(), value.clone()))?;
    /// builder.add(NodeSpec::sink("out", vec!["in".into()], "b", key, value, None))?;
    /// let text = r#"flowchart TD
    ///   subgraph sub0 ["Sub-topology 0"]
    ///     n0["in"]
    ///     n1["out"]
    ///     n0 --> n1
    ///   end
    ///   t0(["a"]) --> n0
    ///   n1 --> t1(["b"])
    /// "#;
    /// assert_eq!(builder.build()?.to_mermaid(), text);
    /// # Ok::<(), streams_core::BuildError>(())
    /// ```
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for (number, part) in self.subtopologies().iter().enumerate() {
            // Writing to a string cannot fail.
            let of = if part.is_global { " (global store)" } else { "" };
            let _ = writeln!(text, "  subgraph sub{number} [\"Sub-topology {number}{of}\"]");
            for &node in &part.nodes {
                let _ = writeln!(text, "    n{node}[{}]", quoted(&self.nodes()[node].name));
            }
            let stores = self.stores().keys().enumerate();
            let stores: Vec<_> = stores.filter(|(_, name)| part.stores.contains(*name)).collect();
            for (store, name) in &stores {
                let _ = writeln!(text, "    s{store}[({})]", quoted(name));
            }
            for &node in &part.nodes {
                for child in self.children(node) {
                    let _ = writeln!(text, "    n{node} --> n{child}");
                }
                let used = &self.nodes()[node].stores;
                for (store, _) in stores.iter().filter(|(_, name)| used.contains(*name)) {
                    let _ = writeln!(text, "    n{node} --- s{store}");
                }
            }
            text.push_str("  end\n");
        }
        self.draw_topics(&mut text);
        text
    }

    fn draw_topics(&self, text: &mut String) {
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        // A topic's name is said where it is drawn first.
        let mut topic = |name: &str| match known.get(name) {
            Some(number) => format!("t{number}"),
            None => {
                let number = known.len();
                known.insert(name.into(), number);
                format!("t{number}([{}])", quoted(name))
            }
        };
        for (number, node) in self.nodes().iter().enumerate() {
            match &node.kind {
                NodeKind::Source { topics } => {
                    if let Some(pattern) = &node.pattern {
                        let _ = writeln!(text, "  {} --> n{number}", topic(pattern.as_str()));
                        continue;
                    }
                    for name in topics {
                        let _ = writeln!(text, "  {} --> n{number}", topic(name));
                    }
                }
                NodeKind::Sink { topic: name } => {
                    let _ = writeln!(text, "  n{number} --> {}", topic(name));
                }
                NodeKind::DynamicSink { .. } => {
                    let chosen = topic("(topics chosen by record)");
                    let _ = writeln!(text, "  n{number} --> {chosen}");
                }
                NodeKind::Processor => {}
            }
        }
    }
}

/// As a label, whatever characters it has.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "#quot;"))
}
