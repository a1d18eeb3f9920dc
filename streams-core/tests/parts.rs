//! What one record lets go takes as many commits as it needs, and nothing of it is lost or comes twice,
//! whenever the process ends and whatever fails.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::VecDeque;
use std::sync::Arc;

use broker_api::TopicPartition;
use futures::FutureExt;
use streams_core::failure::Response;
use streams_core::processor::{
    AsyncOptions, Context, EntryId, InitContext, Processor, PunctuationKind, Schedule, StoreHandle,
};
use streams_core::runtime::Next;
use streams_core::state::{BufferStore, Buffered, KeyValueStore, StoreOptions};
use streams_core::topology::{NodeSpec, StoreSpec, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record, RunToEnd};

use world::World;

type Buffer = BufferStore<String, i64>;

/// Holds all records back until one comes whose value says to let them go.
#[derive(Default)]
struct HoldBack {
    buffer: Option<StoreHandle<Buffer>>,
}

impl HoldBack {
    fn release(&self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        let buffer = self.buffer.unwrap();
        let due = cx.store(buffer).due(&[(1, i64::MAX)], usize::MAX)?;
        for (at, found) in due.iter().enumerate() {
            let id = EntryId::of("hold back").at(found.id());
            for Buffered { key, value, timestamp, .. } in cx.store(buffer).take(found)? {
                if !cx.let_go(id, |_| Ok(Some(Record::new(key, value, timestamp))))? {
                    due.get(at + 1).into_iter().for_each(|next| cx.store(buffer).not_taken(next));
                    return Ok(());
                }
            }
        }
        cx.store(buffer).remove(0, 0, &String::new())?;
        Ok(())
    }
}

impl Processor for HoldBack {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.buffer = Some(cx.store("buffer")?);
        cx.schedule(std::time::Duration::from_millis(1), PunctuationKind::StreamTime)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let buffer = self.buffer.unwrap();
        let goes = record.value == "go";
        // An entry of class 0 says that all the others are let go.
        let (class, key, time) = match goes {
            true => (0, String::new(), 0),
            false => (1, record.key, cx.stream_time()),
        };
        cx.store(buffer).add(&Buffered { time, class, key, value: 1, timestamp: 5 })?;
        if goes { self.release(cx) } else { Ok(()) }
    }

    fn go_on(&mut self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        let is_unended = cx.store(self.buffer.unwrap()).oldest(0)? < i64::MAX;
        if is_unended { self.release(cx) } else { Ok(()) }
    }

    /// Comes after everything that its record lets go.
    fn punctuate(
        &mut self,
        _: Schedule,
        timestamp: i64,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        cx.forward(Record::new("punctuation".into(), timestamp, timestamp));
        Ok(())
    }
}

/// Passes everything on, at once or at the seal, but for what its keys say.
#[derive(Default)]
struct Fragile {
    store: Option<StoreHandle<KeyValueStore<String, i64>>>,
}

impl Processor for Fragile {
    type KIn = String;
    type VIn = i64;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.store = Some(cx.store("held")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        if record.key.ends_with("-late") {
            cx.store(self.store.unwrap()).put(record.key, Some(1), 0)?;
            return Ok(());
        }
        assert!(!record.key.ends_with("-panic"), "no more");
        let fails = record.key.ends_with("-fail");
        cx.forward(record);
        if fails { Err(ProcessError::user("a failure")) } else { Ok(()) }
    }

    fn before_seal(&mut self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        match cx.store(self.store.unwrap()).next_forward()? {
            Some(_) => Err(ProcessError::user("a failure at the seal")),
            None => Ok(()),
        }
    }
}

/// Lets go at the seal what has come since the last one.
#[derive(Default)]
struct LetGoAtSeal {
    waiting: VecDeque<String>,
}

impl Processor for LetGoAtSeal {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn process(
        &mut self,
        record: Record<String, String>,
        _: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        self.waiting.push_back(record.key);
        Ok(())
    }

    fn before_seal(&mut self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        while let Some(key) = self.waiting.pop_front() {
            let id = EntryId::of("let go").at(key.as_bytes());
            if !cx.let_go(id, |_| Ok(Some(Record::new(key, 1, 5))))? {
                break;
            }
        }
        Ok(())
    }

    fn go_on(&mut self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        self.before_seal(cx)
    }
}

fn world(max_commit_bytes: usize, is_asynchronous: bool) -> World {
    let mut world = World::new(max_commit_bytes);
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], text.clone(), text.clone());
    builder.add(source).unwrap();
    let node = NodeSpec::processor("hold", vec!["source".into()], HoldBack::default);
    builder.add(node).unwrap();
    let mut last = "hold";
    if is_asynchronous {
        let options = AsyncOptions { concurrency: 3, ..AsyncOptions::default() };
        let call = |key: String, value: i64| async move { Ok((key, value)) }.boxed();
        let call = Arc::new(call);
        builder.add(NodeSpec::asynchronous("call", vec!["hold".into()], call, options)).unwrap();
        last = "call";
        world.settings.executor = Some(Arc::new(RunToEnd::default()));
    }
    builder.add(NodeSpec::processor("fragile", vec![last.into()], Fragile::default)).unwrap();
    let buffer = StoreSpec::buffer("buffer", text.clone(), count.clone(), true);
    builder.add_state_store(buffer, &["hold"]).unwrap();
    let options = StoreOptions { forward_on_seal: true, ..StoreOptions::default() };
    let held = StoreSpec::key_value("held", text.clone(), count.clone(), options);
    builder.add_state_store(held, &["fragile"]).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["fragile".into()], "out", text, count, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());
    world.create_topic("dead", 1);
    world
}

/// So many keys in their order, some of which have an end of their name.
fn keys(count: usize, special: &[(usize, &str)]) -> Vec<String> {
    let name = |n| special.iter().find(|(at, _)| *at == n).map_or("", |(_, name)| name);
    (0..count).map(|n| format!("k{n:03}{}", name(n))).collect()
}

fn write(world: &World, keys: &[String]) {
    let records: Vec<(&str, &[u8])> = keys.iter().map(|key| (&**key, &b"-"[..])).collect();
    world.write(&records);
}

/// Lets go what is held back, a while later, and then something else.
fn let_go(world: &World) {
    let records = [("x", "go"), ("y", "-"), ("z", "go")];
    let records = records.map(|(key, value)| (key, Some(value.as_bytes())));
    world.write_at(9, TopicPartition::new("in", 0), &records);
}

fn out(world: &World) -> Vec<String> {
    world.read("out").into_iter().map(|(key, _)| key).collect()
}

/// What comes out of these keys: the punctuation that the first record calls, all keys, the punctuation
/// that the record calls which lets them go, and what comes after that.
fn expected(keys: &[String]) -> Vec<String> {
    let keys = keys.iter().filter(|key| !key.contains('-')).cloned();
    let punctuation = || ["punctuation".to_owned()].into_iter();
    punctuation().chain(keys).chain(punctuation()).chain(["y".to_owned()]).collect()
}

#[test]
fn what_one_record_lets_go_takes_as_many_commits_as_it_needs() {
    let world = world(4_096, false);
    let keys = keys(500, &[]);
    write(&world, &keys);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    let before = world.metrics();
    let_go(&world);
    world.run(&mut thread).unwrap();
    assert_eq!(out(&world), expected(&keys));
    assert!(world.metrics().commits > before.commits + 5, "{:?}", world.metrics());
    assert_eq!(world.metrics().given_up, before.given_up);
    assert!(thread.is_caught_up());
}

#[test]
fn nothing_is_lost_or_comes_twice_whenever_the_process_ends() {
    for steps in 1..12 {
        let world = world(4_096, false);
        let keys = keys(300, &[]);
        write(&world, &keys);
        world.run_once();
        let_go(&world);
        for _ in 0..12 {
            let mut thread = world.thread();
            for _ in 0..20 * steps {
                world.broker.step();
                thread.step().unwrap();
            }
        }
        world.run_once();
        assert_eq!(out(&world), expected(&keys), "a crash after {} steps", 20 * steps);
    }
}

#[test]
fn an_application_that_is_stopped_in_between_goes_on_at_its_next_start() {
    let world = world(4_096, false);
    let keys = keys(300, &[]);
    write(&world, &keys);
    let_go(&world);
    let mut stopped = 0;
    while out(&world).len() < 303 {
        let mut thread = world.thread();
        for _ in 0..200 {
            if world.metrics().commits < 3 {
                world.broker.step();
                thread.step().unwrap();
            }
        }
        thread.stop();
        assert_eq!(world.run(&mut thread).unwrap(), Next::Stopped);
        stopped += 1;
        assert!(stopped < 200, "it comes to no end");
    }
    assert!(stopped > 2, "{stopped}");
    assert_eq!(out(&world), expected(&keys));
}

#[test]
fn async_calls_for_what_is_let_go_are_bounded_and_end_before_each_commit() {
    let world = world(4_096, true);
    let keys = keys(100, &[]);
    write(&world, &keys);
    let_go(&world);
    world.run_once();
    assert_eq!(out(&world), expected(&keys));
}

#[test]
fn an_entry_that_fails_is_left_out_alone_and_has_one_dead_letter() {
    for special in ["-fail", "-panic", "-late"] {
        let mut world = world(4_096, false);
        world.settings.dead_letter_topic = Some("dead".into());
        world.settings.processing_handler = Arc::new(|failure| {
            assert!(failure.record.is_none(), "its record is committed");
            Response::resume()
        });
        let keys = keys(300, &[(200, special), (210, special), (299, special)]);
        write(&world, &keys);
        let_go(&world);
        world.run_once();
        assert_eq!(out(&world), expected(&keys), "{special}");
        assert_eq!(world.count("dead"), 3, "{special}");
    }
}

#[test]
fn an_entry_that_fails_at_the_seal_is_known_at_once() {
    let mut world = World::new(1 << 20);
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], text.clone(), text.clone());
    builder.add(source).unwrap();
    let node = NodeSpec::processor("wait", vec!["source".into()], LetGoAtSeal::default);
    builder.add(node).unwrap();
    builder.add(NodeSpec::processor("fragile", vec!["wait".into()], Fragile::default)).unwrap();
    let options = StoreOptions { forward_on_seal: true, ..StoreOptions::default() };
    let held = StoreSpec::key_value("held", text.clone(), count.clone(), options);
    builder.add_state_store(held, &["fragile"]).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["fragile".into()], "out", text, count, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());
    world.settings.processing_handler = Arc::new(|failure| {
        assert!(failure.record.is_none(), "no record is to blame");
        Response::resume()
    });
    let mut keys = keys(100, &[(70, "-fail")]);
    write(&world, &keys);
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    keys.remove(70);
    assert_eq!(out(&world), keys);
    // One generation, which was processed again without the entry.
    assert_eq!(world.metrics().given_up, 100);
}

#[test]
fn by_default_a_failure_stops_the_application_until_its_cause_is_mended() {
    let mut world = world(4_096, false);
    let keys = keys(300, &[(200, "-fail")]);
    write(&world, &keys);
    let_go(&world);
    for _ in 0..3 {
        let mut thread = world.thread();
        let failed = world.run(&mut thread).unwrap_err();
        assert!(failed.to_string().contains("a failure"), "{failed}");
    }
    let part = out(&world);
    assert!(part.len() > 100 && part[..] == expected(&keys)[..part.len()], "{part:?}");
    world.settings.processing_handler = Arc::new(|_| Response::resume());
    world.run_once();
    assert_eq!(out(&world), expected(&keys));
}
