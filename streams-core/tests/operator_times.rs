//! Times of operators that move without a record, by the wall clock, are committed all the same; and
//! what a task that follows topics has committed is not lost with one of them.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use broker_api::TopicPartition;
use broker_api::sim::{Faults, SimBroker, SimConfig};

use streams_core::processor::{
    Context, InitContext, OperatorTime, Processor, PunctuationKind, Schedule,
};
use streams_core::runtime::Next;
use streams_core::topology::{NodeSpec, Pattern, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::{World, counts};

/// Forwards its time for each record; every second of the wall clock moves it on by one.
#[derive(Default)]
struct Ticks {
    time: Option<OperatorTime>,
}

impl Processor for Ticks {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.time = Some(cx.operator_time("ticks"));
        cx.schedule(Duration::from_secs(1), PunctuationKind::WallClock)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let time = *cx.operator_time(self.time.unwrap());
        cx.forward(record.with_value(time));
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        *cx.operator_time(self.time.unwrap()) += 1;
        Ok(())
    }
}

#[test]
fn a_time_that_only_the_wall_clock_moves_is_there_after_a_crash() {
    let mut world = World::new(1 << 20);
    let mut builder = TopologyBuilder::new();
    let (key, value, time) = (String::serde(), String::serde(), i64::serde());
    builder.add(NodeSpec::source("source", vec!["in".into()], key.clone(), value)).unwrap();
    builder.add(NodeSpec::processor("ticks", vec!["source".into()], Ticks::default)).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["ticks".into()], "out", key, time, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());

    let mut thread = world.thread();
    world.write(&[("a", b"-")]);
    world.run(&mut thread).unwrap();
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(1));
        world.run(&mut thread).unwrap();
    }
    drop(thread); // no good ending

    let mut thread = world.thread();
    world.write(&[("b", b"-")]);
    world.run(&mut thread).unwrap();
    thread.stop();
    assert_eq!(world.run(&mut thread).unwrap(), Next::Stopped);
    assert_eq!(world.read("out"), counts(&[("a", -1), ("b", 2)]));
}

/// Forwards how many records it has seen, and the stream time.
#[derive(Default)]
struct Seen {
    records: Option<OperatorTime>,
}

impl Processor for Seen {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.records = Some(cx.operator_time("seen"));
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let records = cx.operator_time(self.records.unwrap());
        *records += 1;
        let seen = *records * 100 + cx.stream_time();
        cx.forward(record.with_value(seen));
        Ok(())
    }
}

/// Counts, by its operator's time, the records of all topics that are like `in*`.
fn following() -> World {
    let mut world = World::new(1 << 20);
    let mut builder = TopologyBuilder::new();
    let (key, value, time) = (String::serde(), String::serde(), i64::serde());
    let source = NodeSpec::source("source", Vec::new(), key.clone(), value);
    builder.add(source.with_pattern(Pattern::wildcard("in*"))).unwrap();
    builder.add(NodeSpec::processor("seen", vec!["source".into()], Seen::default)).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["seen".into()], "out", key, time, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());
    world
}

fn write(world: &World, topic: &str, key: &str, timestamp: i64) {
    world.write_at(timestamp, TopicPartition::new(topic, 0), &[(key, Some(b"-"))]);
}

#[test]
fn times_outlive_the_followed_topic_with_which_they_were_committed_last() {
    for running in [true, false] {
        let world = following();
        world.create_topic("in-2", 1);
        let mut thread = world.thread();
        write(&world, "in", "a", 5);
        world.run(&mut thread).unwrap();
        write(&world, "in-2", "b", 9);
        world.run(&mut thread).unwrap();
        if running {
            world.delete_topic("in-2");
            world.run(&mut thread).unwrap();
        }
        drop(thread); // no good ending
        if !running {
            world.delete_topic("in-2");
        }
        let mut thread = world.thread();
        write(&world, "in", "c", 7);
        world.run(&mut thread).unwrap();
        assert_eq!(world.read("out"), counts(&[("a", 5), ("b", 109), ("c", 209)]), "{running}");
    }
}

#[test]
fn times_outlive_a_followed_topic_that_was_deleted_before_the_commit() {
    let mut world = following();
    let (clock, faults) = (world.clock.clone(), Faults { full: 700, ..Faults::default() });
    world.broker = SimBroker::new(SimConfig { clock, faults, ..SimConfig::default() });
    ["in", "in-2", "out"].iter().for_each(|topic| world.create_topic(topic, 1));
    let mut thread = world.thread();
    write(&world, "in", "a", 5);
    while world.metrics().commits == 0 {
        world.run(&mut thread).unwrap();
    }
    write(&world, "in-2", "b", 9);
    while !format!("{thread:?}").contains("unsent: true") {
        assert_eq!(world.metrics().commits, 1, "none was refused");
        world.broker.step();
        thread.step().unwrap();
    }
    world.delete_topic("in-2");
    while world.metrics().commits == 1 {
        world.run(&mut thread).unwrap();
    }
    drop(thread); // no good ending
    let mut thread = world.thread();
    write(&world, "in", "c", 7);
    while world.metrics().commits == 0 {
        world.run(&mut thread).unwrap();
    }
    assert_eq!(world.read("out"), counts(&[("a", 5), ("b", 109), ("c", 209)]));
}

#[test]
fn a_topic_that_joins_takes_over_the_times_without_a_record() {
    let mut world = following();
    world.settings.metadata_max_age = Duration::from_secs(60);
    let mut thread = world.thread();
    write(&world, "in", "a", 5);
    world.run(&mut thread).unwrap();
    world.create_topic("in-2", 1);
    world.clock.advance(Duration::from_secs(60));
    world.run(&mut thread).unwrap();
    drop(thread); // no good ending
    world.delete_topic("in");
    let mut thread = world.thread();
    write(&world, "in-2", "b", 3);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 5), ("b", 105)]));
}
