//! Async operators on the real runtime: what becomes of calls that are in flight when the application ends.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::time::Duration;

use futures::TryStreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::StreamExt;
use vltava::broker_api::client;
use vltava::prelude::*;
use vltava::streams_core::failure::log_and_continue;
use vltava::streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};

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

/// Calls that need a tokio runtime.
#[allow(clippy::disallowed_methods)] // a timer is one of the things that need it
fn asks_and_waits() -> Topology {
    let builder = StreamsBuilder::new();
    let call = |_, value: String| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let spawned = tokio::spawn(async move { value.to_uppercase() });
        spawned.await.map_err(|error| error.to_string())
    };
    builder.stream::<String, String>("calls").map_values_async(call).to("answers");
    builder.build().unwrap()
}

fn driven() -> Vec<String> {
    let driver = TopologyTestDriver::new(asks_and_waits()).unwrap();
    let calls = driver.input_topic::<String, String>("calls");
    calls.pipe("k".into(), "a".into(), 1).unwrap();
    calls.pipe("k".into(), "b".into(), 2).unwrap();
    let answers = driver.output_topic::<String, String>("answers").read_all().unwrap();
    answers.into_iter().map(|answer| answer.value).collect()
}

#[tokio::test]
async fn the_test_driver_waits_for_timers_and_tasks_of_calls_in_a_current_thread_runtime() {
    assert_eq!(driven(), ["A", "B"]);
}

#[test]
fn the_test_driver_needs_no_runtime_for_calls_that_do() {
    assert_eq!(driven(), ["A", "B"]);
}

/// Only the runtime that waits for the driver could let this one go on.
#[tokio::test]
async fn a_call_that_cannot_come_back_while_the_driver_waits_is_an_error_that_says_what_to_do() {
    let builder = StreamsBuilder::new();
    let (answer, asked) = tokio::sync::watch::channel(());
    let call = move |_: String, value: String| {
        let mut asked = asked.clone();
        async move { asked.changed().await.map(|()| value) }
    };
    builder.stream::<String, String>("calls").map_values_async(call).to("answers");
    let settings = TestDriverSettings {
        call_patience: Duration::from_millis(10),
        ..TestDriverSettings::default()
    };
    let driver = TopologyTestDriver::with_settings(builder.build().unwrap(), settings).unwrap();
    let calls = driver.input_topic::<String, String>("calls");
    let error = calls.pipe("k".into(), "a".into(), 1).unwrap_err().to_string();
    assert!(error.contains("call_patience") && error.contains("multi_thread"), "{error}");
    let again = calls.pipe("k".into(), "b".into(), 2).unwrap_err().to_string();
    assert!(again == error && error.contains("advance_wall_clock"), "{again}");
    let timed_out = driver.advance_wall_clock(Duration::from_secs(31)).unwrap_err().to_string();
    assert!(timed_out.contains("30s"), "{timed_out}");
    drop(answer);
}
