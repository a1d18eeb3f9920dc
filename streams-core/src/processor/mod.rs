//! The nodes of a topology at work: how records are pushed from source to sink.
//!
//! A node owns its children; only a node with several parents lives in the task's arena and is
//! reached through a link. A record therefore costs one indirect call for each node, and travels
//! depth first: a record's whole way ends before its parent's next record starts.
//!
//! `push` returns nothing. The first error sticks in the [`TaskCore`], nodes stop forwarding, and
//! the loop that feeds the sources gives up the generation.

mod api;
mod async_node;
mod blame;
mod children;
mod fixed_key;
mod going_on;
mod in_flight;
mod node;
mod sink;
mod source;
mod timestamps;

pub use api::{
    Context, InitContext, NoteHandle, OperatorTime, Processor, PunctuationKind, Schedule,
    SourceInfo, StoreAccess, StoreHandle,
};
pub use async_node::{AsyncCall, AsyncNode, AsyncOptions};
pub(crate) use blame::take_blamed;
pub use children::{Child, Children, Erased};
pub use fixed_key::{FixedKey, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
pub use going_on::{Bookmark, EntryId};
pub use node::ProcessorNode;
pub use sink::{Partitioner, Partitions, SinkNode, Target, TopicChooser};
pub use source::{Source, SourceNode};
pub use timestamps::{RecordTimes, TimestampExtractor};

use crate::record::Record;
use crate::task::TaskCore;
use broker_api::Timestamp;

/// Takes records of one type.
pub trait Push<K, V>: Send {
    /// Processes a record.
    fn push(&mut self, record: Record<K, V>, task: &mut TaskCore);

    /// Passes a signal on, depth first.
    fn signal(&mut self, signal: &Signal, task: &mut TaskCore);
}

/// What a task tells its nodes, apart from records. Every node gets each signal once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The generation is about to be sealed: forward what a cache holds back.
    BeforeSeal,
    /// Calls have ended, or may be overdue: forward what is due.
    Release,
    /// There is room again for what was stopped: go on with it. Unlike the others it comes to children
    /// before their parents, and what is behind one that has stopped again does nothing.
    GoOn,
    /// A schedule is due.
    Punctuate {
        /// Which schedule of the task.
        schedule: usize,
        /// The time it is called with.
        timestamp: Timestamp,
    },
}
