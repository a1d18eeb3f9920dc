//! Since when nothing has come, by the wall clock: then stream time goes on with it.

use std::time::Duration;

use streams_core::processor::{Context, InitContext, NoteHandle, PunctuationKind};
use streams_core::{BuildError, Data};

/// How often it is looked whether nothing has come for too long, unless that is a shorter time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleClock {
    /// For how long nothing comes until stream time goes on, in milliseconds.
    after: i64,
    /// When something came last, and stream time then.
    last: Option<NoteHandle>,
}

impl IdleClock {
    pub(crate) fn new(after: i64) -> Self {
        Self { after, last: None }
    }

    /// Sees to it that it is looked from time to time. `times`: the name of the operator's stream time.
    pub(crate) fn init(&mut self, times: &str, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.last = Some(cx.wall_clock_note(&format!("{times}-last")));
        let every = LOOK_EVERY.min(Duration::from_millis(self.after.max(1).unsigned_abs()));
        cx.schedule(every, PunctuationKind::WallClock).map(|_| ())
    }

    /// Something has come.
    pub(crate) fn came<K: Data, V: Data>(&self, stream_time: i64, cx: &mut Context<'_, K, V>) {
        let now = cx.wall_clock();
        if let Some(last) = self.last {
            *cx.wall_clock_note(last) = Some((now, stream_time));
        }
    }

    /// What stream time is at this time of the wall clock, if nothing has come for long enough.
    pub(crate) fn goes_on<K: Data, V: Data>(
        &self,
        now: i64,
        stream_time: i64,
        cx: &mut Context<'_, K, V>,
    ) -> Option<i64> {
        let (came, then) = *cx.wall_clock_note(self.last?).get_or_insert((now, stream_time));
        let then = then.min(stream_time); // it may have been that of a record that was left out
        let idle_for = now.saturating_sub(came);
        let is_idle = idle_for >= self.after && then >= 0;
        is_idle.then(|| then.saturating_add(idle_for).max(stream_time))
    }
}
