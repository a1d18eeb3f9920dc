//! Times of operators that move without a record, by the wall clock, are committed all the same.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use streams_core::processor::{
    Context, InitContext, OperatorTime, Processor, PunctuationKind, Schedule,
};
use streams_core::runtime::Next;
use streams_core::topology::{NodeSpec, TopologyBuilder};
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
