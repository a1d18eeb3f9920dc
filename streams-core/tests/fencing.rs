//! Who is no member of the application any more commits nothing, whatever it is.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use broker_api::sim::{Fault, SimBroker};
use streams_core::processor::{Context, InitContext, Processor, PunctuationKind, Schedule};
use streams_core::topology::{NodeSpec, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::{World, counts};

/// With every tick of the wall clock it writes a record, and its thread is taken for dead.
struct Zombie(SimBroker);

impl Processor for Zombie {
    type KIn = String;
    type VIn = i64;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        cx.schedule(Duration::from_secs(1), PunctuationKind::WallClock)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        cx.forward(record);
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        cx.forward(Record::new("tick".into(), now, now));
        assert!(self.0.inject(Fault::LoseMembers { application: "app".into() }));
        Ok(())
    }
}

#[test]
fn a_commit_without_offsets_of_a_thread_that_was_taken_for_dead_is_refused() {
    let mut world = World::new(1 << 20);
    let mut builder = TopologyBuilder::new();
    let (key, value) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], key.clone(), value.clone());
    builder.add(source).unwrap();
    let broker = world.broker.clone();
    let node = move || Zombie(broker.clone());
    builder.add(NodeSpec::processor("zombie", vec!["source".into()], node)).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["zombie".into()], "out", key, value, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());

    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), []);
    // It has joined again.
    assert!(thread.is_running());
    world.write(&[("a", &7_i64.to_be_bytes())]);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 7)]));
}
