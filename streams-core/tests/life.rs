//! The life of an application: threads that fail and are replaced, come and go, or pause; and who is
//! told. Input goes on, and nothing is lost or done twice.
#![allow(clippy::unwrap_used)]

mod world;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::TopicPartition;
use streams_core::failure::Response;
use streams_core::processor::{Context, Processor};
use streams_core::runtime::{RestoreStage, State, Streams, StreamsError, Uncaught};
use streams_core::state::LossyEngine;
use streams_core::topology::{NodeSpec, Topology, TopologyBuilder};
use streams_core::{HasSerde, ProcessError, Record};

use world::{World, counts};

/// Fails as often as it is told to, with nothing or in a panic.
struct Tired {
    failures: Arc<AtomicU32>,
}

impl Processor for Tired {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        cx.forward(record.clone());
        let left = self.failures.load(Ordering::Relaxed);
        if left > 0 && record.key == "b" {
            self.failures.store(left - 1, Ordering::Relaxed);
            assert!(left.is_multiple_of(2), "tired");
            return Err(ProcessError::user("tired"));
        }
        Ok(())
    }
}

fn tired(failures: u32) -> Topology {
    let failures = Arc::new(AtomicU32::new(failures));
    let mut builder = TopologyBuilder::new();
    let text = String::serde();
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    let node = move || Tired { failures: failures.clone() };
    builder.add(NodeSpec::processor("tired", vec!["in".into()], node)).unwrap();
    let sink = NodeSpec::sink("out", vec!["tired".into()], "out", text.clone(), text, None);
    builder.add(sink).unwrap();
    builder.build().unwrap()
}

fn world(dir: &tempfile::TempDir) -> World {
    let mut world = World::new(1 << 20);
    world.settings.state_dir = dir.path().into();
    world
}

const VALUE: &[u8] = b"12345678";

#[test]
fn a_thread_that_fails_is_replaced_and_nothing_is_lost_or_done_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.topology = Arc::new(tired(2));
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let errors = seen.clone();
    world.settings.uncaught_handler = Arc::new(move |error: &StreamsError| {
        errors.lock().unwrap().push(error.to_string());
        Uncaught::ReplaceThread
    });
    world.write(&[("a", VALUE), ("b", VALUE), ("c", VALUE)]);
    let streams = world.start();
    world.block_on(streams.caught_up()).unwrap();
    let written: Vec<String> = world.read("out").into_iter().map(|(key, _)| key).collect();
    assert_eq!(written, ["a", "b", "c"]);
    assert_eq!(streams.state(), State::Running);
    world.block_on(streams.close()).unwrap();
    let expected = [
        "task 0_0, record 1 of in-0: 'tired': tired",
        "the application's code panicked in 'tired', record 1 of in-0: tired",
    ];
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, expected);
}

#[test]
fn by_default_a_thread_that_fails_stops_the_instance_and_states_are_told_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.topology = Arc::new(tired(1));
    world.settings.threads = 2;
    let states: Arc<Mutex<Vec<State>>> = Arc::default();
    let told = states.clone();
    world.settings.state_listener = Some(Arc::new(move |new, _| told.lock().unwrap().push(new)));
    let streams = world.start();
    world.block_on(streams.running()).unwrap();
    world.write(&[("a", VALUE), ("b", VALUE)]);
    world.block_on(streams.ended()).unwrap_err();
    world.block_on(streams.close()).unwrap_err();
    let states = states.lock().unwrap().clone();
    assert_eq!(states[0], State::Rebalancing);
    assert_eq!(states[states.len() - 2..], [State::PendingError, State::Error]);
    assert!(states.contains(&State::Running), "{states:?}");
}

#[test]
fn created_then_begun_then_paused_then_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.topology = Arc::new(tired(0));
    let creating = Streams::create(
        world.topology.clone(),
        Arc::new(world.broker.clone()),
        Arc::new(world.engine.clone()),
        world.clock.clone(),
        world.settings.clone(),
    );
    let streams = world.block_on(creating).unwrap();
    assert_eq!(streams.state(), State::Created);
    assert_eq!(streams.add_thread(), Ok(None), "not begun yet");
    streams.pause();
    streams.begin().unwrap();
    world.block_on(streams.running()).unwrap();
    world.write(&[("a", VALUE)]);
    assert!(streams.is_paused());
    assert_eq!(world.read("out"), []);
    streams.resume();
    world.block_on(streams.caught_up()).unwrap();
    assert_eq!(world.read("out").len(), 1);
    world.block_on(streams.close()).unwrap();
}

#[test]
fn threads_come_and_go_while_input_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.delete_topic("in");
    world.create_topic("in", 3);
    world.topology = Arc::new(tired(0));
    let streams = world.start();
    for round in 0..6 {
        let keys: Vec<String> = (0..20).map(|n| format!("{round}-{n}")).collect();
        for (n, key) in keys.iter().enumerate() {
            world.write_to(TopicPartition::new("in", n as u32 % 3), &[(key, VALUE)]);
        }
        match round {
            0 | 2 => assert!(streams.add_thread().unwrap().is_some()),
            1 | 3 | 4 => assert!(world.block_on(streams.remove_thread()).is_some()),
            _ => assert_eq!(streams.add_thread(), Ok(Some(0)), "its number is free again"),
        }
        if round != 4 {
            // in round 4 nobody is left
            world.block_on(streams.caught_up()).unwrap();
        }
    }
    let mut written = world.read("out");
    written.sort();
    let all = written.len();
    written.dedup();
    assert_eq!((all, written.len()), (120, 120));
    world.block_on(streams.close()).unwrap();
}

#[test]
fn who_listens_is_told_how_a_store_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.write(&[("a", b"-"), ("b", b"-"), ("a", b"-")]);
    world.run_once();
    world.engine = LossyEngine::new();
    let stages: Arc<Mutex<Vec<RestoreStage>>> = Arc::default();
    let told = stages.clone();
    world.settings.restore_listener = Some(Arc::new(move |event| {
        assert_eq!((&*event.store, event.task.to_string()), ("counts", "0_0".into()));
        told.lock().unwrap().push(event.stage);
    }));
    world.run_once();
    assert_eq!(
        *stages.lock().unwrap(),
        [
            RestoreStage::Started { from: 0, end: 2 },
            RestoreStage::Restored { position: 2 },
            RestoreStage::Ended { records: 2 },
        ]
    );
    assert_eq!(world.read("out"), counts(&[("a", 1), ("b", 1), ("a", 2)]));
}

#[test]
fn an_instance_that_fails_can_stop_the_whole_application() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut world = world(&dir);
    world.delete_topic("in");
    world.create_topic("in", 2);
    world.topology = Arc::new(tired(0));
    world.settings.uncaught_handler = Arc::new(|_| Uncaught::StopApplication);
    let first = world.start();
    world.block_on(first.running()).unwrap();
    world.topology = Arc::new(tired(9));
    world.settings.state_dir = other.path().into();
    world.clock.advance(Duration::from_secs(1)); // for another process id
    let second = world.start();
    world.block_on(second.running()).unwrap();
    for partition in 0..2 {
        world.write_to(TopicPartition::new("in", partition), &[("b", VALUE)]);
    }
    let error = world.block_on(second.ended()).unwrap_err();
    assert!(error.to_string().contains("tired"), "{error}");
    assert_eq!(world.block_on(first.ended()), Err(StreamsError::Stopped));
    assert_eq!((first.state(), second.state()), (State::Error, State::Error));
    world.block_on(first.close()).unwrap_err();
    world.block_on(second.close()).unwrap_err();

    // Who starts later is not concerned.
    world.topology = Arc::new(tired(0));
    let third = world.start();
    world.block_on(third.caught_up()).unwrap();
    assert_eq!(world.read("out").len(), 2);
    world.block_on(third.close()).unwrap();
}

#[test]
fn who_listens_to_the_state_may_ask_something_of_the_application() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.topology = Arc::new(tired(0));
    let asked: Arc<Mutex<Option<Arc<Streams>>>> = Arc::default();
    let (listens, (done, all_done)) = (asked.clone(), channel());
    world.settings.state_listener = Some(Arc::new(move |new, _| {
        let streams = listens.lock().unwrap().clone();
        if let Some(streams) = streams.filter(|_| new == State::Running) {
            streams.pause();
            drop(streams);
            done.send(()).unwrap();
        }
    }));
    let creating = Streams::create(
        world.topology.clone(),
        Arc::new(world.broker.clone()),
        Arc::new(world.engine.clone()),
        world.clock.clone(),
        world.settings.clone(),
    );
    let streams = Arc::new(world.block_on(creating).unwrap());
    *asked.lock().unwrap() = Some(streams.clone());
    streams.begin().unwrap();
    world.block_on(streams.running()).unwrap();
    all_done.recv_timeout(Duration::from_secs(10)).expect("the listener comes back");
    assert!(streams.is_paused());
    *asked.lock().unwrap() = None;
    world.block_on(Arc::into_inner(streams).unwrap().close()).unwrap();
}

/// The broker takes the commit, and never says that it is durable.
#[test]
fn a_closing_with_a_limit_gives_up_what_is_not_committed_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.topology = Arc::new(tired(0));
    let streams = world.start();
    streams.pause();
    world.block_on(streams.caught_up()).unwrap();
    world.write(&[("a", VALUE)]);
    streams.resume(); // the broker makes no step from now on
    while streams.metrics().commits == 0 {
        std::thread::yield_now();
    }
    let mut closing = pin!(streams.close_within(Duration::from_millis(20)));
    let mut poll = || closing.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    assert_eq!(poll(), Poll::Pending);
    world.clock.advance(Duration::from_millis(20));
    let error = loop {
        match poll() {
            Poll::Ready(closed) => break closed.unwrap_err(),
            Poll::Pending => std::thread::yield_now(),
        }
    };
    assert_eq!(error, StreamsError::CloseTimeout { limit: Duration::from_millis(20) });
}

#[test]
fn closing_does_not_wait_for_a_topic_that_is_gone_nor_does_removing_a_thread_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.delete_topic("in");
    world.create_topic("in", 2);
    world.topology = Arc::new(tired(0));
    world.settings.threads = 2;
    // The clock below may run far ahead of threads that the machine is slow to run.
    world.settings.delivery_timeout = Duration::MAX;
    let retried = Arc::new(AtomicU32::new(0));
    let count = retried.clone();
    world.settings.production_handler = Arc::new(move |failure| {
        count.fetch_add(u32::from(failure.retriable), Ordering::Relaxed);
        Response::retry()
    });
    let streams = world.start();
    world.block_on(streams.running()).unwrap();
    world.delete_topic("out");
    (0..2).for_each(|n| world.write_to(TopicPartition::new("in", n), &[("a", VALUE)]));
    let wait_for_a_retry = || {
        let before = retried.load(Ordering::Relaxed);
        while retried.load(Ordering::Relaxed) == before && streams.state() != State::Error {
            world.broker.step();
            world.clock.advance(Duration::from_millis(1));
            std::thread::yield_now();
        }
    };
    wait_for_a_retry();
    assert!(world.block_on(streams.remove_thread()).is_some());
    wait_for_a_retry();
    assert!(streams.state().is_running_or_rebalancing(), "{:?}", streams.state());
    let error = world.block_on(streams.close()).unwrap_err();
    assert!(error.to_string().contains("topic 'out' does not exist"), "{error}");
}

#[test]
fn a_directory_of_state_has_one_application_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.topology = Arc::new(tired(1));
    let first = world.start();
    world.block_on(first.running()).unwrap();
    let again = Streams::start(
        world.topology.clone(),
        Arc::new(world.broker.clone()),
        Arc::new(world.engine.clone()),
        world.clock.clone(),
        world.settings.clone(),
    );
    let error = world.block_on(again).map(drop).unwrap_err().to_string();
    let path = dir.path().join("app").display().to_string();
    assert!(error.contains(&path) && error.contains("is in use"), "{error}");
    assert!(error.contains("state_dir"), "{error}");
    world.block_on(first.caught_up()).unwrap();
    assert_eq!(first.state(), State::Running, "the first one goes on");

    // One that has failed has let go of it, though its owner still holds on to it.
    world.write(&[("b", VALUE)]);
    world.block_on(first.ended()).unwrap_err();
    let second = world.start();
    world.block_on(second.caught_up()).unwrap();
    world.block_on(second.close()).unwrap();
    drop(world.start());
    world.block_on(world.start().close()).unwrap();
    drop(first);
}

#[test]
fn an_instance_without_threads_says_so_instead_of_being_caught_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(&dir);
    world.topology = Arc::new(tired(0));
    let streams = world.start();
    world.block_on(streams.caught_up()).unwrap();
    world.block_on(streams.remove_thread()).unwrap();
    world.write(&[("a", VALUE)]);
    assert_eq!(world.block_on(streams.caught_up()), Err(StreamsError::NoThread));
    streams.add_thread().unwrap();
    world.block_on(streams.caught_up()).unwrap();
    assert_eq!(world.read("out").len(), 1);
    world.block_on(streams.close()).unwrap();
}

#[test]
fn an_instance_without_tasks_is_caught_up_when_the_others_are() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut world = world(&dir);
    world.topology = Arc::new(tired(0));
    let first = world.start();
    world.block_on(first.caught_up()).unwrap();
    world.settings.state_dir = other.path().into();
    world.clock.advance(Duration::from_secs(1)); // for another process id
    let second = world.start();
    world.block_on(second.running()).unwrap();
    first.pause();
    world.write(&[("a", VALUE), ("b", VALUE)]);
    let mut caught_up = Box::pin(second.caught_up());
    let mut poll = || {
        world.broker.settle(1_000);
        world.clock.advance(Duration::from_millis(10));
        caught_up.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()))
    };
    for _ in 0..1_000 {
        assert_eq!(poll(), Poll::Pending);
        std::thread::yield_now();
    }
    first.resume();
    while poll().is_pending() {
        std::thread::yield_now();
    }
    drop(caught_up);
    assert_eq!(world.read("out").len(), 2);
    world.block_on(first.close()).unwrap();
    world.block_on(second.close()).unwrap();
}
