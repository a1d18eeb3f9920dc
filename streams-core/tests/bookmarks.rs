//! What an operator has to remember rides with committed offsets, as far as there is room.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use streams_core::processor::{Bookmark, Context, InitContext, Processor};
use streams_core::topology::{NodeSpec, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::World;

/// Remembers as many bytes as its records say, and tells how many it finds when it goes on.
#[derive(Default)]
struct Remembers(Option<Bookmark>);

impl Processor for Remembers {
    type KIn = String;
    type VIn = i64;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.bookmark("remembers"));
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        cx.set_bookmark(self.0.unwrap(), vec![7; record.value as usize])
    }

    fn go_on(&mut self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        let found = cx.bookmark(self.0.unwrap()).len() as i64;
        cx.forward(Record::new("found".into(), found, 0));
        Ok(())
    }
}

/// Offsets have a text of 64 KiB.
fn world() -> World {
    let mut world = World::new(1 << 20);
    let mut builder = TopologyBuilder::new();
    let (key, value) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], key.clone(), value.clone());
    builder.add(source).unwrap();
    let node = NodeSpec::processor("node", vec!["source".into()], Remembers::default);
    builder.add(node).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["node".into()], "out", key, value, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());
    world
}

fn found(world: &World) -> Vec<i64> {
    world.read("out").into_iter().map(|(_, found)| found).collect()
}

#[test]
fn a_bookmark_of_a_quarter_of_the_text_comes_back_at_the_next_start() {
    let world = world();
    world.write(&[("a", &16_000i64.to_be_bytes())]);
    world.run_once();
    world.run_once();
    assert_eq!(found(&world), [0, 16_000]);
}

#[test]
fn a_bookmark_that_no_offset_can_carry_is_a_clear_error() {
    let world = world();
    world.write(&[("a", &17_000i64.to_be_bytes())]);
    let error = world.run(&mut world.thread()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("the bookmark of 'node' has 17000 bytes"), "{error}");
}
