//! Records that cannot be handled: what is left out leaves nothing behind but its dead letter, input
//! goes on, and crashes change nothing.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::sim::{Faults, SimBroker, SimConfig};
use broker_api::{Broker, FetcherConfig, Header, Start, TopicConfig, TopicPartition};
use bytes::Bytes;
use streams_core::failure::{DeadLetter, ErrorHandler, ErrorHandlers, Response, Stage};
use streams_core::processor::{Context, Processor};
use streams_core::runtime::{Next, StreamThread, StreamsError, log_and_continue};
use streams_core::state::LossyEngine;
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::topology::{NodeSpec, Topology, TopologyBuilder};
use streams_core::{HasSerde, ProcessError, Record};

use world::{World, counts, now, processors};

fn world_with(max_commit_bytes: usize) -> World {
    let mut world = World::new(max_commit_bytes);
    world.topology = Arc::new(processors::moody(false));
    world.create_topic("dead", 1);
    world.settings.dead_letter_topic = Some("dead".into());
    world.settings.deserialization_handler = log_and_continue();
    world.settings.processing_handler = log_and_continue();
    world.settings.production_handler = log_and_continue();
    world
}

fn world() -> World {
    world_with(1 << 20)
}

/// Keys and values of the dead letters, and their headers as text.
type Letters = Vec<(Option<Bytes>, Option<Bytes>, i64, Vec<(String, String)>)>;

fn letters(world: &World) -> Letters {
    let mut reader = world.broker.fetcher(FetcherConfig::default(), Waker::noop().clone()).unwrap();
    reader.assign(&[(TopicPartition::new("dead", 0), Start::Earliest)]).unwrap();
    let mut found = Vec::new();
    while let Poll::Ready(fetched) = reader.poll(1 << 20) {
        for batch in fetched.unwrap().iter().flat_map(|part| &part.batches) {
            for record in batch.records() {
                let record = record.unwrap();
                let bytes = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
                let text = |h: Header| {
                    let value = h.value.map(|v| String::from_utf8(v.to_vec()).unwrap());
                    (h.name, value.unwrap_or_else(|| "null".into()))
                };
                let headers = record.headers.to_vec().unwrap().into_iter().map(text).collect();
                found.push((bytes(record.key), bytes(record.value), record.timestamp, headers));
            }
        }
    }
    found
}

/// Key and value of each dead letter.
fn dead(world: &World) -> Vec<(String, String)> {
    let text = |bytes: &Option<Bytes>| {
        let bytes = bytes.clone().unwrap_or_else(|| "null".into());
        String::from_utf8_lossy(&bytes).into_owned()
    };
    letters(world).iter().map(|(key, value, ..)| (text(key), text(value))).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn stored(world: &World) -> Vec<(String, i64)> {
    world.read("app-counts-changelog")
}

#[test]
fn what_fails_is_left_out_whole_and_has_one_dead_letter() {
    for bad in ["early", "late", "panic"] {
        let world = world();
        world.write(&[("a", b"-"), ("a", bad.as_bytes()), ("b", bad.as_bytes()), ("a", b"-")]);
        let mut thread = world.thread();
        world.run(&mut thread).unwrap();
        assert!(thread.is_caught_up());
        assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2)]), "{bad}");
        assert_eq!(dead(&world), pairs(&[("a", bad), ("b", bad)]), "{bad}");
        let metrics = world.metrics();
        assert_eq!((metrics.processed, metrics.dropped.get("not processed")), (4, Some(&2)));
        assert_eq!(metrics.given_up > 0, bad != "early", "early failures cost nothing");
        assert!(stored(&world).iter().all(|(key, _)| key == "a"), "{bad}: {:?}", stored(&world));
    }
}

#[test]
fn a_dead_letter_says_what_kafka_says() {
    let world = world();
    let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
    let mut batch = broker_api::BatchBuilder::new();
    let own = [Header { name: "own".into(), value: Some("h".into()) }];
    batch.push(42, Some(b"k"), Some(b"late"), &own).unwrap();
    batch.push(43, Some(b"k"), Some(b"\xff\xff"), &[]).unwrap();
    producer.append(&TopicPartition::new("in", 0), batch.finish().unwrap()).unwrap();
    world.broker.settle(1_000);
    world.run_once();
    let found = letters(&world);
    let of = |number: usize| {
        let (key, value, time, headers) = found[number].clone();
        let headers: Vec<_> =
            headers.into_iter().map(|(n, v)| (n.replace("__streams.errors.", "_"), v)).collect();
        (key.unwrap(), value.unwrap(), time, headers)
    };
    let (key, value, time, headers) = of(0);
    assert_eq!((&key[..], &value[..], time), (&b"k"[..], &b"late"[..], 42));
    let expected = [
        ("own", "h"),
        ("_exception", "User"),
        ("_message", "'moody': a late failure"),
        (
            "_stacktrace",
            "User: 'moody': a late failure\n  at node moody\n  in task 0_0\n  with record 0 of in-0",
        ),
        ("_topic", "in"),
        ("_partition", "0"),
        ("_offset", "0"),
    ];
    assert_eq!(headers, pairs(&expected));
    let (key, value, time, headers) = of(1);
    assert_eq!((&key[..], &value[..], time), (&b"k"[..], &b"\xff\xff"[..], 43));
    assert_eq!(headers[0].1, "Deserialization");
    assert_eq!(headers[5], ("_offset".into(), "1".into()));
}

#[test]
fn a_handler_may_write_records_of_its_own_or_none() {
    let mut world = world();
    let handler: ErrorHandler = Arc::new(|failure| {
        assert_eq!(failure.stage, Stage::Processing);
        let record = failure.record.as_ref().unwrap();
        match record.offset {
            0 => Response::resume_with(Vec::new()),
            1 => {
                let letter = DeadLetter::of(failure);
                Response::resume_with(vec![letter.clone(), letter.to("out")])
            }
            _ => Response::fail(),
        }
    });
    world.settings.processing_handler = handler;
    world.write(&[("a", b"late"), ("12345678", b"late"), ("a", b"-"), ("c", b"late")]);
    let mut thread = world.thread();
    let error = world.run(&mut thread).unwrap_err();
    assert_eq!(error.to_string(), "task 0_0, record 3 of in-0: 'moody': a late failure");
    drop(thread);
    world.broker.settle(1_000);
    assert_eq!(dead(&world), pairs(&[("12345678", "late")]));
}

#[test]
fn a_dead_letter_for_a_topic_that_nobody_names_is_a_clear_error() {
    let mut world = world();
    world.settings.processing_handler =
        Arc::new(|failure| Response::resume_with(vec![DeadLetter::of(failure).to("elsewhere")]));
    world.write(&[("a", b"early")]);
    let error = world.run(&mut world.thread()).unwrap_err();
    assert!(error.to_string().contains("a dead letter for topic 'elsewhere'"), "{error}");
}

#[test]
fn a_failing_punctuation_is_left_out_and_input_goes_on() {
    let world = world();
    world.write(&[("a", b"-"), ("tick", b"-")]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    for _ in 0..3 {
        world.clock.advance(Duration::from_millis(1_000));
        world.run(&mut thread).unwrap();
    }
    world.write(&[("b", b"-")]);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(world.read("out"), counts(&[("a", 1), ("tick", 1), ("b", 1)]));
    for (_, _, _, headers) in letters(&world) {
        assert!(headers[2].1.ends_with("in a punctuation"), "{headers:?}");
    }
    let headers: Vec<_> =
        letters(&world).into_iter().map(|(key, _, _, h)| (key, h[1].1.clone())).collect();
    let wall = (None, "'moody': a failure of the wall clock".to_owned());
    let stream = (None, "'moody': a failure of the stream time".to_owned());
    assert_eq!(headers.iter().filter(|h| **h == wall).count(), 3, "{headers:?}");
    assert_eq!(headers.len(), 3 + headers.iter().filter(|h| **h == stream).count());
    let stored = stored(&world);
    assert!(!stored.iter().any(|(key, _)| key.contains(' ')), "no partial writes: {stored:?}");
}

/// The broker may take its time to say whether there is such a topic.
#[test]
fn a_dead_letter_of_a_punctuation_finds_a_topic_that_was_made_after_the_start() {
    for seed in 0..8 {
        let mut world = world();
        let (clock, faults) = (world.clock.clone(), Faults { admin_delay: 3, ..Faults::default() });
        world.broker = SimBroker::new(SimConfig { seed, clock, faults, ..SimConfig::default() });
        ["in", "out", "dead"].iter().for_each(|topic| world.create_topic(topic, 1));
        let choose = Arc::new(|_: &Record<String, i64>| "out".to_owned());
        let serdes = (String::serde(), i64::serde());
        let parents = vec!["moody".into()];
        let sink = NodeSpec::dynamic_sink("sink", parents, "by key", choose, serdes, None);
        world.topology = Arc::new(processors::moody_to(false, sink));
        world.settings.processing_handler = Arc::new(|failure| {
            let of_wall_clock = failure.error.to_string().contains("wall clock");
            let topic = if of_wall_clock { "later" } else { "dead" };
            Response::resume_with(vec![DeadLetter::of(failure).to(topic)])
        });
        world.write(&[("tick", b"-")]);
        let mut thread = world.thread();
        let run = |thread: &mut StreamThread| {
            (0..20).for_each(|_| assert_ne!(world.run(thread).unwrap(), Next::Stopped));
        };
        run(&mut thread);
        world.create_topic("later", 1);
        for letters in 1..4 {
            world.clock.advance(Duration::from_millis(1_000));
            run(&mut thread);
            assert_eq!(world.count("later"), letters, "{seed}");
        }
        assert!(thread.is_caught_up());
    }
}

/// Nothing is written then, and there is nothing to commit but that something was left out.
#[test]
fn a_failing_punctuation_that_is_left_out_without_a_dead_letter_comes_to_rest() {
    let mut world = world();
    world.settings.processing_handler = Arc::new(|_| Response::resume_with(Vec::new()));
    world.write(&[("a", b"-"), ("tick", b"-")]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.clock.advance(Duration::from_millis(1_000));
    world.run(&mut thread).unwrap();
    world.write(&[("b", b"-")]);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(world.read("out"), counts(&[("a", 1), ("tick", 1), ("b", 1)]));
    assert!(letters(&world).is_empty());
}

#[test]
fn a_result_that_is_too_large_for_its_topic_is_left_out_alone() {
    let world = world();
    let config = TopicConfig { max_message_bytes: 150, ..TopicConfig::default() };
    now(&world.broker, world.broker.admin().configure_topic("out", config)).unwrap();
    let large = "l".repeat(100);
    world.write(&[("a", b"-"), (&large, b"-"), ("a", b"-")]);
    world.run_once();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2)]));
    assert_eq!(dead(&world), pairs(&[(&large, "-")]));
    assert!(stored(&world).contains(&(large, 1)), "its other effects stay");
}

#[test]
fn a_record_whose_results_no_commit_can_hold_is_found_and_left_out() {
    let mut world = world_with(1_200);
    world.settings.production_handler = Arc::new(|_| Response::resume_with(Vec::new()));
    let large = "l".repeat(600);
    let records: Vec<(&str, &[u8])> = ["a", "b", "c", "d", "e"].map(|k| (k, &b"-"[..])).into();
    world.write(&records);
    world.write(&[(&large, b"-")]);
    world.write(&records);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    let out = world.read("out");
    assert_eq!(out.len(), 10, "{out:?}");
    assert_eq!(out[5..], counts(&[("a", 2), ("b", 2), ("c", 2), ("d", 2), ("e", 2)]));
    assert_eq!(world.metrics().dropped.get("not written"), Some(&1));
}

/// Fails at every seal, whatever has come.
struct NeverSeals;

impl Processor for NeverSeals {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        cx.forward(record.with_value(1));
        Ok(())
    }

    fn before_seal(&mut self, _: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        Err(ProcessError::user("never"))
    }
}

fn never_seals() -> Topology {
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], text.clone(), text.clone());
    builder.add(source).unwrap();
    builder.add(NodeSpec::processor("never", vec!["source".into()], || NeverSeals)).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["never".into()], "out", text, count, None)).unwrap();
    builder.build().unwrap()
}

#[test]
fn a_seal_that_fails_without_what_was_left_out_stops_the_application() {
    let mut world = world();
    world.topology = Arc::new(never_seals());
    world.write(&[("a", b"-"), ("b", b"-")]);
    let error = world.run(&mut world.thread()).unwrap_err();
    assert!(error.to_string().contains("never"), "{error}");
}

#[test]
fn the_test_driver_too_ends_at_a_seal_that_always_fails() {
    let handlers = ErrorHandlers { processing: log_and_continue(), ..Default::default() };
    for caching in [false, true] {
        let settings =
            TestDriverSettings { caching, handlers: handlers.clone(), ..Default::default() };
        let driver = TopologyTestDriver::with_settings(never_seals(), settings).unwrap();
        let piped = driver.input_topic::<String, String>("in").pipe("a".into(), "-".into(), 1);
        let error = piped.and_then(|()| driver.commit()).unwrap_err();
        assert!(error.to_string().contains("never"), "{error}");
    }
}

#[test]
fn a_failure_at_the_seal_is_traced_to_its_record() {
    let mut world = world();
    world.topology = Arc::new(processors::moody(true));
    world.write(&[("a", b"-"), ("b", b"-"), ("unsealable", b"-"), ("a", b"-"), ("c", b"-")]);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(dead(&world), pairs(&[("unsealable", "-")]));
    let mut last = world.read("out");
    last.sort();
    last.dedup_by(|later, earlier| later.0 == earlier.0 && later.1 <= earlier.1);
    assert!(last.contains(&("a".into(), 2)) && last.contains(&("c".into(), 1)), "{last:?}");
    assert!(!last.iter().any(|(key, _)| key == "unsealable"));
}

#[test]
fn a_topic_that_is_gone_is_waited_for_by_default() {
    let mut world = world();
    world.settings.production_handler = streams_core::runtime::log_and_retry_or_fail();
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.delete_topic("out");
    world.write(&[("a", b"-")]);
    world.run(&mut thread).unwrap();
    assert!(!thread.is_caught_up());
    world.create_topic("out", 1);
    world.clock.advance(Duration::from_millis(100));
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(world.read("out"), counts(&[("a", 1)]));
    world.delete_topic("out");
    world.settings.production_handler = Arc::new(|_| Response::fail());
}

#[test]
fn a_topic_that_stays_away_for_the_delivery_timeout_stops_the_application_with_its_name() {
    let mut world = world();
    world.settings.production_handler = streams_core::runtime::log_and_retry_or_fail();
    world.settings.delivery_timeout = Duration::from_secs(10);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.delete_topic("out");
    world.write(&[("a", b"-")]);
    for _ in 0..10 {
        world.run(&mut thread).unwrap();
        world.clock.advance(Duration::from_secs(1));
    }
    let error = world.run(&mut thread).unwrap_err();
    assert!(matches!(error, StreamsError::NotWritten { .. }), "{error}");
    assert!(error.to_string().contains("topic 'out' does not exist"), "{error}");
    drop(thread);
    world.create_topic("out", 1);
    world.run_once();
    assert_eq!(world.read("out"), counts(&[("a", 1)]), "nothing was lost");
}

#[test]
fn a_handler_decides_about_results_whose_topic_stays_away() {
    let mut world = world();
    world.settings.production_handler = Arc::new(|failure| match failure.retriable {
        true => Response::retry(),
        false => Response::resume(),
    });
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.delete_topic("out");
    world.write(&[("a", b"-"), ("b", b"-"), ("c", b"-")]);
    world.run(&mut thread).unwrap();
    assert_eq!(dead(&world), []);
    world.clock.advance(Duration::from_secs(2 * 60));
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up(), "each is left out at once when the time is over");
    assert_eq!(dead(&world), pairs(&[("a", "-"), ("b", "-"), ("c", "-")]));
}

#[test]
fn a_thread_that_is_to_stop_does_not_wait_for_a_topic_that_is_gone() {
    let mut world = world();
    world.settings.production_handler = streams_core::runtime::log_and_retry_or_fail();
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    world.delete_topic("out");
    world.write(&[("a", b"-")]);
    world.run(&mut thread).unwrap();
    thread.stop();
    let error = world.run(&mut thread).unwrap_err();
    assert!(error.to_string().contains("topic 'out' does not exist"), "{error}");
}

/// What is written, and the dead letters.
type End = (Vec<(String, i64)>, Vec<(String, String)>);

/// The process ends at every step in turn: the end is always the same, with one dead letter for each
/// record that was left out.
#[test]
fn dead_letters_are_exactly_once_whenever_the_process_ends() {
    let run = |end: usize, power: bool| -> Option<End> {
        let mut world = world();
        world.settings.commit_interval = Duration::ZERO;
        let mut ended = false;
        for round in 0..3 {
            let value = ["late", "panic", "early"][round];
            world.write(&[("a", b"-"), ("x", value.as_bytes()), ("b", b"-"), ("a", b"-")]);
        }
        let mut thread = world.thread();
        for step in 0..10_000 {
            let busy = world.broker.step();
            let next = thread.step().unwrap();
            if step == end {
                ended = true;
                drop(thread);
                if power {
                    world.broker = world.broker.crash();
                    world.engine = LossyEngine::new();
                } else {
                    world.broker.settle(1_000);
                    world.engine.crash(|_| 0);
                }
                thread = world.thread();
            } else if !busy && next != streams_core::runtime::Next::Again && thread.is_caught_up() {
                break;
            }
        }
        world.run(&mut thread).unwrap();
        ended.then(|| (world.read("out"), dead(&world)))
    };
    for power in [false, true] {
        let mut ends = 0;
        while let Some((out, dead)) = run(ends, power) {
            let expected = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2), ("a", 4)];
            assert_eq!(out[..6], counts(&expected), "ended at step {ends}");
            assert_eq!(out.len(), 9, "ended at step {ends}");
            let expected = [("x", "late"), ("x", "panic"), ("x", "early")];
            assert_eq!(dead, pairs(&expected), "ended at step {ends}");
            ends += 1;
        }
        assert!(ends > 5, "{ends}");
    }
}

#[test]
fn to_retry_what_cannot_succeed_is_to_fail() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut world = world();
    let count = asked.clone();
    world.settings.processing_handler = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Response::retry() // which cannot help here
    });
    world.write(&[("a", b"late")]);
    let error = world.run(&mut world.thread()).unwrap_err();
    assert!(matches!(error, StreamsError::Process { .. }), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// Found by the simulation: the partition was paused for ever, because its last batch was done with
/// only after the seal, when nobody looked.
#[test]
fn a_paused_partition_goes_on_after_its_last_record_was_left_out() {
    let mut world = world();
    world.settings.input_buffer_bytes = 1;
    let mut thread = world.thread();
    for round in 1..4 {
        world.write(&[("a", b"-"), ("x", b"late")]);
        world.run(&mut thread).unwrap();
        assert_eq!(world.read("out").len(), round);
        assert!(thread.is_caught_up());
    }
}
