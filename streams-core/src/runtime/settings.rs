//! The settings of an application.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{RestoreListener, StateListener, StreamsError, UncaughtHandler, stop_client};
use crate::executor::Executor;
use crate::failure::{ErrorHandler, ErrorHandlers, log_and_fail, log_and_retry_or_fail};

/// The settings of an application. Each has a default but the id and the state directory.
#[derive(Clone)]
pub struct Settings {
    /// Names the application: its consumer group, its internal topics, its state. 1 to 100
    /// characters of `a-z A-Z 0-9 . _ -`.
    pub application_id: Arc<str>,
    /// Where the stores lie; the application makes a directory of its own in it.
    pub state_dir: PathBuf,
    /// How many stream threads. Default: 1.
    pub threads: usize,
    /// The longest time from a record to the commit that contains it, while there is more to
    /// process. Default: 100 ms. A thread that has caught up commits at once.
    pub commit_interval: Duration,
    /// Bytes that all stores of the process may hold in memory; shared evenly among those that are
    /// open. Default: 256 MiB.
    pub state_memory_bytes: usize,
    /// The longest time that a committed change stays out of the store's files. Default: 30 s.
    /// After a crash, as much of the changelog is replayed.
    pub flush_interval: Duration,
    /// Bytes of input that wait in memory for each partition. Default: 4 MiB.
    pub input_buffer_bytes: usize,
    /// Bytes of output, of changes in stores too, after which a generation is sealed early. Default: 16 MiB. At most half of
    /// the broker's largest commit is used.
    pub seal_bytes: usize,
    /// Bytes of memory for restoring stores; shared evenly among those that are restored at one
    /// time. Beyond it, sorted runs are spilled to disk. Default: 256 MiB.
    pub restore_memory_bytes: usize,
    /// How often consumed records of repartition topics are deleted. Default: 1 s.
    pub purge_interval: Duration,
    /// How long the topics that a pattern follows, by the broker's last answer, are taken for all
    /// there are, if the broker does not tell of new ones. Default: 5 minutes.
    pub metadata_max_age: Duration,
    /// Where reading of an input begins if no offset of it is committed, or the committed one is
    /// not in the log any more. Default: earliest.
    pub auto_offset_reset: AutoOffsetReset,
    /// What happens to records that cannot be decoded. Default: [`log_and_fail`].
    pub deserialization_handler: ErrorHandler,
    /// What happens to records and punctuations with which an operator fails or panics. Default:
    /// [`log_and_fail`].
    pub processing_handler: ErrorHandler,
    /// What happens to results that cannot be written. Default: [`log_and_retry_or_fail`].
    pub production_handler: ErrorHandler,
    /// How long a commit is tried again because a topic that it writes, or a partition of it, does not
    /// exist: Kafka's `delivery.timeout.ms`. The production handler is asked once more then, with
    /// nothing left to retry. Default: 2 minutes.
    pub delivery_timeout: Duration,
    /// The topic, which must exist, that gets a dead letter for everything that a handler leaves
    /// out, but of global tables. Default: none.
    pub dead_letter_topic: Option<Arc<str>>,
    /// Where async operators call; needed only by topologies that have some. Default: none.
    pub executor: Option<Arc<dyn Executor>>,
    /// What follows when a stream thread has failed. Default: [`stop_client`].
    pub uncaught_handler: UncaughtHandler,
    /// Is told of each change of the application's state. Default: nobody.
    pub state_listener: Option<StateListener>,
    /// Is told how far the restoring of stores has come. Default: nobody.
    pub restore_listener: Option<RestoreListener>,
}

/// Where reading begins without a committed offset that can be used: Kafka's `auto.offset.reset`.
/// Repartition topics are not concerned: the application has written them itself, and must not miss
/// anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// At the first record that the log still has.
    #[default]
    Earliest,
    /// At the end: only what comes from then on. Until a first commit every start begins there.
    Latest,
    /// Nowhere: the application stops with an error.
    None,
}

impl Settings {
    /// The defaults, for an application of this name.
    pub fn new(application_id: impl Into<Arc<str>>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            application_id: application_id.into(),
            state_dir: state_dir.into(),
            threads: 1,
            commit_interval: Duration::from_millis(100),
            state_memory_bytes: 256 << 20,
            flush_interval: Duration::from_secs(30),
            input_buffer_bytes: 4 << 20,
            seal_bytes: 16 << 20,
            restore_memory_bytes: 256 << 20,
            purge_interval: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(5 * 60),
            auto_offset_reset: AutoOffsetReset::Earliest,
            deserialization_handler: log_and_fail(),
            processing_handler: log_and_fail(),
            production_handler: log_and_retry_or_fail(),
            delivery_timeout: Duration::from_secs(2 * 60),
            dead_letter_topic: None,
            executor: None,
            uncaught_handler: stop_client(),
            state_listener: None,
            restore_listener: None,
        }
    }

    /// The handlers.
    pub(super) fn error_handlers(&self) -> ErrorHandlers {
        ErrorHandlers {
            deserialization: self.deserialization_handler.clone(),
            processing: self.processing_handler.clone(),
            production: self.production_handler.clone(),
            dead_letter_topic: self.dead_letter_topic.clone(),
        }
    }

    /// # Errors
    /// [`StreamsError::Setting`].
    pub(super) fn check(&self) -> Result<(), StreamsError> {
        let id = &self.application_id;
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > 100 || !id.chars().all(fine) || id.starts_with('.') {
            let reason = format!(
                "'{id}' must be 1 to 100 of a-z, A-Z, 0-9, '.', '_', '-', not starting with '.'"
            );
            return Err(StreamsError::Setting { name: "application_id", reason });
        }
        if self.threads == 0 || self.threads > 256 {
            let reason = format!("{} must be 1 to 256", self.threads);
            return Err(StreamsError::Setting { name: "threads", reason });
        }
        Ok(())
    }
}
