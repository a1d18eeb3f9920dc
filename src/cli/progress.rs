//! A line on standard error that says how far a long command has come.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use broker_api::{Clock, SystemClock};

const EVERY: Duration = Duration::from_millis(500);

/// Shown only when standard error is a terminal and the command takes longer than half a second.
pub(crate) struct Progress {
    on: bool,
    clock: SystemClock,
    next: Duration,
    shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let on = std::io::stderr().is_terminal();
        Self { on, clock: SystemClock::new(), next: EVERY, shown: false }
    }

    /// Shows the line if it is time to; it is given the seconds since the beginning.
    pub(crate) fn tick(&mut self, line: impl FnOnce(f64) -> String) {
        let now = self.clock.monotonic();
        if self.on && now >= self.next {
            self.next = now + EVERY;
            self.shown = true;
            let mut err = std::io::stderr();
            // A terminal that is gone is no reason to stop.
            let _ = write!(err, "\r\x1b[K{}", line(now.as_secs_f64())).and_then(|()| err.flush());
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
