//! The test driver's extras: partitions, caching, crashes, left-out records, stores.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use streams_core::failure::{ErrorHandlers, Response, log_and_continue};
use streams_core::processor::{Context, Processor, TimestampExtractor};
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{HasSerde, ProcessError, Record};

use world::processors::counting;

/// Fails after it has passed on what a record says.
struct Picky;

impl Processor for Picky {
    type KIn = String;
    type VIn = i64;
    type KOut = String;
    type VOut = i64;

    fn process(
        &mut self,
        record: Record<String, i64>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let key = record.key.clone();
        cx.forward(record);
        match &*key {
            "bad" => Err(ProcessError::user("not this one")),
            "worse" => panic!("not this one either"),
            _ => Ok(()),
        }
    }
}

/// Counts, then fails for some keys: at once, or when the cache is drained.
fn picky(caches: bool) -> Topology {
    picky_with(StoreOptions { forward_on_seal: caches, ..StoreOptions::default() })
}

fn picky_with(options: StoreOptions) -> Topology {
    let caches = options.forward_on_seal;
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], text.clone(), text.clone());
    builder.add(source).unwrap();
    let counting = move || world::processors::Count::new(caches);
    builder.add(NodeSpec::processor("count", vec!["source".into()], counting)).unwrap();
    let store = StoreSpec::key_value("counts", text.clone(), count.clone(), options);
    builder.add_state_store(store, &["count"]).unwrap();
    builder.add(NodeSpec::processor("picky", vec!["count".into()], || Picky)).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["picky".into()], "out", text, count, None)).unwrap();
    builder.build().unwrap()
}

fn out(driver: &TopologyTestDriver) -> Vec<(String, i64)> {
    let records = driver.output_topic::<String, i64>("out").read_all().unwrap();
    records.into_iter().map(|record| (record.key, record.value)).collect()
}

fn pairs(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    world::counts(of)
}

#[test]
fn what_is_left_out_leaves_nothing_behind_with_and_without_caching() {
    for (caches, caching) in [(false, false), (true, false), (false, true), (true, true)] {
        let handlers = ErrorHandlers {
            processing: log_and_continue(),
            dead_letter_topic: Some("dead".into()),
            ..ErrorHandlers::default()
        };
        let settings = TestDriverSettings { handlers, caching, ..TestDriverSettings::default() };
        let driver = TopologyTestDriver::with_settings(picky(caches), settings).unwrap();
        let input = driver.input_topic::<String, String>("in");
        for key in ["a", "bad", "b", "worse", "a"] {
            input.pipe(key.into(), "-".into(), 1).unwrap();
        }
        driver.commit().unwrap();
        let mut last = out(&driver);
        last.sort();
        assert!(last.ends_with(&pairs(&[("a", 2), ("b", 1)])), "{caches} {caching} {last:?}");
        let dead = driver.output_topic::<String, String>("dead").read_all().unwrap();
        let dead: Vec<&str> = dead.iter().map(|letter| &*letter.key).collect();
        assert_eq!(dead, ["bad", "worse"], "{caches} {caching}");
        let counts = driver.key_value_store::<String, i64>("counts").unwrap();
        assert_eq!(counts.all().unwrap(), pairs(&[("a", 2), ("b", 1)]));
        let changelog = driver.output_topic::<String, i64>("test-counts-changelog");
        let changelog = changelog.read_all().unwrap();
        assert!(changelog.iter().all(|r| r.key == "a" || r.key == "b"), "no partial writes");
    }
}

/// As in a running application.
#[test]
fn a_store_without_a_changelog_does_not_go_back_for_a_record_that_is_left_out() {
    let handlers = ErrorHandlers { processing: log_and_continue(), ..ErrorHandlers::default() };
    let settings = TestDriverSettings { handlers, ..TestDriverSettings::default() };
    let options = StoreOptions { logged: false, ..StoreOptions::default() };
    let driver = TopologyTestDriver::with_settings(picky_with(options), settings).unwrap();
    let input = driver.input_topic::<String, String>("in");
    for key in ["a", "a", "bad", "a"] {
        input.pipe(key.into(), "-".into(), 1).unwrap();
    }
    assert_eq!(out(&driver), pairs(&[("a", 1), ("a", 2), ("a", 3)]));
    driver.crash().unwrap();
    input.pipe("a".into(), "-".into(), 1).unwrap();
    assert_eq!(out(&driver), pairs(&[("a", 1)]), "a crash takes it");
}

/// What is processed again comes as in a running application that has all of it.
#[test]
fn the_oldest_record_is_the_one_of_the_oldest_event_time() {
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let own = TimestampExtractor::own(|_: &String, value: &i64, _| *value);
    let topics = vec!["in".into(), "in2".into()];
    let source = NodeSpec::source_with("source", topics, text.clone(), count.clone(), own);
    builder.add(source).unwrap();
    builder.add(NodeSpec::processor("picky", vec!["source".into()], || Picky)).unwrap();
    builder.add(NodeSpec::sink("sink", vec!["picky".into()], "out", text, count, None)).unwrap();
    let handlers = ErrorHandlers { processing: log_and_continue(), ..ErrorHandlers::default() };
    let settings = TestDriverSettings { handlers, caching: true, ..TestDriverSettings::default() };
    let driver = TopologyTestDriver::with_settings(builder.build().unwrap(), settings).unwrap();
    for (topic, key, value, time) in [("in2", "b", 20, 1), ("in", "a", 10, 2), ("in", "bad", 30, 3)]
    {
        driver.input_topic::<String, i64>(topic).pipe(key.into(), value, time).unwrap();
    }
    driver.commit().unwrap();
    assert_eq!(out(&driver), pairs(&[("a", 10), ("b", 20)]));
}

#[test]
fn a_topic_that_nothing_writes_is_no_empty_one() {
    let driver = TopologyTestDriver::new(picky(false)).unwrap();
    let out = driver.output_topic::<String, i64>("out");
    assert!(out.read().unwrap().is_none() && out.is_empty().unwrap());
    let unknown = driver.output_topic::<String, i64>("uot");
    let errors = [
        unknown.read().map(drop),
        unknown.read_all().map(drop),
        unknown.len().map(drop),
        unknown.is_empty().map(drop),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert!(error.to_string().starts_with("the topology writes no topic 'uot'"), "{error}");
    }
}

#[test]
fn a_handler_of_the_driver_may_stop() {
    let handlers = ErrorHandlers {
        processing: Arc::new(|failure| {
            let record = failure.record.as_ref().unwrap();
            if record.offset == 0 { Response::resume() } else { Response::fail() }
        }),
        ..ErrorHandlers::default()
    };
    let settings = TestDriverSettings { handlers, ..TestDriverSettings::default() };
    let driver = TopologyTestDriver::with_settings(picky(false), settings).unwrap();
    let input = driver.input_topic::<String, String>("in");
    input.pipe("bad".into(), "-".into(), 1).unwrap();
    let error = input.pipe("bad".into(), "-".into(), 1).unwrap_err();
    assert_eq!(error.to_string(), "'picky': not this one");
}

#[test]
fn a_crash_after_any_record_changes_nothing() {
    let keys = ["a", "b", "a", "c", "a", "b"];
    let run = |crash_after: Option<usize>, caching: bool| {
        let settings = TestDriverSettings { caching, ..TestDriverSettings::default() };
        let topology = counting(StoreOptions::default());
        let driver = TopologyTestDriver::with_settings(topology, settings).unwrap();
        let input = driver.input_topic::<String, String>("in");
        for (number, key) in keys.iter().enumerate() {
            input.pipe((*key).into(), "-".into(), number as i64).unwrap();
            if number == 1 {
                driver.commit().unwrap();
            }
            if crash_after == Some(number) {
                driver.crash().unwrap();
            }
        }
        driver.commit().unwrap();
        (out(&driver), driver.key_value_store::<String, i64>("counts").unwrap().all().unwrap())
    };
    let calm = run(None, false);
    for number in 0..keys.len() {
        assert_eq!(run(Some(number), false), calm, "after {number}");
        assert_eq!(run(Some(number), true), calm, "after {number}, with caching");
    }
}

#[test]
fn keys_choose_partitions_and_each_partition_has_its_store() {
    let settings = TestDriverSettings { partitions: 4, ..TestDriverSettings::default() };
    let topology = counting(StoreOptions::default());
    let driver = TopologyTestDriver::with_settings(topology, settings).unwrap();
    let input = driver.input_topic::<String, String>("in");
    for key in ["a", "b", "c", "d", "e", "a"] {
        input.pipe(key.into(), "-".into(), 1).unwrap();
    }
    input.pipe_to(3, Record::new("a".into(), "-".into(), 1)).unwrap();
    let no = input.pipe_to(4, Record::new("a".into(), "-".into(), 1)).unwrap_err();
    assert!(no.to_string().contains("has 4 partitions"), "{no}");
    driver.crash().unwrap();
    let mut all = Vec::new();
    for partition in 0..4 {
        driver.look_at_partition(partition);
        let counts = driver.key_value_store::<String, i64>("counts").unwrap().all().unwrap();
        all.extend(counts.into_iter().map(|(key, count)| (key, count, partition)));
    }
    let total: i64 = all.iter().map(|(_, count, _)| count).sum();
    assert_eq!(total, 7, "{all:?}");
    assert!(all.contains(&("a".into(), 1, 3)) || all.contains(&("a".into(), 3, 3)), "{all:?}");
    let read = driver.output_topic::<String, i64>("out");
    assert_eq!(read.len(), Ok(7));
    let (partition, record) = read.read_with_partition().unwrap().unwrap();
    let home = broker_api::partitioner::partition_of(b"a", 4);
    assert_eq!((partition, &*record.key), (home, "a"));
    driver.look_at_partition(home);
    let lent = driver.with_store("counts", |store: &mut KeyValueStore<String, i64>| {
        Ok(store.get(&"a".to_owned())?.map(|(count, _)| *count))
    });
    assert!(lent.unwrap() >= Some(2));
}

#[test]
fn a_trace_shows_the_way_of_a_record_and_what_a_cache_held_back() {
    let driver = TopologyTestDriver::new(picky(true)).unwrap();
    let input = driver.input_topic::<String, String>("in");
    input.pipe("a".into(), "before".into(), 1).unwrap();
    driver.trace(true);
    input.pipe("a".into(), "x\n".into(), 2).unwrap();
    let expected = "in-0 offset 1: \"a\" = \"x\\n\" at 2
  count
  picky
    sink
      -> out-0: \"a\" = \"\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\" at 0
";
    assert_eq!(driver.take_trace(), expected);
    assert_eq!(driver.take_trace(), "");
    driver.crash().unwrap();
    assert_eq!(driver.take_trace(), "crash\n");
    driver.trace(false);
    driver.crash().unwrap();
    input.pipe("a".into(), "after".into(), 3).unwrap();
    assert_eq!(driver.take_trace(), "");
}
