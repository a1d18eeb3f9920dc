//! A running task.

mod sealing;

pub use sealing::{Cause, Sealed, SealedChangelog};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use broker_api::{Batch, Offset, TaskId, Timestamp, TopicPartition};

use super::{RecordQueue, TaskCore, WrittenTopics};
use crate::error::ProcessError;
use crate::failure::{Halt, LeftOut, Place, Stage};
use crate::processor::{PunctuationKind, Signal, take_blamed};
use crate::state::{Position, StoreEngine};
use crate::topology::{BuiltTask, TaskSource};

/// One partition of a sub-topology at work: takes fetched batches, pushes records through the
/// nodes, and hands out what a commit needs. It never reads or writes a broker itself.
pub struct Task {
    core: TaskCore,
    sources: Vec<TaskSource>,
    queues: Vec<RecordQueue>,
    stores: Vec<TaskStore>,
    written: WrittenTopics,
    /// Of each input: the position as of the last commit, or [`NEVER`].
    committed: Vec<Offset>,
    processed: u64,
    /// What is still to be left out, and what this generation has left out.
    to_leave_out: Vec<LeftOut>,
    left_out: Vec<Place>,
    /// Whether it was opened and has not gone on yet with what was unended at its last commit.
    fresh: bool,
}

/// No commit has a position of an input that one must have.
const NEVER: Offset = -1;

/// A store of a task, seen from its changelog.
pub struct TaskStore {
    /// Its changelog's number among the outputs and its partition; `None`: not logged.
    pub changelog: Option<(usize, TopicPartition)>,
    /// The input that stands in for a changelog.
    pub follows: Option<TopicPartition>,
    /// Where its bytes go.
    pub engine: Arc<dyn StoreEngine>,
    /// The fold of the changelog up to here is what has been sealed and applied.
    pub position: Position,
}

impl TaskStore {
    /// Whether it has neither a changelog nor an input that stands in for one: what the engine lacks is
    /// nowhere but in memory.
    pub fn is_unlogged(&self) -> bool {
        self.changelog.is_none() && self.follows.is_none()
    }
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
        let BuiltTask { mut core, sources } = built;
        core.going_on.set_offsets(queues.len());
        Self {
            core,
            sources,
            queues,
            stores,
            written,
            committed,
            processed: 0,
            to_leave_out: Vec::new(),
            left_out: Vec::new(),
            fresh: true,
        }
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

    /// Reads one more partition from now on. The next commit has its offset, with the times.
    pub fn add_input(&mut self, queue: RecordQueue) {
        self.core.times_unsealed();
        self.committed.push(queue.position());
        self.queues.push(queue);
        self.core.going_on.set_offsets(self.queues.len());
    }

    /// Reads a topic no more. What was not processed of it is forgotten, and how far that had come.
    pub fn remove_inputs(&mut self, topic: &str) {
        let mut committed = std::mem::take(&mut self.committed).into_iter();
        self.queues.retain(|queue| {
            let stays = *queue.partition().topic != *topic;
            let at = committed.next();
            self.committed.extend(at.filter(|_| stays));
            stays
        });
        self.core.going_on.set_offsets(self.queues.len());
    }

    /// Processes nothing before a commit has the position of this input: whoever opened the task again
    /// without that would find another one, and pass over what lies between.
    pub fn commit_position_first(&mut self, partition: &TopicPartition) {
        let at = self.queues.iter().position(|queue| queue.partition() == partition);
        if let Some(committed) = at.and_then(|at| self.committed.get_mut(at)) {
            *committed = NEVER;
        }
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

    /// Tells what to leave out of what comes.
    ///
    /// # Errors
    /// [`ProcessError::DeadLetter`].
    pub fn leave_out(&mut self, what: LeftOut) -> Result<(), ProcessError> {
        match what.place {
            Place::WallClock => {
                self.core.leave_out(what.stage, &what.letters)?;
                self.left_out.push(what.place);
            }
            Place::Entry(_) => self.core.leave_entry_out(what),
            Place::Record(..) | Place::StreamTime { .. } => self.to_leave_out.push(what),
        }
        Ok(())
    }

    /// Whether the generation should be sealed before the task goes on: because something was left out
    /// (what was replayed in vain need not be replayed again for the next record that fails), because
    /// there is no room for the rest of what a record lets go, or because a
    /// [position](Task::commit_position_first) must be known first.
    pub fn wants_seal(&mut self) -> bool {
        !self.left_out.is_empty()
            || self.committed.contains(&NEVER)
            || !self.core.entries_left_out().is_empty()
            || (self.core.is_unended() && !self.core.is_full() && !self.core.has_room())
    }

    /// Whether what one record lets go has not come to its end.
    pub fn is_unended(&self) -> bool {
        self.core.is_unended()
    }

    /// How many entries it has let go when going on with that, since its beginning.
    pub fn gone_on(&self) -> u64 {
        self.core.gone_on()
    }

    /// Tells how many bytes of outputs it may add to the generation, beside those that it has, and how
    /// many entries it may let go when going on. It may exceed both by one entry for each operator.
    pub fn give_room(&mut self, bytes: usize, entries: usize) {
        let own = self.output_bytes();
        self.core.set_room(own.saturating_add(bytes), entries);
    }

    /// Goes on with what one record lets go, as far as there is room.
    ///
    /// # Errors
    /// As [`Task::process`].
    pub fn go_on(&mut self) -> Result<(), Halt> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.go_on_some()));
        self.settle_panic(caught)
    }

    fn go_on_some(&mut self) -> Result<(), Halt> {
        if !self.must_go_on() || !self.core.has_room() {
            return Ok(());
        }
        self.fresh = false;
        self.core.begin_going_on();
        let gone_on = self.signal(&Signal::GoOn);
        if let Err(error) = gone_on {
            self.settle(error)?;
        }
        self.core.end_going_on();
        // What the record would have called.
        self.punctuate_due(PunctuationKind::StreamTime, self.core.stream_time())?;
        Ok(())
    }

    /// Whether something comes before the next record.
    pub fn must_go_on(&self) -> bool {
        self.fresh || self.core.is_unended()
    }

    /// Processes up to `max` records; answers how many there were. The partition whose next record
    /// is oldest goes first. While the broker has more for a partition of which nothing is here,
    /// the others wait.
    ///
    /// # Errors
    /// [`Halt`]: the generation must be given up.
    pub fn process(&mut self, max: usize) -> Result<usize, Halt> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.process_some(max)));
        self.settle_panic(caught)
    }

    fn process_some(&mut self, max: usize) -> Result<usize, Halt> {
        let mut done = 0;
        while done < max {
            if !self.goes_straight_on() && !self.makes_way()? {
                break;
            }
            let Some(chosen) = self.choose() else {
                break;
            };
            let (core, sources) = (&mut self.core, &mut self.sources);
            let (to_leave_out, left_out) = (&mut self.to_leave_out, &mut self.left_out);
            let taken = self.queues[chosen].next(|partition, source, record, batch, head| {
                core.set_source(partition, record.offset, batch);
                let source = &mut sources[source];
                let wall_clock = core.wall_clock();
                let time_of = || source.time_of(record, batch.bytes(), head.partition, wall_clock);
                if !to_leave_out.is_empty() {
                    let this = Place::Record(partition.clone(), record.offset);
                    if let Some(what) = take(to_leave_out, |place| *place == this) {
                        if let Err(error) = core.leave_out(what.stage, &what.letters) {
                            core.fail(error);
                        }
                        left_out.push(what.place);
                        // Time moves on with it, unless it is this that fails.
                        let timestamp = head.known.or_else(|| contained(time_of)).unwrap_or(-1);
                        core.advance_stream_time(timestamp);
                        return timestamp;
                    }
                }
                let timestamp = head.known.unwrap_or_else(time_of);
                if timestamp < 0 {
                    if source.source.skips_without_time() {
                        core.drop_record("no event time");
                        return timestamp;
                    }
                    let (partition, offset) = (partition.clone(), record.offset);
                    core.fail(ProcessError::Timestamp { partition, offset, timestamp });
                    return timestamp;
                }
                core.advance_stream_time(timestamp);
                source.source.feed(record, timestamp, batch.bytes(), core);
                timestamp
            });
            match taken {
                None => break,
                Some(Ok(())) => {
                    done += 1;
                    self.processed += 1;
                }
                Some(Err(error)) => {
                    let partition = self.queues[chosen].partition().clone();
                    let error = ProcessError::Input { partition, error };
                    return Err(Halt::fail(None, error));
                }
            }
            if let Some(error) = self.core.take_error() {
                self.settle(error)?;
            }
            if !self.core.schedules_mut().is_empty() {
                self.punctuate_due(PunctuationKind::StreamTime, self.core.stream_time())?;
            }
        }
        self.release_some()?;
        Ok(done)
    }

    /// Whether nothing can stand between one record and the next, as is usual.
    #[inline]
    fn goes_straight_on(&self) -> bool {
        let left_out = self.left_out.is_empty() && self.core.entries_left_out().is_empty();
        left_out && !self.must_go_on() && !self.core.is_asynchronous()
    }

    /// Does what comes before the next record; answers whether that may come now.
    fn makes_way(&mut self) -> Result<bool, Halt> {
        if self.wants_seal() {
            return Ok(false);
        }
        self.release_some()?;
        self.go_on_some()?;
        Ok(!self.core.is_full() && !self.must_go_on())
    }

    /// Forwards the results of calls that have ended, as far as they are due.
    ///
    /// # Errors
    /// As [`Task::process`].
    pub fn release(&mut self) -> Result<bool, Halt> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.release_some()));
        self.settle_panic(caught)
    }

    fn release_some(&mut self) -> Result<bool, Halt> {
        let mut any = false;
        while self.core.take_call_news() {
            any = true;
            // Errors of records are settled where they show.
            let signalled = self.signal(&Signal::Release);
            if let Some(halt) = self.core.take_halt() {
                return Err(halt);
            }
            signalled.map_err(|error| Halt::fail(None, error))?;
        }
        Ok(any)
    }

    /// How many calls are not dealt with. Nothing may be in flight when the task is sealed.
    pub fn calls_in_flight(&self) -> usize {
        self.core.calls_in_flight()
    }

    /// Asks about an error of the present record or punctuation.
    #[cold]
    fn settle(&mut self, error: ProcessError) -> Result<(), Halt> {
        if self.core.would_fail_again() {
            return Err(Halt::fail(None, error));
        }
        let place = self.core.take_place().unwrap_or(Place::WallClock);
        self.core.settle_at(Stage::Processing, error, place)
    }

    /// A panic is an error of the node whose code it was.
    fn settle_panic<T>(
        &mut self,
        caught: Result<Result<T, Halt>, Box<dyn Any + Send>>,
    ) -> Result<T, Halt> {
        match caught {
            Ok(result) => result,
            Err(panic) => {
                let error = panicked(&*panic);
                self.settle(error.clone())?;
                // A panic is never settled on the spot.
                Err(Halt::fail(None, error))
            }
        }
    }

    /// The queue whose next record is oldest. A panic in the search for its time is not of the record
    /// before: it shows again when this one's turn comes.
    fn choose(&mut self) -> Option<usize> {
        if self.queues.len() == 1 {
            return (!self.queues[0].is_empty()).then_some(0);
        }
        let mut best: Option<(Timestamp, usize)> = None;
        let (sources, wall_clock) = (&self.sources, self.core.wall_clock());
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let source = &sources[queue.source()];
            let head = queue.head_time(|record, batch, partition| {
                contained(|| source.time_of(record, batch.bytes(), partition, wall_clock))
            });
            match head {
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

    /// The event time of a batch's first record, were it the next one of an input.
    pub(crate) fn event_time(
        &self,
        partition: &TopicPartition,
        batch: &Batch,
    ) -> Option<Timestamp> {
        let queue = self.queues.iter().find(|queue| queue.partition() == partition)?;
        let (source, time) = (&self.sources[queue.source()], queue.time());
        let record = batch.records().next()?.ok()?;
        contained(|| source.time_of(&record, batch.bytes(), time, self.core.wall_clock()))
    }

    /// Calls the schedules that are due.
    ///
    /// # Errors
    /// As [`Task::process`].
    pub fn punctuate(&mut self, kind: PunctuationKind, now: Timestamp) -> Result<bool, Halt> {
        let caught = catch_unwind(AssertUnwindSafe(|| self.punctuate_due(kind, now)));
        self.settle_panic(caught)
    }

    fn punctuate_due(&mut self, kind: PunctuationKind, now: Timestamp) -> Result<bool, Halt> {
        let mut any = false;
        while !self.must_go_on()
            && let Some(schedule) = self.core.schedules_mut().take_due(kind, now)
        {
            any = true;
            let is_it = |place: &Place| match place {
                Place::StreamTime { schedule: its, timestamp } => {
                    *its == schedule && *timestamp <= now
                }
                _ => false,
            };
            if kind == PunctuationKind::StreamTime
                && let Some(what) = take(&mut self.to_leave_out, is_it)
            {
                let left = self.core.leave_out(what.stage, &what.letters);
                left.map_err(|error| Halt::fail(None, error))?;
                self.left_out.push(what.place);
                continue;
            }
            self.core.calling = Some(match kind {
                PunctuationKind::StreamTime => Place::StreamTime { schedule, timestamp: now },
                PunctuationKind::WallClock => Place::WallClock,
            });
            if let Err(error) = self.signal(&Signal::Punctuate { schedule, timestamp: now }) {
                self.settle(error)?;
            }
            self.core.calling = None;
        }
        if kind == PunctuationKind::StreamTime && !self.must_go_on() {
            self.core.has_punctuated();
        }
        Ok(any)
    }

    fn signal(&mut self, signal: &Signal) -> Result<(), ProcessError> {
        self.core.clear_source();
        self.core.drains = matches!(signal, Signal::BeforeSeal | Signal::GoOn);
        let slots = 0..self.core.arena.len();
        // Children were built first, so from the back the arena is in topological order.
        if *signal == Signal::GoOn {
            slots.for_each(|slot| self.signal_slot(slot, signal));
            self.signal_sources(signal);
        } else {
            self.signal_sources(signal);
            slots.rev().for_each(|slot| self.signal_slot(slot, signal));
        }
        self.core.drains = false;
        self.core.take_error().map_or(Ok(()), Err)
    }

    fn signal_sources(&mut self, signal: &Signal) {
        for source in &mut self.sources {
            source.source.signal(signal, &mut self.core);
        }
    }

    fn signal_slot(&mut self, slot: usize, signal: &Signal) {
        if let Some(mut node) = self.core.arena[slot].take() {
            node.signal(signal, &mut self.core);
            self.core.arena[slot] = Some(node);
        }
    }
}

/// The event time that the application's code finds; `None` if it panics.
fn contained(time_of: impl FnOnce() -> Timestamp) -> Option<Timestamp> {
    let found = catch_unwind(AssertUnwindSafe(time_of));
    found.inspect_err(|_| drop(take_blamed())).ok() // nobody is told yet
}

/// Takes what is at a place out of a list.
fn take(from: &mut Vec<LeftOut>, is_it: impl Fn(&Place) -> bool) -> Option<LeftOut> {
    let index = from.iter().position(|what| is_it(&what.place))?;
    Some(from.swap_remove(index))
}

/// A panic as an error.
fn panicked(panic: &(dyn Any + Send)) -> ProcessError {
    ProcessError::Panic { node: take_blamed(), message: panic_message(panic) }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
