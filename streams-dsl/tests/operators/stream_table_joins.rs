//! Joins of a stream with a table and with a global table.

use streams_core::test_driver::TopologyTestDriver;
use streams_dsl::{Joined, KStream, StreamsBuilder};

use crate::{driver, some};

pub(crate) type Text = Option<String>;
pub(crate) type Row = (Text, String, i64);

pub(crate) fn value(_: &Text, left: &String, right: Option<&String>) -> String {
    format!("{left}-{}", right.map_or("null", String::as_str))
}

/// A stream of topic `l` joined with a table of topic `r`.
fn joined(is_left: bool) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    let stream = b.stream::<Text, Text>("l").with_some_value();
    let table = b.table::<Text, String>("r");
    let out = match is_left {
        true => stream.left_join_table(&table, value),
        false => stream.join_table(&table, |k, l, r| value(k, l, Some(r))),
    };
    out.to("out");
    driver(&b)
}

pub(crate) fn pipe(
    driver: &TopologyTestDriver,
    topic: &str,
    key: Text,
    value: Text,
    ts: i64,
) -> Vec<Row> {
    driver.input_topic::<Text, Text>(topic).pipe(key, value, ts).unwrap();
    let out = driver.output_topic::<Text, String>("out").read_all().unwrap();
    out.into_iter().map(|r| (r.key, r.value, r.timestamp)).collect()
}

/// Side, value and time of the steps of part 2b of the semantics.
pub(crate) const SHARED_INPUT: [(&str, &str, i64); 23] = [
    ("l", "-", 1),
    ("r", "-", 2),
    ("l", "A", 3),
    ("r", "a", 4),
    ("l", "B", 5),
    ("r", "b", 6),
    ("l", "-", 7),
    ("r", "-", 8),
    ("l", "C", 9),
    ("r", "c", 10),
    ("r", "-", 11),
    ("l", "-", 12),
    ("r", "-", 13),
    ("r", "d", 7),
    ("l", "D", 6),
    ("l", "-", 2),
    ("r", "-", 3),
    ("r", "e", 14),
    ("l", "E", 15),
    ("l", "-", 10),
    ("r", "-", 9),
    ("l", "F", 4),
    ("r", "f", 3),
];

/// What comes out of the shared input, by the number of the step.
fn shared(is_left: bool) -> Vec<(usize, String, i64)> {
    let driver = joined(is_left);
    let mut out = Vec::new();
    for (number, (side, value, ts)) in SHARED_INPUT.iter().enumerate() {
        let value = Some(*value).filter(|value| *value != "-").map(str::to_string);
        let rows = pipe(&driver, side, some("0"), value, *ts);
        out.extend(rows.into_iter().map(|(_, value, ts)| (number + 1, value, ts)));
    }
    out
}

pub(crate) fn rows(of: &[(usize, &str, i64)]) -> Vec<(usize, String, i64)> {
    of.iter().map(|(step, value, ts)| (*step, (*value).to_string(), *ts)).collect()
}

#[test]
fn the_shared_input_joined_with_a_table() {
    let inner = [(5, "B-a", 5), (15, "D-d", 6), (19, "E-e", 15)];
    assert_eq!(shared(false), rows(&inner));
    let left = [
        (3, "A-null", 3),
        (5, "B-a", 5),
        (9, "C-null", 9),
        (15, "D-d", 6),
        (19, "E-e", 15),
        (22, "F-null", 4),
    ];
    assert_eq!(shared(true), rows(&left));
}

#[test]
fn f1_null_keys_and_null_values_of_the_stream() {
    let driver = joined(true);
    assert!(pipe(&driver, "l", some("k"), None, 1).is_empty());
    let missed = (some("k"), "A-null".to_string(), 3);
    assert_eq!(pipe(&driver, "l", some("k"), some("A"), 3), [missed]);
    assert_eq!(pipe(&driver, "l", None, some("B"), 4), [(None, "B-null".to_string(), 4)]);
    let driver = joined(false);
    for (key, value) in [(some("k"), None), (some("k"), some("A")), (None, some("B"))] {
        assert!(pipe(&driver, "l", key, value, 1).is_empty());
    }
    assert_eq!(driver.dropped()["null key"], 1);
}

#[test]
fn a_table_that_is_computed_is_looked_up_through_its_parent() {
    let b = StreamsBuilder::new();
    let table = b.table::<Text, String>("r").filter(|_, v| v != "hidden");
    let table = table.map_values(|_, v| v.to_uppercase());
    b.stream::<Text, String>("l").left_join_table(&table, value).to("out");
    let driver = driver(&b);
    pipe(&driver, "r", some("a"), some("shown"), 1);
    pipe(&driver, "r", some("b"), some("hidden"), 1);
    assert_eq!(pipe(&driver, "l", some("a"), some("x"), 2)[0].1, "x-SHOWN");
    assert_eq!(pipe(&driver, "l", some("b"), some("x"), 2)[0].1, "x-null");
}

fn topics_of(build: impl Fn(&KStream<Text, String>, &StreamsBuilder)) -> (Vec<String>, String) {
    let b = StreamsBuilder::new();
    let rekeyed = b.stream::<Text, String>("l").select_key(|_, v| Some(v.clone()));
    build(&rekeyed, &b);
    let topology = b.build().unwrap();
    let copartitioned = format!("{:?}", topology.copartitioned());
    (topology.internal_topics().keys().cloned().collect(), copartitioned)
}

#[test]
fn a_stream_whose_key_was_changed_is_repartitioned_like_the_table() {
    let (topics, copartitioned) = topics_of(|stream, b| {
        let table = b.table::<Text, String>("r");
        stream.left_join_table(&table, value);
        stream.left_join_table(&table, value);
    });
    let shared = "KSTREAM-KEY-SELECT-0000000001-repartition";
    assert_eq!(topics, [shared], "joins share it");
    assert!(copartitioned.contains(&format!("[\"{shared}\", \"r\"]")), "{copartitioned}");

    let (topics, _) = topics_of(|stream, b| {
        let table = b.table::<Text, String>("r");
        let join = |k: &Text, l: &String, r: &String| value(k, l, Some(r));
        stream.join_table_with(&table, join, Joined::named("one"));
    });
    assert_eq!(topics, ["one-repartition"]);

    let (topics, _) = topics_of(|stream, b| {
        let table = b.global_table::<String, String>("r");
        stream.left_join_global(&table, |k, _| k.clone(), value);
    });
    assert!(topics.is_empty(), "a global table needs no repartition");
}

#[test]
fn processors_read_a_global_store_without_being_connected() {
    let b = StreamsBuilder::new();
    let table = b.global_table::<String, String>("r");
    assert_eq!(table.store_name(), "r-STATE-STORE-0000000000");
    b.stream::<Text, String>("l").left_join_global(&table, |k, _| k.clone(), value).to("out");
    let driver = driver(&b);
    pipe(&driver, "r", some("a"), some("A"), 9);
    assert_eq!(pipe(&driver, "l", some("a"), some("x"), 2), [(some("a"), "x-A".to_string(), 2)]);
    let store = driver.key_value_store::<String, String>(table.store_name()).unwrap();
    assert_eq!(store.all().unwrap(), [("a".to_string(), "A".to_string())]);
    pipe(&driver, "r", some("a"), None, 1);
    assert_eq!(pipe(&driver, "l", some("a"), some("x"), 2)[0].1, "x-null");
}
