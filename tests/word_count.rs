//! Word count end to end: the real broker, the real stores, an independent count.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::path::Path;

use support::{Counts, count, fill, last_values, records, store, text, topology};
use vltava::Vltava;
use vltava::prelude::*;
use vltava::streams_core::runtime::Metrics;

/// Runs the application until it has nothing left to do.
async fn run(vltava: &Vltava, threads: usize, cache: bool) -> Metrics {
    let settings = Settings { threads, ..vltava.settings("word-count") };
    let streams = vltava.start(topology(cache), settings).await.unwrap();
    streams.caught_up().await.unwrap();
    let metrics = streams.metrics();
    streams.close().await.unwrap();
    metrics
}

/// Every place where the counts stand has the same.
async fn check(vltava: &Vltava, dir: &Path, expected: &Counts) {
    assert_eq!(&last_values(vltava, "counts").await, expected, "output");
    assert_eq!(&last_values(vltava, "word-count-counts-changelog").await, expected, "changelog");
    assert_eq!(&store(dir), expected, "store");
}

async fn counts_are_exact(partitions: u32, threads: usize, cache: bool) {
    let text = text();
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    fill(&vltava, partitions, text.lines()).await;
    run(&vltava, threads, cache).await;
    let expected = count(text.lines());
    check(&vltava, dir.path(), &expected).await;
    if !cache {
        // Every update is there once: 1, 2, 3, … for each word.
        let mut seen = Counts::new();
        for (word, n) in records(&vltava, "counts").await {
            let last = seen.entry(word.clone()).or_default();
            assert_eq!(n, Some(*last + 1), "{word}");
            *last += 1;
        }
        assert_eq!(seen, expected);
    }
    vltava.close().unwrap();
}

#[tokio::test]
async fn counts_are_exact_on_one_partition_and_one_thread() {
    counts_are_exact(1, 1, true).await;
}

#[tokio::test]
async fn counts_are_exact_on_four_partitions_and_two_threads() {
    counts_are_exact(4, 2, true).await;
}

#[tokio::test]
async fn counts_are_exact_on_four_partitions_and_one_thread_without_cache() {
    counts_are_exact(4, 1, false).await;
}

#[tokio::test]
async fn counts_are_exact_on_one_partition_and_two_threads_without_cache() {
    counts_are_exact(1, 2, false).await;
}

#[tokio::test]
async fn state_that_was_deleted_is_rebuilt_from_the_changelog() {
    let text = text();
    let lines: Vec<&str> = text.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    fill(&vltava, 2, first.iter().copied()).await;
    assert_eq!(run(&vltava, 1, true).await.restored, 0);
    // A clean close leaves nothing to replay.
    assert_eq!(run(&vltava, 1, true).await.restored, 0);

    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    fill(&vltava, 2, second.iter().copied()).await;
    let metrics = run(&vltava, 1, true).await;
    assert!(metrics.restored >= count(first.iter().copied()).len() as u64, "{metrics:?}");
    assert_eq!(metrics.consumed, second.len() as u64);
    check(&vltava, dir.path(), &count(text.lines())).await;
    vltava.close().unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    fill(&vltava, 1, ["a b"].into_iter()).await;
    run(&vltava, 1, true).await;
    let error = vltava.ensure_topic("lines", 4).await.unwrap_err().to_string();
    assert!(error.contains("partitions=4") && error.contains("'lines'"), "{error}");
    vltava.close().unwrap();
}

#[tokio::test]
async fn a_topic_that_is_missing_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    let started = vltava.start(topology(true), vltava.settings("word-count")).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("topic 'lines' does not exist"), "{error}");
    vltava.close().unwrap();
}

/// The default is to stop, and nothing of the input is lost; with the other handler the record is
/// left out and counted.
#[tokio::test]
async fn a_line_that_is_not_utf8_stops_the_application_or_is_left_out() {
    use vltava::broker_api::client::Record;
    use vltava::streams_core::runtime::log_and_continue;

    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    fill(&vltava, 1, ["one two"].into_iter()).await;
    let producer = Producer::new(vltava.broker()).unwrap();
    producer.send("lines", Record::of_value(vec![b'x', 0xff])).await.unwrap();
    fill(&vltava, 1, ["two three"].into_iter()).await;

    let streams = vltava.start(topology(true), vltava.settings("word-count")).await.unwrap();
    let error = streams.caught_up().await.unwrap_err().to_string();
    assert!(error.contains("record 1 of lines-0") && error.contains("not UTF-8"), "{error}");
    assert_eq!(streams.close().await.unwrap_err().to_string(), error);

    let settings =
        Settings { deserialization_handler: log_and_continue(), ..vltava.settings("word-count") };
    let streams = vltava.start(topology(true), settings).await.unwrap();
    streams.caught_up().await.unwrap();
    assert_eq!(streams.metrics().dropped["not decodable"], 1);
    streams.close().await.unwrap();
    let expected = [("one", 1), ("two", 2), ("three", 1)].map(|(w, n)| (w.to_string(), n));
    check(&vltava, dir.path(), &Counts::from(expected)).await;
    vltava.close().unwrap();
}

/// Damaged store files are found, at the latest when they are read; the store is then rebuilt from
/// its changelog, and the counts are exact.
#[tokio::test]
async fn a_damaged_store_is_rebuilt_and_the_counts_are_exact() {
    let text = text();
    let lines: Vec<&str> = text.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    fill(&vltava, 1, first.iter().copied()).await;
    run(&vltava, 1, true).await;

    let store = dir.path().join("state/word-count/1_0");
    let mut tables = 0;
    for file in std::fs::read_dir(&store).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = std::fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            std::fs::write(&file, bytes).unwrap();
            tables += 1;
        }
    }
    assert!(tables > 0, "the first run has written no table file");

    fill(&vltava, 1, second.iter().copied()).await;
    let streams = vltava.start(topology(true), vltava.settings("word-count")).await.unwrap();
    let found_at_once = streams.caught_up().await.is_ok();
    let closed = streams.close().await;
    if !found_at_once {
        let error = closed.unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("1_0"), "{error}");
        let rebuilt = run(&vltava, 1, true).await;
        assert!(rebuilt.restored >= count(first.iter().copied()).len() as u64, "{rebuilt:?}");
        assert_eq!(rebuilt.rebuilt, 1, "{rebuilt:?}");
    }
    check(&vltava, dir.path(), &count(text.lines())).await;
    vltava.close().unwrap();
}
