//! Puts a stream thread to sleep until it is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// Sleeps in the thread that made it. A wake-up between two sleeps is not lost.
pub(super) struct Parker {
    shared: Arc<Shared>,
}

struct Shared {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

impl Parker {
    /// For the present thread.
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                thread: std::thread::current(),
                woken: AtomicBool::new(false),
            }),
        }
    }

    /// Wakes this parker.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(self.shared.clone())
    }

    /// Sleeps until woken, or for this time at most.
    pub(super) fn park(&self, limit: Option<Duration>) {
        if !self.shared.woken.swap(false, Ordering::AcqRel) {
            match limit {
                Some(limit) => std::thread::park_timeout(limit),
                None => std::thread::park(),
            }
            self.shared.woken.store(false, Ordering::Release);
        }
    }
}
