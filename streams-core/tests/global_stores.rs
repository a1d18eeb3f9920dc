//! Global stores on a broker: whole before the tasks begin, and right after restarts, crashes and lag.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use broker_api::sim::{Fault, Faults};
use broker_api::{BatchBuilder, Broker, TopicConfig, TopicPartition};
use streams_core::failure::{DeadLetter, Response};
use streams_core::processor::{Context, InitContext, Processor, StoreHandle};
use streams_core::runtime::{GlobalThread, Next, StreamThread};
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::task::GlobalStore;
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::{World, now};

type Text = KeyValueStore<String, String>;

/// Keeps the last value of each key; an empty one deletes.
#[derive(Default)]
struct Keep(Option<StoreHandle<Text>>);

impl Processor for Keep {
    type KIn = String;
    type VIn = String;
    type KOut = ();
    type VOut = ();

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.store("names")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, (), ()>,
    ) -> Result<(), ProcessError> {
        let value = Some(record.value).filter(|value| !value.is_empty());
        cx.store(self.0.unwrap()).put(record.key, value, record.timestamp)?;
        Ok(())
    }
}

/// Forwards how many characters the name has that the global store knows; -1: it knows none.
#[derive(Default)]
struct LookUp(Option<GlobalStore<Text>>);

impl Processor for LookUp {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.global_store("names")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let name = self.0.as_ref().unwrap().get(&record.key)?;
        cx.forward(record.with_value(name.map_or(-1, |(name, _)| name.len() as i64)));
        Ok(())
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new();
    let text = String::serde;
    let source =
        |name: &str, topic: &str| NodeSpec::source(name, vec![topic.to_string()], text(), text());
    let options = StoreOptions::default();
    let store = StoreSpec::key_value("names", text(), text(), options);
    let keep = NodeSpec::processor("keep", vec!["names-in".into()], Keep::default);
    builder.add_global_store(store, source("names-in", "names"), keep).unwrap();
    builder.add(source("in", "in")).unwrap();
    builder.add(NodeSpec::processor("look-up", vec!["in".into()], LookUp::default)).unwrap();
    let sink = NodeSpec::sink("out", vec!["look-up".into()], "out", text(), i64::serde(), None);
    builder.add(sink).unwrap();
    builder.build().unwrap()
}

/// A world whose topic `names` has several partitions.
fn world(partitions: u32) -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    world.create_topic_with("names", partitions, TopicConfig::compacted());
    world
}

fn name(world: &World, partition: u32, key: &str, value: &str) {
    world.write_to(TopicPartition::new("names", partition), &[(key, value.as_bytes())]);
}

/// The threads of an instance.
struct Instance {
    global: GlobalThread,
    stream: StreamThread,
}

impl Instance {
    fn start(world: &World) -> Self {
        let stream = world.thread();
        Self { global: GlobalThread::new(world.env(), Waker::noop().clone()).unwrap(), stream }
    }

    /// Steps everything until nothing has anything to do.
    fn run(&mut self, world: &World) {
        let mut idle = 0;
        while idle < 4 {
            let busy = world.broker.step()
                | (self.global.step().unwrap() == Next::Again)
                | (self.stream.step().unwrap() == Next::Again);
            idle = if busy { 0 } else { idle + 1 };
        }
    }

    fn stop(mut self, world: &World) {
        self.stream.stop();
        self.global.stop();
        let mut stopped = (false, false);
        for _ in 0..1_000 {
            world.broker.step();
            stopped.0 |= self.stream.step().unwrap() == Next::Stopped;
            stopped.1 |= self.global.step().unwrap() == Next::Stopped;
            if stopped == (true, true) {
                return;
            }
        }
        panic!("it does not stop");
    }
}

/// What the look-ups of these keys answer from now on.
fn look_up(world: &World, instance: &mut Instance, keys: &[&str]) -> Vec<i64> {
    let before = world.read("out").len();
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (*key, &b"-"[..])).collect();
    world.write(&records);
    instance.run(world);
    world.read("out")[before..].iter().map(|(_, found)| *found).collect()
}

#[test]
fn tasks_begin_when_the_global_store_has_what_was_in_all_partitions() {
    let world = world(3);
    // More than a few fetches bring.
    for n in 0..20 {
        name(&world, 2, &format!("k{n}"), &"-".repeat(400_000));
    }
    for (partition, key) in ["a", "b", "c"].into_iter().enumerate() {
        name(&world, partition as u32, key, "name");
    }
    world.write(&[("a", b"-"), ("b", b"-"), ("c", b"-"), ("d", b"-")]);
    let mut instance = Instance::start(&world);
    // The stream thread alone gets nowhere.
    world.run(&mut instance.stream).unwrap();
    assert_eq!(world.read("out"), []);
    instance.run(&world);
    let found: Vec<i64> = world.read("out").iter().map(|(_, found)| *found).collect();
    assert_eq!(found, [4, 4, 4, -1]);
    // From then on the store follows by itself.
    name(&world, 2, "d", "other");
    instance.run(&world);
    assert_eq!(look_up(&world, &mut instance, &["d"]), [5]);
    assert!(instance.global.is_caught_up());
    instance.stop(&world);
}

#[test]
fn a_restart_goes_on_where_the_files_end() {
    let world = world(2);
    name(&world, 0, "a", "1");
    name(&world, 1, "b", "1");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    instance.stop(&world);
    name(&world, 1, "b", "22");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    assert_eq!(instance.global.processed(), 1, "the rest was in the files");
    assert_eq!(look_up(&world, &mut instance, &["a", "b"]), [1, 2]);
    assert_eq!(world.metrics().rebuilt, 0);
}

#[test]
fn after_a_crash_the_store_is_what_the_topic_says() {
    for kept in 0..4 {
        let mut world = world(2);
        world.settings.flush_interval = Duration::ZERO;
        let mut instance = Instance::start(&world);
        for round in 0..3 {
            name(&world, 0, "a", &"a".repeat(round + 1));
            name(&world, 1, if round < 2 { "x" } else { "b" }, "y");
            instance.run(&world);
        }
        name(&world, 1, "x", "");
        name(&world, 0, "a", "");
        instance.run(&world);
        drop(instance);
        world.engine.crash(|unflushed| kept.min(unflushed));
        world.broker = world.broker.crash();
        let mut instance = Instance::start(&world);
        instance.run(&world);
        assert_eq!(look_up(&world, &mut instance, &["a", "b", "x"]), [-1, 1, -1], "{kept} kept");
    }
}

#[test]
fn a_store_that_missed_deletions_while_it_was_away_is_rebuilt() {
    let world = world(1);
    name(&world, 0, "a", "1");
    name(&world, 0, "b", "1");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    instance.stop(&world);
    delete(&world, "a");
    name(&world, 0, "c", "333");
    world.broker.inject(Fault::Compact { partition: TopicPartition::new("names", 0) });
    let mut instance = Instance::start(&world);
    instance.run(&world);
    assert_eq!(look_up(&world, &mut instance, &["a", "b", "c"]), [-1, 1, 3]);
    assert_eq!(world.metrics().rebuilt, 1);
}

#[test]
fn a_store_of_a_topic_that_was_made_anew_is_rebuilt() {
    let world = world(1);
    name(&world, 0, "a", "1");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    instance.stop(&world);
    world.delete_topic("names");
    world.create_topic_with("names", 1, TopicConfig::compacted());
    name(&world, 0, "b", "22");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    assert_eq!(look_up(&world, &mut instance, &["a", "b"]), [-1, 2]);
}

#[test]
fn a_store_whose_topic_was_deleted_in_front_of_it_is_rebuilt_and_the_tasks_wait() {
    let world = world(1);
    name(&world, 0, "a", "1");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    // It does not come to read what is deleted meanwhile.
    name(&world, 0, "a", "22");
    name(&world, 0, "b", "333");
    let partition = TopicPartition::new("names", 0);
    now(&world.broker, world.broker.admin().delete_records(&partition, 2)).unwrap();
    instance.run(&world);
    assert_eq!(look_up(&world, &mut instance, &["a", "b"]), [-1, 3]);
    assert_eq!(world.metrics().rebuilt, 1);
}

#[test]
fn a_store_that_lags_and_so_misses_a_deletion_is_rebuilt() {
    let world = world(1);
    name(&world, 0, "a", "1");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    // More than one fetch brings, and then a deletion.
    for n in 0..5 {
        name(&world, 0, &format!("k{n}"), &"-".repeat(400_000));
    }
    delete(&world, "a");
    name(&world, 0, "z", "22");
    steps_until(&world, &mut instance, 2);
    assert!(instance.global.processed() < 6, "the deletion is not read yet");
    world.broker.inject(Fault::Compact { partition: TopicPartition::new("names", 0) });
    instance.run(&world);
    assert_eq!(look_up(&world, &mut instance, &["a", "z"]), [-1, 2]);
    assert_eq!(world.metrics().rebuilt, 1);
}

#[test]
fn a_flush_interval_without_end_never_comes() {
    let mut world = world(1);
    world.settings.flush_interval = Duration::MAX;
    world.clock.advance(Duration::from_secs(1));
    name(&world, 0, "a", "1");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    assert_eq!((instance.global.processed(), world.metrics().flushes), (1, 0));
}

/// So it is when one fetch brings all that is left behind the deletion.
#[test]
fn a_store_that_reads_over_a_deletion_in_one_fetch_is_rebuilt() {
    let world = world(1);
    name(&world, 0, "a", "1");
    let mut instance = Instance::start(&world);
    instance.run(&world);
    delete(&world, "a");
    name(&world, 0, "z", "22");
    world.broker.inject(Fault::Compact { partition: TopicPartition::new("names", 0) });
    instance.run(&world);
    assert_eq!(look_up(&world, &mut instance, &["a", "z"]), [-1, 2]);
    assert_eq!(world.metrics().rebuilt, 1);
}

/// So it is when it comes to write its files in between, and the process dies, or stops, before the store
/// has caught up.
#[test]
fn the_files_of_a_store_that_lags_do_not_say_that_it_missed_nothing() {
    for dies in [true, false] {
        let mut world = world(1);
        world.settings.flush_interval = if dies { Duration::ZERO } else { Duration::MAX };
        name(&world, 0, "a", "1");
        let mut instance = Instance::start(&world);
        instance.run(&world);
        let large = |n: usize| (format!("k{n}"), "-".repeat(400_000));
        (0..5).map(large).for_each(|(key, value)| name(&world, 0, &key, &value));
        delete(&world, "a");
        // What comes then can be read, but is not synced, and so is not compacted.
        world.broker.set_faults(Faults { sync_delay: 20_000, ..Faults::default() });
        let names = TopicPartition::new("names", 0);
        let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
        for (key, value) in (5..20).map(large) {
            let mut batch = BatchBuilder::new();
            batch.push(5, Some(key.as_bytes()), Some(value.as_bytes()), &[]).unwrap();
            producer.append(&names, batch.finish().unwrap()).unwrap();
            world.broker.settle(3);
        }
        steps_until(&world, &mut instance, 2);
        world.broker.inject(Fault::Compact { partition: names.clone() });
        let horizon = now(&world.broker, world.broker.admin().horizon(&names)).unwrap();
        assert_eq!(horizon.tombstones_gone_below, 7);
        world.broker.set_faults(Faults::default());
        world.broker.settle(20_000);
        steps_until(&world, &mut instance, 12);
        assert!(instance.global.processed() < 20, "it has not caught up");
        match dies {
            true => drop(instance),
            false => instance.stop(&world),
        }
        let mut instance = Instance::start(&world);
        instance.run(&world);
        assert_eq!(look_up(&world, &mut instance, &["a", "k19"]), [-1, 400_000], "dies: {dies}");
    }
}

fn steps_until(world: &World, instance: &mut Instance, processed: u64) {
    while instance.global.processed() < processed {
        world.broker.step();
        instance.global.step().unwrap();
    }
}

/// A deletion as the topic has it.
fn delete(world: &World, key: &str) {
    world.write_at(5, TopicPartition::new("names", 0), &[(key, None)]);
}

#[test]
fn a_processor_cannot_be_connected_to_a_global_store() {
    let mut builder = TopologyBuilder::new();
    let text = String::serde;
    let source =
        |name: &str, topic: &str| NodeSpec::source(name, vec![topic.to_string()], text(), text());
    let store = StoreSpec::key_value("names", text(), text(), StoreOptions::default());
    let keep = NodeSpec::processor("keep", vec!["names-in".into()], Keep::default);
    builder.add_global_store(store, source("names-in", "names"), keep).unwrap();
    builder.add(source("in", "in")).unwrap();
    let other = NodeSpec::processor("other", vec!["in".into()], Keep::default);
    builder.add(other.with_stores(["names"])).unwrap();
    let error = builder.build().err().unwrap().to_string();
    assert!(error.contains("read it by its name"), "{error}");
}

#[test]
fn a_record_that_a_global_store_leaves_out_is_counted_and_one_that_it_cannot_names_its_topic() {
    for resumes in [true, false] {
        let mut world = world(1);
        world.create_topic("dead", 1);
        world.settings.dead_letter_topic = Some("dead".into());
        world.settings.deserialization_handler = Arc::new(move |failure| match resumes {
            true => Response::resume_with(vec![DeadLetter::of(failure)]),
            false => Response::fail(),
        });
        name(&world, 0, "a", "1");
        world.write_to(TopicPartition::new("names", 0), &[("b", b"\xff")]);
        if resumes {
            let mut instance = Instance::start(&world);
            instance.run(&world);
            assert_eq!(look_up(&world, &mut instance, &["a", "b"]), [1, -1]);
            assert_eq!(world.metrics().dropped.get("not decodable"), Some(&1));
            assert_eq!(world.count("dead"), 0, "nothing could write it once");
            continue;
        }
        let _stream = world.thread();
        let mut global = GlobalThread::new(world.env(), Waker::noop().clone()).unwrap();
        let error = (0..1_000).find_map(|_| global.step().err()).unwrap().to_string();
        let expected = "the global store of topic 'names', record 1 of names-0: ";
        assert!(error.starts_with(expected), "{error}");
    }
}
