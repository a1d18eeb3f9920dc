//! Rewritings of a topology when it is built.

use std::time::Duration;

use bytes::Bytes;
use streams_core::failure::{ErrorHandlers, log_and_continue};
use streams_core::processor::{Context, Processor, TimestampExtractor};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::{ProcessError, Record};
use streams_dsl::{
    Consumed, Grouped, JoinWindows, KStream, Materialized, Named, Optimization, Produced,
    StreamJoined, StreamsBuilder,
};

use crate::model::Random;
use crate::s;

struct Nothing;

impl Processor for Nothing {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn process(
        &mut self,
        _: Record<String, String>,
        _: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }
}

/// The application of Kafka's own test of merged repartition topics.
fn application(b: &StreamsBuilder) {
    let mapped = b
        .stream_with::<String, String>("input", Consumed::named("sourceStream"))
        .map_with(|k, v| (k.to_uppercase(), v), "source-map");
    mapped
        .filter_with(|k, _| k == "B", "process-filter")
        .map_values_with(|_, v| v.to_uppercase(), "process-mapValues")
        .process_with(|| Nothing, &[], "process");
    let counts = mapped
        .group_by_key_with(Grouped::named("count-groupByKey"))
        .count_with((Named::new("count"), Materialized::named("count-store")))
        .to_stream_present_with("count-toStream");
    counts.to_with("outputTopic_0", Produced::named("count-to"));
    mapped
        .group_by_key_with(Grouped::named("aggregate-groupByKey"))
        .aggregate_with(
            || 0i64,
            |_, v, n| n + v.len() as i64,
            (Named::new("aggregate"), Materialized::named("aggregate-store")),
        )
        .to_stream_present_with("aggregate-toStream")
        .to_with("outputTopic_1", Produced::named("reduce-to"));
    mapped
        .filter_with(|_, _| true, "reduce-filter")
        .peek_with(|_, _| {}, "reduce-peek")
        .group_by_key_with(Grouped::named("reduce-groupByKey"))
        .reduce_with(
            |a, b| a + ":" + &b,
            (Named::new("reducer"), Materialized::named("reduce-store")),
        )
        .to_stream_present_with("reduce-toStream")
        .to("outputTopic_2");
    mapped
        .filter_with(|k, _| k == "A", "join-filter")
        .join_with(
            &counts,
            |_, v, n| format!("{v}:{n}"),
            JoinWindows::of(Duration::from_secs(5)),
            StreamJoined::named("join").with_store_name("kept"),
        )
        .to_with("joinedOutputTopic", Produced::named("join-to"));
}

/// What Kafka says of it.
const MERGED: &str = "\
Topologies:
   Sub-topology: 0
    Source: sourceStream (topics: [input])
      --> source-map
    Processor: source-map (stores: [])
      --> process-filter, count-groupByKey-repartition-filter
      <-- sourceStream
    Processor: process-filter (stores: [])
      --> process-mapValues
      <-- source-map
    Processor: count-groupByKey-repartition-filter (stores: [])
      --> count-groupByKey-repartition-sink
      <-- source-map
    Processor: process-mapValues (stores: [])
      --> process
      <-- process-filter
    Sink: count-groupByKey-repartition-sink (topic: count-groupByKey-repartition)
      <-- count-groupByKey-repartition-filter
    Processor: process (stores: [])
      --> none
      <-- process-mapValues

  Sub-topology: 1
    Source: count-groupByKey-repartition-source (topics: [count-groupByKey-repartition])
      --> aggregate, count, join-filter, reduce-filter
    Processor: count (stores: [count-store])
      --> count-toStream
      <-- count-groupByKey-repartition-source
    Processor: count-toStream (stores: [])
      --> join-other-windowed, count-to
      <-- count
    Processor: join-filter (stores: [])
      --> join-this-windowed
      <-- count-groupByKey-repartition-source
    Processor: reduce-filter (stores: [])
      --> reduce-peek
      <-- count-groupByKey-repartition-source
    Processor: join-other-windowed (stores: [kept-other-join-store])
      --> join-other-join
      <-- count-toStream
    Processor: join-this-windowed (stores: [kept-this-join-store])
      --> join-this-join
      <-- join-filter
    Processor: reduce-peek (stores: [])
      --> reducer
      <-- reduce-filter
    Processor: aggregate (stores: [aggregate-store])
      --> aggregate-toStream
      <-- count-groupByKey-repartition-source
    Processor: join-other-join (stores: [kept-this-join-store])
      --> join-merge
      <-- join-other-windowed
    Processor: join-this-join (stores: [kept-other-join-store])
      --> join-merge
      <-- join-this-windowed
    Processor: reducer (stores: [reduce-store])
      --> reduce-toStream
      <-- reduce-peek
    Processor: aggregate-toStream (stores: [])
      --> reduce-to
      <-- aggregate
    Processor: join-merge (stores: [])
      --> join-to
      <-- join-this-join, join-other-join
    Processor: reduce-toStream (stores: [])
      --> KSTREAM-SINK-0000000023
      <-- reducer
    Sink: KSTREAM-SINK-0000000023 (topic: outputTopic_2)
      <-- reduce-toStream
    Sink: count-to (topic: outputTopic_0)
      <-- count-toStream
    Sink: join-to (topic: joinedOutputTopic)
      <-- join-merge
    Sink: reduce-to (topic: outputTopic_1)
      <-- aggregate-toStream

";

#[test]
fn repartition_topics_are_merged_as_in_kafka() {
    let b = StreamsBuilder::new();
    application(&b);
    assert_eq!(b.build_with(Optimization::ALL).unwrap().describe(), MERGED);
    let plain = b.build().unwrap();
    assert_eq!(plain.internal_topics().len(), 4);
    assert_eq!(plain.subtopologies().len(), 4);
}

fn driver(b: &StreamsBuilder, optimization: Optimization) -> TopologyTestDriver {
    TopologyTestDriver::new(b.build_with(optimization).unwrap()).unwrap()
}

#[test]
fn merged_repartition_topics_change_no_result() {
    let run = |optimization| {
        let b = StreamsBuilder::new();
        application(&b);
        let driver = driver(&b, optimization);
        let mut random = Random(7);
        for time in 0..60 {
            let key = ["a", "b", "c"][random.below(3) as usize];
            let value = format!("v{}", random.below(10));
            driver.input_topic("input").pipe(s(key), value, time).unwrap();
        }
        let stores = ["count-store", "aggregate-store", "reduce-store"];
        let stores = stores.map(|store| driver.dump_store(store).unwrap());
        let joined = driver.output_topic::<String, String>("joinedOutputTopic");
        let joined = joined.read_all().unwrap();
        // What comes of one record comes in another order.
        let mut joined: Vec<_> = joined.into_iter().map(|r| (r.timestamp, r.value)).collect();
        joined.sort();
        (stores, joined)
    };
    assert_eq!(run(Optimization::NONE), run(Optimization::ALL));
}

#[test]
fn what_changes_values_is_in_the_way_of_merging() {
    let b = StreamsBuilder::new();
    let mapped = b.stream::<String, String>("a").map(|k, v| (v, k));
    mapped.group_by_key().count();
    mapped.map_values(|_, v| v.len() as i64).group_by_key().reduce(|a, b| a + b);
    let topology = b.build_with(Optimization::ALL).unwrap();
    assert_eq!(topology.internal_topics().len(), 2);
}

#[test]
fn merged_streams_are_repartitioned_behind_the_merge() {
    let b = StreamsBuilder::new();
    let a = b.stream::<String, String>("a");
    let both = a.map(|k, v| (v, k)).merge(&b.stream("b"));
    both.filter(|_, v| v != "x").group_by_key().count();
    both.group_by_key().reduce(|_, last| last);
    let text = b.build_with(Optimization::ALL).unwrap().describe();
    let filter = "Processor: KSTREAM-AGGREGATE-STATE-STORE-0000000005-repartition-filter";
    let (_, rest) = text.split_once(filter).unwrap_or_else(|| panic!("{text}"));
    let (_, parents) = rest.split_once("<-- ").unwrap();
    assert!(parents.starts_with("KSTREAM-MERGE-0000000003\n"), "{text}");
}

fn windows() -> JoinWindows {
    let window = JoinWindows::of(Duration::from_millis(5)).before(Duration::from_millis(3));
    window.grace(Duration::from_millis(10))
}

fn self_join(b: &StreamsBuilder) {
    let stream: KStream<String, String> = b.stream("a");
    stream.join(&stream, |_, l, r| format!("{l}-{r}"), windows()).to("out");
}

/// Example F6 of the semantics.
#[test]
fn a_stream_joined_with_itself_needs_one_store() {
    let b = StreamsBuilder::new();
    self_join(&b);
    let topology = b.build_with(Optimization::ALL).unwrap();
    assert_eq!(topology.stores().len(), 1);
    let text = topology.describe();
    let gone = ["Processor: KSTREAM-JOIN", "KSTREAM-WINDOWED-0000000002"];
    assert!(!gone.iter().any(|gone| text.contains(gone)), "{text}");
    let driver = driver(&b, Optimization::ALL);
    let out = |value, time| -> Vec<String> {
        driver.input_topic("a").pipe(s("k"), s(value), time).unwrap();
        let out = driver.output_topic::<String, String>("out").read_all().unwrap();
        out.into_iter().map(|record| format!("{}@{}", record.value, record.timestamp)).collect()
    };
    assert_eq!(out("A", 2), ["A-A@2"]);
    assert_eq!(out("B", 3), ["B-A@3", "A-B@3", "B-B@3"]);
    assert_eq!(out("C", 5), ["C-A@5", "C-B@5", "A-C@5", "B-C@5", "C-C@5"]);
}

/// Also where that is seen only when the topology is written.
#[test]
fn two_streams_of_one_topic_are_one_stream_when_they_are_joined() {
    let with_itself = |b: &StreamsBuilder| self_join(b);
    let of_one_topic = |b: &StreamsBuilder| {
        let (left, right) = (b.stream::<String, String>("a"), b.stream::<String, String>("a"));
        left.join(&right, |_, l, r| format!("{l}-{r}"), windows()).to("out");
    };
    // Its two repartition topics are merged.
    let of_one_repartition = |b: &StreamsBuilder| {
        let stream = b.stream::<String, String>("a").select_key(|k, _| k.clone());
        let named = StreamJoined::named("both");
        stream.join_with(&stream, |_, l, r| format!("{l}-{r}"), windows(), named).to("out");
    };
    let builds: [&dyn Fn(&StreamsBuilder); 3] = [&with_itself, &of_one_topic, &of_one_repartition];
    for (number, build) in builds.iter().enumerate() {
        for (optimization, stores) in [(Optimization::NONE, 2), (Optimization::ALL, 1)] {
            let b = StreamsBuilder::new();
            build(&b);
            let topology = b.build_with(optimization).unwrap();
            assert_eq!(topology.stores().len(), stores, "{number}: {}", topology.describe());
            let driver = driver(&b, optimization);
            for time in [1, 2] {
                driver.input_topic("a").pipe(s("k"), format!("v{time}"), time).unwrap();
            }
            let mut out: Vec<_> = driver.output_topic::<String, String>("out").read_all().unwrap();
            out.sort_by(|a, b| a.value.cmp(&b.value));
            let out: Vec<_> = out.into_iter().map(|record| record.value).collect();
            assert_eq!(out, ["v1-v1", "v1-v2", "v2-v1", "v2-v2"], "{number}");
        }
    }
}

#[test]
fn one_store_says_what_two_say() {
    for seed in 0..10 {
        let run = |optimization| {
            let b = StreamsBuilder::new();
            self_join(&b);
            let driver = driver(&b, optimization);
            let mut random = Random(seed);
            let mut now = 0;
            for n in 0..120 {
                now += random.below(4) as i64;
                let time = (now - random.below(25) as i64).max(0);
                let key = format!("k{}", random.below(2));
                driver.input_topic("a").pipe(key, format!("v{n}"), time).unwrap();
            }
            driver.output_topic::<String, String>("out").read_all().unwrap()
        };
        for (two, one) in run(Optimization::NONE).into_iter().zip(run(Optimization::ALL)) {
            assert_eq!(two, one, "seed {seed}");
        }
    }
}

/// As in Kafka: what would come out alone, because it is not kept, does not come out any more.
#[test]
fn left_and_outer_joins_of_a_stream_with_itself_become_inner_ones() {
    type Input = (Option<&'static str>, i64);
    let run = |outer: bool, optimization, inputs: &[Input]| -> Vec<String> {
        let b = StreamsBuilder::new();
        let stream: KStream<Option<String>, String> = b.stream("a");
        let text = |v: Option<&String>| v.map_or(s("null"), String::clone);
        let joined = match outer {
            true => stream.outer_join(
                &stream,
                move |_, l, r| format!("{}-{}", text(l), text(r)),
                windows(),
            ),
            false => {
                stream.left_join(&stream, move |_, l, r| format!("{l}-{}", text(r)), windows())
            }
        };
        joined.to("out");
        let driver = driver(&b, optimization);
        for (key, time) in inputs {
            driver.input_topic("a").pipe(key.map(s), format!("v{time}"), *time).unwrap();
        }
        let out = driver.output_topic::<Option<String>, String>("out").read_all().unwrap();
        out.into_iter().map(|record| record.value).collect()
    };
    let within: [Input; 3] = [(Some("k"), 100), (Some("k"), 103), (Some("k"), 99)];
    let odd: [Input; 3] = [(Some("k"), 100), (Some("k"), 3), (None, 101)];
    for outer in [false, true] {
        let [two, one] = [Optimization::NONE, Optimization::ALL].map(|o| run(outer, o, &within));
        assert_eq!(two, one);
        let [two, one] = [Optimization::NONE, Optimization::ALL].map(|o| run(outer, o, &odd));
        assert_eq!(one, ["v100-v100"]);
        assert!(two.len() > 1 && two.contains(&s("v3-null")), "{two:?}");
    }
}

/// A table of `names`, and what a stream finds in it.
fn names(b: &StreamsBuilder, consumed: Consumed<String, String>) {
    let table = b.table_with("names", consumed, Materialized::named("kept"));
    let keys = b.stream::<String, String>("keys");
    keys.join_table(&table, |_, _, name| name.clone()).to("found");
}

#[test]
fn a_tables_topic_stands_in_for_its_changelog() {
    let reuse = Optimization { reuse_source_topics: true, ..Optimization::NONE };
    for caching in [false, true] {
        let b = StreamsBuilder::new();
        names(&b, Consumed::default());
        let handlers =
            ErrorHandlers { deserialization: log_and_continue(), ..ErrorHandlers::default() };
        let settings = TestDriverSettings { caching, handlers, ..TestDriverSettings::default() };
        let driver =
            TopologyTestDriver::with_settings(b.build_with(reuse).unwrap(), settings).unwrap();
        // What was left out when it was read is left out when it is restored.
        let raw = driver.input_topic::<Option<String>, Option<Bytes>>("names");
        raw.pipe(None, Some(Bytes::from_static(b"nobody")), 1).unwrap();
        raw.pipe(Some(s("x")), Some(Bytes::from_static(b"\xff")), 2).unwrap();
        let pipe = |key: &str, name: Option<&str>, time| {
            let name = name.map(|name| Bytes::copy_from_slice(name.as_bytes()));
            raw.pipe(Some(s(key)), name, time).unwrap();
        };
        pipe("a", Some("Ada"), 3);
        pipe("b", Some("Bob"), 4);
        pipe("a", Some("Ann"), 5);
        pipe("b", None, 6);
        driver.commit().unwrap();
        pipe("a", Some("Amy"), 7);
        driver.crash().unwrap();
        driver.commit().unwrap();

        let kept = driver.key_value_store::<String, String>("kept").unwrap();
        assert_eq!(kept.get(&s("a")).unwrap(), Some(s("Amy")));
        assert_eq!(kept.get(&s("b")).unwrap(), None);
        let keys = driver.input_topic::<String, String>("keys");
        for key in ["a", "b", "x"] {
            keys.pipe(s(key), s("-"), 10).unwrap();
        }
        driver.commit().unwrap();
        let found = driver.output_topic::<String, String>("found").read_all().unwrap();
        assert_eq!(found.into_iter().map(|r| r.value).collect::<Vec<_>>(), ["Amy"]);
    }
}

#[test]
fn only_a_table_that_is_its_topic_needs_no_changelog() {
    let changelogs = |optimization, consumed, materialized| {
        let b = StreamsBuilder::new();
        b.table_with::<String, String>("names", consumed, materialized);
        b.stream::<String, String>("other").to_table_with::<String>(Materialized::named("other"));
        let topology = b.build_with(optimization).unwrap();
        let logged = topology.stores().values().filter(|store| store.changelog.is_some());
        logged.map(|store| store.name.clone()).collect::<Vec<_>>()
    };
    let (kept, both) = (Materialized::named("kept"), ["kept", "other"]);
    let own = TimestampExtractor::own(|_: &String, _: &String, times| times.record + 1);
    let by_hand = || Consumed::default().with_timestamp_extractor(own.clone());
    let versioned = Materialized::versioned("kept", Duration::from_secs(60));
    assert_eq!(changelogs(Optimization::NONE, Consumed::default(), kept.clone()), both);
    assert_eq!(changelogs(Optimization::ALL, Consumed::default(), kept.clone()), ["other"]);
    assert_eq!(changelogs(Optimization::ALL, by_hand(), kept), both);
    assert_eq!(changelogs(Optimization::ALL, Consumed::default(), versioned), both);
    let bounded = Materialized::named("kept").lru_map(5);
    assert_eq!(changelogs(Optimization::ALL, Consumed::default(), bounded), both);
}
