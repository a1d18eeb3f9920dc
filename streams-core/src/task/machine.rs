//! A running task.

use std::sync::Arc;

use broker_api::{Batch, CommittedOffset, Offset, TaskId, Timestamp, TopicPartition};

use super::{OffsetMetadata, Outputs, RecordQueue, TaskCore, WrittenTopics};
use crate::error::{ProcessError, StateError};
use crate::processor::{PunctuationKind, Signal};
use crate::state::{ChangelogWriter, Position, StoreEngine};
use crate::topology::{BuiltTask, TaskSource};

/// One partition of a sub-topology at work: takes fetched batches, pushes records through the
/// nodes, and hands out what a commit needs. It never reads or writes a broker itself.
pub struct Task {
    core: TaskCore,
    sources: Vec<TaskSource>,
    queues: Vec<RecordQueue>,
    stores: Vec<TaskStore>,
    written: WrittenTopics,
    committed: Vec<Offset>,
    processed: u64,
}

/// A store of a task, seen from its changelog.
pub struct TaskStore {
    /// Its changelog's number among the outputs and its partition; `None`: not logged.
    pub changelog: Option<(usize, TopicPartition)>,
    /// Where its bytes go.
    pub engine: Arc<dyn StoreEngine>,
    /// The fold of the changelog up to here is what has been sealed and applied.
    pub position: Position,
}

/// What a task contributes to a commit.
pub struct Sealed {
    /// Batches to append.
    pub batches: Vec<(TopicPartition, Batch)>,
    /// Inputs consumed.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// The last changelog batch of each store that was written.
    pub changelogs: Vec<SealedChangelog>,
}

/// The last changelog batch of a store in a commit.
pub struct SealedChangelog {
    /// The store's number in its task.
    pub store: usize,
    /// The batch's number in [`Sealed::batches`].
    pub batch: usize,
}

impl Task {
    /// A task whose stores are restored. `queues` are its inputs, `written` the internal topics on
    /// which its commits rely.
    pub fn new(
        built: BuiltTask,
        queues: Vec<RecordQueue>,
        stores: Vec<TaskStore>,
        written: WrittenTopics,
    ) -> Self {
        let committed = queues.iter().map(RecordQueue::position).collect();
        let BuiltTask { core, sources } = built;
        Self { core, sources, queues, stores, written, committed, processed: 0 }
    }

    /// Its id.
    pub fn id(&self) -> TaskId {
        self.core.id()
    }

    /// What its nodes share.
    pub fn core(&self) -> &TaskCore {
        &self.core
    }

    /// What its nodes share, to be changed.
    pub fn core_mut(&mut self) -> &mut TaskCore {
        &mut self.core
    }

    /// Its inputs.
    pub fn queues(&self) -> &[RecordQueue] {
        &self.queues
    }

    /// The input from this partition.
    pub fn queue_mut(&mut self, partition: &TopicPartition) -> Option<&mut RecordQueue> {
        self.queues.iter_mut().find(|queue| queue.partition() == partition)
    }

    /// Its stores, in the order of the core's.
    pub fn stores_mut(&mut self) -> &mut [TaskStore] {
        &mut self.stores
    }

    /// How many records it has processed.
    pub fn processed(&self) -> u64 {
        self.processed
    }

    /// Processes up to `max` records; answers how many there were. The partition whose next record
    /// is oldest goes first. While the broker has more for a partition of which nothing is here,
    /// the others wait.
    ///
    /// # Errors
    /// [`ProcessError`]: the generation must be given up.
    pub fn process(&mut self, max: usize) -> Result<usize, ProcessError> {
        let mut done = 0;
        while done < max {
            let Some(chosen) = self.choose() else {
                break;
            };
            let (core, sources) = (&mut self.core, &mut self.sources);
            let taken = self.queues[chosen].next(|partition, source, record, batch| {
                core.set_source(partition, record.offset);
                if record.timestamp < 0 {
                    let (partition, offset) = (partition.clone(), record.offset);
                    let timestamp = record.timestamp;
                    core.fail(ProcessError::Timestamp { partition, offset, timestamp });
                    return;
                }
                core.advance_stream_time(record.timestamp);
                sources[source].source.feed(record, batch.bytes(), core);
            });
            match taken {
                None => break,
                Some(Ok(())) => done += 1,
                Some(Err(error)) => {
                    let partition = self.queues[chosen].partition().clone();
                    return Err(ProcessError::Input { partition, error });
                }
            }
            if let Some(error) = self.core.take_error() {
                return Err(error);
            }
            if !self.core.schedules_mut().is_empty() {
                self.punctuate(PunctuationKind::StreamTime, self.core.stream_time())?;
            }
        }
        self.processed += done as u64;
        Ok(done)
    }

    /// The queue whose next record is oldest.
    fn choose(&mut self) -> Option<usize> {
        if self.queues.len() == 1 {
            return (!self.queues[0].is_empty()).then_some(0);
        }
        let mut best: Option<(Timestamp, usize)> = None;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            match queue.head_timestamp() {
                Some(head) if best.is_none_or(|(oldest, _)| head < oldest) => {
                    best = Some((head, index));
                }
                Some(_) => {}
                None if queue.at_end() => {}
                None => return None,
            }
        }
        best.map(|(_, index)| index)
    }

    /// Calls the schedules that are due.
    ///
    /// # Errors
    /// As [`Task::process`].
    pub fn punctuate(
        &mut self,
        kind: PunctuationKind,
        now: Timestamp,
    ) -> Result<bool, ProcessError> {
        let mut any = false;
        while let Some(schedule) = self.core.schedules_mut().take_due(kind, now) {
            any = true;
            self.signal(&Signal::Punctuate { schedule, timestamp: now })?;
        }
        Ok(any)
    }

    fn signal(&mut self, signal: &Signal) -> Result<(), ProcessError> {
        self.core.clear_source();
        for source in &mut self.sources {
            source.source.signal(signal, &mut self.core);
        }
        // Children were built first, so from the back the arena is in topological order.
        for slot in (0..self.core.arena.len()).rev() {
            if let Some(mut node) = self.core.arena[slot].take() {
                node.signal(signal, &mut self.core);
                self.core.arena[slot] = Some(node);
            }
        }
        self.core.take_error().map_or(Ok(()), Err)
    }

    /// Whether a commit would have something to say.
    pub fn has_uncommitted(&mut self) -> bool {
        let moved = self.queues.iter().zip(&self.committed).any(|(q, done)| q.position() > *done);
        moved
            || self.core.times_moved()
            || self.core.outputs_mut().bytes() > 0
            || self.core.stores_mut().iter_mut().any(|store| store.has_uncommitted())
    }

    /// Bytes of outputs that wait for the seal, and about how many the seal will add.
    pub fn output_bytes(&mut self) -> usize {
        let stores = self.core.stores_mut().iter_mut();
        let unsealed: usize = stores.map(|store| store.unsealed_bytes()).sum();
        unsealed + self.core.outputs_mut().bytes()
    }

    /// Ends the generation: drains caches through the nodes, encodes what stores have changed, and
    /// hands out everything that must take effect together.
    ///
    /// # Errors
    /// [`ProcessError`]: the generation must be given up.
    pub fn seal(&mut self) -> Result<Sealed, ProcessError> {
        self.signal(&Signal::BeforeSeal)?;
        let (stores, outputs) = self.core.stores_and_outputs();
        let mut written = vec![false; self.stores.len()];
        for (index, store) in stores.iter_mut().enumerate() {
            let changelog = self.stores.get(index).and_then(|s| s.changelog.as_ref());
            let mut writer = Changelog { outputs, to: changelog, written: &mut written[index] };
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
        let own_times = self.core.own_times();
        let mut offsets = Vec::new();
        // Times that moved without a record, by the wall clock, ride with an offset that did not.
        let mut times_moved = self.core.times_moved();
        times_moved &= self.queues.iter().zip(&self.committed).all(|(q, at)| q.position() <= *at);
        self.core.times_sealed();
        for (queue, committed) in self.queues.iter().zip(&mut self.committed) {
            if queue.position() > *committed || std::mem::take(&mut times_moved) {
                *committed = queue.position();
                let times = OffsetMetadata { partition_time: queue.time(), stream_time };
                let metadata = times.encode(&self.written, &own_times);
                let offset = CommittedOffset { offset: queue.position(), metadata };
                offsets.push((queue.partition().clone(), offset));
            }
        }
        Ok(Sealed { batches, offsets, changelogs })
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
