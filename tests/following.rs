//! Topics that come and go while an application runs, on the real broker, which tells of them: nobody
//! waits for the time of a look.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;

use futures::TryStreamExt;
use vltava::broker_api::Offset;
use vltava::broker_api::client;
use vltava::prelude::*;

async fn open(dir: &Path) -> Vltava {
    let vltava = Vltava::open(dir).unwrap();
    for topic in ["flights", "destinations"] {
        vltava.ensure_topic(topic, 1).await.unwrap();
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

async fn all(vltava: &Vltava, topic: &str) -> Vec<String> {
    let consumer = Consumer::builder(vltava.broker()).topic(topic).until_end();
    let records: Vec<_> = consumer.build().await.unwrap().try_collect().await.unwrap();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let mut all: Vec<String> =
        records.iter().map(|record| text(record.value.as_deref().unwrap())).collect();
    all.sort();
    all
}

async fn committed(vltava: &Vltava, topic: &str) -> Offset {
    let offsets = vltava.broker().admin().group_offsets("app").await.unwrap();
    offsets.iter().filter(|(tp, _)| *tp.topic == *topic).map(|(_, at)| at.offset).sum()
}

#[tokio::test]
async fn a_pattern_reads_topics_as_soon_as_they_are_made_and_as_long_as_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = open(dir.path()).await;
    let start = async || {
        let builder = StreamsBuilder::new();
        builder.stream::<String, String>(Pattern::wildcard("flights*")).to("destinations");
        let settings = Settings { threads: 3, ..vltava.settings("app") };
        vltava.start(builder.build().unwrap(), settings).await.unwrap()
    };
    let streams = start().await;
    send(&vltava, "flights", &[("a", "1")]).await;
    streams.caught_up().await.unwrap();

    // Their partitions are more than there are tasks.
    vltava.ensure_topic("flights-2", 4).await.unwrap();
    send(&vltava, "flights-2", &[("a", "2"), ("b", "3"), ("c", "4"), ("d", "5")]).await;
    streams.caught_up().await.unwrap();
    assert_eq!(all(&vltava, "destinations").await, ["1", "2", "3", "4", "5"]);
    streams.close().await.unwrap();

    send(&vltava, "flights-2", &[("a", "6")]).await;
    let streams = start().await;
    streams.caught_up().await.unwrap();
    assert_eq!(all(&vltava, "destinations").await, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(committed(&vltava, "flights-2").await, 5);

    vltava.broker().admin().delete_topic("flights-2").await.unwrap();
    send(&vltava, "flights", &[("a", "7")]).await;
    streams.caught_up().await.unwrap();
    // Made anew, it is another topic.
    vltava.ensure_topic("flights-2", 2).await.unwrap();
    send(&vltava, "flights-2", &[("a", "8")]).await;
    streams.caught_up().await.unwrap();
    assert_eq!(all(&vltava, "destinations").await, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    streams.close().await.unwrap();
    vltava.close().unwrap();
}

#[tokio::test]
async fn the_counts_of_a_pattern_go_on_with_its_new_topics_which_must_not_be_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = open(dir.path()).await;
    let builder = StreamsBuilder::new();
    builder
        .stream::<String, String>(Pattern::wildcard("flights*"))
        .group_by_key()
        .count()
        .to_stream()
        .map_values(|_, count| count.unwrap_or_default().to_string())
        .to("destinations");
    let streams = vltava.start(builder.build().unwrap(), vltava.settings("app")).await.unwrap();
    for (topic, counted) in [("flights", "1"), ("flights-2", "2"), ("flights-3", "3")] {
        vltava.ensure_topic(topic, 1).await.unwrap();
        send(&vltava, topic, &[("a", "x")]).await;
        streams.caught_up().await.unwrap();
        assert_eq!(all(&vltava, "destinations").await.last().unwrap(), counted);
    }
    assert_eq!(streams.metrics().restored, 0);

    vltava.ensure_topic("flights-4", 2).await.unwrap();
    let error = streams.ended().await.unwrap_err();
    assert!(matches!(error, StreamsError::FollowedTopicTooLarge { .. }), "{error}");
    drop(streams);
    vltava.close().unwrap();
}

#[tokio::test]
async fn to_dynamic_finds_topics_that_are_made_later() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = open(dir.path()).await;
    let builder = StreamsBuilder::new();
    let flights = builder.stream::<String, String>("flights");
    flights.to_dynamic(|record| record.key.clone());
    let settings = Settings { production_handler: log_and_continue(), ..vltava.settings("app") };
    let streams = vltava.start(builder.build().unwrap(), settings).await.unwrap();
    send(&vltava, "flights", &[("later", "too early"), ("destinations", "1")]).await;
    streams.caught_up().await.unwrap();
    vltava.ensure_topic("later", 3).await.unwrap();
    send(&vltava, "flights", &[("later", "2"), ("destinations", "3"), ("later", "4")]).await;
    streams.caught_up().await.unwrap();
    assert_eq!(all(&vltava, "destinations").await, ["1", "3"]);
    assert_eq!(all(&vltava, "later").await, ["2", "4"]);
    streams.close().await.unwrap();
    vltava.close().unwrap();
}
