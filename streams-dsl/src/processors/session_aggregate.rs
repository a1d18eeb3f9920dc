//! Aggregates in sessions.
//!
//! A record is merged with the sessions of its key that are within the gap of it. Each of them is deleted,
//! and said to be, before the merged one comes, also where only one was prolonged. A session is *closed*
//! once stream time is more than gap and grace past its end: then it is final, nothing is merged
//! with it any more, and a record that would be a session of its own there is late.

use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{
    Context, InitContext, OperatorTime, Processor, Schedule, StoreHandle,
};
use streams_core::state::{Session, SessionStore};
use streams_core::{BuildError, Change, Data, ProcessError, Record, Window, Windowed};

use super::closing::Closing;
use super::window_updates::{Forwards, drain};
use super::{IdleClock, Nulls};
use crate::windows::SessionWindows;

/// Folds the values of each key in each session. `step` is as that of [`Aggregate`](super::Aggregate);
/// it sees null values too, as in Kafka.
pub(crate) struct SessionAggregate<K, V, A, F> {
    pub(crate) windows: SessionWindows,
    pub(crate) step: Arc<F>,
    pub(crate) merge: Arc<Merge<K, A>>,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_results: Nulls<A>,
    pub(crate) store: String,
    /// What its times are called after.
    pub(crate) times: String,
    pub(crate) forwards: Forwards,
    pub(crate) sends_old_values: bool,
    pub(crate) idle: Option<IdleClock>,
    pub(crate) handles: Option<Handles<K, A>>,
    pub(crate) marker: PhantomData<fn(V)>,
}

/// Adds the aggregate of a session to those that were found before it.
pub(crate) type Merge<K, A> = dyn Fn(&K, Option<A>, A) -> Option<A> + Send + Sync;

/// What the processor finds in its task.
pub(crate) struct Handles<K, A> {
    store: StoreHandle<SessionStore<K, A>>,
    stream_time: OperatorTime,
    closing: Closing<K, A, Session>,
}

impl<K, A> Clone for Handles<K, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, A> Copy for Handles<K, A> {}

type Sessions<'a, K, A> = Context<'a, Windowed<K>, Change<A>>;

impl<K: Data, V, A: Data, F> SessionAggregate<K, V, A, F> {
    fn handles(&self) -> Result<Handles<K, A>, ProcessError> {
        self.handles.ok_or_else(|| {
            ProcessError::user(format!("store '{}' was used before it was there", self.store))
        })
    }

    /// Puts or deletes a session, and forwards that if it is done at once. The result has the
    /// time of the session's end, and no headers.
    fn put(
        &self,
        key: &K,
        session: Window,
        value: Change<A>,
        cx: &mut Sessions<'_, K, A>,
    ) -> Result<(), ProcessError> {
        let store = cx.store(self.handles()?.store);
        if self.forwards != Forwards::AtOnce {
            store.put(key, session, value.new, session.end)?;
            return Ok(());
        }
        store.put(key, session, value.new.clone(), session.end)?;
        let key = Windowed { key: key.clone(), window: session };
        cx.forward(Record::new(key, value, session.end));
        Ok(())
    }
}

impl<K, V, A, F> Processor for SessionAggregate<K, V, A, F>
where
    K: Data,
    V: Data,
    A: Data,
    F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = V;
    type KOut = Windowed<K>;
    type VOut = Change<A>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        let store = cx.store(&self.store)?;
        let stream_time = cx.operator_time(&format!("{}-time", self.times));
        let closing = Closing::new(store, &self.times, cx);
        self.handles = Some(Handles { store, stream_time, closing });
        self.idle.as_mut().map_or(Ok(()), |idle| idle.init(&self.times, cx))
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        if self.null_keys.is_null(&record.key) {
            cx.drop_record("null key");
            return Ok(());
        }
        let Handles { store, stream_time, closing } = self.handles()?;
        let Record { key, value, timestamp, headers } = record;
        let now = cx.operator_time(stream_time);
        *now = timestamp.max(*now);
        let open_since = now.saturating_sub(self.windows.open_for());

        let SessionWindows { gap, .. } = self.windows;
        let earliest_end = timestamp.saturating_sub(gap).max(open_since);
        let found = cx.store(store).find(&key, earliest_end, timestamp.saturating_add(gap))?;
        let own = Window { start: timestamp, end: timestamp };
        let session = found.iter().fold(own, |session, (found, ..)| Window {
            start: session.start.min(found.start),
            end: session.end.max(found.end),
        });
        if session.end < open_since {
            cx.drop_record("closed window");
        } else {
            let (mut so_far, mut replaced) = (None, None);
            for (found, aggregate, _) in found {
                let old = self.sends_old_values.then(|| aggregate.clone());
                if session == own {
                    replaced = old; // by what comes now, without a tombstone
                } else if found != session || self.forwards == Forwards::AtOnce {
                    // The same session is replaced anyway; only who hears of every update hears of this.
                    self.put(&key, found, Change::new(None, old), cx)?;
                }
                so_far = (self.merge)(&key, so_far, aggregate);
            }
            let new = (self.step)(&key, value, so_far);
            let new = new.filter(|new| !self.null_results.is_null(new));
            self.put(&key, session, Change::new(new, replaced), cx)?;
        }
        if let Some(idle) = &self.idle {
            idle.came(*cx.operator_time(stream_time), cx);
        }
        if self.forwards == Forwards::OnClose {
            closing.emit(open_since.saturating_sub(1), &headers, cx)?;
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let Handles { stream_time, closing, .. } = self.handles()?;
        let closed_after = self.windows.open_for().saturating_add(1);
        match &self.idle {
            Some(idle) => closing.emit_idle(idle, now, (stream_time, closed_after), cx),
            None => Ok(()),
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_, Windowed<K>, Change<A>>) -> Result<(), ProcessError> {
        self.handles()?.closing.go_on(cx)
    }

    fn before_seal(
        &mut self,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        match self.forwards {
            Forwards::AtSeal => drain(self.handles()?.store, cx),
            Forwards::AtOnce | Forwards::OnClose => Ok(()),
        }
    }
}
