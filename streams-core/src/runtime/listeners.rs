//! What an application is told about its threads, and is asked when one of them fails.

use std::sync::Arc;

use broker_api::{Offset, TaskId, TopicPartition};

use super::StreamsError;

/// What follows when a stream thread has failed. Nothing of its present generation has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncaught {
    /// Another thread takes its place and goes on where its commits ended: for failures that pass. A
    /// thread that fails again before it has committed anything is replaced after a pause, which
    /// doubles from 100 ms to 10 s.
    ReplaceThread,
    /// All threads of this instance stop, and its state is [`super::State::Error`].
    StopClient,
    /// All threads of all instances of the application stop: the others end with
    /// [`StreamsError::Stopped`].
    StopApplication,
}

/// Decides what follows when a stream thread has failed.
pub type UncaughtHandler = Arc<dyn Fn(&StreamsError) -> Uncaught + Send + Sync>;

/// The default: the instance stops.
pub fn stop_client() -> UncaughtHandler {
    Arc::new(|_| Uncaught::StopClient)
}

/// How far the restoring of a store has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreEvent {
    /// The task.
    pub task: TaskId,
    /// The store.
    pub store: String,
    /// Its changelog.
    pub changelog: TopicPartition,
    /// What happened.
    pub stage: RestoreStage,
}

/// What happened to a store that is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStage {
    /// It begins.
    Started {
        /// The first offset to be replayed.
        from: Offset,
        /// The first that is not.
        end: Offset,
    },
    /// More was read.
    Restored {
        /// The first offset that was not read yet.
        position: Offset,
    },
    /// The store is up to date.
    Ended {
        /// How many changelog records were replayed.
        records: u64,
    },
    /// It was given up: the task goes elsewhere, or the application stops.
    Suspended,
}

/// Is told how far the restoring of stores has come, by the thread that does it: it must not block.
pub type RestoreListener = Arc<dyn Fn(&RestoreEvent) + Send + Sync>;
