//! Outputs that are larger than what a topic, or a commit, takes at once.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use broker_api::{Broker, Error, TopicConfig};
use streams_core::ProcessError;
use streams_core::runtime::StreamsError;
use streams_core::state::StoreOptions;

use world::processors::counting;
use world::{CHANGELOG, World, counts, now};

fn limit(world: &World, topic: &str, max_message_bytes: u32) {
    let config = TopicConfig { max_message_bytes, ..TopicConfig::default() };
    now(&world.broker, world.broker.admin().configure_topic(topic, config)).unwrap();
}

#[test]
fn batches_are_cut_by_the_limit_of_their_topic() {
    let world = World::new(1 << 20);
    limit(&world, "out", 300);
    world.write(&[("a", &b"-"[..]); 100]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    let out = world.read("out");
    assert_eq!(out.len(), 100);
    assert_eq!(out[99..], counts(&[("a", 100)]));
    assert_eq!((world.metrics().processed, world.metrics().given_up), (100, 0));
}

#[test]
fn a_record_above_the_limit_of_its_topic_is_a_clear_error() {
    let world = World::new(1 << 20);
    limit(&world, "out", 150);
    world.write(&[("a", b"-"), (&"b".repeat(100), b"-")]);
    let mut thread = world.thread();
    let error = world.run(&mut thread).unwrap_err();
    let StreamsError::Process { error, .. } = &error else {
        panic!("{error}");
    };
    let ProcessError::Output { topic, error } = &**error else {
        panic!("{error}");
    };
    assert_eq!(topic, "out");
    assert!(matches!(error, Error::TooLarge { limit: 150, setting: "max.message.bytes", .. }));
    drop(thread);
    assert_eq!(world.read("out"), []);
}

#[test]
fn records_that_are_processed_again_are_counted_once() {
    let world = World::new(600);
    world.write(&[("a", &b"-"[..]); 100]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    let metrics = world.metrics();
    assert_eq!((metrics.processed, metrics.consumed), (100, 100));
    assert!(metrics.given_up > 0, "the first commit was too large");
}

#[test]
fn a_generation_of_cached_updates_is_sealed_before_its_commit_is_too_large() {
    let mut world = World::new(8 << 20);
    world.topology =
        Arc::new(counting(StoreOptions { forward_on_seal: true, ..StoreOptions::default() }));
    world.settings.commit_interval = Duration::from_secs(60);
    let keys: Vec<String> = (0..1_000).map(|n| format!("{n:010000}")).collect();
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (&**key, &b"-"[..])).collect();
    world.write(&records);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(world.read(CHANGELOG).len(), 1_000);
    assert_eq!((world.metrics().processed, world.metrics().given_up), (1_000, 0));
}
