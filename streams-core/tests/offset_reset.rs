//! Where reading begins when no committed offset says so.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use broker_api::{Broker, TopicPartition};
use streams_core::runtime::{AutoOffsetReset, StreamThread, StreamsError, log_and_continue};

use world::processors::moody;
use world::{World, counts, now};

const THREE: &[(&str, &[u8])] = &[("a", b"-"), ("b", b"-"), ("c", b"-")];

/// A world in which three records were consumed; of the next three two are deleted.
fn overtaken() -> World {
    let world = World::new(1 << 20);
    world.write(THREE);
    world.run_once();
    world.write(&[("d", b"-"), ("e", b"-"), ("f", b"-")]);
    delete_below(&world, 5);
    world
}

fn delete_below(world: &World, before: i64) {
    let admin = world.broker.admin();
    now(&world.broker, admin.delete_records(&TopicPartition::new("in", 0), before)).unwrap();
}

fn committed(world: &World) -> i64 {
    let offsets = now(&world.broker, world.broker.admin().group_offsets("app")).unwrap();
    offsets[0].1.offset
}

#[test]
fn an_offset_below_the_log_goes_on_at_the_earliest_record() {
    let world = overtaken();
    world.run_once();
    assert_eq!(world.read("out")[3..], counts(&[("f", 1)]));
    assert_eq!(committed(&world), 6);
}

#[test]
fn an_offset_beyond_the_log_goes_on_at_the_earliest_record() {
    let world = World::new(1 << 20);
    world.write(THREE);
    world.run_once();
    world.delete_topic("in");
    world.create_topic("in", 1);
    world.write(&[("d", b"-")]);
    world.run_once();
    assert_eq!(world.read("out")[3..], counts(&[("d", 1)]));
    assert_eq!(committed(&world), 1);
}

#[test]
fn latest_leaves_out_what_was_there_before() {
    let mut world = World::new(1 << 20);
    world.settings.auto_offset_reset = AutoOffsetReset::Latest;
    world.write(THREE);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.write(&[("d", b"-")]);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("d", 1)]));
    let mut world = overtaken();
    world.settings.auto_offset_reset = AutoOffsetReset::Latest;
    world.run_once();
    assert_eq!(world.read("out").len(), 3);
}

#[test]
fn none_is_a_clear_error() {
    let mut world = World::new(1 << 20);
    world.settings.auto_offset_reset = AutoOffsetReset::None;
    let error = world.run(&mut world.thread()).unwrap_err();
    assert!(matches!(error, StreamsError::NoOffset { .. }), "{error}");
    let mut world = overtaken();
    world.settings.auto_offset_reset = AutoOffsetReset::None;
    let error = world.run(&mut world.thread()).unwrap_err();
    assert!(matches!(error, StreamsError::OffsetLost { offset: 3, log_start: 5, .. }), "{error}");
}

#[test]
fn a_running_thread_that_retention_overtakes_goes_on() {
    let world = World::new(1 << 20);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.write(THREE);
    delete_below(&world, 2);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("c", 1)]));
    assert_eq!(committed(&world), 3);
}

/// The end of the log is another one by the time a task is opened again.
#[test]
fn where_latest_has_begun_is_found_again_when_the_first_generation_is_given_up() {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(moody(false));
    world.settings.auto_offset_reset = AutoOffsetReset::Latest;
    world.settings.processing_handler = log_and_continue();
    world.write(THREE);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    world.write(&[("d", b"-"), ("x", b"late"), ("e", b"-")]);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(world.read("out"), counts(&[("d", 1), ("e", 1)]));
    assert_eq!(committed(&world), 6);
}

/// Also when what came meanwhile was never processed.
#[test]
fn where_latest_has_begun_is_found_again_by_the_next_thread() {
    let mut world = World::new(1 << 20);
    world.settings.auto_offset_reset = AutoOffsetReset::Latest;
    world.write(THREE);
    let mut thread = world.thread();
    thread.pause(true);
    world.run(&mut thread).unwrap();
    world.write(&[("d", b"-")]);
    world.run(&mut thread).unwrap();
    drop(thread);
    world.run_once();
    assert_eq!(world.read("out"), counts(&[("d", 1)]));
}

/// And when that was because retention has overtaken a running thread.
#[test]
fn where_latest_goes_on_is_found_again_when_the_generation_after_it_is_given_up() {
    let (world, mut thread) = latest();
    thread.pause(true);
    world.write(THREE);
    delete_below(&world, 5);
    world.run(&mut thread).unwrap();
    world.write(&[("d", b"-"), ("x", b"late"), ("e", b"-")]);
    world.run(&mut thread).unwrap();
    thread.pause(false);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(world.read("out"), counts(&[("d", 1), ("e", 1)]));
    assert_eq!(committed(&world), 9);
}

#[test]
fn what_was_fetched_before_retention_came_is_processed_before_latest_goes_on() {
    let (world, mut thread) = latest();
    thread.pause(true);
    world.write(THREE);
    world.run(&mut thread).unwrap();
    world.write(THREE);
    delete_below(&world, 8);
    world.run(&mut thread).unwrap();
    assert!(!thread.is_caught_up());
    thread.pause(false);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(
        (world.read("out"), committed(&world)),
        (counts(&[("a", 1), ("b", 1), ("c", 1)]), 9)
    );
    world.write(&[("d", b"-")]);
    world.run(&mut thread).unwrap();
    assert_eq!((world.read("out").len(), committed(&world)), (4, 10));
}

/// A thread that began behind three records, and leaves out what fails.
fn latest() -> (World, StreamThread) {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(moody(false));
    world.settings.auto_offset_reset = AutoOffsetReset::Latest;
    world.settings.processing_handler = log_and_continue();
    world.write(THREE);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(committed(&world), 3);
    (world, thread)
}
