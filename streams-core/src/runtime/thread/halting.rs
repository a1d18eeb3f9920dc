//! What follows when a task, or the broker, refuses. Either the application stops, or what is not
//! committed is given up and processed again: that of one task, without what it has to leave out; or, if
//! no commit can be made, that of all tasks in smaller portions, until the record is found that was the
//! cause, unless an entry that was let go at the seal is.

use std::time::Duration;

use broker_api::{Commit, Error, TaskId};

use super::committing::Unsent;
use super::{StreamThread, StreamsError};
use crate::error::ProcessError;
use crate::failure::{Decision, Failure, Halt, LeftOut, Place, Stage};
use crate::task::Cause;

/// How long a commit waits that is tried again because a handler said so.
const RETRY_AFTER: Duration = Duration::from_millis(100);

impl StreamThread {
    /// A task cannot go on.
    pub(super) fn halted(&mut self, task: TaskId, halt: Halt) -> Result<(), StreamsError> {
        match halt {
            Halt::Fail { error, .. } if matches!(*error, ProcessError::TopicAsked { .. }) => {
                self.wait_for_topic(task);
                Ok(())
            }
            Halt::AtSeal(error) => self.sealing_failed(task, *error),
            Halt::Fail { record, error } => Err(StreamsError::process(task, record, *error)),
            Halt::LeaveOut(what) => {
                tracing::warn!(thread = %self.transactional_id, %task, place = ?what.place, "what the task has processed since its last commit is processed again without what failed");
                self.leave_out(task, what);
                self.start_task_over(task);
                Ok(())
            }
        }
    }

    /// Remembers what a task leaves out when it is opened again.
    fn leave_out(&mut self, task: TaskId, what: LeftOut) {
        let assigned = &self.assigned;
        self.left_out.retain(|(task, _)| assigned.contains(task));
        self.left_out.push((task, what));
    }

    /// What a commit has left out is behind its offsets.
    pub(super) fn have_left_out(&mut self, task: TaskId, places: &[Place]) {
        if !places.is_empty() {
            self.left_out.retain(|(its, what)| *its != task || !places.contains(&what.place));
        }
    }

    /// A generation cannot be sealed. Which record was the cause shows when it is alone.
    pub(super) fn sealing_failed(
        &mut self,
        task: TaskId,
        error: ProcessError,
    ) -> Result<(), StreamsError> {
        if matches!(error, ProcessError::TopicAsked { .. }) {
            self.wait_for_topic(task);
            return Ok(());
        }
        if !error.is_of_processing() {
            return Err(StreamsError::process(task, None, error));
        }
        self.blame_record(Stage::Processing, task, error)
    }

    fn blame_record(
        &mut self,
        stage: Stage,
        task: TaskId,
        error: ProcessError,
    ) -> Result<(), StreamsError> {
        let causes = self.generation.causes();
        let failing = self.running.get(&task);
        let is_known = failing.is_some_and(|running| running.task.is_entry_known());
        if causes > 1 && !is_known {
            self.generation_limit = causes / 2;
            tracing::warn!(thread = %self.transactional_id, %error, records = self.generation_limit, "a commit failed; its records are processed again, fewer at a time");
            self.start_tasks_over(task);
            return Ok(());
        }
        let cause = match (self.generation.processed, self.generation.gone_on) {
            (1, 0) => Cause::Record,
            (0, 1) => Cause::Entry,
            _ => Cause::Unknown,
        };
        let task = self.last_processed.filter(|_| cause != Cause::Unknown).unwrap_or(task);
        let Some(running) = self.running.get_mut(&task) else {
            return Err(StreamsError::process(task, None, error));
        };
        match running.task.settle_sealing(stage, error, cause) {
            Halt::LeaveOut(what) => {
                self.leave_out(task, what);
                self.start_tasks_over(task);
                Ok(())
            }
            halt => self.halted(task, halt),
        }
    }

    /// Topics of a commit because of which one was refused.
    pub(super) fn refused_topics(&self, commit: &Commit) -> Vec<String> {
        if self.refused_since.is_empty() {
            return Vec::new();
        }
        let written = commit.batches.iter().map(|(partition, _)| partition);
        let read = commit.group.iter().flat_map(|group| &group.offsets);
        let topics = written.chain(read.map(|(partition, _)| partition)).map(|tp| &*tp.topic);
        topics.filter(|topic| self.refused_since.contains_key(*topic)).map(Into::into).collect()
    }

    /// The broker has refused a commit for what is in it.
    pub(super) fn refused(&mut self, unsent: Unsent, refused: Error) -> Result<(), StreamsError> {
        let Some(task) = unsent.task() else {
            return Err(refused.into());
        };
        let error = ProcessError::Commit { error: refused.clone() };
        if let Error::UnknownTopic { topic } | Error::UnknownPartition { topic, .. } = &refused {
            self.finder.forget(topic);
            let now = self.env.clock.monotonic();
            let since = *self.refused_since.entry(topic.clone()).or_insert(now);
            let waited = now.saturating_sub(since);
            let failure = Failure {
                stage: Stage::Production,
                task,
                record: None,
                held_back: false,
                error: error.clone(),
                retriable: !self.stopping && waited < self.env.settings.delivery_timeout,
                wall_clock: self.env.clock.now(),
            };
            match self.env.settings.error_handlers().decide(&failure) {
                Decision::Fail => return Err(StreamsError::NotWritten { error: refused }),
                Decision::Retry => {
                    self.retry_at = Some(now.saturating_add(RETRY_AFTER));
                    self.unsent = Some(unsent);
                    return Ok(());
                }
                Decision::Resume(_) => {} // asked again when the record is found
            }
        }
        self.generation = unsent.into_tally(); // given up with the rest
        self.blame_record(Stage::Production, task, error)
    }
}
