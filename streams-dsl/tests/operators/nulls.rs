//! Who drops which nulls, and counts them.

use streams_core::HasSerde;
use streams_core::serde::{SerdeError, from_fns};
use streams_dsl::{Grouped, Materialized, StreamsBuilder};

use crate::{driver, s, some, step};

#[test]
fn a_source_drops_the_nulls_that_its_types_cannot_hold() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a").to("out");
    let driver = driver(&b);
    type Row = (String, String, i64);
    assert!(step::<_, _, String, String>(&driver, None::<String>, some("v"), 1).is_empty());
    assert!(step::<_, _, String, String>(&driver, some("k"), None::<String>, 2).is_empty());
    let out: Vec<Row> = step(&driver, some("k"), some("v"), 3);
    assert_eq!(out, [(s("k"), s("v"), 3)]);
    let dropped: Vec<_> = driver.dropped().into_iter().collect();
    assert_eq!(dropped, [("null key", 1), ("null value", 1)]);
}

#[test]
fn unit_reads_any_key_and_option_keeps_nulls() {
    let b = StreamsBuilder::new();
    b.stream::<(), Option<String>>("a").to("out");
    let driver = driver(&b);
    for key in [None, some("k")] {
        let out = step::<_, _, Option<String>, Option<String>>(&driver, key, None::<String>, 1);
        assert_eq!(out, [(None, None, 1)]);
    }
    assert!(driver.dropped().is_empty());
}

#[test]
fn grouping_drops_null_keys_and_null_values() {
    let b = StreamsBuilder::new();
    b.stream::<Option<String>, Option<String>>("a").group_by_key().count().to_stream().to("out");
    let driver = driver(&b);
    type Row = (Option<String>, Option<i64>, i64);
    let count = |key, value| -> Vec<Row> { step(&driver, key, value, 1) };
    assert!(count(None, some("v")).is_empty());
    assert!(count(some("k"), None).is_empty());
    assert_eq!(count(some("k"), some("v")), [(some("k"), Some(1), 1)]);
    let dropped: Vec<_> = driver.dropped().into_iter().collect();
    assert_eq!(dropped, [("null key", 1), ("null value", 1)]);
}

#[test]
fn a_repartition_drops_null_keys_without_counting_them() {
    let b = StreamsBuilder::new();
    b.stream::<Option<String>, String>("a").repartition().to("out");
    let driver = driver(&b);
    assert!(step::<_, _, String, String>(&driver, None::<String>, s("v"), 1).is_empty());
    assert_eq!(step::<_, _, String, String>(&driver, some("k"), s("v"), 1).len(), 1);
    assert!(driver.dropped().is_empty());
}

#[test]
fn with_some_drops_and_counts() {
    let b = StreamsBuilder::new();
    b.stream::<Option<String>, Option<String>>("a").with_some_key().with_some_value().to("out");
    let driver = driver(&b);
    for (key, value) in [(None, some("v")), (some("k"), None), (some("k"), some("v"))] {
        step::<Option<String>, Option<String>, String, String>(&driver, key, value, 1);
    }
    let dropped: Vec<_> = driver.dropped().into_iter().collect();
    assert_eq!(dropped, [("null key", 1), ("null value", 1)]);
}

#[test]
fn count_asks_of_a_value_only_whether_it_is_null() {
    let unreadable = || {
        from_fns(
            |v: &String, out: &mut Vec<u8>| {
                out.extend(v.as_bytes());
                Ok(())
            },
            |_: &[u8]| -> Result<String, SerdeError> { Err(SerdeError::new("never to be read")) },
        )
    };
    let b = StreamsBuilder::new();
    let grouped = b.stream::<String, String>("a").group_by_with(
        |k, _| k.clone(),
        Grouped::with(String::serde(), unreadable()).with_name("g"),
    );
    grouped.count().to_stream_present().to("out");
    grouped.count_with(Materialized::named("again"));
    let out: Vec<(String, i64, i64)> = step(&driver(&b), s("k"), s("v"), 7);
    assert_eq!(out, [(s("k"), 1, 7)]);

    grouped.reduce(|_, new| new);
    let driver = driver(&b);
    let error = driver.input_topic::<String, String>("a").pipe(s("k"), s("v"), 7).unwrap_err();
    assert!(error.to_string().contains("never to be read"), "reduce shares the topic: {error}");
}

#[test]
fn null_values_stay_null_on_the_way_to_a_count() {
    let b = StreamsBuilder::new();
    b.stream::<String, Option<String>>("a")
        .group_by(|k, _| k.clone())
        .count()
        .to_stream_present()
        .to("out");
    let driver = driver(&b);
    type Row = (String, i64, i64);
    let out: Vec<Row> = step(&driver, s("k"), None::<String>, 1);
    assert!(out.is_empty());
    let out: Vec<Row> = step(&driver, s("k"), some("v"), 2);
    assert_eq!(out, [(s("k"), 1, 2)]);
    assert_eq!(driver.dropped().get("null value"), Some(&1));
}

#[test]
fn a_grouping_can_select_no_key() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a")
        .group_by(|_, v| v.strip_prefix("k-").map(str::to_string))
        .count()
        .to_stream()
        .to("out");
    let driver = driver(&b);
    type Row = (String, i64, i64);
    let none: Vec<Row> = step(&driver, s("x"), s("no key"), 1);
    assert!(none.is_empty());
    let out: Vec<Row> = step(&driver, s("x"), s("k-1"), 2);
    assert_eq!(out, [(s("1"), 1, 2)]);
}

#[test]
fn a_table_drops_null_keys_and_deletes_by_null_values() {
    let b = StreamsBuilder::new();
    b.table::<Option<String>, String>("a").to_stream().to("out");
    let driver = driver(&b);
    type Row = (Option<String>, Option<String>, i64);
    let out: Vec<Row> = step(&driver, None::<String>, some("v"), 1);
    assert!(out.is_empty());
    let out: Vec<Row> = step(&driver, some("k"), None::<String>, 2);
    assert_eq!(out, [(some("k"), None, 2)]);
    assert_eq!(driver.dropped().get("null key"), Some(&1));
}
