//! Which names nodes, stores and topics may have: those that Kafka would take for a topic, because names
//! become parts of topics, of files and of what `describe()` shows.

use broker_api::types::check_topic_name;

use super::{NodeKind, NodeSpec};
use crate::error::BuildError;

/// Checks the name of a node, and those of the topics that it reads or writes.
pub(super) fn check_node(node: &NodeSpec) -> Result<(), BuildError> {
    check("an operator", &node.name)?;
    match &node.kind {
        NodeKind::Source { topics } => topics.iter().try_for_each(|topic| check("a topic", topic)),
        NodeKind::Sink { topic } => check("a topic", topic),
        NodeKind::Processor | NodeKind::DynamicSink { .. } => Ok(()),
    }
}

/// Checks the name of a store.
pub(super) fn check_store(name: &str) -> Result<(), BuildError> {
    check("a store", name)
}

fn check(of: &'static str, name: &str) -> Result<(), BuildError> {
    check_topic_name(name).map_err(|_| BuildError::Name { of, name: name.into() })
}
