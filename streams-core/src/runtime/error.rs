//! What ends a stream application.

use broker_api::{Offset, TaskId, TopicPartition};

use crate::error::{BuildError, ProcessError, StateError};
use crate::processor::SourceInfo;
use crate::state::StoreKind;

/// Why an application does not start, or stopped. What had been committed stays; after the cause
/// is mended, a new start goes on where the last commit ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamsError {
    /// The broker refused something.
    #[error(transparent)]
    Broker(#[from] broker_api::Error),
    /// The topology does not fit.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A record could not be processed.
    #[error("task {task}{}: {error}", with(record))]
    Process {
        /// The task.
        task: TaskId,
        /// The record, where it is known.
        record: Option<SourceInfo>,
        /// What happened.
        error: Box<ProcessError>,
    },
    /// A topic, or a partition, that a commit writes does not exist: for `delivery_timeout`, or when the
    /// application was closed.
    #[error(
        "what was processed since the last commit cannot be written: {error}; nothing is lost, it is processed again at the next start"
    )]
    NotWritten {
        /// Which one.
        error: broker_api::Error,
    },
    /// [`super::Streams::close_within`] has come to its limit.
    #[error(
        "the application has not closed within {limit:?}: what it had not committed is given up, and processed again at the next start"
    )]
    CloseTimeout {
        /// The limit.
        limit: std::time::Duration,
    },
    /// A record of a topic that fills a global store could not be processed.
    #[error("the global store of topic '{topic}'{}: {error}", with(record))]
    Global {
        /// The topic.
        topic: String,
        /// The record, where it is known.
        record: Option<SourceInfo>,
        /// What happened.
        error: Box<ProcessError>,
    },
    /// A store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The application's own code panicked.
    #[error("the application's code panicked{}{}: {message}", node.as_ref().map(|n| format!(" in '{n}'")).unwrap_or_default(), with(record))]
    Panic {
        /// The record, if it was one.
        record: Option<SourceInfo>,
        /// The operator whose code it was, where that is known.
        node: Option<String>,
        /// What the panic said.
        message: String,
    },
    /// An internal topic of an earlier start has another number of partitions.
    #[error(
        "topic '{topic}' has {found} partitions, but {needed} are needed; the number of partitions of an application cannot change: run `vltava app reset --app {application}` to process its input from the beginning, or use another application id"
    )]
    PartitionsChanged {
        /// The application.
        application: String,
        /// The topic.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many the topology needs.
        needed: u32,
    },
    /// A topic that a pattern is like has more partitions than an internal topic of the application.
    #[error(
        "topic '{topic}', which a pattern is like, has {partitions} partitions, but '{internal}' has {found}, and the number of partitions of an application cannot grow: make the topic anew with at most {found}, or run `vltava app reset --app {application}` to process all input from the beginning"
    )]
    FollowedTopicTooLarge {
        /// The application.
        application: String,
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: u32,
        /// The internal topic.
        internal: String,
        /// How many that has.
        found: u32,
    },
    /// Topics that are joined have different numbers of partitions, so that equal keys would not meet.
    #[error(
        "joined topics must have equal numbers of partitions, but these have not: {topics}; send one of the streams through repartition() with the number of the other"
    )]
    NotCopartitioned {
        /// The topics and their numbers.
        topics: String,
    },
    /// An internal topic is missing, or another one has its name, although the application has
    /// committed offsets that rely on what it held. Nothing was created or changed.
    #[error(
        "topic '{topic}' of application '{application}' was deleted, but the application has consumed input whose results were in it; going on would give wrong results: run `vltava app reset --app {application}` to process its input from the beginning"
    )]
    InternalTopicLost {
        /// The application.
        application: String,
        /// The topic.
        topic: String,
    },
    /// A store was of another kind when the application ran last, and what it held cannot be read as what
    /// it is now. Nothing was created or changed.
    #[error(
        "store '{store}' of application '{application}' was a {} and is a {now} now, which cannot read what that one left; going on would give wrong results: give the store another name to let it begin empty, or run `vltava app reset --app {application}` to process all input from the beginning",
        kind(*was)
    )]
    StoreKindChanged {
        /// The application.
        application: String,
        /// The store.
        store: String,
        /// What it was; `None`: something that this version does not know.
        was: Option<StoreKind>,
        /// What it is.
        now: StoreKind,
    },
    /// A record of a changelog cannot be one of its store. Nothing was changed.
    #[error(
        "the changelog {changelog} of store '{store}' cannot be read: {reason}; a store of another kind has written it, or it is damaged: give the store another name to let it begin empty, or run `vltava app reset --app {application}` to process all input from the beginning"
    )]
    ChangelogUnreadable {
        /// The application.
        application: String,
        /// The store.
        store: String,
        /// The partition of its changelog.
        changelog: TopicPartition,
        /// What does not fit.
        reason: String,
    },
    /// No offset of an input is committed, and `auto_offset_reset` is `None`.
    #[error(
        "application '{application}' has no committed offset of {partition}; set auto_offset_reset to earliest or latest, or commit one"
    )]
    NoOffset {
        /// The application.
        application: String,
        /// The input.
        partition: TopicPartition,
    },
    /// A committed offset is not in the log, and `auto_offset_reset` is `None` or must not be used,
    /// because the partition belongs to a repartition topic.
    #[error(
        "application '{application}' is at offset {offset} of {partition}, but the log holds {log_start} to {end}; set auto_offset_reset to earliest or latest if it is an input topic, or run `vltava app reset --app {application}` to process all input from the beginning"
    )]
    OffsetLost {
        /// The application.
        application: String,
        /// The input.
        partition: TopicPartition,
        /// How far it was read.
        offset: Offset,
        /// First offset present.
        log_start: Offset,
        /// End of the log.
        end: Offset,
    },
    /// A setting that cannot be.
    #[error("setting {name}: {reason}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The state directory cannot be used.
    #[error("the state directory {path} cannot be used: {reason}")]
    StateDirectory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The state directory belongs to an application that runs. Nothing was created or changed.
    #[error(
        "the state directory {path} is in use by {holder}: the application runs already; to run another instance of it, give that one a state_dir of its own"
    )]
    StateDirectoryInUse {
        /// The directory.
        path: std::path::PathBuf,
        /// Who has it.
        holder: String,
    },
    /// A thread of this or another instance has failed, and its `uncaught_handler` has stopped the whole
    /// application.
    #[error(
        "an instance of the application has failed and has asked all of them to stop; its own error says why"
    )]
    Stopped,
    /// This instance has no stream thread that could process anything.
    #[error("this instance of the application has no stream thread: begin it, or add a thread")]
    NoThread,
    /// A thread could not be started.
    #[error("a stream thread could not be started: {reason}")]
    Thread {
        /// The system's words.
        reason: String,
    },
}

impl StreamsError {
    /// What a task cannot go on after.
    pub(super) fn process(task: TaskId, record: Option<SourceInfo>, error: ProcessError) -> Self {
        match error {
            ProcessError::Panic { node, message } => Self::Panic { record, node, message },
            error => Self::Process { task, record, error: Box::new(error) },
        }
    }
}

fn kind(kind: Option<StoreKind>) -> String {
    kind.map_or_else(|| "store of a newer version".into(), |kind| kind.to_string())
}

fn with(record: &Option<SourceInfo>) -> String {
    let record = record.as_ref();
    record.map(|r| format!(", record {} of {}", r.offset, r.partition)).unwrap_or_default()
}
