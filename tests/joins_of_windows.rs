//! Joins of windows and sessions through the real broker and the real stores, catching up: much time of
//! events passes within one commit, and every result is there.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use vltava::broker_api::client::{Record, TransactionalProducer};
use vltava::prelude::*;

const RECORDS: i64 = 1000;

type Counts = KTable<Windowed<String>, i64>;

/// A thousand seconds of three keys in both topics; the keys of the results.
async fn results(build: impl Fn(&StreamsBuilder)) -> BTreeSet<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    for topic in ["l", "r", "out"] {
        vltava.ensure_topic(topic, 1).await.unwrap();
    }
    let mut producer = TransactionalProducer::new(vltava.broker(), "fill").unwrap();
    let mut transaction = producer.begin();
    for n in 0..RECORDS {
        for topic in ["l", "r"] {
            transaction.send(topic, Record::new(format!("k{}", n % 3), "v").at(n * 1000)).unwrap();
        }
    }
    transaction.commit().await.unwrap();
    let builder = StreamsBuilder::new();
    build(&builder);
    let topology = builder.build().unwrap();
    let streams = vltava.start(topology, vltava.settings("joins")).await.unwrap();
    streams.caught_up().await.unwrap();
    streams.close().await.unwrap();
    let consumer = Consumer::builder(vltava.broker()).topic("out").until_end();
    let records: Vec<_> = consumer.build().await.unwrap().try_collect().await.unwrap();
    vltava.close().unwrap();
    records.into_iter().map(|record| record.key.unwrap().to_vec()).collect()
}

fn counts(builder: &StreamsBuilder, topic: &str) -> Counts {
    let windows = TimeWindows::of(Duration::from_secs(10)).grace(Duration::from_secs(5));
    builder.stream::<String, String>(topic).group_by_key().windowed_by(windows).count()
}

fn finals(builder: &StreamsBuilder, topic: &str) -> Counts {
    counts(builder, topic).suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
}

fn sessions(builder: &StreamsBuilder, topic: &str) -> Counts {
    let sessions = SessionWindows::of(Duration::from_millis(500));
    builder.stream::<String, String>(topic).group_by_key().windowed_by(sessions).count()
}

fn join(builder: &StreamsBuilder, of: fn(&StreamsBuilder, &str) -> Counts) {
    of(builder, "l").join(&of(builder, "r"), |_, l, r| l + r).to_stream().to("out");
}

#[tokio::test]
async fn every_window_of_a_thousand_seconds_is_joined() {
    assert_eq!(results(|b| join(b, counts)).await.len(), 300);
}

#[tokio::test]
async fn every_session_of_a_thousand_seconds_is_joined() {
    assert_eq!(results(|b| join(b, sessions)).await.len(), 1000);
}

#[tokio::test]
async fn every_final_result_of_a_thousand_seconds_is_joined() {
    // The last two windows of each key are open: time ends at 999 s.
    assert_eq!(results(|b| join(b, finals)).await.len(), 297);
}

#[tokio::test]
async fn every_window_of_a_thousand_seconds_gets_its_answer_by_foreign_key() {
    let build = |b: &StreamsBuilder| {
        let names = b.table::<String, String>("r");
        let named = counts(b, "l").left_join_on_foreign_key(
            &names,
            |k, _| Some(k.key.clone()),
            |_, n, name: Option<&String>| format!("{n} {name:?}"),
        );
        named.to_stream().to("out");
    };
    assert_eq!(results(build).await.len(), 300);
}
