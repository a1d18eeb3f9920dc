//! Results of aggregates and their times.

use streams_core::HasSerde;
use streams_core::serde::json;
use streams_dsl::{Materialized, Named, StreamsBuilder};

use crate::{driver, s, step};

type Row = (String, Option<String>, i64);

/// Appends values; one that ends in 7 deletes.
fn append(materialized: Materialized<String, String>) -> StreamsBuilder {
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a")
        .group_by_key()
        .aggregate_with(
            String::new,
            |_, v, so_far| if v.ends_with('7') { None } else { Some(so_far + &v) },
            materialized,
        )
        .to_stream()
        .to("out");
    b
}

#[test]
fn a_result_has_the_highest_time_of_its_values() {
    for materialized in [Materialized::named("s"), Materialized::named("s").with_caching_disabled()]
    {
        let driver = driver(&append(materialized));
        let mut out: Vec<Row> = Vec::new();
        for (value, time) in [("x", 5), ("y", 3), ("z", 9)] {
            out.extend(step(&driver, s("k"), s(value), time));
        }
        let rows = [("x", 5), ("xy", 5), ("xyz", 9)];
        assert_eq!(out, rows.map(|(value, time)| (s("k"), Some(s(value)), time)));
        let store = driver.key_value_store::<String, String>("s").unwrap();
        assert_eq!(store.get_with_timestamp(&s("k")).unwrap(), Some((s("xyz"), 9)));
    }
}

/// The cache forgets the aggregate's time with the aggregate (seen in the oracle).
#[test]
fn a_deletion_has_the_time_of_its_own_record_with_caching_and_of_the_result_without() {
    for (caching, expected) in [(true, 3), (false, 5)] {
        let named = Materialized::named("s");
        let driver = driver(&append(if caching { named } else { named.with_caching_disabled() }));
        let _: Vec<Row> = step(&driver, s("k"), s("x"), 5);
        let out: Vec<Row> = step(&driver, s("k"), s("7"), 3);
        assert_eq!(out, [(s("k"), None, expected)]);
        let again: Vec<Row> = step(&driver, s("k"), s("y"), 1);
        assert_eq!(again, [(s("k"), Some(s("y")), 1)], "a new aggregate has its own time");
    }
}

#[test]
fn a_deletion_of_nothing_is_silent_with_caching_only() {
    for (caching, expected) in [(true, 0), (false, 1)] {
        let named = Materialized::named("s");
        let driver = driver(&append(if caching { named } else { named.with_caching_disabled() }));
        let out: Vec<Row> = step(&driver, s("k"), s("7"), 1);
        assert_eq!(out.len(), expected, "caching {caching}");
    }
}

#[test]
fn an_aggregate_may_answer_a_value_or_an_option() {
    let b = StreamsBuilder::new();
    let grouped = b.stream::<String, i64>("a").group_by_key();
    grouped.aggregate(|| 0, |_, v, sum: i64| sum + v).to_stream_present().to("out");
    grouped.aggregate(|| 0, |_, v, sum: i64| sum.checked_add(v));
    let driver = driver(&b);
    let mut sums: Vec<(String, i64, i64)> = Vec::new();
    for value in [1i64, 2, 3] {
        sums.extend(step(&driver, s("k"), value, 1));
    }
    assert_eq!(sums.iter().map(|row| row.1).collect::<Vec<_>>(), [1, 3, 6]);
}

/// A type without a serde of its own, with serdes by hand.
#[test]
fn types_without_a_serde_are_given_one() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Total {
        count: u32,
    }
    let b = StreamsBuilder::new();
    let kept = Materialized::with(String::serde(), json::<Total>()).with_name("totals");
    b.stream::<String, String>("a")
        .group_by_key()
        .aggregate_with(
            || Total { count: 0 },
            |_, _, t| Total { count: t.count + 1 },
            (Named::new("n"), kept),
        )
        .to_stream_present()
        .map_values(|_, total| total.count)
        .to("out");
    let driver = driver(&b);
    let _: Vec<(String, u32, i64)> = step(&driver, s("k"), s("v"), 1);
    let out: Vec<(String, u32, i64)> = step(&driver, s("k"), s("v"), 2);
    assert_eq!(out, [(s("k"), 2, 2)]);
    let dumped = driver.dump_store("totals").unwrap();
    assert_eq!(dumped, [(b"k".to_vec(), br#"{"count":2}"#.to_vec(), 2)]);
}

/// Kafka's cache restores the context of the record that changed a key last.
#[test]
fn a_result_has_the_headers_of_the_last_record_that_changed_it() {
    for caching in [true, false] {
        let named = Materialized::named("s");
        let named = if caching { named } else { named.with_caching_disabled() };
        let b = StreamsBuilder::new();
        b.stream::<String, String>("a")
            .group_by_key()
            .count_with(named)
            .to_stream_present()
            .to("out");
        let driver = driver(&b);
        let out = driver.output_topic::<String, i64>("out");
        for header in [Some("h"), None, Some("i")] {
            let mut record = streams_core::Record::new(s("k"), s("v"), 1);
            if let Some(name) = header {
                record.headers.push(broker_api::Header { name: name.into(), value: None });
            }
            driver.input_topic("a").pipe_record(record.clone()).unwrap();
            assert_eq!(out.read().unwrap().unwrap().headers, record.headers, "{caching}");
        }
    }
}

#[test]
fn logging_can_be_disabled() {
    for (logged, topics) in [(true, vec!["out", "test-s-changelog"]), (false, vec!["out"])] {
        let named = Materialized::named("s");
        let driver = driver(&append(if logged { named } else { named.with_logging_disabled() }));
        let _: Vec<Row> = step(&driver, s("k"), s("v"), 1);
        assert_eq!(driver.produced_topic_names(), topics);
    }
}
