//! Topics that come and go while the application runs: a pattern follows them, and a sink that chooses
//! the topic of each record finds them. The simulated broker does not tell of them.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use broker_api::sim::{Faults, SimBroker, SimConfig};
use broker_api::{BatchBuilder, Broker, Offset, TopicPartition};
use streams_core::runtime::{
    AutoOffsetReset, State, StreamThread, Streams, StreamsError, log_and_continue,
};
use streams_core::state::{LossyEngine, StoreOptions};
use streams_core::topology::{NodeSpec, Pattern, StoreSpec, Topology, TopologyBuilder};
use streams_core::{HasSerde, Record};

use world::{CHANGELOG, Count, World, counts, now};

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

fn in_dir(topology: Topology, dir: &tempfile::TempDir) -> World {
    let mut world = world(topology);
    world.settings.state_dir = dir.path().into();
    world
}

fn start(world: &World) -> Streams {
    let starting = Streams::start(
        world.topology.clone(),
        Arc::new(world.broker.clone()),
        Arc::new(world.engine.clone()),
        world.clock.clone(),
        world.settings.clone(),
    );
    world.block_on(starting).unwrap()
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
    let streams = start(&world);
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
    let world = world(counting());
    world.create_topic("in-2", 1);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    write(&world, "in", 0, &["x"]);
    thread.step().unwrap();
    thread.step().unwrap(); // now a commit is under way, and what comes waits with its own
    let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
    for (topic, key) in [("in", "a"), ("in-2", "b")] {
        let mut batch = BatchBuilder::new();
        batch.push(5, Some(key.as_bytes()), Some(VALUE), &[]).unwrap();
        producer.append(&TopicPartition::new(topic, 0), batch.finish().unwrap()).unwrap();
    }
    world.broker.step();
    thread.step().unwrap();
    assert_eq!((world.metrics().processed, world.metrics().commits), (3, 1));
    world.delete_topic("in-2");
    world.run(&mut thread).unwrap();
    let mut found = world.read("out");
    found.sort();
    assert_eq!(found, counts(&[("a", 1), ("b", 1), ("x", 1)]));
    assert_eq!((committed(&world, "in"), committed(&world, "in-2")), (Some(2), None));
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
    let streams = start(&world);
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
    [0, 3].map(|admin_delay| {
        let mut world = world(choosing());
        let faults = Faults { admin_delay, ..Faults::default() };
        world.broker = SimBroker::new(SimConfig {
            clock: world.clock.clone(),
            faults,
            ..SimConfig::default()
        });
        world.engine = LossyEngine::new();
        ["in", "out"].iter().for_each(|topic| world.create_topic(topic, 1));
        world
    })
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
