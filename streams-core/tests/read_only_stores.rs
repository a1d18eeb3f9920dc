//! Stores that are copies of a topic, and are restored from it.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use broker_api::sim::Fault;
use broker_api::{TopicConfig, TopicPartition};
use streams_core::processor::{Context, InitContext, Processor, StoreHandle};
use streams_core::state::{KeyValueStore, StoreOptions, VersionedOptions};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::World;

type Text = KeyValueStore<String, String>;

/// Keeps the last value of each key.
#[derive(Default)]
struct Keep(Option<StoreHandle<Text>>);

impl Processor for Keep {
    type KIn = String;
    type VIn = Option<String>;
    type KOut = ();
    type VOut = ();

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.store("names")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, Option<String>>,
        cx: &mut Context<'_, (), ()>,
    ) -> Result<(), ProcessError> {
        cx.store(self.0.unwrap()).put(record.key, record.value, record.timestamp)?;
        Ok(())
    }
}

/// Forwards how many characters the name of a key has; -1: there is none.
#[derive(Default)]
struct LookUp(Option<StoreHandle<Text>>);

impl Processor for LookUp {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.store("names")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let name = cx.store(self.0.unwrap()).get(&record.key)?;
        let found = name.map_or(-1, |(name, _)| name.len() as i64);
        cx.forward(record.with_value(found));
        Ok(())
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new();
    let text = String::serde;
    let options = StoreOptions::default();
    let store = StoreSpec::key_value("names", text(), text(), options);
    let nullable = Option::<String>::serde();
    let source = NodeSpec::source("names-in", vec!["names".into()], text(), nullable);
    let keep = NodeSpec::processor("keep", vec!["names-in".into()], Keep::default);
    builder.add_read_only_state_store(store, source, keep).unwrap();
    builder.add(NodeSpec::source("in", vec!["in".into()], text(), text())).unwrap();
    let look_up = NodeSpec::processor("look-up", vec!["in".into()], LookUp::default);
    builder.add(look_up.with_stores(["names"])).unwrap();
    let sink = NodeSpec::sink("out", vec!["look-up".into()], "out", text(), i64::serde(), None);
    builder.add(sink).unwrap();
    builder.build().unwrap()
}

fn world() -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    world.create_topic_with("names", 1, TopicConfig::compacted());
    world
}

fn name(world: &World, key: &str, value: Option<&str>) {
    world.write_at(5, TopicPartition::new("names", 0), &[(key, value.map(str::as_bytes))]);
}

/// What look-ups of these keys answer, by an application that is started for them; and how many records
/// it has restored.
fn look_up(world: &World, keys: &[&str]) -> (Vec<i64>, u64) {
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    let before = world.read("out").len();
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (*key, &b"-"[..])).collect();
    world.write(&records);
    world.run(&mut thread).unwrap();
    let restored = thread.restored();
    drop(thread);
    (world.read("out")[before..].iter().map(|(_, found)| *found).collect(), restored)
}

#[test]
fn a_read_only_store_has_no_changelog_and_goes_on_where_its_files_end() {
    let world = world();
    name(&world, "a", Some("1"));
    name(&world, "b", Some("22"));
    world.run_once();
    assert!(!world.topics().iter().any(|topic| topic.ends_with("-changelog")));
    name(&world, "a", None);
    assert_eq!(look_up(&world, &["a", "b"]), (vec![-1, 2], 0));
}

#[test]
fn after_a_crash_it_is_restored_from_its_topic_up_to_what_was_consumed() {
    for kept in 0..3 {
        let mut world = world();
        world.settings.flush_interval = Duration::ZERO;
        let mut thread = world.thread();
        for (key, value) in [("a", Some("1")), ("b", Some("1")), ("a", Some("22")), ("b", None)] {
            name(&world, key, value);
            world.run(&mut thread).unwrap();
        }
        drop(thread);
        world.engine.crash(|unflushed| kept.min(unflushed));
        world.broker = world.broker.crash();
        assert_eq!(look_up(&world, &["a", "b"]).0, [2, -1], "{kept} kept");
    }
}

#[test]
fn without_its_files_it_is_restored_and_nothing_is_processed_twice() {
    let mut world = world();
    name(&world, "a", Some("1"));
    name(&world, "b", Some("22"));
    world.run_once();
    world.engine = streams_core::state::LossyEngine::new();
    assert_eq!(look_up(&world, &["a", "b"]), (vec![1, 2], 2));
    assert_eq!(world.metrics().processed, 2, "only the look-ups");
}

#[test]
fn a_store_that_missed_deletions_is_rebuilt() {
    let world = world();
    name(&world, "a", Some("1"));
    world.run_once();
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    name(&world, "a", None);
    name(&world, "b", Some("22"));
    world.run(&mut thread).unwrap();
    drop(thread); // what it consumed is committed, but not in the files
    world.broker.inject(Fault::Compact { partition: TopicPartition::new("names", 0) });
    assert_eq!(look_up(&world, &["a", "b"]).0, [-1, 2]);
    assert_eq!(world.metrics().rebuilt, 1);
}

#[test]
fn a_store_whose_changelog_has_a_form_of_its_own_is_no_copy_of_a_topic() {
    let mut builder = TopologyBuilder::new();
    let text = String::serde;
    let options = VersionedOptions { logged: false, retention: 1_000 };
    let store = StoreSpec::versioned("names", text(), text(), options);
    let nullable = Option::<String>::serde();
    let source = NodeSpec::source("names-in", vec!["names".into()], text(), nullable);
    let keep = NodeSpec::processor("keep", vec!["names-in".into()], Keep::default);
    let refused = builder.add_read_only_state_store(store, source, keep).unwrap_err();
    assert!(refused.to_string().contains("only a key-value store"), "{refused}");
}
