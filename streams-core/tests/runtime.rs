//! A stream thread on the simulated broker, step by step: what the simulation of the whole once
//! found, each as a small story.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_api::sim::{Fault, SimBroker, SimConfig};
use broker_api::{
    BatchBuilder, Broker, Error, Fetcher, FetcherConfig, ManualClock, NewTopic, Start, TopicConfig,
    TopicPartition,
};
use streams_core::processor::{
    Context as ProcessorContext, InitContext, Processor, PunctuationKind, StoreHandle,
};
use streams_core::runtime::{
    Inline, Next, Plan, Settings, StreamThread, StreamsError, ThreadEnv, log_and_continue,
};
use streams_core::state::{KeyValueStore, LossyEngine, StoreOptions};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

const CHANGELOG: &str = "app-counts-changelog";

/// Counts keys; with every tick of the wall clock it only changes the key `ticks`.
struct Count {
    store: Option<StoreHandle<KeyValueStore<String, i64>>>,
}

impl Processor for Count {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.store = Some(cx.store("counts")?);
        cx.schedule(Duration::from_secs(1), PunctuationKind::WallClock)
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let count = self.add(&record.key, cx)?;
        cx.forward(record.with_value(count));
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: PunctuationKind,
        _: i64,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        self.add("ticks", cx).map(|_| ())
    }
}

impl Count {
    fn add(
        &self,
        key: &str,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<i64, ProcessError> {
        let store = cx.store(self.store.unwrap());
        let updated = store.update(&key.to_owned(), |value, _| {
            *value.get_or_insert(0) += 1;
            0
        })?;
        Ok(updated.new.copied().unwrap_or_default())
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new();
    let (key, value, count) = (String::serde(), String::serde(), i64::serde());
    let options = StoreOptions { forward_on_seal: false, ..StoreOptions::default() };
    let source = NodeSpec::source("source", vec!["in".into()], key.clone(), value);
    builder.add(source).unwrap();
    let node = NodeSpec::processor("count", vec!["source".into()], || Count { store: None });
    builder.add(node).unwrap();
    let store = StoreSpec::key_value("counts", key.clone(), count.clone(), options);
    builder.add_state_store(store, &["count"]).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["count".into()], "out", key, count, None)).unwrap();
    builder.build().unwrap()
}

struct World {
    broker: SimBroker,
    clock: Arc<ManualClock>,
    engine: LossyEngine,
    settings: Settings,
}

impl World {
    fn new(max_commit_bytes: usize) -> Self {
        let clock = Arc::new(ManualClock::new(1_000));
        let mut config = SimConfig { clock: clock.clone(), ..SimConfig::default() };
        config.capabilities.max_commit_bytes = max_commit_bytes;
        let broker = SimBroker::new(config);
        for name in ["in", "out"] {
            let config = TopicConfig::default();
            let topic = NewTopic { name: name.into(), partitions: 1, config };
            now(&broker, broker.admin().create_topic(topic)).unwrap();
        }
        let settings = Settings::new("app", "state");
        Self { broker, clock, engine: LossyEngine::new(), settings }
    }

    fn thread(&self) -> StreamThread {
        let topology = Arc::new(topology());
        let admin = self.broker.admin();
        let plan = now(&self.broker, Plan::make(&topology, "app", &*admin)).unwrap();
        let env = ThreadEnv::new(
            topology,
            Arc::new(plan),
            Arc::new(self.settings.clone()),
            Arc::new(self.broker.clone()),
            Arc::new(self.engine.clone()),
            self.clock.clone(),
            Arc::new(Inline),
        );
        StreamThread::new(env, "p", 0, Waker::noop().clone()).unwrap()
    }

    fn write(&self, records: &[(&str, &[u8])]) {
        let mut producer = self.broker.producer(Waker::noop().clone()).unwrap();
        for (key, value) in records {
            let mut batch = BatchBuilder::new();
            batch.push(5, Some(key.as_bytes()), Some(value), &[]).unwrap();
            producer.append(&TopicPartition::new("in", 0), batch.finish().unwrap()).unwrap();
        }
        self.broker.settle(1_000);
    }

    /// Keys and values of a topic.
    fn read(&self, topic: &str) -> Vec<(String, i64)> {
        let config = FetcherConfig::default();
        let mut reader: Box<dyn Fetcher> =
            self.broker.fetcher(config, Waker::noop().clone()).unwrap();
        reader.assign(&[(TopicPartition::new(topic, 0), Start::Earliest)]).unwrap();
        let mut found = Vec::new();
        while let Poll::Ready(fetched) = reader.poll(1 << 20) {
            for batch in fetched.unwrap().iter().flat_map(|part| &part.batches) {
                for record in batch.records() {
                    let record = record.unwrap();
                    let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                    let value = record.value.unwrap().try_into().unwrap();
                    found.push((key, i64::from_be_bytes(value)));
                }
            }
        }
        found
    }

    /// Steps broker and thread until neither has anything to do.
    fn run(&self, thread: &mut StreamThread) -> Result<Next, StreamsError> {
        let mut idle = 0;
        for _ in 0..10_000 {
            let busy = self.broker.step();
            let next = thread.step()?;
            idle = if busy || next == Next::Again { 0 } else { idle + 1 };
            if idle > 3 || next == Next::Stopped {
                return Ok(next);
            }
        }
        panic!("it never comes to rest: {thread:?}");
    }
}

fn now<T>(broker: &SimBroker, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    loop {
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => broker.step(),
        };
    }
}

fn counts(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    of.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

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
    assert!(matches!(error, StreamsError::Broker(Error::TooLarge { .. })), "{error}");
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
