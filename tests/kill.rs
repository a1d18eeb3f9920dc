//! Kills the real word-count process at random moments (`kill -9`), starts it again, and finds
//! exact counts everywhere in the end.
//!
//! A kill comes when the progress passes a random record. Progress is known for every thousand
//! records or so; a random time on top, up to what as many take, makes all records between as likely.
//!
//! `VLTAVA_KILLS` sets how often (default: 50 for each of the two ways to run), `VLTAVA_KILL_SEED`
//! the moments.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Counts, count, example, last_values, records, store, text};
use vltava::Vltava;
use vltava::broker_api::{Clock, SystemClock};

const REPEAT: usize = 4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn start(dir: &Path, extra: &[&str]) -> Child {
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/kjv.txt.gz");
    Command::new(example())
        .args(["--broker", dir.to_str().unwrap(), "--input", input, "--exit-when-done"])
        .args(["--repeat", &REPEAT.to_string(), "--flush-ms", "50"]) // kills between and in flushes
        .args(["--progress-ms", "1"])
        .args(extra)
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// When to kill: so long after the process has said that it has processed so many lines.
struct Moment {
    lines: u64,
    later: Duration,
}

/// Kills the process at a moment; `false` if it ended before. How many changes it replayed is added
/// to `replayed`.
fn kill_at(mut child: Child, moment: &Moment, replayed: &mut u64) -> bool {
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
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

async fn survives_kills(extra: &[&str]) {
    let (kills, mut seed) = (setting("VLTAVA_KILLS", 50), setting("VLTAVA_KILL_SEED", 1));
    let text = text();
    let lines = (text.lines().count() * REPEAT) as u64;
    let dir = tempfile::tempdir().unwrap();
    let (mut killed, mut replayed) = (0, 0);
    for _ in 0..kills {
        let lines = random(&mut seed, 2 * lines / kills);
        let later = Duration::from_micros(random(&mut seed, 20_000));
        let moment = Moment { lines, later };
        killed += u64::from(kill_at(start(dir.path(), extra), &moment, &mut replayed));
    }
    let never = Moment { lines: u64::MAX, later: Duration::ZERO };
    kill_at(start(dir.path(), extra), &never, &mut replayed);

    let vltava = Vltava::open(dir.path()).unwrap();
    let mut expected = count(text.lines());
    expected.values_mut().for_each(|n| *n *= REPEAT as i64);
    assert_eq!(last_values(&vltava, "counts").await, expected, "output");
    assert_eq!(last_values(&vltava, "word-count-counts-changelog").await, expected, "changelog");
    assert_eq!(store(dir.path()), expected, "store");
    if extra.contains(&"--no-cache") {
        let mut seen = Counts::new();
        for (word, n) in records(&vltava, "counts").await {
            let last = seen.entry(word.clone()).or_default();
            assert_eq!(n, Some(*last + 1), "{word}");
            *last += 1;
        }
    }
    vltava.close().unwrap();
    println!("{killed} of {kills} runs were killed; {replayed} changes were replayed in all");
    assert!(killed > kills / 2, "only {killed} of {kills} runs were killed before their end");
}

#[tokio::test]
async fn counts_are_exact_after_kills() {
    survives_kills(&["--partitions", "2", "--threads", "2"]).await;
}

#[tokio::test]
async fn every_single_count_is_written_once_in_spite_of_kills() {
    survives_kills(&["--no-cache"]).await;
}
