//! Processors that may change everything of a record but its key, so that what follows needs no
//! repartition topic.

use std::time::Duration;

use broker_api::{TaskId, Timestamp};

use super::{
    Context, InitContext, OperatorTime, Processor, PunctuationKind, Schedule, SourceInfo,
    StoreHandle,
};
use crate::error::{BuildError, ProcessError};
use crate::record::{Data, Headers, Record};
use crate::state::Store;

/// As [`Processor`], for records whose keys stay as they are.
///
/// ```
/// use streams_core::ProcessError;
/// use streams_core::processor::{FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
///
/// struct Length;
/// impl FixedKeyProcessor for Length {
///     type Key = String;
///     type VIn = String;
///     type VOut = u64;
///     fn process(
///         &mut self,
///         record: FixedKeyRecord<String, String>,
///         cx: &mut FixedKeyContext<'_, '_, String, u64>,
///     ) -> Result<(), ProcessError> {
///         let length = record.value().len() as u64;
///         cx.forward(record.with_value(length));
///         Ok(())
///     }
/// }
/// ```
pub trait FixedKeyProcessor: Send + 'static {
    /// The keys.
    type Key: Data;
    /// The values that it takes.
    type VIn: Data;
    /// The values that it forwards.
    type VOut: Data;

    /// As [`Processor::init`].
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
        record: FixedKeyRecord<Self::Key, Self::VIn>,
        cx: &mut FixedKeyContext<'_, '_, Self::Key, Self::VOut>,
    ) -> Result<(), ProcessError>;

    /// The generation is about to be sealed: forward what was held back.
    ///
    /// # Errors
    /// As [`FixedKeyProcessor::process`].
    fn before_seal(
        &mut self,
        _cx: &mut FixedKeyContext<'_, '_, Self::Key, Self::VOut>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }

    /// A schedule of this processor is due; `timestamp` is the present time of its kind.
    ///
    /// # Errors
    /// As [`FixedKeyProcessor::process`].
    fn punctuate(
        &mut self,
        _schedule: Schedule,
        _timestamp: Timestamp,
        _cx: &mut FixedKeyContext<'_, '_, Self::Key, Self::VOut>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }
}

/// A record whose key can be looked at only. There is no way to make one but from one that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedKeyRecord<K, V>(Record<K, V>);

impl<K, V> FixedKeyRecord<K, V> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.0.key
    }

    /// The value.
    pub fn value(&self) -> &V {
        &self.0.value
    }

    /// The value, by itself.
    pub fn into_value(self) -> V {
        self.0.value
    }

    /// The event time, in milliseconds since the Unix epoch.
    pub fn timestamp(&self) -> Timestamp {
        self.0.timestamp
    }

    /// The headers.
    pub fn headers(&self) -> &Headers {
        &self.0.headers
    }

    /// The same with another value.
    pub fn with_value<V2>(self, value: V2) -> FixedKeyRecord<K, V2> {
        FixedKeyRecord(self.0.with_value(value))
    }

    /// The same with another event time.
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.0.timestamp = timestamp;
        self
    }

    /// The same with other headers.
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.0.headers = headers;
        self
    }
}

/// What a [`FixedKeyProcessor`] can do with a record.
pub struct FixedKeyContext<'a, 'b, K, V>(&'a mut Context<'b, K, V>);

impl<K: Data, V: Data> FixedKeyContext<'_, '_, K, V> {
    /// Hands a record to all children.
    pub fn forward(&mut self, record: FixedKeyRecord<K, V>) {
        self.0.forward(record.0);
    }

    /// Hands a record to one child.
    ///
    /// # Errors
    /// [`ProcessError::User`] if there is no child of this name.
    pub fn forward_to(
        &mut self,
        child: &str,
        record: FixedKeyRecord<K, V>,
    ) -> Result<(), ProcessError> {
        self.0.forward_to(child, record.0)
    }

    /// A store of the task.
    pub fn store<S: Store>(&mut self, handle: StoreHandle<S>) -> &mut S {
        self.0.store(handle)
    }

    /// An operator's time, to be read and changed.
    pub fn operator_time(&mut self, time: OperatorTime) -> &mut Timestamp {
        self.0.operator_time(time)
    }

    /// Counts a record that was left out, by the reason.
    pub fn drop_record(&mut self, reason: &'static str) {
        self.0.drop_record(reason);
    }

    /// Where the present record came from; `None` during a punctuation or a seal.
    pub fn source(&self) -> Option<SourceInfo> {
        self.0.source()
    }

    /// The highest timestamp that the task has seen; -1 before the first record.
    pub fn stream_time(&self) -> Timestamp {
        self.0.stream_time()
    }

    /// The wall clock, in milliseconds since the Unix epoch.
    pub fn wall_clock(&self) -> Timestamp {
        self.0.wall_clock()
    }

    /// The task.
    pub fn task_id(&self) -> TaskId {
        self.0.task_id()
    }

    /// The application.
    pub fn application_id(&self) -> &str {
        self.0.application_id()
    }

    /// As [`Context::schedule`].
    ///
    /// # Errors
    /// [`ProcessError::User`] for an interval below a millisecond.
    pub fn schedule(
        &mut self,
        every: Duration,
        kind: PunctuationKind,
    ) -> Result<Schedule, ProcessError> {
        self.0.schedule(every, kind)
    }

    /// As [`Context::schedule_from`].
    ///
    /// # Errors
    /// [`ProcessError::User`] for an interval below a millisecond.
    pub fn schedule_from(
        &mut self,
        start: Timestamp,
        every: Duration,
        kind: PunctuationKind,
    ) -> Result<Schedule, ProcessError> {
        self.0.schedule_from(start, every, kind)
    }

    /// Ends a schedule of this processor.
    pub fn cancel(&mut self, schedule: Schedule) {
        self.0.cancel(schedule);
    }

    /// Asks for a commit soon.
    pub fn commit(&mut self) {
        self.0.commit();
    }
}

/// A [`FixedKeyProcessor`] as a [`Processor`].
pub struct FixedKey<P>(pub P);

impl<P: FixedKeyProcessor> Processor for FixedKey<P> {
    type KIn = P::Key;
    type VIn = P::VIn;
    type KOut = P::Key;
    type VOut = P::VOut;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0.init(cx)
    }

    fn process(
        &mut self,
        record: Record<P::Key, P::VIn>,
        cx: &mut Context<'_, P::Key, P::VOut>,
    ) -> Result<(), ProcessError> {
        self.0.process(FixedKeyRecord(record), &mut FixedKeyContext(cx))
    }

    fn before_seal(&mut self, cx: &mut Context<'_, P::Key, P::VOut>) -> Result<(), ProcessError> {
        self.0.before_seal(&mut FixedKeyContext(cx))
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        timestamp: Timestamp,
        cx: &mut Context<'_, P::Key, P::VOut>,
    ) -> Result<(), ProcessError> {
        self.0.punctuate(schedule, timestamp, &mut FixedKeyContext(cx))
    }
}
