//! Tables.

use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_dsl::{Consumed, KTable, Materialized, StreamsBuilder};

use crate::{driver, s, some, step};

type Row = (String, Option<i64>, i64);

fn table(b: &StreamsBuilder, stored: bool) -> KTable<String, i64> {
    if stored {
        b.table_with("a", Consumed::default(), Materialized::named("s").with_caching_disabled())
    } else {
        b.table("a")
    }
}

/// Example F19 of the semantics.
fn filtered(stored: bool) -> Vec<Vec<(Option<i64>, i64)>> {
    let b = StreamsBuilder::new();
    table(&b, stored).filter(|_, n| n % 2 == 0).to_stream().to("out");
    let driver = driver(&b);
    let inputs = [(Some(1), 5), (Some(2), 15), (Some(3), 20), (None, 10)];
    let out =
        |(value, time): (Option<i64>, i64)| -> Vec<Row> { step(&driver, s("A"), value, time) };
    inputs.map(|input| out(input).into_iter().map(|(_, v, time)| (v, time)).collect()).into()
}

#[test]
fn a_filter_without_old_values_deletes_at_every_rejection() {
    let expected = [vec![(None, 5)], vec![(Some(2), 15)], vec![(None, 20)], vec![(None, 10)]];
    assert_eq!(filtered(false), expected);
}

#[test]
fn a_filter_of_a_stored_table_is_silent_where_nothing_was_and_nothing_is() {
    assert_eq!(filtered(true), [vec![], vec![(Some(2), 15)], vec![(None, 20)], vec![]]);
}

#[test]
fn a_table_passes_times_on_that_go_back() {
    let b = StreamsBuilder::new();
    table(&b, true).map_values(|_, n| n * 10).to_stream().to("out");
    let driver = driver(&b);
    let mut out: Vec<Row> = step(&driver, s("k"), Some(1i64), 9);
    out.extend(step::<_, _, String, Option<i64>>(&driver, s("k"), Some(2i64), 4));
    assert_eq!(out, [(s("k"), Some(10), 9), (s("k"), Some(20), 4)]);
}

#[test]
fn derived_tables_are_kept_in_stores_of_their_own() {
    let b = StreamsBuilder::new();
    table(&b, true)
        .filter_with(|_, n| *n > 1, Materialized::named("f"))
        .map_values_with(|k, n| format!("{k}{n}"), Materialized::named("m"));
    let driver = driver(&b);
    for (key, value) in [("a", Some(1i64)), ("b", Some(2)), ("c", Some(3)), ("b", None)] {
        driver.input_topic("a").pipe(s(key), value, 1).unwrap();
    }
    let all = |store| driver.key_value_store::<String, i64>(store).unwrap().all().unwrap();
    assert_eq!(all("s"), [(s("a"), 1), (s("c"), 3)]);
    assert_eq!(all("f"), [(s("c"), 3)]);
    let mapped = driver.key_value_store::<String, String>("m").unwrap();
    assert_eq!(mapped.all().unwrap(), [(s("c"), s("c3"))]);
    assert!(driver.key_value_store::<String, i64>("m").is_err());
}

#[test]
fn a_stream_becomes_a_table_with_or_without_nulls() {
    let b = StreamsBuilder::new();
    let stream = b.stream::<String, Option<i64>>("a");
    stream.to_table_with::<i64>(Materialized::named("nullable"));
    stream.with_some_value().to_table_with(Materialized::named("present"));
    stream.select_key(|_, _| s("one")).to_table_with::<i64>(Materialized::named("rekeyed"));
    let driver = driver(&b);
    for value in [Some(1i64), None] {
        driver.input_topic("a").pipe(s("k"), value, 1).unwrap();
    }
    let get =
        |store, key| driver.key_value_store::<String, i64>(store).unwrap().get(&s(key)).unwrap();
    assert_eq!((get("nullable", "k"), get("present", "k")), (None, Some(1)));
    assert_eq!(get("rekeyed", "one"), None);
    let record =
        driver.output_topic::<String, Option<i64>>("test-KSTREAM-TOTABLE-0000000005-repartition");
    assert_eq!(
        record.read_all().unwrap().len(),
        2,
        "the deletion travels: {:?}",
        driver.produced_topic_names()
    );
}

#[test]
fn to_stream_says_deletions_and_to_stream_present_does_not() {
    let b = StreamsBuilder::new();
    let table = b.table::<String, String>("a");
    table.to_stream().to("out");
    table.to_stream_present().to("present");
    let driver = driver(&b);
    let mut out: Vec<(String, Option<String>, i64)> = step(&driver, s("k"), some("v"), 1);
    out.extend(step::<_, _, String, Option<String>>(&driver, s("k"), None::<String>, 2));
    assert_eq!(out, [(s("k"), some("v"), 1), (s("k"), None, 2)]);
    assert_eq!(driver.output_topic::<String, String>("present").read_all().unwrap().len(), 1);
}

/// What is put and deleted between two commits was never there (example F25 of the semantics).
#[test]
fn a_row_that_comes_and_goes_between_two_commits_says_nothing() {
    let b = StreamsBuilder::new();
    let kept = Materialized::named("kept");
    b.table_with::<String, String>("a", Consumed::default(), kept).to_stream().to("out");
    let settings = TestDriverSettings { caching: true, ..TestDriverSettings::default() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    let input = driver.input_topic::<String, Option<String>>("a");
    let out = driver.output_topic::<String, Option<String>>("out");
    input.pipe(s("k"), some("v"), 1).unwrap();
    input.pipe(s("k"), None, 2).unwrap();
    driver.commit().unwrap();
    assert_eq!(out.read_all().unwrap(), []);
    input.pipe(s("k"), some("w"), 3).unwrap();
    driver.commit().unwrap();
    input.pipe(s("k"), None, 4).unwrap();
    driver.commit().unwrap();
    let values: Vec<_> = out.read_all().unwrap().into_iter().map(|r| r.value).collect();
    assert_eq!(values, [some("w"), None], "what was committed once is deleted for all to see");
}
