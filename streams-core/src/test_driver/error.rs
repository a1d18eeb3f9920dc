//! What a test can do wrong with its driver, and what its topology can.

use std::time::Duration;

use crate::error::{BuildError, ProcessError, SerdeError, StateError};

/// An error of the [`TopologyTestDriver`](super::TopologyTestDriver).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TestDriverError {
    /// The topology cannot be run.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Processing a record failed. The driver is of no use any more.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A call of an async operator does not come back.
    #[error(
        "a call of an async operator was not back after {patience:?}; if it waits for the runtime that the test runs in, use #[tokio::test(flavor = \"multi_thread\")]; if it only takes long, set `call_patience`; its record waits for it, and so does every further one, until `advance_wall_clock` has moved the clock past the operator's timeout"
    )]
    CallNotBack {
        /// How long the driver has waited.
        patience: Duration,
    },
    /// The topology does not read this topic.
    #[error("the topology reads no topic '{topic}'; it reads {known}")]
    UnknownTopic {
        /// The name asked for.
        topic: String,
        /// Those that it reads.
        known: String,
    },
    /// The topology does not write this topic.
    #[error("the topology writes no topic '{topic}'; read one of these: {known}")]
    UnknownOutput {
        /// The name asked for.
        topic: String,
        /// Those that may be written.
        known: String,
    },
    /// The topology has no such store.
    #[error("the topology has no store '{store}'; it has {}", if known.is_empty() { "none" } else { known })]
    UnknownStore {
        /// The name asked for.
        store: String,
        /// Those that it has.
        known: String,
    },
    /// The store is of another type.
    #[error(
        "store '{store}' is asked for as {asked}, but it is {found}; ask for it with the types that it is declared with"
    )]
    StoreType {
        /// The store.
        store: String,
        /// The type asked for.
        asked: &'static str,
        /// The type that it has.
        found: &'static str,
    },
    /// A record of a topic does not fit the types of the test.
    #[error("a record of topic '{topic}' does not fit: {error}")]
    Serde {
        /// The topic.
        topic: String,
        /// What does not fit.
        error: SerdeError,
    },
    /// A batch is not what was built.
    #[error(transparent)]
    Batch(#[from] broker_api::Error),
}
