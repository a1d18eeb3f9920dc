//! Several streams in one aggregate.

use streams_core::BuildError;
use streams_core::test_driver::TopologyTestDriver;
use streams_dsl::{
    CogroupedKStream, Grouped, KGroupedStream, Materialized, Named, SessionWindows, SlidingWindows,
    StreamsBuilder, TimeWindows,
};

use crate::windows::{emit, ms};
use crate::{driver, s, some};

/// Texts of `a` as they are and numbers of `b` in brackets.
fn appended(b: &StreamsBuilder, caching: bool) {
    let texts = b.stream::<String, Option<String>>("a").group_by_key();
    let numbers = b.stream::<Option<String>, i64>("b").with_some_key().group_by_key();
    let store = Materialized::named("s");
    let store = if caching { store } else { store.with_caching_disabled() };
    texts
        .cogroup(|_, text: Option<String>, so_far: String| match text.as_deref() {
            Some("clear") => None,
            text => Some(so_far + text.unwrap_or("null")),
        })
        .cogroup(&numbers, |_, n, so_far| format!("{so_far}<{n}>"))
        .aggregate_with(String::new, store)
        .to_stream()
        .to("out");
}

type Rows = Vec<(String, Option<String>, i64)>;

fn out(driver: &TopologyTestDriver) -> Rows {
    let records = driver.output_topic("out").read_all().unwrap();
    records.into_iter().map(|r| (r.key, r.value, r.timestamp)).collect()
}

#[test]
fn streams_of_different_types_go_into_one_aggregate() {
    for caching in [true, false] {
        let b = StreamsBuilder::new();
        appended(&b, caching);
        let driver = driver(&b);
        let text = |value: Option<String>, time| {
            driver.input_topic("a").pipe(s("k"), value, time).unwrap();
            out(&driver)
        };
        let number = |value: i64, time| {
            driver.input_topic("b").pipe(s("k"), value, time).unwrap();
            out(&driver)
        };
        assert_eq!(text(some("x"), 5), [(s("k"), some("x"), 5)]);
        assert_eq!(number(7, 3), [(s("k"), some("x<7>"), 5)]);
        assert!(text(None, 9).is_empty(), "null values are dropped");
        assert_eq!(text(some("clear"), 6), [(s("k"), None, 6)]);
        assert_eq!(number(8, 2), [(s("k"), some("<8>"), 2)]);
        assert_eq!(driver.dropped().get("null value"), Some(&1));
    }
}

fn rekeyed(b: &StreamsBuilder, topic: &str) -> KGroupedStream<String, String> {
    b.stream::<String, String>(topic).map(|k, v| (v, k)).group_by_key()
}

fn plus(_: &String, value: String, so_far: String) -> String {
    so_far + &value
}

#[test]
fn the_numbers_of_a_cogroup_are_kafkas() {
    let b = StreamsBuilder::new();
    let (one, two) = (b.stream::<String, String>("one"), b.stream::<String, String>("two"));
    let renamed = one.map(|k, v| (v, k)).group_by_key_with(Grouped::named("repartition-test"));
    renamed.cogroup(plus).cogroup(&two.group_by_key(), plus).aggregate(String::new).to_stream();
    let text = b.build().unwrap().describe();
    for expected in [
        "Source: repartition-test-repartition-source (topics: [repartition-test-repartition])
      --> COGROUPKSTREAM-AGGREGATE-0000000007",
        "Source: KSTREAM-SOURCE-0000000001 (topics: [two])
      --> COGROUPKSTREAM-AGGREGATE-0000000008",
        "Processor: COGROUPKSTREAM-AGGREGATE-0000000007 \
         (stores: [COGROUPKSTREAM-AGGREGATE-STATE-STORE-0000000003])
      --> COGROUPKSTREAM-MERGE-0000000009",
        "Processor: COGROUPKSTREAM-MERGE-0000000009 (stores: [])
      --> KTABLE-TOSTREAM-0000000010",
    ] {
        assert!(text.contains(expected), "{expected}\n is not in\n{text}");
    }
}

#[test]
fn the_topic_of_an_unnamed_grouping_is_named_after_the_store() {
    let b = StreamsBuilder::new();
    let two = b.stream::<String, String>("two").group_by_key();
    rekeyed(&b, "one")
        .cogroup(plus)
        .cogroup(&two, plus)
        .aggregate_with(String::new, (Named::new("test"), Materialized::named("store")))
        .to_stream();
    let text = b.build().unwrap().describe();
    for expected in [
        "Sink: store-repartition-sink (topic: store-repartition)",
        "Source: store-repartition-source (topics: [store-repartition])
      --> test-cogroup-agg-0",
        "Processor: test-cogroup-merge (stores: [])
      --> KTABLE-TOSTREAM-0000000009
      <-- test-cogroup-agg-0, test-cogroup-agg-1",
    ] {
        assert!(text.contains(expected), "{expected}\n is not in\n{text}");
    }
}

#[test]
fn the_aggregates_of_a_cogrouped_stream_share_its_topics() {
    let b = StreamsBuilder::new();
    let one = rekeyed(&b, "one").cogroup(plus);
    one.aggregate(String::new);
    one.aggregate(String::new);
    let text = b.build().unwrap().describe();
    assert_eq!(text.matches("Sink: ").count(), 1, "{text}");
    assert!(text.contains("COGROUPKSTREAM-MERGE-0000000013"), "{text}");

    let b = StreamsBuilder::new();
    let one = rekeyed(&b, "one");
    one.cogroup(plus).aggregate(String::new);
    one.cogroup(plus).aggregate(String::new);
    assert_eq!(b.build().unwrap().describe().matches("Sink: ").count(), 2);
}

#[test]
fn two_unnamed_groupings_that_need_topics_are_refused() {
    let b = StreamsBuilder::new();
    let (one, two) = (rekeyed(&b, "one"), rekeyed(&b, "two"));
    one.cogroup(plus).cogroup(&two, plus).aggregate(String::new);
    let error = b.build().err().unwrap();
    assert!(matches!(error, BuildError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("give all but one of their groupings a name"), "{error}");
}

#[test]
fn streams_of_two_builders_are_not_cogrouped() {
    let (b, other) = (StreamsBuilder::new(), StreamsBuilder::new());
    rekeyed(&b, "one").cogroup(plus).cogroup(&rekeyed(&other, "two"), plus).aggregate(String::new);
    let error = b.build().err().unwrap();
    assert!(error.to_string().contains("two builders"), "{error}");
}

#[test]
fn cogrouped_topics_must_have_equal_numbers_of_partitions() {
    let b = StreamsBuilder::new();
    appended(&b, true);
    let copartitioned = b.build().unwrap().copartitioned().to_vec();
    assert_eq!(copartitioned, [[s("a"), s("b")]]);
}

/// Texts of `a` and of `b`, the latter in brackets.
fn two_texts(b: &StreamsBuilder) -> CogroupedKStream<String, String> {
    let grouped = |topic: &str| {
        b.stream::<String, Option<String>>(topic).group_by_key_with(Grouped::default())
    };
    let text = |value: Option<String>| value.unwrap_or(s("null"));
    let first = grouped("a").cogroup(move |_, value, so_far: String| so_far + &text(value));
    first.cogroup(&grouped("b"), move |_, value, so_far| format!("{so_far}<{}>", text(value)))
}

/// Pipes into a topic; what comes out is like `k@0/10=v@5`, and `T` is a deletion.
fn pipe(driver: &TopologyTestDriver, topic: &str, value: Option<&str>, time: i64) -> Vec<String> {
    driver.input_topic(topic).pipe(s("k"), value.map(s), time).unwrap();
    let row = |(key, value, time): (String, Option<String>, i64)| {
        format!("{key}={}@{time}", value.unwrap_or(s("T")))
    };
    out(driver).into_iter().map(row).collect()
}

#[test]
fn streams_are_cogrouped_in_windows() {
    let b = StreamsBuilder::new();
    let windows = TimeWindows::of(ms(10)).advance_by(ms(5));
    emit(&two_texts(&b).windowed_by(windows).aggregate(String::new));
    let driver = driver(&b);
    assert_eq!(pipe(&driver, "a", Some("x"), 7), ["k@0/10=x@7", "k@5/15=x@7"]);
    assert_eq!(
        pipe(&driver, "b", None, 6),
        ["k@0/10=x<null>@7", "k@5/15=x<null>@7"],
        "null values are seen"
    );
    assert_eq!(pipe(&driver, "a", Some("y"), 10), ["k@5/15=x<null>y@10", "k@10/20=y@10"]);
}

#[test]
fn streams_are_cogrouped_in_sliding_windows() {
    let b = StreamsBuilder::new();
    emit(&two_texts(&b).windowed_by(SlidingWindows::of(ms(5))).aggregate(String::new));
    let driver = driver(&b);
    assert_eq!(pipe(&driver, "a", Some("x"), 10), ["k@5/10=x@10"]);
    assert_eq!(pipe(&driver, "b", Some("y"), 12), ["k@11/16=<y>@12", "k@7/12=x<y>@12"]);
    assert!(pipe(&driver, "b", None, 12).is_empty(), "null values are dropped");
}

#[test]
fn streams_are_cogrouped_in_sessions() {
    let b = StreamsBuilder::new();
    let merge = |_: &String, earlier: String, later: String| earlier + &later;
    let windowed = two_texts(&b).windowed_by(SessionWindows::of(ms(5)));
    emit(&windowed.aggregate(String::new, merge));
    let driver = driver(&b);
    assert_eq!(pipe(&driver, "a", Some("x"), 10), ["k@10/10=x@10"]);
    assert_eq!(pipe(&driver, "b", Some("y"), 15), ["k@10/10=T@10", "k@10/15=x<y>@15"]);
    assert_eq!(pipe(&driver, "b", None, 12), ["k@10/15=x<y><null>@15"]);
}

#[test]
fn cogrouped_streams_share_one_stream_time() {
    let b = StreamsBuilder::new();
    let merge = |_: &String, earlier: String, later: String| earlier + &later;
    let windowed = two_texts(&b).windowed_by(SessionWindows::of(ms(5)));
    emit(&windowed.aggregate(String::new, merge));
    let driver = driver(&b);
    pipe(&driver, "b", Some("x"), 100);
    assert!(
        pipe(&driver, "a", Some("late"), 94).is_empty(),
        "though it is the first of its stream"
    );
    assert_eq!(driver.dropped().get("closed window"), Some(&1));
}

#[test]
fn the_names_of_windowed_cogroups_are_those_of_plain_ones() {
    let b = StreamsBuilder::new();
    let windowed = two_texts(&b).windowed_by(TimeWindows::of(ms(10)));
    windowed.aggregate(String::new);
    windowed.aggregate_with(String::new, (Named::new("x"), Materialized::named("s")));
    let text = b.build().unwrap().describe();
    for expected in [
        "COGROUPKSTREAM-AGGREGATE-0000000004 \
         (stores: [COGROUPKSTREAM-AGGREGATE-STATE-STORE-0000000002])",
        "COGROUPKSTREAM-MERGE-0000000005 (stores: [])",
        "x-cogroup-agg-1 (stores: [s])",
        "x-cogroup-merge (stores: [])",
    ] {
        assert!(text.contains(expected), "{expected}\n is not in\n{text}");
    }
}

#[test]
fn a_grouping_that_is_cogrouped_twice_has_both_aggregators_called() {
    let b = StreamsBuilder::new();
    let texts = b.stream::<String, String>("a").group_by_key();
    texts
        .cogroup(|_, text, so_far: String| so_far + &text)
        .cogroup(&texts, |_, text, so_far| format!("{so_far}<{text}>"))
        .aggregate(String::new)
        .to_stream_present()
        .to("out");
    let driver = driver(&b);
    driver.input_topic::<String, String>("a").pipe(s("k"), s("x"), 1).unwrap();
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    assert_eq!(out.iter().map(|r| r.value.as_str()).collect::<Vec<_>>(), ["x<x>"]);
}
