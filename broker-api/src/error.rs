//! What can go wrong with a broker, and what to do about it.

use std::path::PathBuf;

use crate::types::{Offset, TopicPartition};

/// An error of a broker. Every message says what happened and, where something helps, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No topic has this name.
    #[error(
        "topic '{topic}' does not exist; create it first (vltava topics create {topic} --partitions N)"
    )]
    UnknownTopic {
        /// The name that was asked for.
        topic: String,
    },
    /// The topic has fewer partitions.
    #[error("topic '{topic}' has {partitions} partitions; there is no partition {partition}")]
    UnknownPartition {
        /// The topic's name.
        topic: String,
        /// The partition that was asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A topic of this name exists.
    #[error("topic '{topic}' exists already")]
    TopicExists {
        /// The topic's name.
        topic: String,
    },
    /// A name that breaks the rules.
    #[error("'{name}' cannot be used as a name: {reason}")]
    InvalidName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// A setting with an impossible value, or one that does not exist.
    #[error("setting {name}={value} is not possible: expected {expected}")]
    InvalidConfig {
        /// The setting.
        name: String,
        /// The value given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A record, batch or commit above its limit. Nothing of it was written.
    #[error(
        "{what} of {size} bytes is larger than {setting}={limit}; nothing was written. Split it, or raise the setting"
    )]
    TooLarge {
        /// What was too large.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
        /// The setting that holds the limit.
        setting: &'static str,
    },
    /// A record that its topic cannot take (Kafka's `InvalidRecordException`). Nothing of its batch,
    /// or of the commit that it came with, was written.
    #[error("a record for {partition} was refused: {reason}; nothing was written")]
    InvalidRecord {
        /// Where it was to go.
        partition: TopicPartition,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A record to be sent has a time before the epoch (Kafka's `ProducerRecord` refuses it, too).
    #[error(
        "a record for topic '{topic}' has the timestamp {timestamp}; a timestamp must not be negative; nothing was written"
    )]
    NegativeTimestamp {
        /// The topic.
        topic: String,
        /// The record's timestamp, in milliseconds since the Unix epoch.
        timestamp: i64,
    },
    /// The position asked for is not in the log.
    #[error(
        "offset {offset} of {partition} is out of range: the log holds {log_start} to {end}; start from the earliest or latest offset instead"
    )]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: Offset,
        /// First offset present.
        log_start: Offset,
        /// End of the log.
        end: Offset,
    },
    /// A newer producer with the same transactional id has taken over.
    #[error(
        "producer '{id}' (epoch {epoch}) was fenced: a newer producer with the same id has taken over; stop this one"
    )]
    Fenced {
        /// The transactional id.
        id: String,
        /// The epoch that is no longer valid.
        epoch: u32,
    },
    /// The outcome of a commit was lost. Nothing is retried, because it may have taken effect.
    #[error(
        "it is not known whether the commit of producer '{id}' took effect{}; make a new producer with this id, read the group's offsets, and go on from there",
        because(cause)
    )]
    InDoubt {
        /// The transactional id.
        id: String,
        /// Why the broker failed, if that is the reason.
        cause: Option<Box<Error>>,
    },
    /// The member that commits has lost its place in the application.
    #[error(
        "this member of application '{application}' lost its tasks; its commit was refused and nothing of it was written"
    )]
    StaleMember {
        /// The application.
        application: String,
    },
    /// Members of one application disagree about its tasks.
    #[error(
        "application '{application}' already runs with other tasks; all its threads must run the same topology on the same partitions"
    )]
    OtherTopology {
        /// The application.
        application: String,
    },
    /// Too much is waiting to be written: try again after the waker was woken.
    #[error("too much data is waiting to be written; try again when some of it is")]
    Full,
    /// The disk is full. Reading goes on.
    #[error(
        "no space left on the disk of {path}: writing has stopped, nothing acknowledged is lost, reading works; free some space and open the broker again"
    )]
    DiskFull {
        /// Where.
        path: PathBuf,
    },
    /// Something on disk is not what was written.
    #[error("{file} is damaged at byte {at}{}: {reason}; restore the directory from a copy", partition.as_ref().map(|p| format!(" ({p})")).unwrap_or_default())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes.
        at: u64,
        /// The partition whose data it is, where that is known.
        partition: Option<TopicPartition>,
        /// What does not fit.
        reason: String,
    },
    /// The bytes of a batch are not a valid batch.
    #[error("not a valid record batch: {reason}")]
    InvalidBatch {
        /// What does not fit.
        reason: String,
    },
    /// Written by a newer version.
    #[error(
        "{path} has format {found}, this version reads up to {supported}; use a newer version of vltava"
    )]
    NewerFormat {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is understood.
        supported: u32,
    },
    /// Another process, or another part of this one, has the directory open.
    #[error("{path} is in use by {holder}; stop it, or use another directory (--broker DIR)")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// The operating system refused something.
    #[error("{operation} {path} failed: {message}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's words.
        message: String,
    },
    /// An earlier failure stopped all writing.
    #[error(
        "the broker stopped writing after an earlier failure: {reason}; open it again to recover"
    )]
    Failed {
        /// The earlier failure.
        reason: String,
    },
    /// The handle or the broker was closed.
    #[error("the broker is closed")]
    Closed,
}
fn because(cause: &Option<Box<Error>>) -> String {
    cause.as_ref().map(|cause| format!(", because {cause}")).unwrap_or_default()
}
