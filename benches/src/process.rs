//! What the operating system knows about this process, and a waker for this thread.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::Thread;

use crate::Result;

/// User and system time of all threads of this process so far, in seconds, to 10 ms (the kernel's
/// clock ticks).
pub(crate) fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, may contain anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let [user, system] = [11, 12].map(|i| fields.get(i).copied().unwrap_or("none"));
    Ok((user.parse::<f64>()? + system.parse::<f64>()?) / 100.0)
}

/// A waker that unparks this thread.
pub(crate) fn waker() -> Waker {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(std::thread::current())))
}
