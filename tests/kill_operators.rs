//! Kills applications with windows, joins and suppressed results at random moments (`kill -9`), starts
//! them again, and finds in the end what the test driver, which is never killed, answers to the same
//! input: record for record.
//!
//! The process that is killed is this test's own binary, run once more with `VLTAVA_CHILD` in its
//! environment. `VLTAVA_KILLS` sets how often (default: 5 for each application), `VLTAVA_KILL_SEED`
//! the moments.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[allow(dead_code)] // the simulations run more of them
#[path = "simulation/applications.rs"]
mod applications;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use applications::Application;
use futures::TryStreamExt;
use support::kills::{Moment, kill_at, random, setting};
use vltava::Vltava;
use vltava::broker_api::client::{Consumer, Record, TransactionalProducer};
use vltava::streams_core::Topology;
use vltava::streams_core::failure::{ErrorHandlers, log_and_continue};
use vltava::streams_core::runtime::{Metrics, Settings};
use vltava::streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use vltava::streams_dsl::StreamsBuilder;

const INPUT: &str = "input";
const OUTPUT: &str = "output";
const RECORDS: u64 = 20_000;
const CHILD: &str = "VLTAVA_CHILD";

const APPLICATIONS: [(&str, Application); 15] = [
    ("windowed-counts", applications::every_count),
    ("final-counts", applications::last_count),
    ("slides", applications::every_slide),
    ("final-slides", applications::last_slide),
    ("sessions", applications::every_session),
    ("final-sessions", applications::last_session),
    ("looked-up", applications::as_last_said),
    ("reports", applications::every_report),
    ("pairs", applications::every_pair),
    ("versions", applications::as_of),
    ("late-versions", applications::as_of_a_little_later),
    ("final-pairs", applications::last_pairs),
    ("held-back", applications::some_updates),
    (FOREIGN_KEY, |input| applications::by_foreign_key(&input.repartition(), true, true)),
    ("calls", applications::some_calls),
];

/// Of several stages, so that only the last results are fixed.
const FOREIGN_KEY: &str = "foreign-key";

fn topology(application: Application) -> Topology {
    let builder = StreamsBuilder::new();
    application(builder.stream(INPUT)).to(OUTPUT);
    builder.build().unwrap()
}

/// Key, value and timestamp.
type Row = (String, Option<String>, i64);

/// Times go forward by up to two milliseconds, and now and then back by up to fifty.
fn input(seed: &mut u64) -> Vec<(String, String, i64)> {
    let mut now = 1_000;
    let record = |number| {
        now += random(seed, 3) as i64;
        let time = if random(seed, 4) == 0 { now - random(seed, 50) as i64 } else { now };
        let side = if random(seed, 2) == 0 { 'l' } else { 'r' };
        let deleted = if random(seed, 9) == 0 { "-" } else { "" };
        let value = format!("{side}{number}>k{}{deleted}", random(seed, 20));
        (format!("k{}", random(seed, 20)), value, time)
    };
    (0..RECORDS).map(record).collect()
}

fn expected(application: Application, input: &[(String, String, i64)]) -> Vec<Row> {
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some(OUTPUT.into()),
        ..ErrorHandlers::default()
    };
    let settings = TestDriverSettings { handlers, ..TestDriverSettings::default() };
    let driver = TopologyTestDriver::with_settings(topology(application), settings).unwrap();
    let topic = driver.input_topic::<String, String>(INPUT);
    for (key, value, time) in input {
        topic.pipe(key.clone(), value.clone(), *time).unwrap();
    }
    let output = driver.output_topic::<String, Option<String>>(OUTPUT).read_all().unwrap();
    output.into_iter().map(|r| (r.key, r.value, r.timestamp)).collect()
}

async fn fill(dir: &Path, input: &[(String, String, i64)]) {
    let vltava = Vltava::open(dir).unwrap();
    vltava.ensure_topic(INPUT, 1).await.unwrap();
    vltava.ensure_topic(OUTPUT, 1).await.unwrap();
    let mut producer = TransactionalProducer::new(vltava.broker(), "fill").unwrap();
    for some in input.chunks(1_000) {
        let mut transaction = producer.begin();
        for (key, value, time) in some {
            let record = Record::new(key.clone(), value.clone()).at(*time);
            transaction.send(INPUT, record).unwrap();
        }
        transaction.commit().await.unwrap();
    }
    vltava.close().unwrap();
}

async fn output(dir: &Path) -> Vec<Row> {
    let vltava = Vltava::open(dir).unwrap();
    let consumer = Consumer::builder(vltava.broker()).topic(OUTPUT).until_end().build();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let records = consumer
        .await
        .unwrap()
        .map_ok(|r| (text(&r.key.unwrap()), r.value.as_deref().map(text), r.timestamp));
    let records = records.try_collect().await.unwrap();
    vltava.close().unwrap();
    records
}

/// The last value of each key that has one, without its time. What came and went between two commits is
/// not told of, so a deletion may be missing where there was nothing to delete.
fn last(rows: Vec<Row>) -> Vec<Row> {
    let last: BTreeMap<_, _> = rows.into_iter().map(|(key, value, _)| (key, value)).collect();
    let present = last.into_iter().filter(|(_, value)| value.is_some());
    present.map(|(key, value)| (key, value, 0)).collect()
}

fn start(name: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(CHILD, format!("{name} {}", dir.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Does nothing unless it is started by [`start`].
#[tokio::test]
async fn the_process_that_is_killed() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let (name, dir) = child.split_once(' ').unwrap();
    let (_, application) = APPLICATIONS.iter().find(|(known, _)| *known == name).unwrap();
    let vltava = Vltava::open(dir).unwrap();
    let settings = Settings {
        flush_interval: Duration::from_millis(20),
        processing_handler: log_and_continue(),
        dead_letter_topic: Some(OUTPUT.into()),
        ..vltava.settings("app")
    };
    let streams = vltava.start(topology(*application), settings).await.unwrap();
    let progress = async {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        loop {
            tick.tick().await;
            let Metrics { consumed, restored, rebuilt, .. } = streams.metrics();
            eprintln!("{consumed} processed ({restored} replayed, {rebuilt} rebuilt)");
        }
    };
    tokio::select! {
        done = streams.caught_up() => done.unwrap(),
        () = progress => {}
    }
    streams.close().await.unwrap();
    vltava.close().unwrap();
}

#[tokio::test]
async fn what_windows_and_joins_answer_is_exact_after_kills() {
    let (kills, mut seed) = (setting("VLTAVA_KILLS", 5), setting("VLTAVA_KILL_SEED", 1));
    let mut all_killed = 0;
    for (name, application) in APPLICATIONS {
        let input = input(&mut seed);
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), &input).await;
        let (mut killed, mut replayed) = (0, 0);
        for _ in 0..kills {
            let lines = random(&mut seed, RECORDS / kills);
            let later = Duration::from_micros(random(&mut seed, 20_000));
            let child = start(name, dir.path());
            killed += u64::from(kill_at(child, &Moment { lines, later }, &mut replayed));
        }
        let never = Moment { lines: u64::MAX, later: Duration::ZERO };
        kill_at(start(name, dir.path()), &never, &mut replayed);

        let (mut found, mut expected) = (output(dir.path()).await, expected(application, &input));
        assert!(expected.len() > 1_000, "{name}: {} records", expected.len());
        if name == FOREIGN_KEY {
            (found, expected) = (last(found), last(expected));
        }
        let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        assert_eq!(found.get(same), expected.get(same), "{name}: record {same} of the output");
        println!("{name}: {killed} of {kills} runs were killed; {replayed} changes were replayed");
        all_killed += killed;
    }
    let all = kills * APPLICATIONS.len() as u64;
    assert!(all_killed > all / 2, "only {all_killed} of {all} runs were killed before their end");
}
