//! What application code implements and uses: processors and their contexts.

use std::any::Any;
use std::marker::PhantomData;
use std::time::Duration;

use broker_api::{TaskId, Timestamp, TopicPartition};

use super::Children;
use crate::error::{BuildError, ProcessError};
use crate::record::{Data, Record};
use crate::state::Store;
use crate::task::{GlobalStore, TaskCore, WallClockNote};

/// A node of the topology, written by hand. It may keep fields, but what has to survive belongs in
/// a store: fields are gone when the task moves, restarts or gives up a generation.
///
/// ```
/// use streams_core::{ProcessError, Record};
/// use streams_core::processor::{Context, Processor};
///
/// struct Double;
/// impl Processor for Double {
///     type KIn = String;
///     type VIn = i64;
///     type KOut = String;
///     type VOut = i64;
///     fn process(
///         &mut self,
///         record: Record<String, i64>,
///         cx: &mut Context<'_, String, i64>,
///     ) -> Result<(), ProcessError> {
///         let doubled = record.value * 2;
///         cx.forward(record.with_value(doubled));
///         Ok(())
///     }
/// }
/// ```
pub trait Processor: Send + 'static {
    /// The keys that it takes.
    type KIn: Data;
    /// The values that it takes.
    type VIn: Data;
    /// The keys that it forwards.
    type KOut: Data;
    /// The values that it forwards.
    type VOut: Data;

    /// Called once, before the first record: find stores, schedule punctuations.
    ///
    /// # Errors
    /// [`BuildError`] if the topology lacks something; found when it is built.
    fn init(&mut self, _cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        Ok(())
    }

    /// Processes a record.
    ///
    /// # Errors
    /// [`ProcessError`]: nothing of the generation takes effect.
    fn process(
        &mut self,
        record: Record<Self::KIn, Self::VIn>,
        cx: &mut Context<'_, Self::KOut, Self::VOut>,
    ) -> Result<(), ProcessError>;

    /// The generation is about to be sealed: forward what was held back.
    ///
    /// # Errors
    /// As [`Processor::process`].
    fn before_seal(
        &mut self,
        _cx: &mut Context<'_, Self::KOut, Self::VOut>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }

    /// There is room again after a commit: go on with what was stopped because [`Context::let_go`] said so.
    /// Also called once when a task is opened, before its first record: what was unended at the last
    /// commit is to be known from stores, or from a [`Bookmark`](super::Bookmark). Does nothing where
    /// nothing is unended.
    ///
    /// # Errors
    /// As [`Processor::process`].
    fn go_on(&mut self, _cx: &mut Context<'_, Self::KOut, Self::VOut>) -> Result<(), ProcessError> {
        Ok(())
    }

    /// A schedule of this processor is due; `timestamp` is the present time of its kind.
    ///
    /// # Errors
    /// As [`Processor::process`].
    fn punctuate(
        &mut self,
        _schedule: Schedule,
        _timestamp: Timestamp,
        _cx: &mut Context<'_, Self::KOut, Self::VOut>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }
}

/// Which time drives a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PunctuationKind {
    /// The highest timestamp that the task has seen.
    StreamTime,
    /// The wall clock.
    WallClock,
}

/// Stands for a schedule of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub(crate) number: usize,
    kind: PunctuationKind,
}

impl Schedule {
    /// Which time drives it.
    pub fn kind(&self) -> PunctuationKind {
        self.kind
    }

    /// Adds one to a task; an error says what is wrong with the interval.
    fn add(
        (every, kind): (Duration, PunctuationKind),
        start: Option<Timestamp>,
        now: Option<Timestamp>,
        (task, own): (&mut TaskCore, &mut Vec<Schedule>),
    ) -> Result<Self, &'static str> {
        let interval = Timestamp::try_from(every.as_millis()).unwrap_or(Timestamp::MAX);
        if interval < 1 {
            return Err("a schedule needs an interval of at least one millisecond");
        }
        let number = task.schedules_mut().add(interval, kind, start, now);
        let schedule = Self { number, kind };
        own.push(schedule);
        Ok(schedule)
    }
}

/// Where a record came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Topic and partition.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
}

/// Stands for a store of the task; typed, so that using it needs no check.
pub struct StoreHandle<S> {
    pub(crate) index: usize,
    marker: PhantomData<fn() -> S>,
}

impl<S> Clone for StoreHandle<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for StoreHandle<S> {}

/// Stands for a time of an operator, which comes back after a crash as it was at the last commit.
/// Operators that ask for it by the same name share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorTime(usize);

/// Stands for a [note](InitContext::wall_clock_note) by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteHandle(usize);

/// What a processor can do before its first record.
pub struct InitContext<'a> {
    pub(crate) node: &'a str,
    pub(crate) stores: &'a [String],
    pub(crate) schedules: &'a mut Vec<Schedule>,
    pub(crate) task: &'a mut TaskCore,
}

impl InitContext<'_> {
    /// The store of this name, which must be connected to this processor and be of this type.
    ///
    /// # Errors
    /// [`BuildError::NotConnected`], [`BuildError::StoreType`].
    pub fn store<S: Store>(&mut self, name: &str) -> Result<StoreHandle<S>, BuildError> {
        let connected = self.stores.iter().any(|store| store == name);
        let index = self.task.stores().position(name).filter(|_| connected);
        let Some(index) = index else {
            return Err(BuildError::NotConnected { node: self.node.into(), store: name.into() });
        };
        let store = self.task.stores_mut().at(index);
        if !(store as &dyn Any).is::<S>() {
            return Err(BuildError::StoreType {
                node: self.node.into(),
                store: name.into(),
                asked: std::any::type_name::<S>(),
                found: store.type_name(),
            });
        }
        Ok(StoreHandle { index, marker: PhantomData })
    }

    /// The global store of this name, which must be of this type. It is there for every processor, to be
    /// read only.
    ///
    /// # Errors
    /// [`BuildError::Unknown`], [`BuildError::StoreType`].
    pub fn global_store<S: Store>(&self, name: &str) -> Result<GlobalStore<S>, BuildError> {
        self.task.globals().store(self.node, name)
    }

    /// A time of this name, which outlives crashes; -1 at first. Event time that an operator goes by
    /// has to be kept so: a field would start anew with every crash, and change results.
    pub fn operator_time(&mut self, name: &str) -> OperatorTime {
        OperatorTime(self.task.operator_time(name))
    }

    /// A note of this name: what a processor remembers by the wall clock, such as when the last record came.
    /// It stays, other than a field, when a record is left out, even with the time that this one has noted;
    /// a restart forgets it. Nothing exact should depend on it.
    pub fn wall_clock_note(&mut self, name: &str) -> NoteHandle {
        NoteHandle(self.task.note(name))
    }

    /// Calls [`Processor::punctuate`] every `every`, which must be at least a millisecond. Stream
    /// time is aligned to the epoch; the wall clock starts now. Missed calls become one. To end it,
    /// see [`Context::cancel`].
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for an interval below a millisecond.
    pub fn schedule(
        &mut self,
        every: Duration,
        kind: PunctuationKind,
    ) -> Result<Schedule, BuildError> {
        self.add_schedule(every, kind, None)
    }

    /// As [`InitContext::schedule`], but the calls are at `start` and whole intervals after it. What
    /// lies behind is not called.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for an interval below a millisecond.
    pub fn schedule_from(
        &mut self,
        start: Timestamp,
        every: Duration,
        kind: PunctuationKind,
    ) -> Result<Schedule, BuildError> {
        self.add_schedule(every, kind, Some(start))
    }

    fn add_schedule(
        &mut self,
        every: Duration,
        kind: PunctuationKind,
        start: Option<Timestamp>,
    ) -> Result<Schedule, BuildError> {
        let invalid =
            |reason: &str| BuildError::Invalid { node: self.node.into(), reason: reason.into() };
        Schedule::add((every, kind), start, None, (self.task, self.schedules)).map_err(invalid)
    }

    /// The task.
    pub fn task_id(&self) -> TaskId {
        self.task.id()
    }
}

/// The stores of a task, whatever the processor forwards that looks into them.
pub struct StoreAccess<'a> {
    task: &'a mut TaskCore,
}

impl StoreAccess<'_> {
    /// A store of the task.
    pub fn store<S: Store>(&mut self, handle: StoreHandle<S>) -> &mut S {
        self.task.touch();
        self.look_into(handle)
    }

    /// A store of the task, to be read alone: a record that fails is not given up because of it, so a
    /// change would stay.
    pub fn look_into<S: Store>(&mut self, handle: StoreHandle<S>) -> &mut S {
        self.task.stores_mut().get(handle)
    }

    /// An operator's time.
    pub fn operator_time(&mut self, time: OperatorTime) -> Timestamp {
        *self.task.operator_time_mut(time.0)
    }

    /// Whether caches are being drained, as the generation ends, or operators [go on](super::Processor::go_on)
    /// with what was let go: then updates are told that were made at any time since the last seal at which
    /// nothing was left.
    pub fn drains(&self) -> bool {
        self.task.drains()
    }

    /// The highest timestamp that the task has seen; -1 before the first record.
    pub fn stream_time(&self) -> Timestamp {
        self.task.stream_time()
    }

    /// The wall clock, in milliseconds since the Unix epoch.
    pub fn wall_clock(&self) -> Timestamp {
        self.task.wall_clock()
    }
}

/// What a processor can do with a record.
pub struct Context<'a, K, V> {
    pub(crate) task: &'a mut TaskCore,
    pub(crate) children: &'a mut Children<K, V>,
    pub(crate) schedules: &'a mut Vec<Schedule>,
}

impl<K: Data, V: Data> Context<'_, K, V> {
    /// Hands a record to all children. A negative timestamp, as stream time is before the first record, is
    /// an error: [`ProcessError::ForwardedTimestamp`].
    #[inline]
    pub fn forward(&mut self, record: Record<K, V>) {
        if self.children.accept(&record, self.task) {
            self.children.forward(record, self.task);
        }
    }

    /// Hands a record to one child.
    ///
    /// # Errors
    /// [`ProcessError::User`] if there is no child of this name. For the timestamp see
    /// [`forward`](Context::forward).
    pub fn forward_to(&mut self, child: &str, record: Record<K, V>) -> Result<(), ProcessError> {
        if !self.children.accept(&record, self.task) {
            return Ok(());
        }
        if self.children.forward_to(child, record, self.task) {
            return Ok(());
        }
        Err(ProcessError::user(format!("there is no child '{child}' to forward to")))
    }

    /// A store of the task.
    pub fn store<S: Store>(&mut self, handle: StoreHandle<S>) -> &mut S {
        self.task.touch();
        self.task.stores_mut().get(handle)
    }

    /// The stores of the task, to be looked into by code that does not know what this processor forwards.
    pub fn stores(&mut self) -> StoreAccess<'_> {
        StoreAccess { task: self.task }
    }

    /// An operator's time, to be read and changed.
    pub fn operator_time(&mut self, time: OperatorTime) -> &mut Timestamp {
        self.task.touch();
        self.task.operator_time_mut(time.0)
    }

    /// A note, to be read and changed.
    pub fn wall_clock_note(&mut self, note: NoteHandle) -> &mut WallClockNote {
        self.task.note_mut(note.0)
    }

    /// Counts a record that was left out, by the reason.
    pub fn drop_record(&mut self, reason: &'static str) {
        self.task.drop_record(reason);
    }

    /// Where the present record came from; `None` during a punctuation or a seal.
    pub fn source(&self) -> Option<SourceInfo> {
        self.task.source()
    }

    /// The highest timestamp that the task has seen; -1 before the first record.
    pub fn stream_time(&self) -> Timestamp {
        self.task.stream_time()
    }

    /// The wall clock, in milliseconds since the Unix epoch.
    pub fn wall_clock(&self) -> Timestamp {
        self.task.wall_clock()
    }

    /// The task.
    pub fn task_id(&self) -> TaskId {
        self.task.id()
    }

    /// The application.
    pub fn application_id(&self) -> &str {
        self.task.application_id()
    }

    /// Calls [`Processor::punctuate`] every `every` from now on, as [`InitContext::schedule`] does. A
    /// schedule is no state: after a restart only those stand that [`Processor::init`] makes.
    ///
    /// # Errors
    /// [`ProcessError::User`] for an interval below a millisecond.
    pub fn schedule(
        &mut self,
        every: Duration,
        kind: PunctuationKind,
    ) -> Result<Schedule, ProcessError> {
        self.add_schedule(every, kind, None)
    }

    /// As [`Context::schedule`], but the calls are at `start` and whole intervals after it. What lies
    /// behind is not called.
    ///
    /// # Errors
    /// [`ProcessError::User`] for an interval below a millisecond.
    pub fn schedule_from(
        &mut self,
        start: Timestamp,
        every: Duration,
        kind: PunctuationKind,
    ) -> Result<Schedule, ProcessError> {
        self.add_schedule(every, kind, Some(start))
    }

    fn add_schedule(
        &mut self,
        every: Duration,
        kind: PunctuationKind,
        start: Option<Timestamp>,
    ) -> Result<Schedule, ProcessError> {
        self.task.touch(); // so that it goes with a record that is left out
        let now = Some(self.task.time(kind));
        let task = (&mut *self.task, &mut *self.schedules);
        Schedule::add((every, kind), start, now, task).map_err(ProcessError::user)
    }

    /// Ends a schedule of this processor.
    pub fn cancel(&mut self, schedule: Schedule) {
        self.task.touch();
        self.schedules.retain(|own| *own != schedule);
        self.task.schedules_mut().cancel(schedule.number);
    }

    /// Asks for a commit soon.
    pub fn commit(&mut self) {
        self.task.request_commit();
    }
}
