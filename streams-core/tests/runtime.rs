//! A stream thread on the simulated broker, step by step: what the simulation of the whole once
//! found, each as a small story.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use broker_api::sim::Fault;
use broker_api::{Error, TopicPartition};
use streams_core::ProcessError;
use streams_core::runtime::{Next, StreamsError, log_and_continue};
use streams_core::state::LossyEngine;

use world::{CHANGELOG, World, counts};

#[test]
fn records_become_counts_and_survive_a_restart_without_files() {
    let mut world = World::new(1 << 20);
    world.write(&[("a", b"-"), ("b", b"-"), ("a", b"-")]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    thread.stop();
    assert_eq!(world.run(&mut thread).unwrap(), Next::Stopped);
    world.engine = LossyEngine::new();
    world.write(&[("a", b"-")]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(thread.restored(), 2); // a and b, sealed together
    assert_eq!(world.read("out"), counts(&[("a", 1), ("b", 1), ("a", 2), ("a", 3)]));
}

#[test]
fn a_punctuation_that_only_changes_a_store_is_committed_and_does_not_keep_the_thread_from_stopping()
{
    let world = World::new(1 << 20);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.run(&mut thread).unwrap();
    assert_eq!(world.read(CHANGELOG), counts(&[("ticks", 1)]));
    world.clock.advance(Duration::from_secs(1));
    thread.step().unwrap(); // changed, not sealed
    thread.stop();
    assert_eq!(world.run(&mut thread).unwrap(), Next::Stopped);
    assert_eq!(world.read(CHANGELOG), counts(&[("ticks", 1), ("ticks", 2)]));
}

#[test]
fn a_commit_that_is_too_large_is_made_in_smaller_portions() {
    let world = World::new(600);
    let records: Vec<(&str, &[u8])> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .iter()
        .map(|k| (*k, &b"-"[..]))
        .cycle()
        .take(100)
        .collect();
    world.write(&records);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    let out = world.read("out");
    assert_eq!(out.len(), 100);
    assert_eq!(out[96..], counts(&[("a", 13), ("b", 13), ("c", 13), ("d", 13)]));
}

#[test]
fn a_record_whose_commit_is_too_large_is_a_clear_error() {
    let world = World::new(150);
    world.write(&[("a", b"-"), ("b", b"-")]);
    let mut thread = world.thread();
    let error = world.run(&mut thread).unwrap_err();
    let StreamsError::Process { record: Some(record), error, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((record.partition, record.offset), (TopicPartition::new("in", 0), 0));
    assert!(matches!(*error, ProcessError::Commit { error: Error::TooLarge { .. } }), "{error}");
    drop(thread);
    assert_eq!(world.read("out"), []);
}

#[test]
fn a_thread_stops_although_only_invisible_offsets_were_read() {
    let world = World::new(1 << 20);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.broker.inject(Fault::Gap { partition: TopicPartition::new("in", 0), length: 3 });
    world.run(&mut thread).unwrap();
    thread.stop();
    assert_eq!(world.run(&mut thread).unwrap(), Next::Stopped);
}

#[test]
fn a_record_that_cannot_be_decoded_stops_the_thread_or_is_left_out_and_nothing_else_is_lost() {
    let mut world = World::new(1 << 20);
    world.write(&[("a", b"-"), ("b", b"\xff"), ("a", b"-")]);
    let mut thread = world.thread();
    let error = world.run(&mut thread).unwrap_err();
    assert!(error.to_string().contains("record 1 of in-0 cannot be decoded (value)"), "{error}");
    drop(thread);
    assert_eq!(world.read("out"), [], "nothing of the generation takes effect");
    world.settings.deserialization_handler = log_and_continue();
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2)]));
}

#[test]
fn lost_members_and_doubtful_commits_change_nothing() {
    for taken in [false, true] {
        let world = World::new(1 << 20);
        world.write(&[("a", b"-"), ("a", b"-")]);
        let mut thread = world.thread();
        for _ in 0..200 {
            thread.step().unwrap();
            if world.broker.inject(Fault::Doubt { id: "app-p-0".into(), taken }) {
                break;
            }
            world.broker.step();
        }
        world.run(&mut thread).unwrap();
        world.broker.inject(Fault::LoseMembers { application: "app".into() });
        world.write(&[("a", b"-")]);
        world.run(&mut thread).unwrap();
        assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2), ("a", 3)]));
    }
}
