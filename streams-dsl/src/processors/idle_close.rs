//! Windows that close by the wall clock: when no record has come for long, stream time goes on with it.

use std::time::Duration;

use streams_core::processor::{Context, InitContext, NoteHandle, OperatorTime, PunctuationKind};
use streams_core::state::WindowKind;
use streams_core::{BuildError, Change, Data, Headers, ProcessError, Windowed};

use super::closing::Closing;

/// How often it is looked whether nothing has come for too long, unless that is a shorter time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Since when nothing has come.
#[derive(Clone, Copy)]
pub(crate) struct IdleClose {
    /// For how long, until stream time goes on.
    after: i64,
    /// When the last record came by the wall clock, and stream time then.
    last: Option<NoteHandle>,
}

impl IdleClose {
    pub(crate) fn new(after: i64) -> Self {
        Self { after, last: None }
    }

    /// Sees to it that it is looked from time to time.
    pub(crate) fn init(&mut self, times: &str, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.last = Some(cx.wall_clock_note(&format!("{times}-last")));
        let every = LOOK_EVERY.min(Duration::from_millis(self.after.max(1).unsigned_abs()));
        cx.schedule(every, PunctuationKind::WallClock).map(|_| ())
    }

    /// A record has come.
    pub(crate) fn came<K: Data, V: Data>(&self, stream_time: i64, cx: &mut Context<'_, K, V>) {
        let now = cx.wall_clock();
        if let Some(last) = self.last {
            *cx.wall_clock_note(last) = Some((now, stream_time));
        }
    }

    /// Moves stream time on if nothing has come for long enough and that closes windows, and forwards
    /// them. A window is found by a time (its start, of sessions its end), and is closed this long
    /// after it.
    pub(crate) fn emit_closed<K: Data, A: Data, W: WindowKind>(
        &self,
        now: i64,
        closing: Closing<K, A, W>,
        stream_time: OperatorTime,
        closed_after: i64,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let known = *cx.operator_time(stream_time);
        let Some(last) = self.last else { return Ok(()) };
        let (came, then) = *cx.wall_clock_note(last).get_or_insert((now, known));
        let then = then.min(known); // it may have been that of a record that was left out
        let idle_for = now.saturating_sub(came);
        if idle_for < self.after || then < 0 {
            return Ok(());
        }
        let time = then.saturating_add(idle_for).max(known);
        let closed = time.saturating_sub(closed_after);
        let from = cx.operator_time(closing.emitted).saturating_add(1);
        if !cx.store(closing.store).find_by_time(from, closed, None, 1)?.is_empty() {
            *cx.operator_time(stream_time) = time;
            closing.emit(closed, &Headers::default(), cx)?;
        }
        Ok(())
    }
}
