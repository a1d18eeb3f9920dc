//! Internal topics that are gone while the application remembers what it has read: it must not go
//! on as if nothing had been.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use broker_api::sim::Fault;
use broker_api::{Broker, CleanupPolicy, RetentionBy, TopicConfig, TopicPartition};
use streams_core::runtime::StreamsError;
use streams_core::state::{LossyEngine, StoreOptions};
use streams_core::topology::{InternalTopic, NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde};

use world::processors::Count;
use world::{CHANGELOG, World, counts, now};

const REPARTITION: &str = "app-words-repartition";

/// Source, repartition topic, count; beside the count, perhaps a store that nobody fills.
fn repartitioned(extra_store: bool) -> Topology {
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let options = StoreOptions::default();
    let topic = "words-repartition";
    builder.add_internal_topic(topic, InternalTopic::default());
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    let to = NodeSpec::sink("to", vec!["in".into()], topic, text.clone(), text.clone(), None);
    builder.add(to).unwrap();
    let from = NodeSpec::source("from", vec![topic.into()], text.clone(), text.clone());
    builder.add(from).unwrap();
    builder.add(NodeSpec::processor("count", vec!["from".into()], Count::default)).unwrap();
    for name in ["counts", "extra"].into_iter().take(1 + usize::from(extra_store)) {
        let store = StoreSpec::key_value(name, text.clone(), count.clone(), options);
        builder.add_state_store(store, &["count"]).unwrap();
    }
    builder.add(NodeSpec::sink("sink", vec!["count".into()], "out", text, count, None)).unwrap();
    builder.build().unwrap()
}

fn world() -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(repartitioned(false));
    world.write(&[("a", b"-"), ("a", b"-")]);
    world.run_once();
    world
}

fn lost(world: &World, topic: &str) {
    let error = world.try_thread().map(|mut thread| world.run(&mut thread)).unwrap_err();
    let expected =
        StreamsError::InternalTopicLost { topic: topic.into(), application: "app".into() };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("vltava app reset --app app"), "{error}");
}

#[test]
fn a_deleted_changelog_is_refused_with_and_without_files_and_nothing_is_created() {
    for files in [true, false] {
        let mut world = world();
        world.delete_topic(CHANGELOG);
        if !files {
            world.engine = LossyEngine::new();
        }
        lost(&world, CHANGELOG);
        assert!(!world.topics().contains(&CHANGELOG.to_owned()));
    }
}

#[test]
fn a_changelog_that_was_deleted_and_made_anew_is_refused() {
    let world = world();
    world.delete_topic(CHANGELOG);
    world.create_topic_with(CHANGELOG, 1, TopicConfig::compacted());
    lost(&world, CHANGELOG);
}

#[test]
fn a_deleted_repartition_topic_is_refused() {
    let world = world();
    world.delete_topic(REPARTITION);
    lost(&world, REPARTITION);
    assert!(!world.topics().contains(&REPARTITION.to_owned()));
}

#[test]
fn a_store_that_is_new_in_the_topology_starts_empty_and_is_remembered_from_then_on() {
    let mut world = world();
    world.topology = Arc::new(repartitioned(true));
    world.write(&[("a", b"-")]);
    world.run_once();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2), ("a", 3)]));
    world.delete_topic("app-extra-changelog");
    lost(&world, "app-extra-changelog");
}

#[test]
fn a_store_that_left_the_topology_is_not_missed() {
    let mut world = world();
    world.topology = Arc::new(repartitioned(true));
    world.write(&[("a", b"-")]);
    world.run_once();
    world.topology = Arc::new(repartitioned(false));
    world.delete_topic("app-extra-changelog");
    world.write(&[("a", b"-")]);
    world.run_once();
    assert_eq!(world.read("out").last(), counts(&[("a", 4)]).last());
}

/// Counts, with a changelog of these settings.
fn kept(changelog: TopicConfig) -> Arc<Topology> {
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    builder.add(NodeSpec::processor("count", vec!["in".into()], Count::default)).unwrap();
    let mut store = StoreSpec::key_value("counts", text.clone(), count, StoreOptions::default());
    store.changelog = Some(changelog);
    builder.add_state_store(store, &["count"]).unwrap();
    let sink = NodeSpec::sink("sink", vec!["count".into()], "out", text, i64::serde(), None);
    builder.add(sink).unwrap();
    Arc::new(builder.build().unwrap())
}

#[test]
fn a_changelog_keeps_longer_if_a_later_version_needs_it_and_never_less_long() {
    let mut world = World::new(1 << 20);
    let keeps = |retention_ms, min_compaction_lag_ms| {
        let cleanup_policy = CleanupPolicy::CompactDelete;
        let (retention_by, more) = (RetentionBy::StreamTime, TopicConfig::default());
        TopicConfig { cleanup_policy, retention_ms, retention_by, min_compaction_lag_ms, ..more }
    };
    let start = |world: &mut World, changelog| {
        world.topology = kept(changelog);
        world.write(&[("a", b"-")]);
        world.run_once();
        now(&world.broker, world.broker.admin().topic(CHANGELOG)).unwrap().config
    };
    assert_eq!(start(&mut world, keeps(Some(500), 0)), keeps(Some(500), 0));
    assert_eq!(start(&mut world, keeps(Some(800), 0)), keeps(Some(800), 0), "it is raised");
    assert_eq!(start(&mut world, keeps(Some(600), 0)), keeps(Some(800), 0), "it is not lowered");
    assert_eq!(start(&mut world, keeps(Some(600), 7)), keeps(Some(800), 7), "so is history");
    assert_eq!(start(&mut world, keeps(None, 0)), keeps(Some(800), 7), "none is no wish");
    // What was set by hand stays, where it is not too short.
    let by_hand = TopicConfig { max_message_bytes: 1_000, ..keeps(None, 7) };
    let admin = world.broker.admin();
    now(&world.broker, admin.configure_topic(CHANGELOG, by_hand.clone())).unwrap();
    assert_eq!(
        start(&mut world, keeps(Some(900), 8)),
        TopicConfig { min_compaction_lag_ms: 8, ..by_hand }
    );
    assert_eq!(world.read("out").last(), counts(&[("a", 6)]).last());
}

#[test]
fn a_start_after_a_reset_is_a_first_start() {
    let mut world = world();
    world.forget_group("app");
    world.delete_topic(CHANGELOG);
    world.delete_topic(REPARTITION);
    for files in [true, false] {
        if !files {
            world.engine = LossyEngine::new();
        }
        world.run_once();
        assert_eq!(world.read(CHANGELOG), counts(&[("a", 2)]), "counted from the beginning, once");
    }
}

#[test]
fn gaps_and_compaction_of_a_changelog_are_no_loss() {
    let world = world();
    let partition = TopicPartition::new(CHANGELOG, 0);
    world.broker.inject(Fault::Gap { partition: partition.clone(), length: 3 });
    world.broker.inject(Fault::Compact { partition });
    world.write(&[("a", b"-")]);
    world.run_once();
    assert_eq!(world.read("out").last(), counts(&[("a", 3)]).last());
}

#[test]
fn a_topology_that_reads_nothing_does_not_start() {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(TopologyBuilder::new().build().unwrap());
    let error = world.try_thread().map(drop).unwrap_err();
    assert_eq!(error, StreamsError::Build(BuildError::Empty));
    assert!(error.to_string().contains("reads no topic"), "{error}");
}

#[test]
fn an_internal_topic_is_not_an_output_by_its_whole_name_either() {
    // At the first start there is no such topic yet: nobody is told to create it.
    let first_start = || World::new(1 << 20);
    for (topic, world) in [CHANGELOG, REPARTITION]
        .into_iter()
        .flat_map(|topic| [(topic, first_start()), (topic, world())])
    {
        let mut world = world;
        let mut builder = TopologyBuilder::new();
        let text = String::serde();
        let options = StoreOptions::default();
        let name = "words-repartition";
        builder.add_internal_topic(name, InternalTopic::default());
        builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
        for (node, to) in [("to", name), ("spoils", topic)] {
            let (key, value) = (text.clone(), text.clone());
            let sink = NodeSpec::sink(node, vec!["in".into()], to, key, value, None);
            builder.add(sink).unwrap();
        }
        builder.add(NodeSpec::processor("count", vec!["in".into()], Count::default)).unwrap();
        let store = StoreSpec::key_value("counts", text.clone(), i64::serde(), options);
        builder.add_state_store(store, &["count"]).unwrap();
        world.topology = Arc::new(builder.build().unwrap());
        let error = world.try_thread().map(drop).unwrap_err();
        let StreamsError::Build(BuildError::InternalTopic { node, topic: found, .. }) = error
        else {
            panic!("{error}");
        };
        assert_eq!((&*node, &*found), ("spoils", topic));
    }
}
