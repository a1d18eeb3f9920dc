//! A record that is left out has no effect on the others: not on what stores without a changelog hold,
//! not on the calls of the wall clock, and what it has scheduled goes with it.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use streams_core::processor::{
    Context, InitContext, Processor, PunctuationKind, Schedule, StoreHandle,
};
use streams_core::runtime::log_and_continue;
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::{World, counts, processors};

const SECOND: Duration = Duration::from_secs(1);

/// Counts keys, and forwards `tick` with each call of the wall clock. A record `bad` fails when it has
/// been counted, `schedule` asks for calls and fails.
#[derive(Default)]
struct Picky {
    ticks: bool,
    store: Option<StoreHandle<KeyValueStore<String, i64>>>,
}

impl Processor for Picky {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.store = Some(cx.store("counts")?);
        if self.ticks {
            cx.schedule(SECOND, PunctuationKind::WallClock)?;
        }
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        if record.value == "schedule" {
            cx.schedule(SECOND, PunctuationKind::WallClock)?;
            return Err(ProcessError::user("it is bad"));
        }
        let count = processors::add(self.store, &record.key, cx)?;
        if record.value == "bad" {
            return Err(ProcessError::user("it is bad"));
        }
        cx.forward(record.with_value(count));
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        cx.forward(Record::new("tick".into(), now, now));
        Ok(())
    }
}

fn topology(ticks: bool, logged: bool) -> Topology {
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    let picky = move || Picky { ticks, ..Picky::default() };
    builder.add(NodeSpec::processor("picky", vec!["in".into()], picky)).unwrap();
    let options = StoreOptions { logged, ..StoreOptions::default() };
    let store = StoreSpec::key_value("counts", text.clone(), count.clone(), options);
    builder.add_state_store(store, &["picky"]).unwrap();
    builder.add(NodeSpec::sink("out", vec!["picky".into()], "out", text, count, None)).unwrap();
    builder.build().unwrap()
}

fn world(topology: Topology) -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology);
    world.settings.processing_handler = log_and_continue();
    world
}

#[test]
fn what_a_record_has_scheduled_goes_with_it() {
    let world = world(topology(false, true));
    let mut thread = world.thread();
    world.write(&[("x", b"schedule")]);
    world.run(&mut thread).unwrap();
    world.clock.advance(2 * SECOND);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), []);
}

#[test]
fn the_wall_clock_calls_as_often_as_if_no_record_had_failed() {
    let ticks = |value: &[u8]| {
        let world = world(topology(true, true));
        let mut thread = world.thread();
        world.run(&mut thread).unwrap();
        for _ in 0..20 {
            world.write(&[("x", value)]);
            world.clock.advance(Duration::from_millis(600));
            world.run(&mut thread).unwrap();
        }
        world.read("out").into_iter().filter(|(key, _)| key == "tick").count()
    };
    assert_eq!((ticks(b"-"), ticks(b"bad")), (12, 12));
}

#[test]
fn a_store_without_a_changelog_does_not_go_back_for_a_record_that_is_left_out() {
    let world = world(topology(false, false));
    let mut thread = world.thread();
    for records in [&[("a", "-"), ("a", "-")][..], &[("a", "-"), ("a", "bad"), ("a", "-")]] {
        let records: Vec<_> = records.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
        world.write(&records);
        world.run(&mut thread).unwrap();
        assert!(thread.is_caught_up());
    }
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2), ("a", 3), ("a", 4)]));
    thread.stop();
    world.run(&mut thread).unwrap();
    world.write(&[("a", b"-")]);
    world.run_once();
    assert_eq!(world.read("out")[4..], counts(&[("a", 5)]), "it was written when it was closed");
}
