//! Topologies: what is declared, checked and shared, before any task exists.
//!
//! A [`TopologyBuilder`] collects nodes, stores and internal topics by name; [`TopologyBuilder::build`]
//! checks them (names, types, stores) and cuts the graph into sub-topologies. The [`Topology`] that
//! comes out never changes, is shared by all threads, and makes tasks.

mod arena;
mod builder;
mod describe;
mod graph;
mod mermaid;
mod names;
mod pattern;
mod spec;

pub(crate) use arena::ArenaNode;
pub use builder::TopologyBuilder;
pub use graph::{BuiltTask, SubTopology, TaskSource, Topology};
pub use pattern::Pattern;
pub use spec::{InternalTopic, MakeStore, NodeKind, NodeSpec, StoreSpec, TopicResolver, TypeTag};
