//! Asking the handlers of the application about errors, and writing dead letters.

use broker_api::partitioner::partition_of;

use super::TaskCore;
use crate::error::ProcessError;
use crate::failure::{DeadLetter, Decision, Failure, Halt, LeftOut, Place, Stage};

impl TaskCore {
    /// Asks the handler of a stage about an error that has left nothing behind. If it resumes, the
    /// dead letters are written and what failed is counted as left out.
    ///
    /// # Errors
    /// The error itself, if the application has to stop.
    #[cold]
    pub fn settle(&mut self, stage: Stage, error: ProcessError) -> Result<(), ProcessError> {
        if matches!(error, ProcessError::TopicAsked { .. }) {
            return Err(error); // nothing to decide on yet
        }
        let in_entry = self.going_on.entry().is_some();
        match self.decide(stage, &error, in_entry) {
            Decision::Resume(letters) => self.leave_out(stage, &letters),
            Decision::Fail | Decision::Retry => Err(error),
        }
    }

    /// Asks the handler of a stage about an error of the record or punctuation at `place`.
    ///
    /// # Errors
    /// [`Halt`]: the generation must be given up, either to stop or, where something may be left
    /// behind, to process it again without that.
    #[cold]
    pub(super) fn settle_at(
        &mut self,
        stage: Stage,
        error: ProcessError,
        place: Place,
    ) -> Result<(), Halt> {
        let record = self.source();
        if stage == Stage::Processing && !error.is_of_processing() {
            return Err(Halt::fail(record, error));
        }
        let is_entry = matches!(place, Place::Entry(_));
        let Decision::Resume(letters) = self.decide(stage, &error, is_entry) else {
            return Err(Halt::fail(record, error));
        };
        let place = match place {
            Place::Entry(failed) => Place::Entry(self.entry_to_blame(failed)),
            other => other,
        };
        // A panic leaves nodes in the middle of something.
        if self.is_touched() || is_entry || matches!(error, ProcessError::Panic { .. }) {
            return Err(Halt::LeaveOut(LeftOut { place, stage, letters }));
        }
        self.forget_calls();
        self.leave_out(stage, &letters).map_err(|error| Halt::fail(record, error))
    }

    /// Asks the handlers. The present record is not that of an entry: it only happens to let it go.
    fn decide(&self, stage: Stage, error: &ProcessError, held_back: bool) -> Decision {
        self.settings().handlers.decide(&Failure {
            stage,
            task: self.id(),
            record: self.raw_record().filter(|_| !held_back),
            held_back,
            error: error.clone(),
            retriable: false,
            wall_clock: self.wall_clock(),
        })
    }

    /// Writes dead letters instead of what is left out, and counts that.
    ///
    /// # Errors
    /// [`ProcessError::DeadLetter`].
    pub fn leave_out(&mut self, stage: Stage, letters: &[DeadLetter]) -> Result<(), ProcessError> {
        letters.iter().try_for_each(|letter| self.write_letter(letter))?;
        self.drop_record(match stage {
            Stage::Deserialization => "not decodable",
            Stage::Processing => "not processed",
            Stage::Production => "not written",
        });
        Ok(())
    }

    fn write_letter(&mut self, letter: &DeadLetter) -> Result<(), ProcessError> {
        let usual = self.settings().handlers.dead_letter_topic.as_deref();
        let Some(topic) = letter.topic.as_deref().or(usual).map(str::to_owned) else {
            let reason = "it names none; name one, or set dead_letter_topic".into();
            return Err(ProcessError::DeadLetter { topic: String::new(), reason });
        };
        let output = match (self.settings().topics)(&topic) {
            Ok(output) => output,
            Err(asked @ ProcessError::TopicAsked { .. }) => return Err(asked),
            Err(_) => {
                let reason = "the topology neither reads nor writes it, and it is not the dead_letter_topic; use one of these".into();
                return Err(ProcessError::DeadLetter { topic, reason });
            }
        };
        let DeadLetter { key, value, timestamp, headers, .. } = letter;
        let (key, value) = (key.as_deref(), value.as_deref());
        let outputs = self.outputs_mut();
        let output = outputs.add(output);
        let partition = match key {
            Some(key) => partition_of(key, outputs.partitions(output)),
            None => outputs.next_partition(output),
        };
        let sent = outputs.send(output, partition, *timestamp, key, value, headers);
        sent.map_err(|error| ProcessError::DeadLetter { topic, reason: error.to_string() })
    }
}
