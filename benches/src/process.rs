//! What the operating system knows about this process, and a waker for this thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::Thread;

use crate::Result;

/// User and system time of all threads of this process so far, in seconds, to 10 ms (the kernel's
/// clock ticks).
pub(crate) fn cpu_seconds() -> Result<f64> {
    Ok(parse(&std::fs::read_to_string("/proc/self/stat")?)?.1)
}

/// The same for each thread that there is now, by name; threads of the same name together.
pub(crate) fn thread_seconds() -> Result<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        // A thread may end before its turn comes.
        if let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) {
            let (name, seconds) = parse(&stat)?;
            *threads.entry(name).or_default() += seconds;
        }
    }
    Ok(threads)
}

/// The name and the time in a line of `stat`.
fn parse(stat: &str) -> Result<(String, f64)> {
    // The name, in parentheses, may contain anything.
    let (before, after) = stat.rsplit_once(')').unwrap_or_default();
    let name = before.split_once('(').map_or("", |(_, name)| name);
    let fields: Vec<&str> = after.split_whitespace().collect();
    let [user, system] = [11, 12].map(|i| fields.get(i).copied().unwrap_or("none"));
    Ok((name.into(), (user.parse::<f64>()? + system.parse::<f64>()?) / 100.0))
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
