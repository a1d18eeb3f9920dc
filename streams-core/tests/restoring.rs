//! Restores that are interrupted, or overtaken, while the changelog is compacted or cut.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use broker_api::sim::{Fault, Faults};
use broker_api::{Broker, OffsetSpec, TopicPartition};
use streams_core::processor::{Context, InitContext, Processor, StoreHandle};
use streams_core::runtime::StreamThread;
use streams_core::state::{KeyValueStore, LossyEngine, StoreOptions};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::{CHANGELOG, World, now};

/// Keeps the last value of each key; an empty one deletes.
#[derive(Default)]
struct Keep {
    store: Option<StoreHandle<KeyValueStore<String, String>>>,
}

impl Processor for Keep {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.store = Some(cx.store("counts")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let value = Some(record.value).filter(|value| !value.is_empty());
        cx.store(self.store.unwrap()).put(record.key, value, record.timestamp)?;
        Ok(())
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new();
    let text = String::serde();
    let options = StoreOptions::default();
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    builder.add(NodeSpec::processor("keep", vec!["in".into()], Keep::default)).unwrap();
    let store = StoreSpec::key_value("counts", text.clone(), text, options);
    builder.add_state_store(store, &["keep"]).unwrap();
    builder.build().unwrap()
}

fn entries(thread: &mut StreamThread) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let task = thread.tasks_mut().next().unwrap();
    let entries = task.core_mut().stores_mut().at(0).dump().unwrap();
    entries.into_iter().map(|(key, value, _)| (text(key), text(value))).collect()
}

fn some_steps(world: &World, thread: &mut StreamThread) {
    for _ in 0..200 {
        world.broker.step();
        thread.step().unwrap();
    }
}

/// Writes and processes: the changelog knows it, the store's files do not.
fn log(world: &World, records: &[(&str, &[u8])]) -> StreamThread {
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.write(records);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    thread
}

#[test]
fn a_deletion_that_is_compacted_away_during_an_interrupted_restore_is_not_missed() {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    world.settings.restore_memory_bytes = 2; // every batch is a part of its own
    world.write(&[("a", b"1"), ("x", b"1")]);
    world.run_once();
    let mut thread = log(&world, &[("x", b""), ("a", b"2")]);
    // One more commit is in the log, but not visible: the restore will have to wait for it.
    let partition = TopicPartition::new(CHANGELOG, 0);
    world.broker.inject(Fault::Hold { partition: partition.clone(), steps: u32::MAX / 2 });
    world.write(&[("b", b"3")]);
    some_steps(&world, &mut thread);
    assert!(thread.is_caught_up());
    drop(thread);
    // Nothing is read yet when its deletions go; then some is, and the process dies.
    world.broker.set_faults(Faults { fetch_delay: 100, ..Faults::default() });
    let mut thread = restoring(&world);
    world.broker.inject(Fault::Compact { partition });
    some_steps(&world, &mut thread);
    assert!(!thread.is_running());
    drop(thread);
    world.broker = world.broker.crash();
    world.broker.set_faults(Faults::default());
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(entries(&mut thread), [("a".into(), "2".into()), ("b".into(), "3".into())]);
}

#[test]
fn a_long_tail_is_restored_in_parts() {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    world.settings.restore_memory_bytes = 2;
    world.write(&[("a", b"1"), ("x", b"1")]);
    world.run_once();
    let mut thread = log(&world, &[("a", b"0"), ("y", b"1")]);
    for round in 1..10u8 {
        world.write(&[("a", &[b'0' + round]), ("x", if round == 9 { b"" } else { b"y" })]);
        world.run(&mut thread).unwrap();
    }
    drop(thread);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(entries(&mut thread), [("a".into(), "9".into()), ("y".into(), "1".into())]);
}

#[test]
fn a_restore_that_retention_overtakes_begins_anew_at_what_is_left() {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    drop(log(&world, &[("a", b"1"), ("b", b"2"), ("c", b"3")]));
    world.engine = LossyEngine::new();
    world.broker.set_faults(Faults { fetch_delay: 100, ..Faults::default() });
    let mut thread = restoring(&world);
    let changelog = TopicPartition::new(CHANGELOG, 0);
    now(&world.broker, world.broker.admin().delete_records(&changelog, 2)).unwrap();
    world.broker.set_faults(Faults::default());
    world.run(&mut thread).unwrap();
    assert_eq!(entries(&mut thread), [("c".into(), "3".into())]);
    assert_eq!(world.metrics().rebuilt, 1);
}

/// The same when nothing is left of what it was to read.
#[test]
fn a_restore_that_retention_overtakes_to_its_end_has_nothing() {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    drop(log(&world, &[("a", b"1"), ("b", b"2")]));
    world.engine = LossyEngine::new();
    world.broker.set_faults(Faults { fetch_delay: 100, ..Faults::default() });
    let mut thread = restoring(&world);
    let changelog = TopicPartition::new(CHANGELOG, 0);
    let end = [(changelog.clone(), OffsetSpec::Latest)];
    let end = now(&world.broker, world.broker.admin().offsets(&end)).unwrap()[0];
    now(&world.broker, world.broker.admin().delete_records(&changelog, end)).unwrap();
    world.broker.set_faults(Faults::default());
    world.run(&mut thread).unwrap();
    assert_eq!(entries(&mut thread), []);
}

/// A thread whose task has begun to restore its store, and has read nothing yet.
fn restoring(world: &World) -> StreamThread {
    let mut thread = world.thread();
    while format!("{thread:?}").contains("restoring: []") {
        world.broker.step();
        thread.step().unwrap();
        assert!(!thread.is_running());
    }
    thread
}
