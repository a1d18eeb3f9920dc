//! Versioned tables.

use std::time::Duration;

use streams_core::processor::StoreAccess;
use streams_core::state::Version;
use streams_core::test_driver::TopologyTestDriver;
use streams_core::{BuildError, ProcessError};
use streams_dsl::{
    BufferConfig, Consumed, Joined, KTable, Materialized, StreamsBuilder, Suppressed, TimeWindows,
    ValueTransformer,
};

use crate::stream_table_joins::{SHARED_INPUT, Text, pipe, rows, value};
use crate::table_joins::{INPUT, join, outputs, table};
use crate::windows::ms;
use crate::{driver, s, some, step};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

fn versioned(b: &StreamsBuilder, topic: &str, history: Duration) -> KTable<String, String> {
    b.table_with(topic, Consumed::default(), Materialized::versioned(topic, history))
}

/// A stream of topic `l` joined with a versioned table of topic `r`.
fn stream_joined(is_left: bool, grace: Option<Duration>) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    let stream = b.stream::<Text, Text>("l").with_some_value();
    let kept = Materialized::versioned("r", FIVE_MINUTES);
    let table: KTable<Text, String> = b.table_with("r", Consumed::default(), kept);
    let joined = grace.map_or_else(Joined::default, |grace| Joined::default().with_grace(grace));
    let out = match is_left {
        true => stream.left_join_table_with(&table, value, joined),
        false => stream.join_table_with(&table, |k, l, r| value(k, l, Some(r)), joined),
    };
    out.to("out");
    driver(&b)
}

/// What comes out of the shared input, by the number of the step.
fn shared(is_left: bool, grace: Option<Duration>) -> Vec<(usize, String, i64)> {
    let driver = stream_joined(is_left, grace);
    let mut out = Vec::new();
    for (number, (side, value, ts)) in SHARED_INPUT.iter().enumerate() {
        let value = Some(*value).filter(|value| *value != "-").map(str::to_string);
        let rows = pipe(&driver, side, some("0"), value, 1_000_000 + *ts);
        out.extend(rows.into_iter().map(|(_, value, ts)| (number + 1, value, ts - 1_000_000)));
    }
    out
}

#[test]
fn a_stream_is_joined_with_what_the_table_had_at_the_time_of_its_record() {
    let inner = [(5, "B-a", 5), (15, "D-b", 6), (19, "E-e", 15), (22, "F-a", 4)];
    assert_eq!(shared(false, None), rows(&inner));
    let left = [
        (3, "A-null", 3),
        (5, "B-a", 5),
        (9, "C-null", 9),
        (15, "D-b", 6),
        (19, "E-e", 15),
        (22, "F-a", 4),
    ];
    assert_eq!(shared(true, None), rows(&left));
}

#[test]
fn with_grace_the_stream_waits_for_the_table() {
    let inner = [(9, "B-a", 5), (15, "D-b", 6), (22, "F-a", 4)];
    assert_eq!(shared(false, Some(ms(2))), rows(&inner));
    let left = [(5, "A-null", 3), (9, "B-a", 5), (15, "D-b", 6), (19, "C-null", 9), (22, "F-a", 4)];
    assert_eq!(shared(true, Some(ms(2))), rows(&left));
}

#[test]
fn with_grace_headers_wait_too_and_null_keys_do_not() {
    use streams_core::Record;
    let driver = stream_joined(true, Some(ms(5)));
    let header = broker_api::Header { name: "h".into(), value: None };
    let record = Record { headers: vec![header].into(), ..Record::new(some("k"), some("A"), 1) };
    driver.input_topic::<Text, Text>("l").pipe_record(record).unwrap();
    assert!(pipe(&driver, "r", some("k"), some("late"), 1).is_empty());
    assert_eq!(pipe(&driver, "l", None, some("B"), 2), [(None, s("B-null"), 2)]);
    driver.input_topic::<Text, Text>("l").pipe(some("other"), some("C"), 6).unwrap();
    let out = driver.output_topic::<Text, String>("out").read_all().unwrap();
    assert_eq!((out.len(), out[0].value.as_str(), out[0].timestamp), (1, "A-late", 1));
    assert_eq!(out[0].headers.as_slice()[0].name, "h");
}

/// The outputs of the shared input from step 13 on; up to there they are as without versions.
fn joined_from_13(kind: &str, left: bool, right: bool) -> Vec<String> {
    let b = StreamsBuilder::new();
    let side = |topic, is_versioned| match is_versioned {
        true => versioned(&b, topic, FIVE_MINUTES),
        false => table(&b, topic),
    };
    join(kind, &side("L", left), &side("R", right)).to_stream().to("out");
    let driver = driver(&b);
    let mut answers = Vec::new();
    for (step, (topic, value, time)) in INPUT.into_iter().enumerate() {
        let value = (value != "-").then(|| s(value));
        driver.input_topic(topic).pipe(s("0"), value, time).unwrap();
        let out = outputs(&driver).into_iter().map(|out| format!("{} {out}", step + 1));
        answers.extend(out.filter(|_| step >= 12));
    }
    answers
}

#[test]
fn two_versioned_tables_are_joined_by_their_latest_values() {
    let joined = |kind| joined_from_13(kind, true, true);
    assert_eq!(joined("inner"), ["19 E-e@15"]);
    assert_eq!(joined("left"), ["19 E-e@15"]);
    assert_eq!(joined("outer"), ["18 null-e@14", "19 E-e@15"]);
}

#[test]
fn a_versioned_table_is_joined_with_one_that_is_not() {
    let left = |kind| joined_from_13(kind, true, false);
    assert_eq!(left("inner"), ["19 E-e@15", "21 T@15", "23 E-f@15"]);
    assert_eq!(left("left"), ["19 E-e@15", "21 E-null@15", "23 E-f@15"]);
    let outer = ["14 null-d@7", "17 T@3", "18 null-e@14", "19 E-e@15", "21 E-null@15", "23 E-f@15"];
    assert_eq!(left("outer"), outer);
    let right = |kind| joined_from_13(kind, false, true);
    assert_eq!(right("inner"), ["19 E-e@15", "20 T@14", "22 F-e@14"]);
    let both = ["15 D-null@6", "16 T@2", "19 E-e@15", "20 T@14", "22 F-e@14"];
    assert_eq!(right("left"), both);
    let outer = ["15 D-null@6", "16 T@2", "18 null-e@14", "19 E-e@15", "20 null-e@14", "22 F-e@14"];
    assert_eq!(right("outer"), outer);
}

type Out = (String, Option<String>, i64);

#[test]
fn f23_what_is_too_old_is_neither_kept_nor_passed_on() {
    let b = StreamsBuilder::new();
    versioned(&b, "a", ms(10)).to_stream().to("out");
    let driver = driver(&b);
    let pipe = |key: &str, value: Option<&str>, time| -> Vec<Out> {
        step(&driver, s(key), value.map(s), time)
    };
    assert_eq!(pipe("k", Some("now"), 20), [(s("k"), some("now"), 20)]);
    assert_eq!(pipe("k", Some("then"), 10), [(s("k"), some("then"), 10)], "out of order");
    assert_eq!(pipe("k", Some("before"), 9), []);
    assert_eq!(driver.dropped()["older than the history of a versioned table"], 1);
    assert_eq!(pipe("k", Some("instead"), 20), [(s("k"), some("instead"), 20)]);

    let store = driver.versioned_store::<String, String>("a").unwrap();
    assert_eq!(store.get(&s("k")).unwrap(), Some((s("instead"), 20)));
    assert_eq!(store.get_as_of(&s("k"), 19).unwrap(), Some((s("then"), 10)));
    let version = |value: &str, from, to| Version { value: s(value), from, to };
    let expected = [version("then", 10, Some(20)), version("instead", 20, None)];
    assert_eq!(store.history(&s("k"), 0, 99).unwrap(), expected);
    assert!(driver.versioned_store::<String, i64>("a").is_err());
}

/// Also through operators that compute one value of another.
#[test]
fn an_update_out_of_order_does_not_change_an_aggregate() {
    let b = StreamsBuilder::new();
    versioned(&b, "a", FIVE_MINUTES)
        .filter(|_, v| v != "hidden")
        .map_values(|_, v| v)
        .group_by(|_, v| (s("all"), v))
        .reduce(|sum, v| format!("{sum}+{v}"), |sum, v| format!("{sum}-{v}"))
        .to_stream()
        .to("out");
    let driver = driver(&b);
    let pipe = |value: &str, time| -> Vec<Out> { step(&driver, s("k"), Some(s(value)), time) };
    assert_eq!(pipe("A", 5), [(s("all"), some("A"), 5)]);
    assert_eq!(pipe("B", 3), []);
    assert_eq!(pipe("C", 7), [(s("all"), some("A-A+C"), 7)]);
}

#[test]
fn a_filter_of_a_versioned_table_tells_every_rejection() {
    let b = StreamsBuilder::new();
    let filtered = versioned(&b, "a", FIVE_MINUTES).filter(|_, v| v == "yes");
    filtered.to_stream().to("out");
    filtered.group_by(|_, v| (v.clone(), v)).count();
    let driver = driver(&b);
    let pipe = |value: &str, time| -> Vec<Out> { step(&driver, s("k"), Some(s(value)), time) };
    for time in 1..3 {
        assert_eq!(pipe("no", time), [(s("k"), None, time)]);
    }
}

#[test]
fn what_is_computed_of_a_versioned_table_can_be_versioned_itself() {
    let b = StreamsBuilder::new();
    let loud = Materialized::versioned("loud", FIVE_MINUTES).in_memory();
    versioned(&b, "a", FIVE_MINUTES).map_values_with(|_, v| v.to_uppercase(), loud);
    b.stream::<String, String>("s")
        .group_by_key()
        .count_with(Materialized::versioned("counts", FIVE_MINUTES));
    let driver = driver(&b);
    for (value, time) in [("b", 2), ("a", 1), ("c", 3)] {
        driver.input_topic("a").pipe(s("k"), s(value), time).unwrap();
        driver.input_topic("s").pipe(s("k"), s(value), time).unwrap();
    }
    let loud = driver.versioned_store::<String, String>("loud").unwrap();
    assert_eq!(loud.get_as_of(&s("k"), 1).unwrap(), Some((s("A"), 1)));
    let counts = driver.versioned_store::<String, i64>("counts").unwrap();
    assert_eq!(counts.history(&s("k"), 0, 9).unwrap().len(), 2);
    assert_eq!(counts.get_as_of(&s("k"), 2).unwrap(), Some((2, 2)), "the second came at 1");
}

/// Leaves values as they are.
struct Same;

impl ValueTransformer for Same {
    type Key = String;
    type VIn = String;
    type VOut = String;

    fn transform(
        &mut self,
        _: &String,
        value: Option<String>,
        _: &mut StoreAccess<'_>,
    ) -> Result<Option<String>, ProcessError> {
        Ok(value)
    }
}

#[test]
fn a_transformed_versioned_table_is_versioned_too() {
    let b = StreamsBuilder::new();
    let same = versioned(&b, "a", FIVE_MINUTES).transform_values(|| Same);
    same.filter(|_, _| false).to_stream().to("out");
    let joined = Joined::default().with_grace(ms(1));
    b.stream::<String, String>("s").join_table_with(&same, |_, _, v| v.clone(), joined).to("then");
    let driver = driver(&b);
    let deletions: Vec<(String, Option<String>, i64)> =
        (1..3).flat_map(|time| step(&driver, s("k"), Some(format!("at {time}")), time)).collect();
    assert_eq!(deletions, [(s("k"), None, 1), (s("k"), None, 2)]);
    for time in [1, 2] {
        driver.input_topic("s").pipe(s("k"), s("x"), time).unwrap();
    }
    let then = driver.output_topic::<String, String>("then").read().unwrap();
    assert_eq!(then.map(|record| record.value), some("at 1"));
}

fn mistake(build: impl FnOnce(&StreamsBuilder)) -> String {
    let b = StreamsBuilder::new();
    build(&b);
    let Err(BuildError::Invalid { reason, .. }) = b.build() else { panic!("it was built") };
    reason
}

#[test]
fn what_versions_cannot_do_is_said_when_the_topology_is_built() {
    type Derive = fn(KTable<String, String>) -> KTable<String, String>;
    let derived: [Derive; 2] = [|t| t.map_values(|_, v| v), |t| t.transform_values(|| Same)];
    for derive in derived {
        let suppressed = mistake(|b| {
            let limit = Suppressed::until_time_limit(ms(1), BufferConfig::unbounded());
            derive(versioned(b, "a", FIVE_MINUTES)).suppress(limit);
        });
        assert!(suppressed.contains("cannot be suppressed"), "{suppressed}");
    }
    let global = mistake(|b| {
        let kept = Materialized::<String, String>::versioned("g", FIVE_MINUTES);
        b.global_table_with("a", Consumed::default(), kept);
    });
    assert!(global.contains("global table"), "{global}");
    let windowed = mistake(|b| {
        let windows = b.stream::<String, String>("a").group_by_key();
        let windows = windows.windowed_by(TimeWindows::of(ms(1)));
        windows.count_with(Materialized::versioned("w", FIVE_MINUTES));
    });
    assert!(windowed.contains("windows have no history"), "{windowed}");
    let join = |table: fn(&StreamsBuilder) -> KTable<String, String>| {
        mistake(|b| {
            let joined = Joined::default().with_grace(ms(20));
            let stream = b.stream::<String, String>("s");
            stream.join_table_with(&table(b), |_, v, _| v.clone(), joined);
        })
    };
    let plain = join(|b| b.table("a"));
    assert!(plain.contains("only a versioned table"), "{plain}");
    let short = join(|b| versioned(b, "a", ms(19)));
    assert!(short.contains("history is only 19 ms long"), "{short}");
}
