//! Sinks that choose the topic of each record, on a broker.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use streams_core::runtime::StreamsError;
use streams_core::topology::{NodeSpec, Topology, TopologyBuilder};
use streams_core::{HasSerde, ProcessError, Record};

use world::{World, now};

/// Each record of `in` goes to the topic of its key; values are eight bytes.
fn topology() -> Topology {
    let mut builder = TopologyBuilder::new();
    let (key, value) = (String::serde(), i64::serde());
    let source = NodeSpec::source("in", vec!["in".into()], key.clone(), value.clone());
    builder.add(source).unwrap();
    let choose = Arc::new(|record: &Record<String, i64>| record.key.clone());
    let parents = vec!["in".into()];
    let sink = NodeSpec::dynamic_sink("out", parents, "by key", choose, (key, value), None);
    builder.add(sink).unwrap();
    builder.build().unwrap()
}

fn world() -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    world
}

#[test]
fn records_go_to_topics_that_the_topology_does_not_name() {
    let world = world();
    world.write(&[("out", &7_i64.to_be_bytes()), ("out", &8_i64.to_be_bytes())]);
    world.run_once();
    assert_eq!(world.read("out"), [("out".to_string(), 7), ("out".to_string(), 8)]);
}

#[test]
fn a_topic_that_does_not_exist_is_a_clear_error() {
    let world = world();
    world.write(&[("nowhere", &7_i64.to_be_bytes())]);
    let mut thread = world.thread();
    let error = world.run(&mut thread).unwrap_err();
    let StreamsError::Process { error, .. } = &error else { panic!("{error}") };
    assert!(matches!(&**error, ProcessError::Output { topic, .. } if topic == "nowhere"));
    assert!(now(&world.broker, broker_api::Broker::admin(&world.broker).topic("nowhere")).is_err());
}
