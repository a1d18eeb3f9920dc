//! What the nodes of a task share.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_api::{Batch, Offset, RecordRef, TaskId, Timestamp, TopicPartition};

use super::{Globals, OutputTopic, Outputs, OwnTimes, Schedules, Stores};
use crate::error::ProcessError;
use crate::failure::{ErrorHandlers, RawRecord};
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
}

/// Finds a topic by its name.
pub type TopicLookup = Arc<dyn Fn(&str) -> Option<OutputTopic> + Send + Sync>;

impl Default for TaskSettings {
    /// No name, the default handlers, no topics.
    fn default() -> Self {
        let topics = Arc::new(|_: &str| None);
        let (handlers, globals) = (ErrorHandlers::default(), Globals::default());
        Self { application_id: "".into(), handlers, topics, globals }
    }
}

/// The part of a task that its nodes work on: stores, outputs, times, the arena of nodes with
/// several parents, and the first error.
pub struct TaskCore {
    id: TaskId,
    settings: TaskSettings,
    stores: Stores,
    outputs: Outputs,
    schedules: Schedules,
    pub(crate) arena: Vec<Option<Box<dyn ArenaNode>>>,
    error: Option<ProcessError>,
    /// The record that is being processed or, if `from_record` is not set, the last one that was.
    source: Option<Present>,
    from_record: bool,
    /// Whether the present record has changed a store or written something.
    touched: bool,
    stream_time: Timestamp,
    operator_times: Vec<(String, Timestamp)>,
    /// What the times of operators and stores were at the last seal.
    sealed_times: Vec<Timestamp>,
    wall_clock: Timestamp,
    commit_requested: bool,
    dropped: BTreeMap<&'static str, u64>,
}

/// The record that is being processed.
struct Present {
    partition: TopicPartition,
    offset: Offset,
    /// Where its bytes are, should somebody ask.
    batch: Batch,
}

impl TaskCore {
    /// A task without stores and outputs.
    pub fn new(id: TaskId, settings: TaskSettings) -> Self {
        Self {
            id,
            settings,
            stores: Stores::default(),
            outputs: Outputs::default(),
            schedules: Schedules::default(),
            arena: Vec::new(),
            error: None,
            source: None,
            from_record: false,
            touched: false,
            stream_time: -1,
            operator_times: Vec::new(),
            sealed_times: Vec::new(),
            wall_clock: 0,
            commit_requested: false,
            dropped: BTreeMap::new(),
        }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
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
        self.schedules.start(wall_clock, self.stream_time);
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
        self.error.is_some()
    }

    /// Takes the error.
    pub fn take_error(&mut self) -> Option<ProcessError> {
        self.error.take()
    }

    /// Says which record comes next.
    pub fn set_source(&mut self, partition: &TopicPartition, offset: Offset, batch: &Batch) {
        self.touched = false;
        self.from_record = true;
        match &mut self.source {
            Some(present) if Arc::ptr_eq(&present.partition.topic, &partition.topic) => {
                present.partition.partition = partition.partition;
                present.offset = offset;
                // A record in the same batch as the last one is the rule.
                if present.batch.bytes().as_ptr() != batch.bytes().as_ptr()
                    || present.batch.base_offset() != batch.base_offset()
                {
                    present.batch = batch.clone();
                }
            }
            source => {
                *source =
                    Some(Present { partition: partition.clone(), offset, batch: batch.clone() });
            }
        }
    }

    /// Says that what comes next does not stem from a record.
    pub fn clear_source(&mut self) {
        self.touched = false;
        self.from_record = false;
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

    /// Whether the times of operators and stores have moved since the last seal.
    pub fn times_moved(&mut self) -> bool {
        let operators = self.operator_times.iter().map(|(_, time)| *time);
        let stores = self.stores.iter_mut().map(|store| store.time());
        operators.chain(stores).ne(self.sealed_times.iter().copied())
    }

    /// The times of operators and stores are as they will be committed.
    pub fn times_sealed(&mut self) {
        self.sealed_times.clear();
        self.sealed_times.extend(self.operator_times.iter().map(|(_, time)| *time));
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
        }
        times
    }

    /// Sets the times of operators and stores to what they were at a commit.
    pub fn resume(&mut self, times: &OwnTimes) {
        for (name, time) in &mut self.operator_times {
            *time = times.get(name).unwrap_or(*time);
        }
        for store in self.stores.iter_mut() {
            if let Some(time) = times.get(store.name()) {
                store.advance_time(time);
            }
        }
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

    /// Counts a record that was left out.
    pub fn drop_record(&mut self, reason: &'static str) {
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
