//! What operators are told beside their functions: names, serdes, partitioners, bounds of buffers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use streams_core::processor::{FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
use streams_core::serde::{DynSerde, from_fns};
use streams_core::test_driver::{TestDriverError, TestDriverSettings, TopologyTestDriver};
use streams_core::{ProcessError, SerdeError};
use streams_dsl::{
    BufferConfig, Consumed, Joined, Materialized, Produced, StreamsBuilder, Suppressed, TableJoined,
};

use crate::{driver, s, step};

/// Numbers as text; the serde of their type writes eight bytes.
fn decimal() -> DynSerde<i64> {
    let wrong = |_| SerdeError::new("no decimal number");
    from_fns(
        |n: &i64, out| {
            out.extend(n.to_string().bytes());
            Ok(())
        },
        move |bytes| String::from_utf8_lossy(bytes).parse().map_err(wrong),
    )
}

#[test]
fn a_serde_for_keys_or_values_alone_leaves_the_other_one() {
    let b = StreamsBuilder::new();
    b.stream_with::<i64, i64>("a", Consumed::default().with_key_serde(decimal()))
        .to_with("out", Produced::default().with_value_serde(decimal()));
    let driver = driver(&b);
    let out: Vec<(String, String, i64)> = step(&driver, s("5"), 7i64, 1);
    assert_eq!(out, [(s("5"), s("7"), 1)], "the key's serde is inherited");
}

#[test]
fn operators_of_every_kind_take_a_name() {
    let b = StreamsBuilder::new();
    let names = b.global_table::<String, String>("names");
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = seen.clone();
    let keyed = b.stream::<Option<String>, String>("a").with_some_key_with("keyed");
    let all = keyed.merge_with(&b.stream("b"), "all");
    let joined = Joined::named("looked-up");
    let join = |_: &String, _: &String, name: Option<&String>| name.cloned().unwrap_or(s("nobody"));
    let found = all.left_join_global_with(&names, |_, v| v.clone(), join, joined);
    found.for_each_with(move |k, v| note.lock().unwrap().push(format!("{k}={v}")), "seen");
    let topic = |record: &streams_core::Record<String, String>| format!("{}-out", record.value);
    found.to_dynamic_with(topic, Produced::named("anywhere"));

    let described = b.build().unwrap().describe();
    for name in ["keyed", "all", "looked-up", "seen"] {
        assert!(described.contains(&format!("Processor: {name} (")), "{name}: {described}");
    }
    assert!(described.contains("Sink: anywhere (extractor class:"), "{described}");

    let driver = driver(&b);
    driver.input_topic("names").pipe(s("1"), s("one"), 1).unwrap();
    driver.input_topic("a").pipe(None::<String>, s("1"), 2).unwrap();
    driver.input_topic("a").pipe(Some(s("x")), s("1"), 3).unwrap();
    driver.input_topic("b").pipe(s("y"), s("2"), 4).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["x=one", "y=nobody"]);
    assert_eq!(driver.dropped()["null key"], 1);
    for (topic, key) in [("one-out", "x"), ("nobody-out", "y")] {
        let out = driver.output_topic::<String, String>(topic).read_all().unwrap();
        assert_eq!(out.iter().map(|r| &*r.key).collect::<Vec<_>>(), [key]);
    }
}

#[test]
fn subscriptions_go_where_the_other_table_is_partitioned_to() {
    let joined = |by_hand: bool| {
        let b = StreamsBuilder::new();
        let rows = b.table::<String, String>("rows");
        let names = b.table::<String, String>("names");
        let mut config = TableJoined::<String, String, String, String>::default();
        if by_hand {
            config = config.with_other_partitioner(|_, partitions| partitions - 1);
        }
        let names_of = |_: &String, row: &String| Some(row.clone());
        let join = |_: &String, _: &String, name: &String| name.clone();
        rows.join_on_foreign_key_with(&names, names_of, join, config, Materialized::default())
            .to_stream()
            .to("out");
        let settings = TestDriverSettings { partitions: 2, ..TestDriverSettings::default() };
        let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
        for key in 0..8 {
            let name = streams_core::Record::new(key.to_string(), s("name"), 1);
            driver.input_topic("names").pipe_to(1, name).unwrap();
            driver.input_topic("rows").pipe(s("row"), key.to_string(), 2).unwrap();
        }
        let out = driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
        out.iter().filter(|record| record.value.is_some()).count()
    };
    assert_eq!(joined(true), 8);
    assert!(joined(false) < 8, "by their keys some are elsewhere");
}

#[test]
fn a_buffer_has_several_bounds_and_goes_on_being_strict_or_not() {
    let driver_of = |suppressed| {
        let b = StreamsBuilder::new();
        b.table::<String, String>("a").suppress(suppressed).to_stream().to("out");
        driver(&b)
    };
    let two = |driver: &TopologyTestDriver| -> Vec<(String, Option<String>, i64)> {
        let first: Vec<(String, Option<String>, i64)> = step(driver, s("k"), Some(s("v")), 1);
        assert!(first.is_empty());
        step(driver, s("l"), Some(s("w")), 2)
    };
    let until = |config| Suppressed::until_time_limit(Duration::MAX, config);
    let early = [(s("k"), Some(s("v")), 1)];
    assert_eq!(two(&driver_of(until(BufferConfig::max_records(9).with_max_bytes(24)))), early);
    assert_eq!(two(&driver_of(until(BufferConfig::max_bytes(9_999).with_max_records(1)))), early);
    assert!(two(&driver_of(until(BufferConfig::max_bytes(9_999).with_max_records(2)))).is_empty());

    let strict = BufferConfig::unbounded().with_max_records(1);
    let driver = driver_of(Suppressed::until_time_limit(Duration::MAX, strict));
    driver.input_topic("a").pipe(s("k"), Some(s("v")), 1).unwrap();
    let error = driver.input_topic("a").pipe(s("l"), Some(s("w")), 2).unwrap_err();
    assert!(matches!(error, TestDriverError::Process(ProcessError::BufferFull { .. })), "{error}");
}

/// Passes on a part of each value, a little later.
struct Later;

impl FixedKeyProcessor for Later {
    type Key = String;
    type VIn = String;
    type VOut = char;

    fn process(
        &mut self,
        record: FixedKeyRecord<String, String>,
        cx: &mut FixedKeyContext<'_, '_, String, char>,
    ) -> Result<(), ProcessError> {
        let later = record.timestamp() + 10;
        for part in record.clone().into_value().chars() {
            cx.forward(record.clone().with_value(part).with_timestamp(later));
        }
        Ok(())
    }
}

#[test]
fn a_record_with_a_fixed_key_gives_away_its_value_and_takes_another_time() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a")
        .process_values(|| Later)
        .map_values(|_, part| part.to_string())
        .to("out");
    let out: Vec<(String, String, i64)> = step(&driver(&b), s("k"), s("ab"), 5);
    assert_eq!(out, [(s("k"), s("a"), 15), (s("k"), s("b"), 15)]);
}
