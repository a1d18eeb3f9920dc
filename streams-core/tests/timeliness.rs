//! Commits, punctuations and the end of a thread are in time also where records take long; and a record
//! with a time before the epoch is refused where it is made.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use broker_api::{Clock, ManualClock};
use streams_core::failure::Response;
use streams_core::processor::{Context, InitContext, Processor, PunctuationKind, Schedule};
use streams_core::runtime::{Next, StreamThread};
use streams_core::topology::{NodeSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::World;

/// Takes 50 ms for each record. With every second of the wall clock it says so.
struct Slow {
    clock: Arc<ManualClock>,
    /// What a punctuation gives its record.
    time: Option<i64>,
}

impl Processor for Slow {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        cx.schedule(Duration::from_secs(1), PunctuationKind::WallClock)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        self.clock.advance(Duration::from_millis(50));
        cx.forward(record);
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let time = self.time.unwrap_or(cx.stream_time());
        cx.forward(Record::new("tick".into(), now.to_string(), time));
        Ok(())
    }
}

fn slow(clock: &Arc<ManualClock>, time: Option<i64>) -> Topology {
    let (clock, text) = (clock.clone(), String::serde());
    let mut builder = TopologyBuilder::new();
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    let node = move || Slow { clock: clock.clone(), time };
    builder.add(NodeSpec::processor("slow", vec!["in".into()], node)).unwrap();
    let sink = NodeSpec::sink("out", vec!["slow".into()], "out", text.clone(), text, None);
    builder.add(sink).unwrap();
    builder.build().unwrap()
}

fn world(time: Option<i64>) -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(slow(&world.clock, time));
    world
}

/// Steps broker and thread until `done`; answers how long that took by the clock.
fn until(
    world: &World,
    thread: &mut StreamThread,
    done: impl Fn(&World, Next) -> bool,
) -> Duration {
    let began = world.clock.now();
    for _ in 0..1_000 {
        world.broker.step();
        let next = thread.step().unwrap();
        if done(world, next) {
            return Duration::from_millis((world.clock.now() - began).cast_unsigned());
        }
    }
    panic!("it does not come to that");
}

#[test]
fn slow_records_hold_up_neither_commits_nor_punctuations_nor_the_end() {
    let world = world(Some(1));
    world.write(&[("a", b"-" as &[u8]); 400]);
    let mut thread = world.thread();
    let first = until(&world, &mut thread, |world, _| world.count("out") > 0);
    assert!(first < Duration::from_secs(2), "the first commit: {first:?}");
    let ticks = |world: &World, _| {
        world.records("out").iter().filter(|(key, _)| key == "tick").count() == 5
    };
    let five = until(&world, &mut thread, ticks);
    assert!(five < Duration::from_millis(6_500), "five punctuations: {five:?}");
    thread.stop();
    let end = until(&world, &mut thread, |_, next| next == Next::Stopped);
    assert!(end < Duration::from_millis(500), "the end: {end:?}");
    assert!(world.count("out") < 300, "there was more to do");
}

#[test]
fn a_time_before_the_epoch_is_refused_where_the_record_is_made() {
    let mut world = world(None);
    let error = {
        let mut thread = world.thread();
        world.run(&mut thread).unwrap();
        world.clock.advance(Duration::from_secs(1));
        world.run(&mut thread).unwrap_err().to_string()
    };
    assert!(error.contains("'slow' forwards a record with the timestamp -1"), "{error}");

    world.settings.processing_handler = Arc::new(|_| Response::resume());
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.run(&mut thread).unwrap();
    assert_eq!(world.count("out"), 0);
    world.write(&[("a", b"-")]);
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.run(&mut thread).unwrap();
    let keys: Vec<_> = world.records("out").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "tick"], "input goes on");
}
