//! What is done about a record that cannot be handled.
//!
//! Three handlers decide, each for its stage: bytes that cannot be decoded, code of the application
//! that fails or panics, results that cannot be written. Each answers with a [`Response`]: fail (the
//! application stops, nothing of the generation takes effect), resume (what failed is left out), or
//! retry, where trying again can help.
//!
//! What is left out leaves nothing behind: if the record has changed a store or written something
//! before it failed, the generation is given up and processed again without it. Its dead letters, and
//! the offset behind it, are in one commit: so it has exactly one set of dead letters, whatever crashes.
//! A handler may be asked about a record more than once, since what it answered before a crash is
//! forgotten with the generation.

mod dead_letter;
mod halt;
mod handlers;

use broker_api::{Header, Offset, TaskId, Timestamp, TopicPartition};
use bytes::Bytes;

use crate::error::ProcessError;

pub use dead_letter::DeadLetter;
pub use halt::{Halt, LeftOut, Place};
pub(crate) use handlers::Decision;
pub use handlers::{
    ErrorHandler, ErrorHandlers, log_and_continue, log_and_fail, log_and_retry_or_fail,
};

/// Something that could not be handled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Which handler is asked.
    pub stage: Stage,
    /// The task.
    pub task: TaskId,
    /// The input record that was being processed. `None`: it was a punctuation, a result that was
    /// held back (`held_back` tells), or a whole commit that the broker has refused
    /// ([`ProcessError::Commit`]).
    pub record: Option<RawRecord>,
    /// It was a result that an operator had held back, and has let go: `suppress`, windows that emit
    /// on closing, a join that waits. The record that happened to let it go is not to blame.
    pub held_back: bool,
    /// What happened.
    pub error: ProcessError,
    /// Whether trying again may help.
    pub retriable: bool,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_clock: Timestamp,
}

/// What was being done when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A record of an input was decoded. To resume leaves the record out.
    Deserialization,
    /// An operator processed a record or a punctuation. To resume leaves it out, and all that
    /// follows from it.
    Processing,
    /// A result was written. To resume leaves the result out; the others of its record stay.
    Production,
}

/// An input record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Where it was read.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, as the log has it.
    pub timestamp: Timestamp,
    /// Its encoded key.
    pub key: Option<Bytes>,
    /// Its encoded value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// What a handler answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub(crate) action: Action,
    /// `None`: one to the `dead_letter_topic`, if that is set.
    pub(crate) letters: Option<Vec<DeadLetter>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Fail,
    Resume,
    Retry,
}

impl Response {
    /// The application stops. Nothing of the generation takes effect, so there is no dead letter: the
    /// record is met again at the next start.
    pub fn fail() -> Self {
        Self { action: Action::Fail, letters: None }
    }

    /// Leave it out, count it, and go on. If a `dead_letter_topic` is set, a dead letter is written
    /// to it.
    pub fn resume() -> Self {
        Self { action: Action::Resume, letters: None }
    }

    /// Leave it out, count it, write these records instead of the usual dead letter, and go on.
    pub fn resume_with(letters: Vec<DeadLetter>) -> Self {
        Self { action: Action::Resume, letters: Some(letters) }
    }

    /// The same, but nothing is written.
    pub(crate) fn without_letters(self) -> Self {
        Self { letters: Some(Vec::new()), ..self }
    }

    /// Try again. Counts as fail where that cannot help: [`Failure::retriable`] tells.
    pub fn retry() -> Self {
        Self { action: Action::Retry, letters: None }
    }
}

impl std::fmt::Display for RawRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {} of {}", self.offset, self.partition)
    }
}
