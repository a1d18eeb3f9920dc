//! Typed KStream and KTable operators that compile to a topology.
//!
//! A [`StreamsBuilder`] gives streams ([`KStream`]) and tables ([`KTable`]) of topics; their operators
//! make new ones, and [`StreamsBuilder::build`] makes a [`Topology`](streams_core::Topology) of it all.
//! Types are checked when the application is compiled. Names, numbers, null rules and timestamps are
//! those of Kafka Streams. The guide is `docs/dsl.md` in the project.

mod async_map;
mod branch;
mod builder;
mod cogroup_fold;
mod cogrouped;
mod config;
mod foreign_key;
mod getter;
mod global_table;
mod graph;
mod grouped;
mod grouped_table;
mod layout;
mod murmur3;
mod optimization;
mod optional;
mod print;
mod process;
mod processors;
mod repartition;
mod session_fold;
mod session_windowed;
mod steps;
mod stream;
mod stream_join;
mod stream_table_join;
mod suppress;
mod table;
mod table_join;
mod time_windowed;
mod transform;
mod window_fold;
mod windowed_cogrouped;
mod windows;

pub use async_map::AsyncConfig;
pub use branch::BranchedKStream;
pub use builder::StreamsBuilder;
pub use cogrouped::CogroupedKStream;
pub use config::{
    Consumed, Grouped, IntoTableConfig, Joined, Materialized, Named, Produced, Repartitioned,
    TableConfig, Topics,
};
pub use foreign_key::TableJoined;
pub use global_table::GlobalKTable;
pub use grouped::KGroupedStream;
pub use grouped_table::KGroupedTable;
pub use optimization::Optimization;
pub use optional::Optional;
pub use print::Printed;
pub use process::ProcessorSupplier;
pub use session_windowed::SessionWindowedKStream;
pub use stream::KStream;
pub use stream_join::StreamJoined;
pub use suppress::{BufferConfig, Eager, Strict, Suppressed};
pub use table::KTable;
pub use time_windowed::TimeWindowedKStream;
pub use transform::ValueTransformer;
pub use windowed_cogrouped::{SessionWindowedCogroupedKStream, TimeWindowedCogroupedKStream};
pub use windows::{
    EmitStrategy, JoinWindows, SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows,
    Windows,
};
