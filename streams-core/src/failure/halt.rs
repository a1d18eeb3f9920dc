//! Why a task stopped in the middle of a generation, and what is left out when it goes on.

use broker_api::{Offset, Timestamp, TopicPartition};

use super::{DeadLetter, Stage};
use crate::error::ProcessError;
use crate::processor::{EntryId, SourceInfo};

/// Why a task stopped. Its generation must be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The application has to stop.
    Fail {
        /// The input record that was being processed.
        record: Option<SourceInfo>,
        /// What happened.
        error: Box<ProcessError>,
    },
    /// The generation is processed again without something.
    LeaveOut(LeftOut),
    /// Something failed that stems from no record in particular, but from a cache that was drained for
    /// the seal.
    AtSeal(Box<ProcessError>),
}

impl Halt {
    /// The application has to stop.
    pub(crate) fn fail(record: Option<SourceInfo>, error: ProcessError) -> Self {
        Self::Fail { record, error: Box::new(error) }
    }
}

/// What is left out when a generation is processed again, and what is written instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What.
    pub place: Place,
    /// Where it failed.
    pub stage: Stage,
    /// The records to be written.
    pub letters: Vec<DeadLetter>,
}

/// Where in a task's work something is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This record of an input.
    Record(TopicPartition, Offset),
    /// The first call of this schedule of stream time at or after this time.
    StreamTime {
        /// Which schedule of the task.
        schedule: usize,
        /// The time of the call that failed.
        timestamp: Timestamp,
    },
    /// One of the entries that operators let go: a result that was held back before.
    Entry(EntryId),
    /// A call by the wall clock, which does not come again: only the letters are to be written.
    WallClock,
}
