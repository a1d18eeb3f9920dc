//! The end of a generation: what of it a commit needs, and who is to blame if there can be none.

use std::panic::{AssertUnwindSafe, catch_unwind};

use broker_api::{Batch, CommittedOffset, Offset, Timestamp, TopicPartition};

use super::{Task, panicked};
use crate::error::{ProcessError, StateError};
use crate::failure::{Halt, Place, Stage};
use crate::processor::Signal;
use crate::state::ChangelogWriter;
use crate::task::{OffsetMetadata, Outputs};

/// What a task contributes to a commit.
pub struct Sealed {
    /// Batches to append.
    pub batches: Vec<(TopicPartition, Batch)>,
    /// Inputs consumed.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// The last changelog batch of each store that was written.
    pub changelogs: Vec<SealedChangelog>,
    /// The stores that follow an input, by number, and how far they have come in it.
    pub followed: Vec<(usize, Offset)>,
    /// What was left out, as [`Task::leave_out`] had asked.
    pub left_out: Vec<Place>,
}

/// The last changelog batch of a store in a commit.
pub struct SealedChangelog {
    /// The store's number in its task.
    pub store: usize,
    /// The batch's number in [`Sealed::batches`].
    pub batch: usize,
}

/// Of what a generation that cannot be committed consists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Of the last record that was processed.
    Record,
    /// Of the last entry that was let go when going on.
    Entry,
    /// Of neither.
    Unknown,
}

impl Task {
    /// Drains caches before the seal, so that the calls that follow from that can come back. To be
    /// called until nothing is in flight after it.
    ///
    /// # Errors
    /// As [`Task::seal`].
    pub fn prepare_seal(&mut self) -> Result<(), ProcessError> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.signal(&Signal::BeforeSeal)));
        caught.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    /// Whether an entry that was let go at the seal is the cause of what failed there.
    pub(crate) fn is_entry_known(&self) -> bool {
        self.core.going_on.entry().is_some()
    }

    /// Asks about an error that shows when the generation is sealed or submitted.
    pub fn settle_sealing(&mut self, stage: Stage, error: ProcessError, cause: Cause) -> Halt {
        if cause == Cause::Record {
            self.core.set_last_source();
        }
        self.core.touch();
        let record = self.core.source();
        let entry = match cause {
            Cause::Entry => self.core.last_entry(),
            Cause::Record | Cause::Unknown => self.core.going_on.entry(),
        };
        let place = match (entry, record.clone()) {
            (Some(entry), _) => Place::Entry(entry),
            (None, Some(source)) => Place::Record(source.partition, source.offset),
            (None, None) => Place::WallClock,
        };
        if self.left_out.contains(&place) || self.core.entries_left_out().contains(&place) {
            return Halt::fail(record, error); // it was not the cause
        }
        let settled = self.core.settle_at(stage, error.clone(), place);
        // What has been touched is never settled on the spot.
        settled.err().unwrap_or(Halt::fail(record, error))
    }

    /// Whether a commit would have something to say.
    pub fn has_uncommitted(&mut self) -> bool {
        let moved = self.queues.iter().zip(&self.committed).any(|(q, done)| q.position() > *done);
        moved
            || !self.left_out.is_empty() // also what has no dead letter: the commit tells the thread
            || !self.core.entries_left_out().is_empty()
            || self.core.times_moved()
            || self.core.outputs_mut().bytes() > 0
            || self.core.stores_mut().iter_mut().any(|store| store.has_uncommitted())
    }

    /// Bytes of outputs that wait for the seal, and about how many the seal will add.
    pub fn output_bytes(&mut self) -> usize {
        self.core.unsealed_bytes()
    }

    /// Ends the generation: drains caches through the nodes, encodes what stores have changed, and
    /// hands out everything that must take effect together.
    ///
    /// # Errors
    /// [`ProcessError`]: the generation must be given up.
    pub fn seal(&mut self) -> Result<Sealed, ProcessError> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.seal_now()));
        caught.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    fn seal_now(&mut self) -> Result<Sealed, ProcessError> {
        self.signal(&Signal::BeforeSeal)?;
        let is_all_told = !self.must_go_on();
        let (stores, outputs) = self.core.stores_and_outputs();
        let mut written = vec![false; self.stores.len()];
        for (index, store) in stores.iter_mut().enumerate() {
            let changelog = self.stores.get(index).and_then(|s| s.changelog.as_ref());
            let mut writer = Changelog { outputs, to: changelog, written: &mut written[index] };
            if is_all_told {
                store.all_told();
            }
            store.seal(&mut writer)?;
        }
        let batches = outputs.take()?;
        let mut changelogs = Vec::new();
        for (store, own) in self.stores.iter().enumerate().filter(|(store, _)| written[*store]) {
            let Some((_, changelog)) = &own.changelog else {
                continue;
            };
            if let Some(batch) = batches.iter().rposition(|(to, _)| to == changelog) {
                changelogs.push(SealedChangelog { store, batch });
            }
        }
        let stream_time = self.core.stream_time();
        self.core.note_punctuated()?;
        let own_times = self.core.own_times();
        let mut offsets = Vec::new();
        // Times that moved without a record, by the wall clock, ride with an offset that did not. Who
        // follows topics finds at the next start whichever are left: the times ride with all of them.
        let moved = self.core.times_moved();
        let timed = !own_times.is_empty() || !self.core.schedules_mut().is_empty();
        let all = moved && timed && self.core.follows;
        let mut one = moved;
        one &= self.queues.iter().zip(&self.committed).all(|(q, at)| q.position() <= *at);
        self.core.times_sealed();
        for (queue, committed) in self.queues.iter().zip(&mut self.committed) {
            if queue.position() > *committed || all || std::mem::take(&mut one) {
                *committed = queue.position();
                let times = OffsetMetadata { partition_time: queue.time(), stream_time };
                let metadata = times.encode(&self.written, &own_times);
                let offset = CommittedOffset { offset: queue.position(), metadata };
                offsets.push((queue.partition().clone(), offset));
            }
        }
        let mut followed = Vec::new();
        for (store, own) in self.stores.iter().enumerate() {
            let Some(input) = &own.follows else { continue };
            let consumed = offsets.iter().find(|(partition, _)| partition == input);
            followed.extend(consumed.map(|(_, at)| (store, at.offset)));
        }
        let mut left_out = std::mem::take(&mut self.left_out);
        left_out.extend(self.core.take_entries_left_out());
        Ok(Sealed { batches, offsets, changelogs, followed, left_out })
    }
}

/// Appends the changelog records of one store to the outputs.
struct Changelog<'a> {
    outputs: &'a mut Outputs,
    to: Option<&'a (usize, TopicPartition)>,
    written: &'a mut bool,
}

impl ChangelogWriter for Changelog<'_> {
    fn put(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        let Some((output, changelog)) = self.to else {
            return Ok(());
        };
        *self.written = true;
        let partition = changelog.partition;
        self.outputs.send(*output, partition, timestamp, Some(key), value, &[]).map_err(|error| {
            StateError::Changelog { topic: changelog.topic.to_string(), reason: error.to_string() }
        })
    }
}
