//! What the end-to-end tests of word count share: the text, an independent count, and the three
//! places where the counts can be read.

#![allow(dead_code, unreachable_pub)] // each test uses its part

pub mod kills;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use futures::TryStreamExt;
use vltava::Vltava;
use vltava::broker_api::client::{Consumer, Record, TransactionalProducer};
use vltava::state_rocksdb::RocksDb;
use vltava::streams_core::Topology;
use vltava::streams_core::state::StateEngine;
use vltava::streams_dsl::{Materialized, StreamsBuilder};

/// Word counts.
pub type Counts = BTreeMap<String, i64>;

/// The text that the project carries.
pub fn text() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/kjv.txt.gz");
    let mut text = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap());
    unpacked.read_to_string(&mut text).unwrap();
    text
}

/// Counts by a plain map, letter by letter.
pub fn count<'a>(lines: impl Iterator<Item = &'a str>) -> Counts {
    let mut counts = Counts::new();
    for line in lines {
        let mut word = String::new();
        for letter in line.chars().chain([' ']) {
            if letter.is_alphanumeric() {
                word.extend(letter.to_lowercase());
            } else if !word.is_empty() {
                *counts.entry(std::mem::take(&mut word)).or_default() += 1;
            }
        }
    }
    counts
}

/// The word-count example's binary, built anew if it is older than its source: a test that is run
/// alone does not build it.
pub fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap(); // <target>/debug/deps/<test>
        let release = profile.file_name().is_some_and(|name| name == "release");
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--example", "word_count", "--target-dir"])
            .arg(profile.parent().unwrap())
            .args(release.then_some("--release"))
            .status();
        assert!(built.unwrap().success());
        profile.join("examples/word_count")
    })
}

/// The topology of the word-count example.
pub fn topology(cache: bool) -> Topology {
    let counts = Materialized::named("counts");
    let counts = if cache { counts } else { counts.with_caching_disabled() };
    let builder = StreamsBuilder::new();
    builder
        .stream::<(), String>("lines")
        .flat_map_values(|_, line| {
            line.split(|c: char| !c.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .map(str::to_lowercase)
                .collect::<Vec<_>>()
        })
        .group_by(|_, word| word.clone())
        .count_with(counts)
        .to_stream_present()
        .to("counts");
    builder.build().unwrap()
}

/// Makes the topics and writes the lines.
pub async fn fill<'a>(vltava: &Vltava, partitions: u32, lines: impl Iterator<Item = &'a str>) {
    vltava.ensure_topic("lines", partitions).await.unwrap();
    vltava.ensure_topic("counts", partitions).await.unwrap();
    let mut producer = TransactionalProducer::new(vltava.broker(), "fill").unwrap();
    let lines: Vec<&str> = lines.collect();
    for some in lines.chunks(1_000) {
        let mut transaction = producer.begin();
        for line in some {
            transaction.send("lines", Record::of_value(line.to_string())).unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

/// All records of a topic with keys and counts, in offset order for each partition.
pub async fn records(vltava: &Vltava, topic: &str) -> Vec<(String, Option<i64>)> {
    let consumer = Consumer::builder(vltava.broker()).topic(topic).until_end().build();
    let records = consumer.await.unwrap().map_ok(|record| {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        (key, record.value.map(|v| i64::from_be_bytes(v[..].try_into().unwrap())))
    });
    records.try_collect().await.unwrap()
}

/// The last value of each key of a topic.
pub async fn last_values(vltava: &Vltava, topic: &str) -> Counts {
    let mut counts = Counts::new();
    for (key, value) in records(vltava, topic).await {
        match value {
            Some(value) => counts.insert(key, value),
            None => counts.remove(&key),
        };
    }
    counts
}

/// What the store files of a closed application hold, over all its partitions.
pub fn store(dir: &Path) -> Counts {
    let mut counts = Counts::new();
    for task in std::fs::read_dir(dir.join("state/word-count")).unwrap() {
        let task = task.unwrap();
        let name = task.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("1_").is_none_or(|n| n.parse::<u32>().is_err()) {
            continue; // a task without stores, or state that was set aside
        }
        let store = RocksDb::default().open(&task.path(), &["counts"]).unwrap().remove(0);
        for entry in store.scan(&[], None).unwrap() {
            let (key, value) = entry.unwrap();
            let key = String::from_utf8(key.to_vec()).unwrap();
            // a timestamp of eight bytes, then the value
            counts.insert(key, i64::from_be_bytes(value[8..].try_into().unwrap()));
        }
    }
    counts
}
