//! What can go wrong in a stream application, and what to do about it.

use std::path::PathBuf;

use broker_api::TopicPartition;

/// A value that cannot be encoded, or bytes that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SerdeError {
    /// What does not fit.
    pub reason: String,
}

impl SerdeError {
    /// An error with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// A topology that cannot be run. Found when it is built, before any record is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two nodes, stores or sources with one name.
    #[error("the name '{name}' is used twice; give one of them another name")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A name that cannot be that of a topic, and so of nothing else in a topology.
    #[error(
        "'{name}' cannot be the name of {of}: a name has 1 to 249 characters, which are letters (a-z, A-Z), digits, '.', '_' and '-', and is not '.' or '..'"
    )]
    Name {
        /// What has it: an operator, a store or a topic.
        of: &'static str,
        /// The name.
        name: String,
    },
    /// A parent, store or child that does not exist.
    #[error("'{node}' refers to '{missing}', which does not exist; add it first")]
    Unknown {
        /// Who refers to it.
        node: String,
        /// What is missing.
        missing: String,
    },
    /// A node gets records of a type that it does not take.
    #[error(
        "'{node}' takes {takes}, but '{parent}' gives {gives}; if that reads a topic which is read elsewhere too, give both the same types"
    )]
    TypeMismatch {
        /// The node.
        node: String,
        /// The types that it takes.
        takes: &'static str,
        /// Its parent.
        parent: String,
        /// The types that the parent forwards.
        gives: &'static str,
    },
    /// A store is asked for as another kind of store than it is.
    #[error(
        "'{node}' asks for store '{store}' as {asked}, but it is {found}; ask for it with the types that it is declared with"
    )]
    StoreType {
        /// The node.
        node: String,
        /// The store.
        store: String,
        /// The type asked for.
        asked: &'static str,
        /// The type that the store has.
        found: &'static str,
    },
    /// A node uses a store that it is not connected to.
    #[error(
        "'{node}' uses store '{store}' but is not connected to it; name the store where the operator is declared (process_with(supplier, &[\"{store}\"], name)), or call connect_processor_and_state_stores of the TopologyBuilder"
    )]
    NotConnected {
        /// The node.
        node: String,
        /// The store.
        store: String,
    },
    /// A topic is read by two sources.
    #[error("topic '{topic}' is read by two sources; read it once and use the stream twice")]
    TopicReadTwice {
        /// The topic.
        topic: String,
    },
    /// Streams of one topic, which become one source, are declared with different serdes or timestamp
    /// extractors.
    #[error(
        "'{topic}' is read by two streams with different serdes or timestamp extractors, but read once; give both the same, or use one stream twice"
    )]
    ReadDifferently {
        /// The topic, or the pattern of topics.
        topic: String,
    },
    /// Something writes a topic that is the application's own.
    #[error(
        "'{node}' writes topic '{topic}', which is internal: '{owner}' writes it too; give the output another name"
    )]
    InternalTopic {
        /// The second sink.
        node: String,
        /// The topic.
        topic: String,
        /// The first sink.
        owner: String,
    },
    /// It reads nothing.
    #[error(
        "the topology is empty: it reads no topic and has no global table; begin with stream, table or global_table of the StreamsBuilder"
    )]
    Empty,
    /// Anything else that is wrong with the declaration.
    #[error("'{node}': {reason}")]
    Invalid {
        /// The node or store.
        node: String,
        /// What is wrong.
        reason: String,
    },
}

/// A store that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The files of a store are damaged. The store is rebuilt from its changelog at the next start.
    #[error(
        "the state in {path} is damaged: {reason}; it is rebuilt from its changelog at the next start"
    )]
    Corrupt {
        /// Where the state lies.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A record in the changelog of a store cannot be one of such a store.
    #[error("{reason}; a store of another kind has written it, or it is damaged")]
    ChangelogRecord {
        /// What does not fit.
        reason: String,
    },
    /// The operating system or the engine refused something.
    #[error("{operation} the state in {path} failed: {reason}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Where the state lies.
        path: PathBuf,
        /// The engine's words.
        reason: String,
    },
    /// The state was written by a newer version.
    #[error(
        "the state in {path} has format {found}, this version reads up to {supported}; use a newer version, or delete the directory to rebuild it"
    )]
    NewerFormat {
        /// Where the state lies.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is understood.
        supported: u32,
    },
    /// A change cannot be written to the changelog.
    #[error("a change cannot be written to the changelog {topic}: {reason}")]
    Changelog {
        /// The changelog topic.
        topic: String,
        /// Why.
        reason: String,
    },
    /// A key or value of a store does not fit its serde.
    #[error("store '{store}': {error}")]
    Serde {
        /// The store.
        store: String,
        /// What does not fit.
        error: SerdeError,
    },
}

/// Why processing a record failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A record of a source topic cannot be decoded.
    #[error(
        "record {offset} of {partition} cannot be decoded ({part}): {error}; to leave such records out, set deserialization_handler"
    )]
    Deserialization {
        /// Where it was read.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// `key` or `value`.
        part: &'static str,
        /// What does not fit.
        error: SerdeError,
    },
    /// A record has a timestamp that the extractor refuses.
    #[error(
        "record {offset} of {partition} has the timestamp {timestamp}; a timestamp must not be negative"
    )]
    Timestamp {
        /// Where it was read.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// Its timestamp.
        timestamp: i64,
    },
    /// A processor forwards a record with a negative timestamp.
    #[error(
        "'{node}' forwards a record with the timestamp {timestamp}; a timestamp must not be negative (stream time is -1 before the first record)"
    )]
    ForwardedTimestamp {
        /// The processor.
        node: String,
        /// The record's timestamp.
        timestamp: i64,
    },
    /// A result cannot be encoded for its topic.
    #[error("a result for topic '{topic}' cannot be encoded: {error}")]
    Serialization {
        /// The topic.
        topic: String,
        /// What does not fit.
        error: SerdeError,
    },
    /// A result cannot be put into a batch.
    #[error("a result for topic '{topic}' was refused: {error}")]
    Output {
        /// The topic.
        topic: String,
        /// Why.
        error: broker_api::Error,
    },
    /// The input batch is malformed.
    #[error("input of {partition}: {error}")]
    Input {
        /// Where it was read.
        partition: TopicPartition,
        /// What does not fit.
        error: broker_api::Error,
    },
    /// More updates wait in a buffer than may, and it must not send any early.
    #[error("'{node}' {reason}; raise the limit of its BufferConfig, or {advice}")]
    BufferFull {
        /// The operator.
        node: String,
        /// How full it is.
        reason: String,
        /// What helps besides: a buffer of final results cannot send any early.
        advice: &'static str,
    },
    /// What an operator has to remember while it lets go many entries is too long to ride with an offset.
    #[error(
        "the bookmark of '{node}' has {bytes} bytes, and an offset has room for {most}; remember less, and keep the rest in a store"
    )]
    Bookmark {
        /// The operator.
        node: String,
        /// How long it is.
        bytes: usize,
        /// How long it may be, beside the other bookmarks of the task.
        most: usize,
    },
    /// A store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The results of a single record are more than a commit takes.
    #[error("its results cannot be committed: {error}")]
    Commit {
        /// Why.
        error: broker_api::Error,
    },
    /// The broker was asked about a topic that was chosen for a record, and has not answered yet. Then
    /// the record is processed again: the application never sees this.
    #[error("the broker was asked about topic '{topic}' and has not answered yet")]
    TopicAsked {
        /// The topic.
        topic: String,
    },
    /// A call of an async operator ended without an answer, because its executor has dropped it.
    #[error(
        "a call of '{node}' was dropped by its executor; keep the tokio runtime in which the application was started until the application is closed"
    )]
    CallDropped {
        /// The operator.
        node: String,
    },
    /// A dead letter cannot be written.
    #[error("a dead letter for topic '{topic}' cannot be written: {reason}")]
    DeadLetter {
        /// The topic.
        topic: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The application's own code panicked.
    #[error("the application's code panicked{}: {message}", node.as_ref().map(|n| format!(" in '{n}'")).unwrap_or_default())]
    Panic {
        /// The operator whose code it was, where that is known.
        node: Option<String>,
        /// What the panic said.
        message: String,
    },
    /// The application's own code failed.
    #[error("'{node}': {reason}")]
    User {
        /// The operator.
        node: String,
        /// What it says.
        reason: String,
    },
}

impl ProcessError {
    /// What kind of error it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Deserialization { .. } => "Deserialization",
            Self::Timestamp { .. } => "Timestamp",
            Self::ForwardedTimestamp { .. } => "ForwardedTimestamp",
            Self::Serialization { .. } => "Serialization",
            Self::Output { .. } => "Output",
            Self::Input { .. } => "Input",
            Self::State(_) => "State",
            Self::BufferFull { .. } => "BufferFull",
            Self::Bookmark { .. } => "Bookmark",
            Self::Commit { .. } => "Commit",
            Self::TopicAsked { .. } => "TopicAsked",
            Self::CallDropped { .. } => "CallDropped",
            Self::DeadLetter { .. } => "DeadLetter",
            Self::Panic { .. } => "Panic",
            Self::User { .. } => "User",
        }
    }

    /// Whether the processing handler may leave out what caused it. Other handlers have decided on
    /// the rest already, or it is nobody's fault who is in the input.
    pub(crate) fn is_of_processing(&self) -> bool {
        match self {
            Self::User { .. }
            | Self::Panic { .. }
            | Self::Bookmark { .. }
            | Self::ForwardedTimestamp { .. } => true,
            Self::State(error) => {
                matches!(error, StateError::Serde { .. } | StateError::Changelog { .. })
            }
            _ => false,
        }
    }
}
