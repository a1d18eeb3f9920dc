//! Async operators: order, bounds, time-outs, errors, and crashes with calls in flight.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_api::sim::Dice;
use futures::FutureExt;
use futures::future::BoxFuture;
use streams_core::Executor;
use streams_core::HasSerde;
use streams_core::processor::{AsyncCall, AsyncOptions};
use streams_core::runtime::{Next, log_and_continue};
use streams_core::state::{LossyEngine, StoreOptions};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};

use world::processors::Count;
use world::{World, counts};

/// Holds calls until the test lets them go on, in any order.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl Executor for Held {
    fn spawn(&self, call: BoxFuture<'static, ()>) {
        self.0.lock().unwrap().push(call);
    }
}

impl Held {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Runs a call; `false` if there is none of this number.
    fn run(&self, number: usize) -> bool {
        let mut calls = self.0.lock().unwrap();
        if number >= calls.len() {
            return false;
        }
        let mut call = calls.remove(number);
        drop(calls);
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(()));
        true
    }
}

/// A call that is ready when it is polled: the executor decides when that is.
fn call() -> AsyncCall<String, String, String, String> {
    Arc::new(|key, value| {
        async move {
            match &*value {
                "bad" => Err("no such value".to_owned()),
                "panic" => panic!("no luck"),
                _ => Ok((key, value)),
            }
        }
        .boxed()
    })
}

fn topology(options: AsyncOptions<String>, caches: bool) -> Topology {
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], text.clone(), text.clone());
    builder.add(source).unwrap();
    let node = NodeSpec::asynchronous("call", vec!["source".into()], call(), options);
    builder.add(node).unwrap();
    builder
        .add(NodeSpec::processor("count", vec!["call".into()], move || Count::new(caches)))
        .unwrap();
    let store_options = StoreOptions { forward_on_seal: caches, ..StoreOptions::default() };
    let store = StoreSpec::key_value("counts", text.clone(), count.clone(), store_options);
    builder.add_state_store(store, &["count"]).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["count".into()], "out", text, count, None)).unwrap();
    builder.build().unwrap()
}

fn world(options: AsyncOptions<String>) -> (World, Held) {
    let mut world = World::new(1 << 20);
    let held = Held::default();
    world.topology = Arc::new(topology(options, false));
    world.settings.executor = Some(Arc::new(held.clone()));
    world.create_topic("dead", 1);
    world.settings.dead_letter_topic = Some("dead".into());
    world.settings.processing_handler = log_and_continue();
    (world, held)
}

fn some(concurrency: usize) -> AsyncOptions<String> {
    AsyncOptions { concurrency, ..AsyncOptions::default() }
}

const V: &[u8] = b"-";

#[test]
fn results_come_in_the_order_of_the_records_whatever_comes_back_first() {
    let (world, held) = world(some(10));
    world.write(&[("a", V), ("b", V), ("c", V), ("a", V)]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(held.len(), 4, "they run at once");
    assert!(!thread.is_caught_up());
    for last in (0..4).rev() {
        assert_eq!(world.read("out"), []);
        assert!(held.run(last));
        world.run(&mut thread).unwrap();
    }
    assert!(thread.is_caught_up());
    assert_eq!(world.read("out"), counts(&[("a", 1), ("b", 1), ("c", 1), ("a", 2)]));
}

#[test]
fn results_of_different_keys_need_not_wait_for_each_other_if_asked_so() {
    let (mut world, held) = world(some(10).ordered_by_key());
    world.settings.commit_interval = Duration::ZERO;
    world.write(&[("a", V), ("b", V), ("a", V), ("c", V)]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    for last in (0..4).rev() {
        assert!(held.run(last));
        world.run(&mut thread).unwrap();
    }
    assert_eq!(world.read("out"), counts(&[("c", 1), ("b", 1), ("a", 1), ("a", 2)]));
}

/// What a record costs does not grow with how many others wait.
#[test]
fn many_records_that_wait_for_a_slow_one_of_their_key_are_not_looked_at_again_and_again() {
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let hash = |key: &String| {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        key.as_bytes()[0].into()
    };
    let (world, held) = world(AsyncOptions { hash: Some(hash), ..some(300) });
    let other = [("b", V)];
    let records: Vec<_> = [("a", V); 299].into_iter().chain(other).collect();
    world.write(&records);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    while held.len() > 1 {
        held.run(1); // the first one is slow
        while thread.step().unwrap() == Next::Again {}
    }
    assert!(!thread.is_caught_up());
    held.run(0);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    let all_of_a = (1..300).map(|count| ("a".to_owned(), count));
    let expected: Vec<_> = [("b".to_owned(), 1)].into_iter().chain(all_of_a).collect();
    assert_eq!(world.read("out"), expected);
    let looks = LOOKS.load(Ordering::Relaxed);
    assert!(looks <= 300, "{looks} looks at the keys of 300 records");
}

#[test]
fn no_more_calls_run_at_once_than_allowed_and_nothing_is_lost() {
    let (world, held) = world(some(3));
    let keys: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (&**key, V)).collect();
    world.write(&records);
    let mut thread = world.thread();
    for _ in 0..200 {
        world.run(&mut thread).unwrap();
        assert!(held.len() <= 3);
        held.run(held.len().saturating_sub(1));
    }
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    let out: Vec<String> = world.read("out").into_iter().map(|(key, _)| key).collect();
    assert_eq!(out, keys);
}

#[test]
fn a_commit_waits_for_what_is_in_flight_and_takes_nothing_in_meanwhile() {
    let (world, held) = world(some(10));
    world.write(&[("a", V), ("b", V)]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    held.run(0);
    world.clock.advance(Duration::from_secs(1)); // the commit is due
    world.run(&mut thread).unwrap();
    world.write(&[("c", V)]);
    world.run(&mut thread).unwrap();
    assert_eq!((world.read("out").len(), held.len()), (0, 1), "a commit of half the records");
    held.run(0);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("b", 1)]));
    held.run(0);
    world.run(&mut thread).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("b", 1), ("c", 1)]));
}

#[test]
fn errors_panics_and_calls_that_never_come_back_are_the_handlers() {
    let (world, held) = world(AsyncOptions { timeout: Duration::from_secs(7), ..some(10) });
    world.write(&[("a", V), ("b", b"bad"), ("c", b"panic"), ("never", V), ("d", V)]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    for _ in 0..1_000 {
        // all but the fourth of those that were begun last
        let never = held.len() == 1 && world.count("dead") == 2;
        if never || !held.run(if held.len() > 1 { held.len() - 1 } else { 0 }) {
            break;
        }
        world.run(&mut thread).unwrap();
    }
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_secs(8));
    world.run(&mut thread).unwrap();
    while held.run(0) {
        world.run(&mut thread).unwrap();
    }
    assert!(thread.is_caught_up());
    let out = world.read("out");
    assert_eq!(out.first(), Some(&("a".into(), 1)));
    assert_eq!(out.last(), Some(&("d".into(), 1)));
    assert!(!out.iter().any(|(key, _)| key == "b" || key == "c"), "{out:?}");
}

#[test]
fn a_call_that_is_overdue_fails_its_generation_by_default() {
    let (mut world, held) = world(some(10));
    world.settings.processing_handler = streams_core::runtime::log_and_fail();
    world.write(&[("a", V)]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_secs(29));
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_secs(1));
    let error = world.run(&mut thread).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task 0_0, record 0 of in-0: 'call': the call was not back after 30s"
    );
    assert_eq!(held.len(), 1);
    drop(thread);
    assert!(held.run(0), "it was cancelled");
    assert_eq!(world.read("out"), []);
}

#[test]
fn without_an_executor_the_error_says_what_to_set() {
    let (mut world, _) = world(some(10));
    world.settings.executor = None;
    let mut thread = world.thread();
    let error = world.run(&mut thread).unwrap_err();
    assert!(error.to_string().contains("set `executor`"), "{error}");
}

/// Calls that follow from a cache which is drained for the seal are part of the same commit.
#[test]
fn calls_below_a_cache_come_back_before_the_commit() {
    let mut world = World::new(1 << 20);
    let held = Held::default();
    world.settings.executor = Some(Arc::new(held.clone()));
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], text.clone(), text.clone());
    builder.add(source).unwrap();
    builder.add(NodeSpec::processor("count", vec!["source".into()], || Count::new(true))).unwrap();
    let options = StoreOptions { forward_on_seal: true, ..StoreOptions::default() };
    let store = StoreSpec::key_value("counts", text.clone(), count.clone(), options);
    builder.add_state_store(store, &["count"]).unwrap();
    let call: AsyncCall<String, i64, String, i64> =
        Arc::new(|key, count| async move { Ok((key, count * 10)) }.boxed());
    let node = NodeSpec::asynchronous("call", vec!["count".into()], call, AsyncOptions::default());
    builder.add(node).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["call".into()], "out", text, count, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());
    world.write(&[("a", V), ("b", V), ("a", V)]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert_eq!(held.len(), 2);
    assert_eq!(world.read("app-counts-changelog"), [], "nothing is committed yet");
    while held.run(0) {}
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    let mut out = world.read("out");
    out.sort();
    assert_eq!(out, counts(&[("a", 20), ("b", 10)]));
}

/// One loop picks by seed what happens: input, steps, calls that come back in any order, time, ends of
/// the process. The result is always the same.
#[test]
fn calls_in_any_order_and_crashes_change_nothing() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let by_key = dice.one_in(2);
        let options = some(dice.pick(&[1, 2, 5]));
        let options = if by_key { options.ordered_by_key() } else { options };
        let (mut world, held) = world(options);
        let mut thread = world.thread();
        let mut written = Vec::new();
        for _ in 0..400 {
            match dice.within(0..12) {
                0 if written.len() < 40 => {
                    let key = dice.pick(&["a", "b", "c"]);
                    let value = if dice.one_in(6) { "bad" } else { "-" };
                    world.write(&[(key, value.as_bytes())]);
                    written.push((key, value));
                }
                1..=4 => {
                    let _ = thread.step().unwrap();
                }
                5..=7 => {
                    world.broker.step();
                }
                8 | 9 if held.len() > 0 => {
                    let number = dice.within(0..held.len() as u64) as usize;
                    held.run(number);
                }
                10 => world.clock.advance(Duration::from_millis(60)),
                11 if dice.one_in(6) => {
                    drop(thread);
                    if dice.one_in(2) {
                        world.broker = world.broker.crash();
                        world.engine = LossyEngine::new();
                    } else {
                        world.broker.settle(1_000);
                    }
                    thread = world.thread();
                }
                _ => {}
            }
        }
        for _ in 0..500 {
            world.run(&mut thread).unwrap();
            if !held.run(0) && thread.is_caught_up() {
                break;
            }
        }
        assert!(thread.is_caught_up(), "seed {seed}");
        let mut of_key: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (key, count) in world.read("out") {
            of_key.entry(key).or_default().push(count);
        }
        for key in ["a", "b", "c"] {
            let good = written.iter().filter(|w| **w == (key, "-")).count() as i64;
            let seen = of_key.remove(key).unwrap_or_default();
            assert_eq!(seen, (1..=good).collect::<Vec<_>>(), "seed {seed}, {key}");
        }
        if !by_key {
            let mut seen = BTreeMap::new();
            let good = written.iter().filter(|(_, value)| *value == "-");
            let expected: Vec<(String, i64)> = good
                .map(|(key, _)| {
                    let n = seen.entry(*key).or_insert(0);
                    *n += 1;
                    ((*key).to_owned(), *n)
                })
                .collect();
            assert_eq!(world.read("out"), expected, "seed {seed}");
        }
        let bad = written.iter().filter(|(_, value)| *value == "bad").count();
        assert_eq!(world.count("dead"), bad, "seed {seed}");
    }
}
