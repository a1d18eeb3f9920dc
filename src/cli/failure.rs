//! What ends a command early.

use std::io;
use std::path::PathBuf;

use broker_api::{Offset, TopicPartition};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Broker(#[from] broker_api::Error),
    #[error(
        "there is no broker in {}; name its directory with --broker DIR or VLTAVA_BROKER, or make one by creating a topic (vltava topics create)",
        .0.display()
    )]
    NoBroker(PathBuf),
    #[error("{}: {message}", name.display())]
    Input { name: PathBuf, message: String },
    /// Reading stopped at a line; all lines before it are written.
    #[error("line {line}: {reason}; the {} lines before it are written", line - 1)]
    Line { line: u64, reason: String },
    /// A write failed after others had succeeded.
    #[error("{error}; {written} of {read} lines are known to be written")]
    Unwritten { error: broker_api::Error, written: u64, read: u64 },
    #[error("interrupted; {0} lines are written")]
    Interrupted(u64),
    #[error("interrupted")]
    Stopped,
    #[error("record {offset} of {partition}: the {part} {reason}")]
    Undecodable { partition: TopicPartition, offset: Offset, part: &'static str, reason: String },
    #[error("topic '{topic}' does not exist; vltava topics list shows those that do")]
    UnknownTopic { topic: String },
    #[error("there is no application '{app}' here; {known}")]
    UnknownApp { app: String, known: String },
    #[error(
        "topic '{topic}' is {what} of application '{app}', which does not start without it; to make the application begin anew: vltava app reset --app {app}; to delete the topic all the same: --force"
    )]
    Internal { topic: String, what: String, app: String },
    #[error("{}: {message}", path.display())]
    State { path: PathBuf, message: String },
    #[error("application '{app}' has no store '{store}' with a changelog; {known}")]
    UnknownStore { app: String, store: String, known: String },
    #[error(
        "the contents at that point cannot be told: compaction has removed records of {partition} below offset {compacted_below}, and the question needs those below {asked}; ask for a later point"
    )]
    Compacted { partition: TopicPartition, compacted_below: Offset, asked: Offset },
    #[error(
        "the contents at that point cannot be told: the records of {partition} below offset {log_start} are deleted; ask for a later point"
    )]
    Deleted { partition: TopicPartition, log_start: Offset },
    #[error("{topic} ends at offset {end}; it has no record at offset {asked} yet")]
    NotYet { topic: String, end: Offset, asked: Offset },
    #[error("{name}: {reason}")]
    Argument { name: &'static str, reason: String },
    #[error("writing to standard output failed: {0}")]
    Output(#[source] io::Error),
    #[error("signals cannot be caught: {0}")]
    Signals(#[from] ctrlc::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Argument { .. } => 2,
            Self::Interrupted(_) | Self::Stopped => 130,
            _ => 1,
        }
    }

    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}
