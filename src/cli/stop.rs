//! Ctrl-C: the first asks to stop in good order, the second stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::Thread;

use super::Failure;

/// Whether the user has asked to stop.
pub(crate) struct Stop {
    requested: Arc<AtomicBool>,
}

impl Stop {
    /// Watches for Ctrl-C and the signals that end processes; unparks this thread when one comes.
    pub(crate) fn on_signal() -> Result<Self, Failure> {
        let requested = Arc::new(AtomicBool::new(false));
        let (flag, thread) = (requested.clone(), std::thread::current());
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            thread.unpark();
        })?;
        Ok(Self { requested })
    }

    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}

/// A waker that unparks this thread: commands poll, and park while there is nothing to do.
pub(crate) fn waker() -> Waker {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(std::thread::current())))
}
