//! Suppressed tables.

use std::time::Duration;

use streams_core::test_driver::{TestDriverError, TopologyTestDriver};
use streams_core::{HasSerde, ProcessError};
use streams_dsl::{BufferConfig, StreamsBuilder, Suppressed};

use crate::{driver, s, some, step};

type Row = (String, Option<String>, i64);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A table of topic `a`, suppressed into topic `out`.
fn suppressed(suppressed: Suppressed<String>) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    b.table::<String, String>("a").suppress(suppressed).to_stream().to("out");
    driver(&b)
}

fn rows(driver: &TopologyTestDriver, inputs: &[(&str, Option<&str>, i64)]) -> Vec<Row> {
    let pipe = |(key, value, time): &(&str, Option<&str>, i64)| -> Vec<Row> {
        step(driver, s(key), value.map(s), *time)
    };
    inputs.iter().flat_map(pipe).collect()
}

/// The updates that example F17 of the semantics has behind its aggregation.
const F17: [(&str, Option<&str>, i64); 4] =
    [("v1", Some("1"), 0), ("v1", Some("0"), 1), ("v2", Some("1"), 1), ("v1", Some("1"), 2)];

#[test]
fn f17_a_time_limit_counts_from_the_first_update_and_sends_the_last() {
    let limit = Suppressed::until_time_limit(millis(2), BufferConfig::unbounded());
    let driver = suppressed(limit);
    assert_eq!(rows(&driver, &F17), [(s("v1"), some("1"), 2)]);
    assert_eq!(rows(&driver, &[("tick", Some("x"), 3)]), [(s("v2"), some("1"), 1)]);
}

#[test]
fn f17_a_full_buffer_sends_the_oldest_early() {
    let limit = Suppressed::until_time_limit(Duration::MAX, BufferConfig::max_records(1));
    let driver = suppressed(limit);
    assert_eq!(rows(&driver, &F17), [(s("v1"), some("0"), 1), (s("v2"), some("1"), 1)]);
    assert_eq!(rows(&driver, &[("tick", Some("x"), 3)]), [(s("v1"), some("1"), 2)]);
}

#[test]
fn a_suppressed_table_passes_deletions_on() {
    let limit = Suppressed::until_time_limit(millis(0), BufferConfig::unbounded());
    let inputs = [("k", Some("v"), 1), ("k", None, 2)];
    let out = rows(&suppressed(limit), &inputs);
    assert_eq!(out, [(s("k"), some("v"), 1), (s("k"), None, 2)]);
}

#[test]
fn bytes_of_keys_and_values_are_counted_too() {
    // A key of 2, a time of 8, no old value, a new one with its length: 2 + 8 + 1 + 5 + 10.
    let limit = Suppressed::until_time_limit(Duration::MAX, BufferConfig::max_bytes(26 + 20));
    let driver = suppressed(limit);
    let inputs = [("k1", Some("0123456789"), 1), ("k2", Some("0123"), 2), ("k1", Some("0"), 3)];
    assert_eq!(rows(&driver, &inputs), []);
    let out = rows(&driver, &[("k2", Some("01234567890123"), 4)]);
    assert_eq!(out, [(s("k1"), some("0"), 3)], "17 + 30 are too many");
}

#[test]
fn a_strict_buffer_that_is_full_ends_the_application() {
    let buffer = BufferConfig::max_records(1).shut_down_when_full();
    let driver = suppressed(Suppressed::until_time_limit(millis(9), buffer));
    assert_eq!(rows(&driver, &[("a", Some("x"), 1), ("a", Some("y"), 2)]), []);
    let failed = driver.input_topic("a").pipe(s("b"), some("x"), 3).unwrap_err();
    let TestDriverError::Process(ProcessError::BufferFull { node, reason }) = failed else {
        panic!("{failed}");
    };
    assert_eq!(node, "KTABLE-SUPPRESS-0000000003");
    assert!(reason.starts_with("holds back 2 of 1 keys and "), "{reason}");
}

#[test]
fn headers_and_time_are_those_of_the_last_update() {
    use streams_core::Record;
    let b = StreamsBuilder::new();
    let limit = Suppressed::until_time_limit(millis(5), BufferConfig::unbounded());
    b.table::<String, String>("a").suppress(limit).to_stream().to("out");
    let driver = driver(&b);
    for (value, time, header) in [("v", 1, "first"), ("w", 0, "last"), ("x", 6, "tick")] {
        let key = if header == "tick" { "other" } else { "k" };
        let header = broker_api::Header { name: header.into(), value: None };
        let record = Record { headers: vec![header].into(), ..Record::new(s(key), s(value), time) };
        driver.input_topic("a").pipe_record(record).unwrap();
    }
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].value.as_str(), out[0].timestamp), ("w", 0));
    assert_eq!(out[0].headers.as_slice()[0].name, "last");
}

#[test]
fn what_waits_for_input_that_ended_goes_on_by_the_wall_clock() {
    let limit = Suppressed::until_time_limit(millis(50), BufferConfig::unbounded());
    let driver = suppressed(limit.after_idle(millis(100)));
    assert_eq!(
        rows(&driver, &[("k", Some("v"), 1_000), ("l", Some("v"), 1_090)]),
        [(s("k"), some("v"), 1_000)]
    );
    let out = || -> Vec<Row> {
        let out = driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
        out.into_iter().map(|record| (record.key, record.value, record.timestamp)).collect()
    };
    driver.advance_wall_clock(millis(99)).unwrap();
    assert_eq!(out(), []);
    driver.advance_wall_clock(millis(1)).unwrap();
    assert_eq!(out(), [(s("l"), some("v"), 1_090)]);
    // Stream time was 1,190 then, and stays there when records come again.
    assert_eq!(rows(&driver, &[("k", Some("w"), 1_140)]), [(s("k"), some("w"), 1_140)]);
}

#[test]
fn a_suppressed_table_has_kafkas_names() {
    let b = StreamsBuilder::new();
    let table = b.table::<String, String>("a");
    let limit = || Suppressed::until_time_limit(millis(1), BufferConfig::unbounded());
    table.suppress(limit());
    table.suppress(limit().with_name("X"));
    table.suppress_with(limit(), String::serde(), String::serde());
    let described = b.build().unwrap().describe();
    for node in [
        "KTABLE-SUPPRESS-0000000003 (stores: [KTABLE-SUPPRESS-STATE-STORE-0000000004])",
        "X (stores: [X-store])",
        "KTABLE-SUPPRESS-0000000005 (stores: [KTABLE-SUPPRESS-STATE-STORE-0000000006])",
    ] {
        assert!(described.contains(node), "{described}");
    }
}
