//! Forwarding windows and sessions when they close, in as many parts as it takes.
//!
//! They stay in their store, so the operator remembers how far it has come: up to a time, or, where it was
//! stopped, in a bookmark. What is closed does not change any more, so the rest is what it would have been.

use streams_core::processor::{Bookmark, Context, EntryId, InitContext, OperatorTime, StoreHandle};
use streams_core::state::{WindowKind, WindowedStore};
use streams_core::{Change, Data, Headers, ProcessError, Record, Windowed};

use super::IdleClock;
use super::letting_go::AT_ONCE;
use super::rest::Rest;

/// What an operator that emits on closing finds in its task.
pub(crate) struct Closing<K, A, W> {
    pub(crate) store: StoreHandle<WindowedStore<K, A, W>>,
    /// What begins (of sessions: ends) here or earlier has been emitted.
    pub(crate) emitted: OperatorTime,
    rest: Bookmark,
    id: EntryId,
}

impl<K, A, W> Clone for Closing<K, A, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, A, W> Copy for Closing<K, A, W> {}

impl<K: Data, A: Data, W: WindowKind> Closing<K, A, W> {
    /// Its times are called after `times`.
    pub(crate) fn new(
        store: StoreHandle<WindowedStore<K, A, W>>,
        times: &str,
        cx: &mut InitContext<'_>,
    ) -> Self {
        let name = format!("{times}-emitted");
        let (emitted, rest) = (cx.operator_time(&name), cx.bookmark(&name));
        Self { store, emitted, rest, id: EntryId::of(&name) }
    }

    /// Forwards what begins (of sessions: ends) after what was emitted before, up to what is `closed`
    /// now: ordered by that time, then by the bytes of the key.
    pub(crate) fn emit(
        self,
        closed: i64,
        headers: &Headers,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        if closed <= *cx.operator_time(self.emitted) {
            return Ok(());
        }
        if let Some(rest) = Rest::at(self.rest, cx)? {
            if closed <= rest.until {
                return Ok(()); // it is on the way
            }
            // Another one of the records that one record has become closes more, with other headers.
            self.forward(rest, false, cx)?;
        }
        let rest = Rest { until: closed, after: Default::default(), headers: headers.clone() };
        self.forward(rest, true, cx)
    }

    /// Moves stream time on if nothing has come for long enough and that closes windows, and forwards
    /// them. What has a time (of a window its start, of a session its end) is closed this long after it.
    pub(crate) fn emit_idle(
        self,
        idle: &IdleClock,
        now: i64,
        (stream_time, closed_after): (OperatorTime, i64),
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let known = *cx.operator_time(stream_time);
        let Some(time) = idle.goes_on(now, known, cx) else { return Ok(()) };
        let closed = time.saturating_sub(closed_after);
        let from = cx.operator_time(self.emitted).saturating_add(1);
        if !cx.store(self.store).find_by_time(from, closed, None, 1)?.is_empty() {
            *cx.operator_time(stream_time) = time;
            self.emit(closed, &Headers::default(), cx)?;
        }
        Ok(())
    }

    /// Goes on after a stop.
    pub(crate) fn go_on(
        self,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        match Rest::at(self.rest, cx)? {
            Some(rest) => self.forward(rest, true, cx),
            None => Ok(()),
        }
    }

    fn forward(
        self,
        mut rest: Rest,
        mut stops: bool,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let Self { store, emitted, .. } = self;
        let from = *cx.operator_time(emitted) + 1;
        let mut last = match &rest.after[..] {
            [] => None,
            place => Some(cx.store(store).at_place(place)?),
        };
        loop {
            let found = cx.store(store).find_by_time(from, rest.until, last.as_ref(), AT_ONCE)?;
            let is_all = found.len() < AT_ONCE;
            for (key, value, timestamp) in found {
                last = Some(key.clone());
                let id = self.id.at(&cx.store(store).place_by_time(&key)?);
                let (value, headers) = (Change::new(Some(value), None), rest.headers.clone());
                let record = Record { key, value, timestamp, headers };
                let has_room = cx.let_go(id, |_| Ok(Some(record)))?;
                if stops && !has_room {
                    let place = last
                        .as_ref()
                        .map(|last| cx.store(store).place_by_time(last))
                        .transpose()?;
                    rest.after = place.unwrap_or_default().into();
                    stops = rest.remember_if_short(self.rest, cx)?;
                    if stops {
                        return Ok(());
                    }
                }
            }
            if is_all {
                break;
            }
        }
        *cx.operator_time(emitted) = rest.until;
        cx.store(store).release(rest.until);
        cx.set_bookmark(self.rest, Vec::new())
    }
}
