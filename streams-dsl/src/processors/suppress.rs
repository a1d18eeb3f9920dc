//! `suppress` of a table.

use std::hash::Hash;

use streams_core::processor::{
    Context, EntryId, InitContext, OperatorTime, Processor, Schedule, StoreHandle,
};
use streams_core::state::{ChangeBuffer, Waiting};
use streams_core::{BuildError, Change, Data, ProcessError, Record};

use super::IdleClock;
use super::letting_go::{Waits, let_go_due};

/// How much may wait, and whether the oldest go on early when it is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) keys: Option<usize>,
    pub(crate) bytes: Option<usize>,
    pub(crate) emit_early: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { keys: None, bytes: None, emit_early: true }
    }
}

/// From which time on an update waits.
pub(crate) enum Place<K> {
    /// From its own.
    Arrival,
    /// From the end of its window. Then a deletion need not be told in the end: nobody has heard of
    /// the window before.
    End(fn(&K) -> i64),
}

impl<K> Clone for Place<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Place<K> {}

/// What a suppressed table was told.
pub(crate) struct SuppressConfig<K> {
    pub(crate) store: String,
    /// The name of its stream time.
    pub(crate) time: String,
    pub(crate) place: Place<K>,
    /// How long an update waits from its place on, in milliseconds.
    pub(crate) wait: i64,
    pub(crate) limits: Limits,
    pub(crate) idle: Option<Idle>,
}

impl<K> Clone for SuppressConfig<K> {
    fn clone(&self) -> Self {
        let (store, time, idle) = (self.store.clone(), self.time.clone(), self.idle.clone());
        Self { store, time, idle, ..*self }
    }
}

/// Going on with the wall clock when nothing comes any more.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    clock: IdleClock,
    /// The names of the times by which the windows above close. They go on too, so that no window gets
    /// a record after its final result.
    above: Vec<String>,
    times: Vec<OperatorTime>,
    /// Stream time has gone on since the last seal. Caches above may still hold updates from before, so
    /// nothing is final until they are drained.
    went_on: bool,
}

impl Idle {
    pub(crate) fn new(after: i64, above: Vec<String>) -> Self {
        Self { clock: IdleClock::new(after), above, times: Vec::new(), went_on: false }
    }
}

/// Holds updates back. Its stream time is its own: that of the updates that reach it.
pub(crate) struct Suppress<K, V> {
    config: SuppressConfig<K>,
    handles: Option<Handles<K, V>>,
    /// Updates wait that are due, as there was no room for them: those since this time or longer.
    unended: Option<i64>,
}

/// What it finds in its task.
struct Handles<K, V> {
    buffer: StoreHandle<ChangeBuffer<K, V>>,
    time: OperatorTime,
    /// Those of its entries.
    ids: EntryId,
}

impl<K, V> Clone for Handles<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Handles<K, V> {}

impl<K: Data + Eq + Hash, V: Data> Suppress<K, V> {
    pub(crate) fn new(config: SuppressConfig<K>) -> Self {
        Self { config, handles: None, unended: None }
    }

    fn handles(&self) -> Result<Handles<K, V>, ProcessError> {
        self.handles.ok_or_else(|| ProcessError::user("a buffer was used before it was there"))
    }

    /// Forwards what has waited long enough, as far as there is room if it `stops` for that.
    fn forward_due(
        &mut self,
        stops: bool,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Handles { buffer, time, ids } = self.handles()?;
        let due = cx.operator_time(time).saturating_sub(self.config.wait);
        let all_went = let_go_due((buffer, ids), &due, cx, |id, update, cx| {
            let has_room = cx.let_go(id, |_| Ok(update.filter(|update| self.is_told(update))))?;
            Ok(has_room || !stops)
        })?;
        self.unended = (!all_went).then_some(due);
        Ok(())
    }

    /// Whether somebody is to hear of an update.
    fn is_told(&self, update: &Record<K, Change<V>>) -> bool {
        let is_final = matches!(self.config.place, Place::End(_));
        update.value.new.is_some() || !is_final
    }

    /// A record comes although updates are due, as the one before has become several. If these would
    /// have to do with it, they all go first.
    fn end_before(
        &mut self,
        since: i64,
        key: &K,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Some(due) = self.unended else { return Ok(()) };
        let Handles { buffer, .. } = self.handles()?;
        let waits = cx.store(buffer).waits_since(key)?;
        if since <= due || waits.is_some_and(|since| since <= due) || self.is_limited() {
            self.forward_due(false, cx)?;
            self.make_room(cx)?;
        }
        Ok(())
    }

    /// Sees to it that no more waits than may, once what is due has gone.
    fn make_room(&self, cx: &mut Context<'_, K, Change<V>>) -> Result<(), ProcessError> {
        let Handles { buffer, ids, .. } = self.handles()?;
        if !self.is_limited() || self.unended.is_some() {
            return Ok(());
        }
        loop {
            let waiting = cx.store(buffer).waiting()?;
            let is_over =
                |waiting, limit: Option<usize>| limit.is_some_and(|limit| waiting > limit);
            let Limits { keys, bytes, emit_early } = self.config.limits;
            if !is_over(waiting.keys, keys) && !is_over(waiting.bytes, bytes) {
                return Ok(());
            }
            let first = if emit_early { cx.store(buffer).first_place()? } else { None };
            let Some(place) = first else { return Err(self.full(waiting)) };
            let (id, update) = cx.store(buffer).take_out(&place, ids)?;
            // What is too much goes, whatever the room.
            cx.let_go(id, |_| Ok(update.filter(|update| self.is_told(update))))?;
        }
    }

    fn full(&self, waiting: Waiting) -> ProcessError {
        let most =
            |limit: Option<usize>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
        let Limits { keys, bytes, .. } = self.config.limits;
        let (of_keys, of_bytes) = (most(keys), most(bytes));
        let Waiting { keys, bytes } = waiting;
        let reason = format!("holds back {keys}{of_keys} keys and {bytes}{of_bytes} bytes");
        let advice = match self.config.place {
            Place::Arrival => "let it emit early when full (emit_early_when_full)",
            Place::End(_) => "give the windows less grace, so that they close earlier",
        };
        ProcessError::BufferFull { node: String::new(), reason, advice }
    }

    fn is_limited(&self) -> bool {
        self.config.limits.keys.is_some() || self.config.limits.bytes.is_some()
    }
}

impl<K: Data + Eq + Hash, V: Data> Processor for Suppress<K, V> {
    type KIn = K;
    type VIn = Change<V>;
    type KOut = K;
    type VOut = Change<V>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        let (buffer, time) = (cx.store(&self.config.store)?, cx.operator_time(&self.config.time));
        self.handles = Some(Handles { buffer, time, ids: EntryId::of(&self.config.store) });
        if let Some(Idle { clock, above, times, .. }) = &mut self.config.idle {
            clock.init(&self.config.time, cx)?;
            *times = above.iter().map(|name| cx.operator_time(name)).collect();
        }
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<K, Change<V>>,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Handles { buffer, time, .. } = self.handles()?;
        let since = match self.config.place {
            Place::Arrival => record.timestamp,
            Place::End(end) => end(&record.key),
        };
        self.end_before(since, &record.key, cx)?;
        let now = cx.operator_time(time);
        *now = record.timestamp.max(*now);
        let stream_time = *now;
        let mut went_on = false;
        if let Some(idle) = &self.config.idle {
            idle.clock.came(stream_time, cx);
            went_on = idle.went_on;
        }
        if self.is_limited() {
            cx.store(buffer).waiting()?; // counts what is there
        }
        cx.store(buffer).put(since, record)?;
        if !went_on {
            self.forward_due(true, cx)?;
        }
        self.make_room(cx)
    }

    fn go_on(&mut self, cx: &mut Context<'_, K, Change<V>>) -> Result<(), ProcessError> {
        self.forward_due(true, cx)?;
        self.make_room(cx)
    }

    /// Nothing has come for long: stream time goes on with the wall clock, as far as something waits
    /// for it. What becomes due so is forwarded at the seal.
    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Handles { buffer, time, .. } = self.handles()?;
        let stream_time = *cx.operator_time(time);
        let Some(idle) = &mut self.config.idle else { return Ok(()) };
        let Some(stream_time) = idle.clock.goes_on(now, stream_time, cx) else { return Ok(()) };
        if cx.store(buffer).has_due(stream_time.saturating_sub(self.config.wait))? {
            idle.went_on = true;
            for time in idle.times.iter().chain([&time]) {
                let time = cx.operator_time(*time);
                *time = stream_time.max(*time);
            }
        }
        Ok(())
    }

    fn before_seal(&mut self, cx: &mut Context<'_, K, Change<V>>) -> Result<(), ProcessError> {
        let idle = self.config.idle.as_mut();
        match idle.is_some_and(|idle| std::mem::take(&mut idle.went_on)) {
            true => self.forward_due(true, cx),
            false => Ok(()),
        }
    }
}
