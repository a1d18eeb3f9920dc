//! Async operators: names, results in the test driver, calls of what is left out.

use std::time::Duration;

use streams_core::failure::{ErrorHandlers, log_and_continue};
use streams_core::processor::{Context, InitContext, Processor, PunctuationKind, Schedule};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::{BuildError, ProcessError, Record};
use streams_dsl::{AsyncConfig, StreamsBuilder};

#[test]
fn values_and_records_are_mapped_by_calls_in_order() {
    let builder = StreamsBuilder::new();
    let words = builder.stream::<String, String>("words");
    words
        .map_values_async(|_, word| async move { Ok::<_, String>(word.len() as i64) })
        .to("lengths");
    words
        .map_async_with(
            |key, word| async move { Ok::<_, String>((word, key)) },
            AsyncConfig::new().concurrency(1).ordered_by_key().named("swap"),
        )
        .group_by_key()
        .count()
        .to_stream_present()
        .to("counts");
    let topology = builder.build().unwrap();
    let described = topology.describe();
    assert!(described.contains("Processor: KSTREAM-MAPVALUES-ASYNC-0000000001 (stores: [])"));
    assert!(described.contains("--> swap"), "{described}");

    let driver = TopologyTestDriver::new(topology).unwrap();
    let input = driver.input_topic::<String, String>("words");
    for (key, word) in [("a", "one"), ("b", "three"), ("c", "one")] {
        input.pipe(key.into(), word.into(), 5).unwrap();
    }
    let lengths = driver.output_topic::<String, i64>("lengths").read_all().unwrap();
    let lengths: Vec<_> = lengths.iter().map(|r| (&*r.key, r.value, r.timestamp)).collect();
    assert_eq!(lengths, [("a", 3, 5), ("b", 5, 5), ("c", 3, 5)]);
    let counts = driver.output_topic::<String, i64>("counts").read_all().unwrap();
    let counts: Vec<_> = counts.iter().map(|r| (&*r.key, r.value)).collect();
    assert_eq!(counts, [("one", 1), ("three", 1), ("one", 2)]);
}

/// A call that follows from a cache is back before the commit.
#[test]
fn calls_below_an_aggregation_are_in_its_commit() {
    let builder = StreamsBuilder::new();
    builder
        .stream::<String, String>("words")
        .group_by_key()
        .count()
        .to_stream_present()
        .map_values_async(|key, n| async move { Ok::<_, String>(format!("{key}={n}")) })
        .to("out");
    let driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    let input = driver.input_topic::<String, String>("words");
    input.pipe("a".into(), "-".into(), 1).unwrap();
    input.pipe("a".into(), "-".into(), 2).unwrap();
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    let out: Vec<_> = out.into_iter().map(|r| r.value).collect();
    assert_eq!(out, ["a=1", "a=2"]);
}

/// Calls, and after that fails with some records and at each full ten of stream time.
#[derive(Default)]
struct Refuses;

impl Processor for Refuses {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        let every = Duration::from_millis(10);
        cx.schedule(every, PunctuationKind::StreamTime).map(|_| ())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let is_bad = record.value == "bad";
        cx.forward(record);
        if is_bad { Err(ProcessError::user("poison")) } else { Ok(()) }
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        cx.forward(Record::new("tick".into(), format!("tick {now}"), now));
        Err(ProcessError::user("no time"))
    }
}

/// Either a result or a dead letter, not both.
#[test]
fn the_results_of_what_fails_after_its_calls_were_made_are_not_written() {
    let builder = StreamsBuilder::new();
    let refused = builder.stream::<String, String>("in").process(|| Refuses);
    refused.map_values_async(|_, value| async move { Ok::<_, String>(value) }).to("out");
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some("dead".into()),
        ..Default::default()
    };
    let settings = TestDriverSettings { handlers, ..Default::default() };
    let driver = TopologyTestDriver::with_settings(builder.build().unwrap(), settings).unwrap();
    for (value, time) in [("x", 1), ("bad", 2), ("y", 3), ("z", 11)] {
        driver.input_topic("in").pipe("k".to_owned(), value.to_owned(), time).unwrap();
    }
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    let out: Vec<_> = out.into_iter().map(|r| r.value).collect();
    assert_eq!(out, ["x", "y", "z"]);
    // Of the record, and of the punctuations at 1 (the first record) and 11.
    assert_eq!(driver.output_topic::<Option<String>, Option<String>>("dead").len().unwrap(), 3);
}
