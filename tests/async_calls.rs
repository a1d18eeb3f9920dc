//! Async operators on the real runtime: what becomes of calls that are in flight when the application ends.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::time::Duration;

use futures::TryStreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::StreamExt;
use vltava::broker_api::client;
use vltava::prelude::*;
use vltava::streams_core::failure::log_and_continue;

/// Calls that say that they have begun, and end only if told so.
fn topology(begun: UnboundedSender<String>, ends: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let call = move |_: &(), value: String| {
        let begun = begun.clone();
        async move {
            let _ = begun.unbounded_send(value.clone());
            if !ends {
                futures::future::pending::<()>().await;
            }
            Ok::<_, String>(value)
        }
    };
    let config = AsyncConfig::new().timeout(Duration::from_secs(1));
    builder
        .stream::<(), String>("calls")
        .map_values_async_with(move |key, value| call(&key, value), config)
        .to("answers");
    builder.build().unwrap()
}

async fn answers(vltava: &Vltava) -> usize {
    let answers = Consumer::builder(vltava.broker()).topic("answers").until_end().build();
    let answers: Vec<_> = answers.await.unwrap().try_collect().await.unwrap();
    answers.len()
}

#[tokio::test]
async fn an_application_that_is_dropped_does_not_wait_for_its_calls_and_makes_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    for topic in ["calls", "answers"] {
        vltava.ensure_topic(topic, 1).await.unwrap();
    }
    let producer = Producer::new(vltava.broker()).unwrap();
    producer.send("calls", client::Record::of_value("who?")).await.unwrap();
    let settings = || Settings { processing_handler: log_and_continue(), ..vltava.settings("app") };

    // The calls run on this very thread, which waits for the application's threads when it is dropped.
    let (begun, mut calls) = unbounded();
    let streams = vltava.start(topology(begun, false), settings()).await.unwrap();
    assert_eq!(calls.next().await.unwrap(), "who?");
    drop(streams);

    let (begun, mut calls) = unbounded();
    let streams = vltava.start(topology(begun, true), settings()).await.unwrap();
    streams.caught_up().await.unwrap();
    streams.close().await.unwrap();
    assert_eq!(calls.next().await.as_deref(), Some("who?"));
    assert_eq!(answers(&vltava).await, 1);
    vltava.close().unwrap();
}

#[test]
fn a_call_that_its_executor_has_dropped_stops_the_application_and_is_made_again() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let vltava = Vltava::open(dir.path()).unwrap();
    let settings = || Settings { processing_handler: log_and_continue(), ..vltava.settings("app") };

    let (begun, mut calls) = unbounded();
    let first = runtime();
    let streams = first.block_on(async {
        for topic in ["calls", "answers"] {
            vltava.ensure_topic(topic, 1).await.unwrap();
        }
        let producer = Producer::new(vltava.broker()).unwrap();
        producer.send("calls", client::Record::of_value("who?")).await.unwrap();
        let streams = vltava.start(topology(begun, false), settings()).await.unwrap();
        calls.next().await.unwrap();
        streams
    });
    drop(first);

    runtime().block_on(async {
        let error = streams.ended().await.unwrap_err().to_string();
        assert!(error.contains("was dropped by its executor"), "{error}");
        let _ = streams.close().await;
        let (begun, _calls) = unbounded();
        let streams = vltava.start(topology(begun, true), settings()).await.unwrap();
        streams.caught_up().await.unwrap();
        streams.close().await.unwrap();
        assert_eq!(answers(&vltava).await, 1);
    });
    vltava.close().unwrap();
}
