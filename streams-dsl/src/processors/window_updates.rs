//! The store of a table of windows: which of them are closed, and how updates go on - at once, at
//! the seal, or when a window closes.

use streams_core::processor::{Context, InitContext, OperatorTime, StoreHandle};
use streams_core::state::{Fixed, Forward, WindowKind, WindowStore, WindowedStore};
use streams_core::{BuildError, Change, Data, Headers, ProcessError, Record, Windowed};

use super::IdleClock;
use super::closing::Closing;
use crate::windows::EmitStrategy;

/// When updates are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwards {
    AtOnce,
    /// Merged by key and window.
    AtSeal,
    /// Once for each window.
    OnClose,
}

impl Forwards {
    /// With this strategy, in a store that caches or not.
    pub(crate) fn of(emit: EmitStrategy, caching: bool) -> Self {
        match (emit.on_close, caching) {
            (true, _) => Self::OnClose,
            (false, true) => Self::AtSeal,
            (false, false) => Self::AtOnce,
        }
    }
}

/// A processor's side of its store of windows.
pub(crate) struct WindowUpdates<K, A> {
    /// What its times are called after.
    pub(crate) times: String,
    pub(crate) store: String,
    /// From the start of a window to its end.
    pub(crate) size: i64,
    /// From the start of a window until it is closed.
    pub(crate) span: i64,
    pub(crate) forwards: Forwards,
    pub(crate) sends_old_values: bool,
    pub(crate) idle: Option<IdleClock>,
    pub(crate) handles: Option<Handles<K, A>>,
}

/// What a processor of windows finds in its task.
pub(crate) struct Handles<K, A> {
    store: StoreHandle<WindowStore<K, A>>,
    stream_time: OperatorTime,
    closing: Closing<K, A, Fixed>,
}

impl<K, A> Clone for Handles<K, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, A> Copy for Handles<K, A> {}

impl<K, A> Clone for WindowUpdates<K, A> {
    fn clone(&self) -> Self {
        Self { times: self.times.clone(), store: self.store.clone(), ..*self }
    }
}

/// The context of a processor of windows.
type Windows<'a, K, A> = Context<'a, Windowed<K>, Change<A>>;

impl<K: Data, A: Data> WindowUpdates<K, A> {
    /// Finds store and times.
    pub(crate) fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        let store = cx.store(&self.store)?;
        let stream_time = cx.operator_time(&format!("{}-time", self.times));
        let closing = Closing::new(store, &self.times, cx);
        self.handles = Some(Handles { store, stream_time, closing });
        self.idle.as_mut().map_or(Ok(()), |idle| idle.init(&self.times, cx))
    }

    fn handles(&self) -> Result<Handles<K, A>, ProcessError> {
        self.handles.ok_or_else(|| {
            ProcessError::user(format!("store '{}' was used before it was there", self.store))
        })
    }

    /// The operator's stream time with a record of this time.
    pub(crate) fn stream_time(
        &mut self,
        timestamp: i64,
        cx: &mut Windows<'_, K, A>,
    ) -> Result<i64, ProcessError> {
        let time = cx.operator_time(self.handles()?.stream_time);
        *time = timestamp.max(*time);
        let stream_time = *time;
        if let Some(idle) = &self.idle {
            idle.came(stream_time, cx);
        }
        Ok(stream_time)
    }

    /// Whether the window that begins at `start` is closed at this stream time.
    pub(crate) fn is_closed(&self, start: i64, stream_time: i64) -> bool {
        self.closed_by(stream_time).is_some_and(|closed| start <= closed)
    }

    /// Windows that begin here or earlier are closed at this stream time. None ever is that stays open for
    /// longer than time goes.
    fn closed_by(&self, stream_time: i64) -> Option<i64> {
        (self.span < i64::MAX).then(|| stream_time.saturating_sub(self.span))
    }

    /// The windows of a key that begin between two times: start, aggregate and its time.
    pub(crate) fn fetch(
        &self,
        key: &K,
        from: i64,
        to: i64,
        cx: &mut Windows<'_, K, A>,
    ) -> Result<Vec<(i64, A, i64)>, ProcessError> {
        Ok(cx.store(self.handles()?.store).fetch(key, from, to)?)
    }

    /// Changes the aggregate of a record's key in the window that begins at `start`. The result has the
    /// later of its time and the record's.
    pub(crate) fn update(
        &self,
        record: &Record<K, ()>,
        start: i64,
        step: impl FnOnce(Option<A>) -> Option<A>,
        cx: &mut Windows<'_, K, A>,
    ) -> Result<(), ProcessError> {
        let store = cx.store(self.handles()?.store);
        let mut change = None;
        let is_taken = store.update(&record.key, start, |aggregate, time| {
            let so_far = aggregate.take();
            let old = self.old(&so_far);
            *aggregate = step(so_far);
            let timestamp = self.result_time(record, aggregate.is_none(), time);
            if self.forwards == Forwards::AtOnce {
                change = Some((Change::new(aggregate.clone(), old), timestamp));
            }
            timestamp
        })?;
        if is_taken && self.forwards == Forwards::AtSeal {
            store.forward_with(record.headers.clone());
        }
        if let Some((change, timestamp)) = change {
            self.forward(record, start, change, timestamp, cx);
        }
        Ok(())
    }

    /// The same where what it begins with and its time are known: the window's own aggregate, or that
    /// of another window with the same records so far.
    pub(crate) fn change(
        &self,
        record: &Record<K, ()>,
        start: i64,
        found: Option<(A, i64)>,
        step: impl FnOnce(Option<A>) -> Option<A>,
        cx: &mut Windows<'_, K, A>,
    ) -> Result<(), ProcessError> {
        let (so_far, time) = found.unzip();
        let new = step(so_far);
        let timestamp = self.result_time(record, new.is_none(), time);
        self.put(record, start, new, timestamp, cx)
    }

    /// What is forwarded as the value before.
    fn old(&self, so_far: &Option<A>) -> Option<A> {
        let is_forwarded = self.sends_old_values && self.forwards == Forwards::AtOnce;
        if is_forwarded { so_far.clone() } else { None }
    }

    /// The cache no longer knows the time of an aggregate that is gone, as in Kafka.
    fn result_time(&self, record: &Record<K, ()>, is_gone: bool, time: Option<i64>) -> i64 {
        let forgets = is_gone && self.forwards == Forwards::AtSeal;
        time.filter(|_| !forgets).map_or(record.timestamp, |time| time.max(record.timestamp))
    }

    /// Puts an aggregate, and forwards it if that is done at once.
    pub(crate) fn put(
        &self,
        record: &Record<K, ()>,
        start: i64,
        new: Option<A>,
        timestamp: i64,
        cx: &mut Windows<'_, K, A>,
    ) -> Result<(), ProcessError> {
        let Record { key, headers, .. } = record;
        let store = cx.store(self.handles()?.store);
        if self.forwards != Forwards::AtOnce {
            if store.put(key, start, new, timestamp)? && self.forwards == Forwards::AtSeal {
                store.forward_with(headers.clone());
            }
            return Ok(());
        }
        // Asked of the store: what the new aggregate is made of may be another window's.
        let old = if self.sends_old_values { store.get(key, start)? } else { None };
        store.put(key, start, new.clone(), timestamp)?;
        self.forward(record, start, Change::new(new, old.map(|(old, _)| old)), timestamp, cx);
        Ok(())
    }

    fn forward(
        &self,
        record: &Record<K, ()>,
        start: i64,
        value: Change<A>,
        timestamp: i64,
        cx: &mut Windows<'_, K, A>,
    ) {
        let Record { key, headers, .. } = record;
        let key = Windowed::new(key.clone(), start, start.saturating_add(self.size));
        cx.forward(Record { key, value, timestamp, headers: headers.clone() });
    }

    /// Forwards what was held back until the seal.
    pub(crate) fn drain(&self, cx: &mut Windows<'_, K, A>) -> Result<(), ProcessError> {
        match self.forwards {
            Forwards::AtSeal => drain(self.handles()?.store, cx),
            Forwards::AtOnce | Forwards::OnClose => Ok(()),
        }
    }

    /// Forwards the windows that have closed since the last time, if that is when they are forwarded:
    /// ordered by their start, then by the bytes of their key. All windows begin at a multiple of `aligned`,
    /// so that most calls need not look.
    pub(crate) fn emit_closed(
        &self,
        stream_time: i64,
        aligned: i64,
        headers: &Headers,
        cx: &mut Windows<'_, K, A>,
    ) -> Result<(), ProcessError> {
        if self.forwards != Forwards::OnClose {
            return Ok(());
        }
        let Handles { closing, .. } = self.handles()?;
        let Some(closed) = self.closed_by(stream_time).filter(|closed| *closed >= 0) else {
            return Ok(()); // no window begins there
        };
        closing.emit(closed - closed % aligned, headers, cx)
    }

    /// Goes on forwarding them.
    pub(crate) fn go_on(&self, cx: &mut Windows<'_, K, A>) -> Result<(), ProcessError> {
        self.handles()?.closing.go_on(cx)
    }

    /// The same by the wall clock, if nothing has come for long and that counts.
    pub(crate) fn emit_idle(
        &mut self,
        now: i64,
        cx: &mut Windows<'_, K, A>,
    ) -> Result<(), ProcessError> {
        let Handles { closing, stream_time, .. } = self.handles()?;
        match &self.idle {
            Some(idle) => closing.emit_idle(idle, now, (stream_time, self.span), cx),
            None => Ok(()),
        }
    }
}

/// Forwards what a store held back until the seal.
pub(crate) fn drain<K: Data, A: Data, W: WindowKind>(
    store: StoreHandle<WindowedStore<K, A, W>>,
    cx: &mut Windows<'_, K, A>,
) -> Result<(), ProcessError> {
    while let Some(update) = cx.store(store).next_forward()? {
        let Forward { key, new, old, was_seen, timestamp, headers } = update;
        let value = Change { was_seen, ..Change::new(new, old) };
        cx.forward(Record { key, value, timestamp, headers });
    }
    Ok(())
}
