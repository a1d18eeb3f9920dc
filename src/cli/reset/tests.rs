//! A reset that is killed between two steps, or that moves some of the offsets only.

use std::collections::BTreeMap;

use broker_api::client::{Consumer, Record};
use futures::TryStreamExt;
use streams_core::Topology;
use streams_dsl::{Materialized, StreamsBuilder};
use tempfile::TempDir;
use vltava::Vltava;

use super::*;
use crate::cli::args::StateDir;

const APP: &str = "word-count";
const CHANGELOG: &str = "word-count-counts-changelog";

/// Counts the keys of two topics, with or without a repartition topic between.
fn topology(regroup: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let both = builder.stream::<String, String>("left").merge(&builder.stream("right"));
    let grouped = if regroup { both.group_by(|key, _| key.clone()) } else { both.group_by_key() };
    grouped.count_with(Materialized::named("counts")).to_stream_present().to("counts");
    builder.build().unwrap()
}

/// Writes keys to a topic and lets the application process all that there is; why not, if it does
/// not start.
async fn count(dir: &Path, regroup: bool, to: &str, keys: &[&str]) -> Result<(), String> {
    let vltava = Vltava::open(dir).unwrap();
    for topic in ["left", "right", "counts"] {
        vltava.ensure_topic(topic, 1).await.unwrap();
    }
    let mut producer = TransactionalProducer::new(vltava.broker(), "test").unwrap();
    let mut transaction = producer.begin();
    for key in keys {
        transaction.send(to, Record::new(key.to_string(), "")).unwrap();
    }
    transaction.commit().await.unwrap();
    drop(producer);
    let started = vltava.start(topology(regroup), vltava.settings(APP)).await;
    let ended = match started {
        Err(refused) => Err(refused.to_string()),
        Ok(streams) => {
            streams.caught_up().await.unwrap();
            streams.close().await.unwrap();
            Ok(())
        }
    };
    vltava.close().unwrap();
    ended
}

/// The application after both topics were counted.
async fn counted(regroup: bool) -> TempDir {
    let dir = TempDir::new().unwrap();
    count(dir.path(), regroup, "left", &["a", "b"]).await.unwrap();
    count(dir.path(), regroup, "right", &["a", "c"]).await.unwrap();
    dir
}

async fn check(dir: &Path, expected: &[(&str, i64)]) {
    let vltava = Vltava::open(dir).unwrap();
    let consumer = Consumer::builder(vltava.broker()).topic(CHANGELOG).until_end().build();
    let records = consumer.await.unwrap().map_ok(|record| {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        (key, i64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap()))
    });
    let counts: BTreeMap<String, i64> = records.try_collect().await.unwrap();
    let expected = expected.iter().map(|(key, count)| (key.to_string(), *count));
    assert_eq!(counts, expected.collect::<BTreeMap<_, _>>());
    vltava.close().unwrap();
}

/// Takes the first steps of a reset and is killed; whether that was before the end.
fn interrupted(dir: &Path, args: &Reset, after: usize) -> bool {
    let vltava = Vltava::open(dir).unwrap();
    let broker = vltava.broker();
    let apps = Apps::find(&*broker, &dir.join("state")).unwrap();
    apps.check(&args.app).unwrap();
    let steps = steps(&broker, &apps, args).unwrap();
    steps.iter().take(after).for_each(|step| step.take(&broker, APP).unwrap());
    vltava.close().unwrap();
    after < steps.len()
}

fn reset(input_topics: &[&str]) -> Reset {
    Reset {
        app: APP.into(),
        input_topics: input_topics.iter().map(|name| name.to_string()).collect(),
        to: To::Earliest,
        state: StateDir { state_dir: None },
        dry_run: false,
    }
}

#[tokio::test]
async fn a_reset_that_was_interrupted_after_any_step_is_run_again() {
    for regroup in [false, true] {
        for steps in 0.. {
            let dir = counted(regroup).await;
            let more = interrupted(dir.path(), &reset(&[]), steps);
            assert!(!interrupted(dir.path(), &reset(&[]), usize::MAX));
            count(dir.path(), regroup, "left", &["end"]).await.unwrap();
            check(dir.path(), &[("a", 2), ("b", 1), ("c", 1), ("end", 1)]).await;
            if !more {
                break;
            }
        }
    }
}

#[tokio::test]
async fn after_any_step_of_a_reset_the_application_is_refused_or_counts_right() {
    for regroup in [false, true] {
        for steps in 0.. {
            let dir = counted(regroup).await;
            let more = interrupted(dir.path(), &reset(&[]), steps);
            match count(dir.path(), regroup, "right", &["end"]).await {
                Ok(()) => check(dir.path(), &[("a", 2), ("b", 1), ("c", 1), ("end", 1)]).await,
                Err(reason) => assert!(reason.contains("`vltava app reset --app"), "{reason}"),
            }
            if !more {
                break;
            }
        }
    }
}

#[tokio::test]
async fn inputs_whose_offsets_stay_do_not_ask_for_what_the_reset_deleted() {
    for regroup in [false, true] {
        let dir = counted(regroup).await;
        assert!(!interrupted(dir.path(), &reset(&["left"]), usize::MAX));
        count(dir.path(), regroup, "right", &["end"]).await.unwrap();
        check(dir.path(), &[("a", 1), ("b", 1), ("end", 1)]).await;
    }
}
