//! Typed KStream and KTable operators that compile to a topology.

mod branch;
mod builder;
mod config;
mod graph;
mod grouped;
mod processors;
mod repartition;
mod stream;
mod table;

pub use branch::BranchedKStream;
pub use builder::StreamsBuilder;
pub use config::{
    Consumed, Grouped, Materialized, Named, Produced, Repartitioned, TableConfig, Topics,
};
pub use grouped::KGroupedStream;
pub use stream::KStream;
pub use table::KTable;
