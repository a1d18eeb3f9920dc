//! Panics in the application's code end the application, and nothing else.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use broker_api::{Broker, TopicPartition};
use streams_core::processor::{
    Context, InitContext, Processor, PunctuationKind, RecordTimes, Schedule, SourceInfo,
    TimestampExtractor,
};
use streams_core::runtime::{State, Streams, StreamsError, log_and_continue};
use streams_core::topology::{NodeSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::World;

/// Hands records on, until its time has come.
struct Fragile {
    panics_in: &'static str,
    /// The first one is made when the topology is built.
    number: u32,
}

impl Fragile {
    fn here(&self, place: &str) {
        assert!(place != self.panics_in || self.number == 0, "no luck in {place}");
    }
}

impl Processor for Fragile {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.here("init");
        cx.schedule(Duration::from_millis(1), PunctuationKind::StreamTime)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        if record.key == "last" {
            self.here("process");
        }
        cx.forward(record);
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        _: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        self.here("punctuate");
        Ok(())
    }
}

fn topology(panics_in: &'static str) -> Topology {
    let mut builder = TopologyBuilder::new();
    let text = String::serde();
    let made = AtomicU32::new(0);
    let fragile = move || Fragile { panics_in, number: made.fetch_add(1, Ordering::Relaxed) };
    let robust = || Fragile { panics_in: "", number: 0 };
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    builder.add(NodeSpec::processor("robust", vec!["in".into()], robust)).unwrap();
    builder.add(NodeSpec::processor("fragile", vec!["robust".into()], fragile)).unwrap();
    let sink = NodeSpec::sink("out", vec!["fragile".into()], "out", text.clone(), text, None);
    builder.add(sink).unwrap();
    builder.build().unwrap()
}

fn start(world: &World, panics_in: &'static str) -> Streams {
    let starting = Streams::start(
        Arc::new(topology(panics_in)),
        Arc::new(world.broker.clone()),
        Arc::new(world.engine.clone()),
        world.clock.clone(),
        world.settings.clone(),
    );
    world.block_on(starting).unwrap()
}

#[test]
fn a_panic_in_a_processor_is_an_error_with_its_name_and_commits_nothing() {
    for place in ["init", "process", "punctuate"] {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(1 << 20);
        world.settings.state_dir = dir.path().into();
        world.write(&[("first", b"12345678"), ("last", b"12345678")]);
        let streams = start(&world, place);
        let error = world.block_on(streams.ended()).unwrap_err();
        let message = format!("no luck in {place}");
        let record = (place == "process")
            .then(|| SourceInfo { partition: TopicPartition::new("in", 0), offset: 1 });
        assert_eq!(error, StreamsError::Panic { record, node: Some("fragile".into()), message });
        assert_eq!(streams.state(), State::Error);
        assert_eq!(world.block_on(streams.close()), Err(error));
        assert_eq!(world.read("out"), [], "nothing of the generation takes effect");
        let offsets = world.broker.admin();
        let offsets = world.block_on(offsets.group_offsets("app")).unwrap();
        assert_eq!(offsets, []);

        // Everything else works on, and a start with better code goes on where the last one ended.
        let streams = start(&world, "");
        world.block_on(streams.caught_up()).unwrap();
        world.block_on(streams.close()).unwrap();
        assert_eq!(world.read("out").len(), 2, "{place}");
    }
}

/// What goes on without the record in whose time the extractor panics: the keys written, how many dead
/// letters there are, and stream time.
fn without_the_record_that_has_no_time(topics: &[&str]) -> (Vec<String>, usize, i64) {
    let mut world = World::new(1 << 20);
    for topic in ["in2", "dead"] {
        world.create_topic(topic, 1);
    }
    let mut builder = TopologyBuilder::new();
    let (text, topics) =
        (String::serde(), topics.iter().map(|topic| (*topic).to_owned()).collect());
    let extractor = TimestampExtractor::own(|_: &String, value: &String, times: RecordTimes| {
        assert!(value != "bad", "no time in it");
        times.record
    });
    let source = NodeSpec::source_with("in", topics, text.clone(), text.clone(), extractor);
    builder.add(source).unwrap();
    builder.add(NodeSpec::sink("out", vec!["in".into()], "out", text.clone(), text, None)).unwrap();
    world.topology = Arc::new(builder.build().unwrap());
    world.settings.processing_handler = log_and_continue();
    world.settings.dead_letter_topic = Some("dead".into());
    world.write(&[("a", b"-"), ("x", b"bad"), ("c", b"-")]);
    let mut thread = world.thread();
    for _ in 0..300 {
        world.broker.step();
        thread.step().unwrap();
    }
    assert!(thread.is_caught_up());
    let out = world.records("out").into_iter().map(|(key, _)| key).collect();
    let stream_time = thread.tasks_mut().map(|task| task.core().stream_time()).max();
    (out, world.count("dead"), stream_time.unwrap())
}

#[test]
fn a_panic_in_a_timestamp_extractor_leaves_out_its_record_alone() {
    let expected = (vec!["a".to_owned(), "c".to_owned()], 1, 5);
    assert_eq!(without_the_record_that_has_no_time(&["in"]), expected);
    // Where the times of several inputs are compared, it shows while the record before is the last one.
    assert_eq!(without_the_record_that_has_no_time(&["in", "in2"]), expected);
}
