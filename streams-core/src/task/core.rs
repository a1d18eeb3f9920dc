//! What the nodes of a task share.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_api::{TaskId, Timestamp, TopicPartition};

use super::{Outputs, OwnTimes, Schedules, Stores};
use crate::error::ProcessError;
use crate::processor::{DeserializationHandler, PunctuationKind, SourceInfo};
use crate::topology::ArenaNode;

/// What a task is told about the application it belongs to.
#[derive(Clone)]
pub struct TaskSettings {
    /// The application's id.
    pub application_id: Arc<str>,
    /// What happens to records that cannot be decoded.
    pub deserialization_handler: DeserializationHandler,
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
    source: Option<(TopicPartition, i64)>,
    stream_time: Timestamp,
    operator_times: Vec<(String, Timestamp)>,
    /// What operators' times were at the last seal.
    sealed_times: Vec<Timestamp>,
    wall_clock: Timestamp,
    commit_requested: bool,
    dropped: BTreeMap<&'static str, u64>,
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
        if let Some((partition, _)) = self.source.clone() {
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
    pub fn set_source(&mut self, partition: &TopicPartition, offset: i64) {
        match &mut self.source {
            Some((present, at)) if Arc::ptr_eq(&present.topic, &partition.topic) => {
                present.partition = partition.partition;
                *at = offset;
            }
            source => *source = Some((partition.clone(), offset)),
        }
    }

    /// Says that what comes next does not stem from a record.
    pub fn clear_source(&mut self) {
        self.source = None;
    }

    /// Where the present record came from.
    pub fn source(&self) -> Option<SourceInfo> {
        let (partition, offset) = self.source.clone()?;
        Some(SourceInfo { partition, offset })
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
            self.sealed_times.push(-1);
            self.operator_times.len() - 1
        })
    }

    /// An operator's time, by its number, to be changed.
    pub fn operator_time_mut(&mut self, number: usize) -> &mut Timestamp {
        &mut self.operator_times[number].1
    }

    /// Whether operators' times have moved since the last seal.
    pub fn times_moved(&self) -> bool {
        self.operator_times.iter().map(|(_, time)| time).ne(&self.sealed_times)
    }

    /// Operators' times are as they will be committed.
    pub fn times_sealed(&mut self) {
        self.sealed_times.clear();
        self.sealed_times.extend(self.operator_times.iter().map(|(_, time)| *time));
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
        self.times_sealed();
        for store in self.stores.iter_mut() {
            if let Some(time) = times.get(store.name()) {
                store.advance_time(time);
            }
        }
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

    /// What decides on records that cannot be decoded.
    pub fn deserialization_handler(&self) -> &DeserializationHandler {
        &self.settings.deserialization_handler
    }
}
