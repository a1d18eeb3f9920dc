//! Global tables end to end: the real broker, the real stores, several threads, restarts.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;

use futures::TryStreamExt;
use vltava::broker_api::client;
use vltava::prelude::*;
use vltava::streams_core::runtime::Metrics;

const AIRPORTS: u32 = 3;
const FLIGHTS: u32 = 4;

fn topology() -> Topology {
    let builder = StreamsBuilder::new();
    let airports = builder.global_table::<String, String>("airports");
    builder
        .stream::<String, String>("flights")
        .left_join_global(
            &airports,
            |_, to| to.clone(),
            |flight, to, name| format!("{flight} to {}", name.map_or(to.as_str(), String::as_str)),
        )
        .to("destinations");
    builder.build().unwrap()
}

async fn open(dir: &Path) -> Vltava {
    let vltava = Vltava::open(dir).unwrap();
    for (topic, partitions) in [("airports", AIRPORTS), ("flights", FLIGHTS), ("destinations", 1)] {
        vltava.ensure_topic(topic, partitions).await.unwrap();
    }
    vltava
}

async fn send(vltava: &Vltava, topic: &str, records: &[(&str, &str)]) {
    let producer = Producer::new(vltava.broker()).unwrap();
    for (key, value) in records {
        let record = client::Record::new(key.to_string(), value.to_string());
        producer.send(topic, record).await.unwrap();
    }
}

/// Runs the application until it has nothing left to do.
async fn run(vltava: &Vltava) -> Metrics {
    let settings = Settings { threads: 2, ..vltava.settings("departures") };
    let streams = vltava.start(topology(), settings).await.unwrap();
    streams.caught_up().await.unwrap();
    let metrics = streams.metrics();
    streams.close().await.unwrap();
    metrics
}

async fn destinations(vltava: &Vltava) -> Vec<String> {
    let consumer = Consumer::builder(vltava.broker()).topic("destinations").until_end();
    let records: Vec<_> = consumer.build().await.unwrap().try_collect().await.unwrap();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let mut all: Vec<String> =
        records.iter().map(|record| text(record.value.as_deref().unwrap())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn every_thread_sees_all_partitions_of_a_global_table_from_the_first_record_on() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = open(dir.path()).await;
    let airports = [("PRG", "Praha"), ("BRQ", "Brno"), ("OSR", "Ostrava"), ("KLV", "Karlovy Vary")];
    send(&vltava, "airports", &airports).await;
    let flights: Vec<(String, &str)> = (0..40)
        .map(|n| (format!("OK {n:02}"), ["PRG", "BRQ", "OSR", "KLV", "XXX"][n % 5]))
        .collect();
    let flights: Vec<(&str, &str)> = flights.iter().map(|(key, to)| (&**key, *to)).collect();
    send(&vltava, "flights", &flights).await;
    run(&vltava).await;
    let found = destinations(&vltava).await;
    let name = |to: &str| {
        airports.iter().find(|(code, _)| *code == to).map_or(to.to_string(), |(_, n)| n.to_string())
    };
    let expected: Vec<String> =
        flights.iter().map(|(flight, to)| format!("{flight} to {}", name(to))).collect();
    assert_eq!(found, expected);
    vltava.close().unwrap();
}

#[tokio::test]
async fn a_global_table_goes_on_after_a_restart_and_after_its_files_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = open(dir.path()).await;
    send(&vltava, "airports", &[("PRG", "Praha"), ("BRQ", "Brno")]).await;
    run(&vltava).await;
    assert!(dir.path().join("state/departures/global").is_dir());
    send(&vltava, "airports", &[("BRQ", "Brno-Tuřany")]).await;
    send(&vltava, "flights", &[("OK 1", "PRG"), ("OK 2", "BRQ")]).await;
    assert_eq!(run(&vltava).await.rebuilt, 0);
    assert_eq!(destinations(&vltava).await, ["OK 1 to Praha", "OK 2 to Brno-Tuřany"]);

    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    send(&vltava, "flights", &[("OK 3", "BRQ")]).await;
    run(&vltava).await;
    assert_eq!(destinations(&vltava).await.last().unwrap(), "OK 3 to Brno-Tuřany");
    vltava.close().unwrap();
}
