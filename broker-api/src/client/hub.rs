//! One waker for the broker, many futures behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Wakes every future that waits on a handle. Each of them can drive the handle, so none of them
/// depends on another one being polled; and what one finds out (that there is room again, for
/// instance), the others see when they are polled for the same wake-up.
#[derive(Default)]
pub(super) struct Hub {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Hub {
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }

    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next += 1;
        Seat { number: waiting.next, hub: self.clone() }
    }

    fn wake_all(&self) {
        let woken = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut waiting.wakers)
        };
        woken.into_values().for_each(Waker::wake);
    }
}

impl Wake for Hub {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

/// The place of one waiting future; dropping it gives it up.
pub(super) struct Seat {
    number: u64,
    hub: Arc<Hub>,
}

impl Seat {
    /// Asks to be woken. To be called before looking, so that no news is missed.
    pub(super) fn wait(&self, waker: &Waker) {
        let mut waiting = self.hub.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.wakers.insert(self.number, waker.clone());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut waiting = self.hub.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.wakers.remove(&self.number);
    }
}
