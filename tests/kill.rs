//! Kills the real word-count process at random moments (`kill -9`), starts it again, and finds
//! exact counts everywhere in the end.
//!
//! `VLTAVA_KILLS` sets how often (default: 50 for each of the two ways to run), `VLTAVA_KILL_SEED`
//! the moments.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::kills::{Moment, kill_at, random, setting};
use support::{Counts, count, example, last_values, records, store, text};
use vltava::Vltava;

const REPEAT: usize = 4;

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
