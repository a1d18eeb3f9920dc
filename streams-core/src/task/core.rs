//! What the nodes of a task share.

mod holding;

pub(crate) use holding::Bell;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use broker_api::{Batch, Offset, RecordRef, TaskId, Timestamp, TopicPartition};

use super::calls::{Calls, Held};
use super::going_on::GoingOn;
use super::trace::Trace;
use super::{
    Globals, OutputTopic, Outputs, OwnTimes, Schedules, Stores, WallClockNote, WallClocks,
};
use crate::error::ProcessError;
use crate::executor::{Executor, RunToEnd};
use crate::failure::{ErrorHandlers, Halt, Place, RawRecord};
use crate::processor::{PunctuationKind, SourceInfo};
use crate::topology::ArenaNode;

/// What a task is told about the application it belongs to.
#[derive(Clone)]
pub struct TaskSettings {
    /// The application's id.
    pub application_id: Arc<str>,
    /// What happens to what cannot be handled.
    pub handlers: ErrorHandlers,
    /// Finds the topics of dead letters, by the names that the topology uses.
    pub topics: TopicLookup,
    /// The stores that all tasks of the process read.
    pub globals: Globals,
    /// Where async operators call.
    pub executor: Option<Arc<dyn Executor>>,
    /// Is woken when a call has ended.
    pub waker: Waker,
    /// How long the text of a committed offset may be, in bytes.
    pub max_offset_metadata_bytes: usize,
}

/// Finds a topic by its name, or tells why not: [`ProcessError::Output`] if there is none,
/// [`ProcessError::TopicAsked`] if that is not known yet.
pub type TopicLookup = Arc<dyn Fn(&str) -> Result<OutputTopic, ProcessError> + Send + Sync>;

impl Default for TaskSettings {
    /// No name, the default handlers, no topics; calls run to their end at once. The text of an offset
    /// may be as long as in Kafka.
    fn default() -> Self {
        Self {
            application_id: "".into(),
            handlers: ErrorHandlers::default(),
            topics: Arc::new(|topic: &str| Err(no_topic(topic))),
            globals: Globals::default(),
            executor: Some(Arc::new(RunToEnd::default())),
            waker: Waker::noop().clone(),
            max_offset_metadata_bytes: 4096,
        }
    }
}

/// There is no topic of this name.
pub(crate) fn no_topic(topic: &str) -> ProcessError {
    let error = broker_api::Error::UnknownTopic { topic: topic.into() };
    ProcessError::Output { topic: topic.into(), error }
}

/// The part of a task that its nodes work on: stores, outputs, times, the arena of nodes with
/// several parents, and the first error.
pub struct TaskCore {
    id: TaskId,
    settings: TaskSettings,
    stores: Stores,
    outputs: Outputs,
    schedules: Schedules,
    /// Caches are being drained, as the generation ends, or operators go on with what that has let go.
    pub(super) drains: bool,
    pub(crate) arena: Vec<Option<Box<dyn ArenaNode>>>,
    error: Option<ProcessError>,
    /// Why a result of a call could not go on.
    halt: Option<Halt>,
    /// The record that is being processed or, if `from_record` is not set, the last one that was.
    source: Option<Present>,
    from_record: bool,
    /// Whether the present record has changed a store or written something.
    touched: bool,
    /// The punctuation that is being called.
    pub(super) calling: Option<Place>,
    calls: Calls,
    /// Whether it has async operators.
    asynchronous: bool,
    /// Whether it reads topics that come and go.
    pub(crate) follows: bool,
    /// What the present record, punctuation or seal has in flight.
    holding: Option<Held>,
    stream_time: Timestamp,
    operator_times: Vec<(String, Timestamp)>,
    /// What operators note by the wall clock.
    notes: Vec<(String, WallClockNote)>,
    /// What stream time and the times of operators and stores were at the last seal.
    sealed_times: Vec<Timestamp>,
    pub(super) going_on: GoingOn,
    wall_clock: Timestamp,
    commit_requested: bool,
    trace: Option<Box<Trace>>,
    dropped: BTreeMap<&'static str, u64>,
}

/// The record that is being processed.
#[derive(Clone)]
pub(super) struct Present {
    partition: TopicPartition,
    offset: Offset,
    /// Where its bytes are, should somebody ask.
    batch: Batch,
}

impl Present {
    #[inline]
    fn is_in(&self, partition: &TopicPartition, batch: &Batch) -> bool {
        self.batch.bytes().as_ptr() == batch.bytes().as_ptr()
            && self.batch.base_offset() == batch.base_offset()
            && self.partition.partition == partition.partition
            && Arc::ptr_eq(&self.partition.topic, &partition.topic)
    }
}

/// What the further time of a store is called; no store or operator has such a name.
fn further_time(store: &str, number: usize) -> String {
    format!("{store}\0{number}")
}

impl TaskCore {
    /// A task without stores and outputs.
    pub fn new(id: TaskId, settings: TaskSettings) -> Self {
        Self {
            going_on: GoingOn::new(&settings),
            id,
            settings,
            stores: Stores::default(),
            outputs: Outputs::default(),
            schedules: Schedules::default(),
            drains: false,
            arena: Vec::new(),
            error: None,
            halt: None,
            source: None,
            from_record: false,
            touched: false,
            calling: None,
            calls: Calls::default(),
            asynchronous: false,
            follows: false,
            holding: None,
            stream_time: -1,
            operator_times: Vec::new(),
            notes: Vec::new(),
            sealed_times: Vec::new(),
            wall_clock: 0,
            commit_requested: false,
            trace: None,
            dropped: BTreeMap::new(),
        }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Whether caches are being drained, as the generation ends, or operators go on after that.
    pub fn drains(&self) -> bool {
        self.drains
    }

    /// The application's id.
    pub fn application_id(&self) -> &str {
        &self.settings.application_id
    }

    /// The stores that all tasks of the process read.
    pub fn globals(&self) -> &Globals {
        &self.settings.globals
    }

    /// The stores.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The stores, to be changed.
    pub fn stores_mut(&mut self) -> &mut Stores {
        &mut self.stores
    }

    /// The outputs.
    pub fn outputs_mut(&mut self) -> &mut Outputs {
        &mut self.outputs
    }

    /// Stores and outputs at once.
    pub fn stores_and_outputs(&mut self) -> (&mut Stores, &mut Outputs) {
        (&mut self.stores, &mut self.outputs)
    }

    /// The schedules.
    pub fn schedules_mut(&mut self) -> &mut Schedules {
        &mut self.schedules
    }

    /// Tells where the wall clock stands when the task starts; stream time is known by then.
    pub fn start(&mut self, wall_clock: Timestamp) {
        self.wall_clock = wall_clock;
        let punctuated = self.start_punctuated();
        self.schedules.start(wall_clock, punctuated);
    }

    /// Where the time of a kind stands.
    pub fn time(&self, kind: PunctuationKind) -> Timestamp {
        match kind {
            PunctuationKind::StreamTime => self.stream_time,
            PunctuationKind::WallClock => self.wall_clock,
        }
    }

    /// Notes an error; the first one stands.
    #[cold]
    pub fn fail(&mut self, error: ProcessError) {
        self.error.get_or_insert(error);
    }

    /// Notes that the present input is malformed.
    #[cold]
    pub fn fail_input(&mut self, error: broker_api::Error) {
        if let Some(SourceInfo { partition, .. }) = self.source() {
            self.fail(ProcessError::Input { partition, error });
        }
    }

    /// Whether an error was noted.
    pub fn has_failed(&self) -> bool {
        self.error.is_some() || self.halt.is_some()
    }

    /// Takes the error.
    pub fn take_error(&mut self) -> Option<ProcessError> {
        self.error.take()
    }

    /// Says which record comes next.
    #[inline]
    pub fn set_source(&mut self, partition: &TopicPartition, offset: Offset, batch: &Batch) {
        self.let_go();
        self.from_record = true;
        match &mut self.source {
            // A record in the same batch as the last one is the rule.
            Some(present) if present.is_in(partition, batch) => present.offset = offset,
            _ => self.enter_batch(partition, offset, batch),
        }
    }

    #[cold]
    fn enter_batch(&mut self, partition: &TopicPartition, offset: Offset, batch: &Batch) {
        let (partition, batch) = (partition.clone(), batch.clone());
        self.source = Some(Present { partition, offset, batch });
    }

    /// Says that what comes next does not stem from a record.
    pub fn clear_source(&mut self) {
        self.let_go();
        self.from_record = false;
    }

    /// What follows belongs to something else. Calls for what went before remember whether it has
    /// left something behind.
    #[inline]
    fn let_go(&mut self) {
        self.hold_nothing();
        self.touched = false;
        self.going_on.forget_entry();
    }

    /// Says that what comes next stems from the last record.
    pub(super) fn set_last_source(&mut self) {
        self.from_record = true;
    }

    /// Where the present record came from.
    pub fn source(&self) -> Option<SourceInfo> {
        let present = self.source.as_ref().filter(|_| self.from_record)?;
        Some(SourceInfo { partition: present.partition.clone(), offset: present.offset })
    }

    /// The present record as it was read.
    #[cold]
    pub fn raw_record(&self) -> Option<RawRecord> {
        let present = self.source.as_ref().filter(|_| self.from_record)?;
        let Present { partition, offset, batch } = present;
        let is_it = |record: &RecordRef<'_>| record.offset == *offset;
        let record = batch.records().filter_map(Result::ok).find(is_it)?;
        let slice = |bytes: Option<&[u8]>| bytes.map(|bytes| batch.bytes().slice_ref(bytes));
        Some(RawRecord {
            partition: partition.clone(),
            offset: *offset,
            timestamp: record.timestamp,
            key: slice(record.key),
            value: slice(record.value),
            headers: record.headers.to_vec().unwrap_or_default(),
        })
    }

    /// Notes that the present record has changed a store or written something.
    #[inline]
    pub fn touch(&mut self) {
        self.touched = true;
    }

    /// Whether it has.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// The highest timestamp seen; -1 before the first record.
    pub fn stream_time(&self) -> Timestamp {
        self.stream_time
    }

    /// Moves stream time forward; it never goes back.
    pub fn advance_stream_time(&mut self, to: Timestamp) {
        self.stream_time = self.stream_time.max(to);
    }

    /// The number of the operator's time of this name, which begins at -1.
    pub fn operator_time(&mut self, name: &str) -> usize {
        let known = self.operator_times.iter().position(|(known, _)| known == name);
        known.unwrap_or_else(|| {
            self.operator_times.push((name.to_owned(), -1));
            self.operator_times.len() - 1
        })
    }

    /// An operator's time, by its number, to be changed.
    pub fn operator_time_mut(&mut self, number: usize) -> &mut Timestamp {
        &mut self.operator_times[number].1
    }

    /// The number of the note of this name, which is empty at first.
    pub(crate) fn note(&mut self, name: &str) -> usize {
        let known = self.notes.iter().position(|(known, _)| known == name);
        known.unwrap_or_else(|| {
            self.notes.push((name.to_owned(), None));
            self.notes.len() - 1
        })
    }

    /// A note, by its number, to be changed.
    pub(crate) fn note_mut(&mut self, number: usize) -> &mut WallClockNote {
        &mut self.notes[number].1
    }

    /// What goes by the wall clock, for the task when it is opened again.
    pub fn wall_clocks(&self) -> WallClocks {
        let mut clocks = self.schedules.wall_clocks();
        clocks.notes.clone_from(&self.notes);
        clocks
    }

    /// Goes on with that, before it starts.
    pub fn keep(&mut self, before: &WallClocks) {
        self.schedules.keep(before);
        for (name, note) in &mut self.notes {
            let known = before.notes.iter().find(|(known, _)| known == name);
            *note = known.and_then(|(_, note)| *note);
        }
    }

    /// Whether stream time or the times of operators and stores have moved since the last seal.
    pub fn times_moved(&mut self) -> bool {
        let Self { operator_times, stores, going_on, sealed_times, stream_time, .. } = self;
        let operators = operator_times.iter().map(|(_, time)| *time);
        let stores = stores.iter_mut().map(|store| store.time());
        let times = [*stream_time].into_iter().chain(operators).chain(going_on.marks());
        times.chain(stores).ne(sealed_times.iter().copied())
    }

    /// The times are to be committed once more, whether they move or not: there is an input whose
    /// offset has not got them.
    pub fn times_unsealed(&mut self) {
        self.sealed_times.clear();
    }

    /// The times are as they will be committed.
    pub fn times_sealed(&mut self) {
        self.times_unsealed();
        self.sealed_times.push(self.stream_time);
        self.sealed_times.extend(self.operator_times.iter().map(|(_, time)| *time));
        self.sealed_times.extend(self.going_on.marks());
        self.going_on.sealed();
        self.sealed_times.extend(self.stores.iter_mut().map(|store| store.time()));
    }

    /// The times of operators and stores.
    pub fn own_times(&mut self) -> OwnTimes {
        let mut times = OwnTimes::default();
        for (name, time) in &self.operator_times {
            times.add(name, *time);
        }
        for store in self.stores.iter_mut().filter(|store| store.time() >= 0) {
            times.add(store.name(), store.time());
            for (number, time) in store.further_times().iter().enumerate() {
                times.add(&further_time(store.name(), number), *time);
            }
        }
        self.add_marks(&mut times);
        times
    }

    /// Sets the times of operators and stores, and bookmarks, to what they were at a commit.
    pub fn resume(&mut self, times: &OwnTimes) {
        for (name, time) in &mut self.operator_times {
            *time = times.get(name).unwrap_or(*time);
        }
        for store in self.stores.iter_mut() {
            if let Some(time) = times.get(store.name()) {
                store.advance_time(time);
            }
            let further = |number| times.get(&further_time(store.name(), number));
            let further: Vec<_> = (0..store.further_times().len()).map_while(further).collect();
            store.resume_further_times(&further);
        }
        self.resume_marks(times);
        self.times_sealed();
    }

    /// The wall clock as of the present step.
    pub fn wall_clock(&self) -> Timestamp {
        self.wall_clock
    }

    /// Sets the wall clock.
    pub fn set_wall_clock(&mut self, now: Timestamp) {
        self.wall_clock = now;
    }

    /// Asks for a commit soon.
    pub fn request_commit(&mut self) {
        self.commit_requested = true;
    }

    /// Whether a commit was asked for since the last call.
    pub fn take_commit_request(&mut self) -> bool {
        std::mem::take(&mut self.commit_requested)
    }

    /// The ways of records are noted from now on, or not.
    pub fn set_tracing(&mut self, on: bool) {
        match on {
            true => drop(self.trace.get_or_insert_default()),
            false => self.trace = None,
        }
    }

    /// Whether they are.
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// A record comes to a node.
    #[cold]
    pub fn trace_enter(&mut self, node: &str) {
        if let Some(trace) = &mut self.trace {
            trace.enter(node);
        }
    }

    /// And has been on all its ways from there.
    #[cold]
    pub fn trace_leave(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.leave();
        }
    }

    /// Something happens to it.
    #[cold]
    pub fn trace_note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.enter(&what());
            trace.leave();
        }
    }

    /// The ways of records since the last call.
    pub fn take_trace(&mut self) -> String {
        self.trace.as_mut().map(|trace| trace.take()).unwrap_or_default()
    }

    /// Counts a record that was left out.
    pub fn drop_record(&mut self, reason: &'static str) {
        if self.is_traced() {
            self.trace_note(|| format!("left out: {reason}"));
        }
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// How many records were left out, by reason.
    pub fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
    }

    /// The same, counted anew from now on.
    pub fn take_dropped(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.dropped)
    }

    /// What the task was told about its application.
    pub fn settings(&self) -> &TaskSettings {
        &self.settings
    }
}
