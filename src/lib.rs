//! Kafka Streams for Rust, with the broker inside.
//!
//! A stream application is one binary: it declares a topology with a typed DSL, reads topics of the
//! broker that is built in, keeps state in RocksDB, writes topics, and every input record takes
//! effect exactly once. Everything lies in one directory; there is no server to install.
//!
//! ```
//! use vltava::prelude::*;
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let vltava = Vltava::open(dir)?;
//! vltava.ensure_topic("words", 1).await?;
//! vltava.ensure_topic("counts", 1).await?;
//!
//! let builder = StreamsBuilder::new();
//! builder
//!     .stream::<(), String>("words")
//!     .group_by(|_, word| word.clone())
//!     .count()
//!     .to_stream_present()
//!     .to("counts");
//!
//! let streams = vltava.start(builder.build()?, vltava.settings("word-count")).await?;
//! streams.caught_up().await?;
//! streams.close().await?;
//! vltava.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The parts can be used alone: [`broker_api`] is the contract of brokers, [`broker_embedded`] the
//! broker on a directory, [`streams_core`] topologies and their runtime, [`streams_dsl`] the
//! operators, [`state_rocksdb`] the stores' engine.

#[cfg(doctest)]
mod book;
mod local;

pub use broker_api;
pub use broker_embedded;
pub use state_rocksdb;
pub use streams_core;
pub use streams_dsl;

pub use local::Vltava;
/// Serdes, and the macro that gives own types theirs: `vltava::serde!(Order => json)`.
pub use streams_core::serde;

/// What most applications use.
pub mod prelude {
    pub use crate::Vltava;
    pub use broker_api::client::{Consumer, Producer, TransactionalProducer};
    pub use broker_api::{Broker, TopicConfig, TopicPartition};
    pub use broker_embedded::Durability;
    pub use streams_core::BuildError;
    pub use streams_core::failure::{
        DeadLetter, Failure, Response, log_and_continue, log_and_fail, log_and_retry_or_fail,
    };
    pub use streams_core::processor::{
        Context, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord, InitContext, Processor,
        PunctuationKind, Schedule, StoreAccess, StoreHandle,
    };
    pub use streams_core::processor::{Partitions, RecordTimes, TimestampExtractor};
    pub use streams_core::runtime::{
        AutoOffsetReset, Settings, State, Streams, StreamsError, Uncaught,
    };
    pub use streams_core::serde::{
        DynSerde, Serde, SerdeError, Text, from_fns, json, session_windowed, time_windowed,
    };
    pub use streams_core::state::{
        KeyValueStore, SessionStore, StoreOptions, Version, VersionedOptions, VersionedStore,
        WindowStore, WindowedOptions,
    };
    pub use streams_core::test_driver::{TestDriverError, TestDriverSettings, TopologyTestDriver};
    pub use streams_core::topology::{NodeSpec, Pattern, StoreSpec};
    pub use streams_core::{
        HasSerde, ProcessError, Record, Topology, TopologyBuilder, Window, Windowed,
    };
    pub use streams_dsl::{
        AsyncConfig, CogroupedKStream, Consumed, EmitStrategy, Grouped, JoinWindows,
        KGroupedStream, KGroupedTable, KStream, KTable, Materialized, Named, Optimization,
        Produced, Repartitioned, SessionWindowedCogroupedKStream, SessionWindowedKStream,
        SessionWindows, SlidingWindows, StreamJoined, StreamsBuilder, TableJoined,
        TimeWindowedCogroupedKStream, TimeWindowedKStream, TimeWindows, UnlimitedWindows,
        ValueTransformer,
    };
    pub use streams_dsl::{BufferConfig, Suppressed};
    pub use streams_dsl::{GlobalKTable, Joined, Printed, ProcessorSupplier};
}
