//! The waker of the suite.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

/// Rings when the broker has news; stands behind every waker that a check hands out.
#[derive(Debug, Default)]
pub struct Alarm {
    rung: Mutex<bool>,
    ring: Condvar,
}

/// How long [`Alarm::wait`] waits: far more than any broker needs, and less than a stuck test run.
const PATIENCE: Duration = Duration::from_secs(20);

impl Alarm {
    /// Waits until it has rung since the last wait.
    ///
    /// # Panics
    /// If it does not ring within 20 seconds: the broker has lost a wake-up.
    pub fn wait(&self) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, waited) = self
            .ring
            .wait_timeout_while(rung, PATIENCE, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "the broker woke nobody for {PATIENCE:?}");
        *rung = false;
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ring.notify_all();
    }
}
