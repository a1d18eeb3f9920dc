//! Killing a real process at random moments.
//!
//! A kill comes when the progress passes a random record. Progress is known for every thousand
//! records or so; a random time on top, up to what as many take, makes all records between as likely.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use vltava::broker_api::{Clock, SystemClock};

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// When to kill: so long after the process has said that it has processed so many lines.
pub struct Moment {
    /// Lines.
    pub lines: u64,
    /// And then so long.
    pub later: Duration,
}

/// Kills the process at a moment; `false` if it ended before. How many changes it replayed is added
/// to `replayed`.
pub fn kill_at(mut child: Child, moment: &Moment, replayed: &mut u64) -> bool {
    let clock = SystemClock::new();
    let mut last = 0;
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        // After a kill there is a tail to cut, of which it warns.
        if line.contains(" WARN ") {
            continue;
        }
        let numbers: Vec<u64> =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let [done, changes, rebuilt] = numbers[..] else {
            panic!("the application says: {line}");
        };
        assert_eq!(rebuilt, 0, "a store was wiped");
        last = changes;
        if done >= moment.lines {
            let until = clock.monotonic() + moment.later;
            while clock.monotonic() < until {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            break;
        }
    }
    *replayed += last;
    let ended = child.wait().unwrap();
    assert!(ended.code().is_none_or(|code| code == 0), "{ended}");
    !ended.success()
}

/// A small generator, so that a failing run can be repeated.
pub fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}
