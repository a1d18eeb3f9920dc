//! Topics that come and go while the application runs: a pattern follows them, and a sink that chooses
//! the topic of each record finds them. The simulated broker does not tell of them.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_api::sim::{Faults, SimBroker, SimConfig};
use broker_api::{BatchBuilder, Broker, FetcherConfig, Offset, Start, TopicPartition};
use streams_core::runtime::{
    AutoOffsetReset, Plan, State, StreamThread, Streams, StreamsError, log_and_continue,
};
use streams_core::state::StoreOptions;
use streams_core::topology::{NodeSpec, Pattern, StoreSpec, Topology, TopologyBuilder};
use streams_core::{HasSerde, Record};

use world::processors::Count;
use world::{CHANGELOG, World, counts, now};

const VALUE: &[u8] = b"12345678";
const AGE: Duration = Duration::from_secs(60);

fn source(pattern: &str) -> NodeSpec {
    let (key, value) = (String::serde(), String::serde());
    NodeSpec::source("source", Vec::new(), key, value).with_pattern(Pattern::wildcard(pattern))
}

/// Counts the keys of all topics that are like `in*`.
fn counting() -> Topology {
    let mut builder = TopologyBuilder::new();
    let (key, count) = (String::serde(), i64::serde());
    builder.add(source("in*")).unwrap();
    let node = NodeSpec::processor("count", vec!["source".into()], || Count::new(false));
    builder.add(node).unwrap();
    let store = StoreSpec::key_value("counts", key.clone(), count.clone(), StoreOptions::default());
    builder.add_state_store(store, &["count"]).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["count".into()], "out", key, count, None)).unwrap();
    builder.build().unwrap()
}

/// Copies all topics that are like a pattern to `out`.
fn copying(pattern: &str) -> Topology {
    let mut builder = TopologyBuilder::new();
    let text = String::serde();
    builder.add(source(pattern)).unwrap();
    let parents = vec!["source".into()];
    builder.add(NodeSpec::sink("sink", parents, "out", text.clone(), text, None)).unwrap();
    builder.build().unwrap()
}

fn world(topology: Topology) -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology);
    world.settings.metadata_max_age = AGE;
    world
}

fn with_faults(topology: Topology, faults: Faults) -> World {
    let mut world = world(topology);
    let clock = world.clock.clone();
    world.broker = SimBroker::new(SimConfig { clock, faults, ..SimConfig::default() });
    ["in", "out"].iter().for_each(|topic| world.create_topic(topic, 1));
    world
}

fn in_dir(topology: Topology, dir: &tempfile::TempDir) -> World {
    let mut world = world(topology);
    world.settings.state_dir = dir.path().into();
    world
}

fn write(world: &World, topic: &str, partition: u32, keys: &[&str]) {
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (*key, VALUE)).collect();
    world.write_to(TopicPartition::new(topic, partition), &records);
}

/// The time for a look comes, and what there is then is processed.
fn look(world: &World, thread: &mut StreamThread) -> Result<(), StreamsError> {
    world.clock.advance(AGE);
    world.run(thread).map(|_| ())
}

/// The time for a look comes; it is waited for until these keys are in `out`.
fn look_at<const N: usize>(world: &World, streams: &Streams, expected: [&str; N]) {
    world.clock.advance(AGE);
    while keys(world) != expected {
        assert!(keys(world).len() <= N, "{:?}", keys(world));
        world.block_on(streams.caught_up()).unwrap();
    }
    world.block_on(streams.running()).unwrap();
}

fn keys(world: &World) -> Vec<String> {
    let mut keys: Vec<String> = world.read("out").into_iter().map(|(key, _)| key).collect();
    keys.sort();
    keys
}

fn committed(world: &World, topic: &str) -> Option<Offset> {
    let offsets = now(&world.broker, world.broker.admin().group_offsets("app")).unwrap();
    offsets.into_iter().find(|(tp, _)| *tp.topic == *topic).map(|(_, at)| at.offset)
}

#[test]
fn a_topic_that_is_made_later_joins_the_running_task_and_a_restart_goes_on_in_it() {
    let world = world(counting());
    write(&world, "in", 0, &["a"]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.create_topic("in-2", 1);
    write(&world, "in-2", 0, &["a", "b"]);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1)]), "nobody has looked yet");
    look(&world, &mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2), ("b", 1)]));
    assert_eq!((committed(&world, "in"), committed(&world, "in-2")), (Some(1), Some(2)));
    assert_eq!(thread.restored(), 0, "its state was opened once");
    drop(thread); // dies

    write(&world, "in-2", 0, &["b"]);
    world.run_once();
    assert_eq!(world.read("out").last(), counts(&[("b", 2)]).last());
    assert_eq!(committed(&world, "in-2"), Some(3));
}

#[test]
fn a_topic_with_more_partitions_makes_new_tasks_which_all_threads_share() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = in_dir(copying("in*"), &dir);
    world.settings.threads = 2;
    write(&world, "in", 0, &["a"]);
    let streams = world.start();
    world.block_on(streams.caught_up()).unwrap();
    world.create_topic("in-2", 4);
    for partition in 0..4 {
        write(&world, "in-2", partition, &["b"]);
    }
    look_at(&world, &streams, ["a", "b", "b", "b", "b"]);
    // One that comes later knows of all of them too.
    world.block_on(async { streams.add_thread() }).unwrap().unwrap();
    for partition in 0..4 {
        write(&world, "in-2", partition, &["c"]);
    }
    look_at(&world, &streams, ["a", "b", "b", "b", "b", "c", "c", "c", "c"]);
    // And they go with it.
    world.delete_topic("in-2");
    write(&world, "in", 0, &["d"]);
    look_at(&world, &streams, ["a", "b", "b", "b", "b", "c", "c", "c", "c", "d"]);
    world.block_on(streams.close()).unwrap();
}

#[test]
fn a_topic_that_is_deleted_is_read_no_more_and_the_others_are() {
    let world = world(counting());
    world.create_topic("in-2", 1);
    let mut thread = world.thread();
    write(&world, "in-2", 0, &["a"]);
    world.run(&mut thread).unwrap();
    // The reader meets it before the next look.
    world.delete_topic("in-2");
    write(&world, "in", 0, &["a"]);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2)]));
    // Another one of that name is read from its beginning.
    world.create_topic("in-2", 1);
    write(&world, "in-2", 0, &["a"]);
    look(&world, &mut thread).unwrap();
    assert_eq!(world.read("out").last(), counts(&[("a", 3)]).last());
    // As is one that has taken its place between two looks.
    world.delete_topic("in-2");
    world.create_topic("in-2", 1);
    write(&world, "in-2", 0, &["a", "a"]);
    look(&world, &mut thread).unwrap();
    assert_eq!(world.read("out").last(), counts(&[("a", 5)]).last());
}

#[test]
fn what_was_processed_of_a_topic_that_is_deleted_before_the_commit_is_committed() {
    // The broker is full as often as not.
    let world = with_faults(counting(), Faults { full: 700, ..Faults::default() });
    world.create_topic("in-2", 1);
    let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
    for (topic, key) in [("in", "a"), ("in-2", "b")] {
        let mut batch = BatchBuilder::new();
        batch.push(5, Some(key.as_bytes()), Some(VALUE), &[]).unwrap();
        let (to, batch) = (TopicPartition::new(topic, 0), batch.finish().unwrap());
        while producer.append(&to, batch.clone()).is_err() {}
    }
    world.broker.settle(1_000);
    let mut thread = world.thread();
    while !format!("{thread:?}").contains("unsent: true") {
        assert_eq!(world.metrics().commits, 0, "none was refused");
        world.broker.step();
        thread.step().unwrap();
    }
    assert_eq!(world.metrics().processed, 2);
    world.delete_topic("in-2");
    run(&world, &mut thread);
    let mut found = world.read("out");
    found.sort();
    assert_eq!(found, counts(&[("a", 1), ("b", 1)]));
    assert_eq!((committed(&world, "in"), committed(&world, "in-2")), (Some(1), None));
}

#[test]
fn tasks_and_their_state_outlive_the_topic_that_had_most_partitions() {
    let world = world(counting());
    world.create_topic("in-2", 2);
    write(&world, "in-2", 1, &["a"]);
    world.run_once();
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.delete_topic("in-2");
    look(&world, &mut thread).unwrap();
    drop(thread);
    let mut thread = world.thread(); // its changelog has two partitions still
    write(&world, "in", 0, &["a"]);
    world.run(&mut thread).unwrap();
    world.create_topic("in-3", 2);
    write(&world, "in-3", 1, &["a"]);
    look(&world, &mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 1), ("a", 2)]));
}

#[test]
fn a_topic_with_more_partitions_than_the_changelog_stops_the_application() {
    let world = world(counting());
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.create_topic("in-2", 2);
    let error = look(&world, &mut thread).unwrap_err();
    let too_large = StreamsError::FollowedTopicTooLarge {
        application: "app".into(),
        topic: "in-2".into(),
        partitions: 2,
        internal: CHANGELOG.into(),
        found: 1,
    };
    assert_eq!(error, too_large);
    assert!(error.to_string().contains("at most 1, or run `vltava app reset --app app`"));
    assert_eq!(world.try_thread().unwrap_err(), too_large, "the next start says the same");
}

#[test]
fn an_application_may_wait_for_its_first_topic() {
    let dir = tempfile::tempdir().unwrap();
    let world = in_dir(counting(), &dir);
    world.delete_topic("in");
    let streams = world.start();
    world.block_on(streams.running()).unwrap();
    assert!(!world.topics().contains(&CHANGELOG.into()), "of how many partitions?");
    world.create_topic("in-1", 1);
    write(&world, "in-1", 0, &["a", "a"]);
    look_at(&world, &streams, ["a", "a"]);
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2)]));
    assert!(world.topics().contains(&CHANGELOG.into()));
    assert_eq!(streams.state(), State::Running);
    world.block_on(streams.close()).unwrap();
}

#[test]
fn a_new_topic_begins_where_the_reset_policy_says() {
    let mut world = world(copying("in*"));
    world.settings.auto_offset_reset = AutoOffsetReset::Latest;
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.create_topic("in-2", 1);
    write(&world, "in-2", 0, &["before"]);
    look(&world, &mut thread).unwrap();
    write(&world, "in-2", 0, &["after"]);
    world.run(&mut thread).unwrap();
    assert_eq!(keys(&world), ["after"]);
}

#[test]
fn the_internal_topics_of_an_application_are_not_among_those_that_it_follows() {
    let mut builder = TopologyBuilder::new();
    let (key, count) = (String::serde(), i64::serde());
    builder.add(source("*")).unwrap();
    let node = NodeSpec::processor("count", vec!["source".into()], || Count::new(false));
    builder.add(node).unwrap();
    let store = StoreSpec::key_value("counts", key, count, StoreOptions::default());
    builder.add_state_store(store, &["count"]).unwrap();
    let world = world(builder.build().unwrap());
    write(&world, "in", 0, &["a"]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.run(&mut thread).unwrap();
    look(&world, &mut thread).unwrap();
    look(&world, &mut thread).unwrap();
    assert!(world.count(CHANGELOG) > 0);
    assert_eq!((world.metrics().processed, committed(&world, CHANGELOG)), (1, None));
}

/// The keys in `out`, by a reader that passes over what a fetch brings twice.
fn all_keys(world: &World) -> Vec<String> {
    let mut reader = world.broker.fetcher(FetcherConfig::default(), Waker::noop().clone()).unwrap();
    reader.assign(&[(TopicPartition::new("out", 0), Start::Earliest)]).unwrap();
    let mut found = BTreeMap::new();
    for _ in 0..100 {
        world.broker.step();
        let Poll::Ready(fetched) = reader.poll(1 << 20) else { continue };
        for batch in fetched.unwrap().iter().flat_map(|part| &part.batches) {
            for record in batch.records().map(Result::unwrap) {
                found.insert(record.offset, String::from_utf8(record.key.unwrap().into()).unwrap());
            }
        }
    }
    let mut keys: Vec<String> = found.into_values().collect();
    keys.sort();
    keys
}

/// Two threads, of which one dies now and then, while topics come and go, on a broker that misbehaves.
/// Each record is written once; one of a topic that was deleted at most once.
#[test]
fn whatever_happens_each_record_of_a_topic_that_comes_is_processed_once() {
    for seed in 0..12 {
        let mut world = world(copying("in*"));
        let faults = Faults { failed_appends: 0, ..Faults::all() };
        let clock = world.clock.clone();
        world.broker = SimBroker::new(SimConfig { seed, faults, clock, ..SimConfig::default() });
        ["in", "out"].iter().for_each(|topic| world.create_topic(topic, 1));
        let first = world.thread();
        let thread =
            |number| StreamThread::new(world.env(), "p", number, Waker::noop().clone()).unwrap();
        let mut threads = [first, thread(1)];
        let mut dice = seed;
        let mut random = |below: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % below
        };
        let step = |threads: &mut [StreamThread; 2]| {
            world.broker.step();
            world.clock.advance(Duration::from_millis(30));
            for thread in threads {
                thread.step().unwrap();
            }
        };
        let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
        let mut topics = vec![("in".to_owned(), 1)];
        let (mut written, mut deleted) = (Vec::new(), Vec::new());
        for round in 0..300 {
            match random(30) {
                0 if topics.len() < 6 => {
                    let topic = (format!("in-{round}"), 1 + random(3) as u32);
                    world.create_topic(&topic.0, topic.1);
                    topics.push(topic);
                }
                1 if topics.len() > 1 => {
                    let (topic, _) = topics.remove(1 + random(topics.len() as u64 - 1) as usize);
                    world.delete_topic(&topic);
                    deleted.push(topic);
                }
                2 => {
                    world.clock.advance(AGE);
                }
                3 => threads[1] = thread(1),
                4..10 => {
                    let (topic, partitions) = &topics[random(topics.len() as u64) as usize];
                    let key = format!("{topic}/{round}");
                    let mut batch = BatchBuilder::new();
                    batch.push(5, Some(key.as_bytes()), Some(VALUE), &[]).unwrap();
                    let partition = random(u64::from(*partitions)) as u32;
                    let partition = TopicPartition::new(&**topic, partition);
                    if producer.append(&partition, batch.finish().unwrap()).is_ok() {
                        written.push(key); // else the broker was full
                    }
                }
                _ => {}
            }
            step(&mut threads);
        }
        world.clock.advance(AGE);
        let is_deleted =
            |key: &String| deleted.iter().any(|topic| key.split('/').next() == Some(topic));
        written.retain(|key| !is_deleted(key));
        written.sort();
        let mut found = Vec::new();
        for _ in 0..20_000 {
            step(&mut threads);
            if threads.iter().all(StreamThread::is_caught_up) {
                found = all_keys(&world);
                let once = found.windows(2).all(|pair| pair[0] != pair[1]);
                assert!(once, "seed {seed}: {found:?}");
                found.retain(|key| !is_deleted(key));
                if found == written {
                    break;
                }
            }
        }
        assert_eq!(found, written, "seed {seed}, deleted {deleted:?}, {threads:?}");
    }
}

/// It finds a further topic, makes the changelog for both, and commits.
#[test]
fn who_looks_for_topics_while_another_one_begins_looks_again() {
    for (partitions, moment) in (0..40).flat_map(|moment| [(1, moment), (2, moment)]) {
        let world = with_faults(counting(), Faults { admin_delay: 3, ..Faults::default() });
        let admin = world.broker.admin();
        let mut looking = pin!(Plan::follow(&world.topology, "app", &*admin, None));
        let mut look = || looking.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut steps = (0..moment).map(|_| (look().is_ready(), world.broker.step()));
        if steps.any(|(ended, _)| ended) || world.topics().contains(&CHANGELOG.into()) {
            assert!(moment > 5, "it asks the broker");
            return; // the other one is too late
        }
        world.create_topic("in-2", partitions);
        write(&world, "in-2", partitions - 1, &["a"]);
        run(&world, &mut world.thread());
        assert_eq!(committed(&world, "in-2"), Some(1));
        let found = now(&world.broker, looking);
        let (_, plan) = found.unwrap_or_else(|e| panic!("{partitions}, {moment}: {e}"));
        assert_eq!(plan.tasks.len(), partitions as usize, "{moment}");
    }
    panic!("it never makes the changelog");
}

/// Each record of `in` goes to the topic of its key.
fn choosing() -> Topology {
    let mut builder = TopologyBuilder::new();
    let (key, value) = (String::serde(), i64::serde());
    let source = NodeSpec::source("in", vec!["in".into()], key.clone(), value.clone());
    builder.add(source).unwrap();
    let choose = Arc::new(|record: &Record<String, i64>| record.key.clone());
    let parents = vec!["in".into()];
    let sink = NodeSpec::dynamic_sink("out", parents, "by key", choose, (key, value), None);
    builder.add(sink).unwrap();
    builder.build().unwrap()
}

/// As far as the broker answers at once, and where it does not.
fn choosing_worlds() -> [World; 2] {
    [0, 3].map(|admin_delay| with_faults(choosing(), Faults { admin_delay, ..Faults::default() }))
}

/// An answer of the admin takes some steps of the broker in which nothing else happens.
fn run(world: &World, thread: &mut StreamThread) {
    for _ in 0..20 {
        world.run(thread).unwrap();
    }
}

#[test]
fn a_record_goes_to_a_topic_that_was_made_after_the_start() {
    for world in choosing_worlds() {
        let mut thread = world.thread();
        run(&world, &mut thread);
        ["later", "even-later"].iter().for_each(|topic| world.create_topic(topic, 1));
        write(&world, "in", 0, &["out", "later", "out", "even-later", "later"]);
        run(&world, &mut thread);
        assert_eq!(["out", "later", "even-later"].map(|topic| world.count(topic)), [2, 2, 1]);
        assert_eq!(committed(&world, "in"), Some(5));
    }
}

#[test]
fn the_production_handler_is_asked_about_a_topic_until_there_is_one() {
    for mut world in choosing_worlds() {
        world.settings.production_handler = log_and_continue();
        let mut thread = world.thread();
        write(&world, "in", 0, &["a", "b", "out", "a", "b"]);
        run(&world, &mut thread);
        assert_eq!((world.count("out"), committed(&world, "in")), (1, Some(5)));
        world.create_topic("a", 1);
        write(&world, "in", 0, &["a", "b", "a"]);
        run(&world, &mut thread);
        assert_eq!((world.count("a"), committed(&world, "in")), (2, Some(8)));
        assert_eq!(world.metrics().dropped["not written"], 5);
    }
}
