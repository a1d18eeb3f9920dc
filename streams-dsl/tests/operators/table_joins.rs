//! Joins of tables by their keys.

use std::collections::BTreeMap;

use streams_core::BuildError;
use streams_core::test_driver::TopologyTestDriver;
use streams_dsl::{Consumed, KTable, Materialized, Named, StreamsBuilder};

use crate::model::Random;
use crate::{driver, s, some, step};

pub(crate) type Table = KTable<String, String>;

/// A table of a topic whose updates are not merged.
pub(crate) fn table(b: &StreamsBuilder, topic: &str) -> Table {
    b.table_with(topic, Consumed::default(), Materialized::named(topic).with_caching_disabled())
}

pub(crate) fn pair(left: Option<&String>, right: Option<&String>) -> String {
    let text = |value: Option<&String>| value.map_or("null", String::as_str).to_string();
    format!("{}-{}", text(left), text(right))
}

pub(crate) fn join(kind: &str, left: &Table, right: &Table) -> Table {
    match kind {
        "inner" => left.join(right, |_, l, r| pair(Some(l), Some(r))),
        "left" => left.left_join(right, |_, l, r| pair(Some(l), r)),
        _ => left.outer_join(right, |_, l, r| pair(l, r)),
    }
}

pub(crate) fn outputs(driver: &TopologyTestDriver) -> Vec<String> {
    let out = driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
    let text = |value: Option<String>| value.unwrap_or_else(|| s("T"));
    out.into_iter().map(|r| format!("{}@{}", text(r.value), r.timestamp)).collect()
}

/// The input that Kafka's tests of joins share.
pub(crate) const INPUT: [(&str, &str, i64); 23] = [
    ("L", "-", 1),
    ("R", "-", 2),
    ("L", "A", 3),
    ("R", "a", 4),
    ("L", "B", 5),
    ("R", "b", 6),
    ("L", "-", 7),
    ("R", "-", 8),
    ("L", "C", 9),
    ("R", "c", 10),
    ("R", "-", 11),
    ("L", "-", 12),
    ("R", "-", 13),
    ("R", "d", 7),
    ("L", "D", 6),
    ("L", "-", 2),
    ("R", "-", 3),
    ("R", "e", 14),
    ("L", "E", 15),
    ("L", "-", 10),
    ("R", "-", 9),
    ("L", "F", 4),
    ("R", "f", 3),
];

/// The outputs of the steps that have some, as `step output`.
fn answers(kind: &str) -> Vec<String> {
    let b = StreamsBuilder::new();
    join(kind, &table(&b, "L"), &table(&b, "R")).to_stream().to("out");
    let driver = driver(&b);
    let mut answers = Vec::new();
    for (step, (topic, value, time)) in INPUT.into_iter().enumerate() {
        let value = (value != "-").then(|| s(value));
        driver.input_topic(topic).pipe(s("0"), value, time).unwrap();
        answers.extend(outputs(&driver).into_iter().map(|out| format!("{} {out}", step + 1)));
    }
    answers
}

#[test]
fn an_inner_join_answers_the_shared_input_as_kafka_does() {
    let expected = [
        "4 A-a@4",
        "5 B-a@5",
        "6 B-b@6",
        "7 T@7",
        "10 C-c@10",
        "11 T@11",
        "15 D-d@7",
        "16 T@7",
        "19 E-e@15",
        "20 T@14",
        "23 F-f@4",
    ];
    assert_eq!(answers("inner"), expected);
}

#[test]
fn a_left_join_answers_the_shared_input_as_kafka_does() {
    let expected = [
        "3 A-null@3",
        "4 A-a@4",
        "5 B-a@5",
        "6 B-b@6",
        "7 T@7",
        "9 C-null@9",
        "10 C-c@10",
        "11 C-null@11",
        "12 T@12",
        "15 D-d@7",
        "16 T@7",
        "19 E-e@15",
        "20 T@14",
        "22 F-null@4",
        "23 F-f@4",
    ];
    assert_eq!(answers("left"), expected);
}

#[test]
fn an_outer_join_answers_the_shared_input_as_kafka_does() {
    let expected = [
        "3 A-null@3",
        "4 A-a@4",
        "5 B-a@5",
        "6 B-b@6",
        "7 null-b@7",
        "8 T@8",
        "9 C-null@9",
        "10 C-c@10",
        "11 C-null@11",
        "12 T@12",
        "14 null-d@7",
        "15 D-d@7",
        "16 null-d@7",
        "17 T@3",
        "18 null-e@14",
        "19 E-e@15",
        "20 null-e@14",
        "21 T@9",
        "22 F-null@4",
        "23 F-f@4",
    ];
    assert_eq!(answers("outer"), expected);
}

#[test]
fn values_of_derived_tables_are_looked_up_where_they_come_from() {
    let b = StreamsBuilder::new();
    let long = table(&b, "L").filter(|_, v| v.len() > 1).map_values(|_, v| v + "!");
    let both = long.join(&table(&b, "R"), |_, l, r| format!("{l}{r}"));
    both.left_join(&table(&b, "X"), |_, l, r| pair(Some(l), r)).to_stream().to("out");
    let driver = driver(&b);
    let pipe = |topic, value: &str, time| {
        driver.input_topic(topic).pipe(s("k"), s(value), time).unwrap();
        outputs(&driver)
    };
    assert_eq!(pipe("L", "l", 1), Vec::<String>::new());
    assert_eq!(pipe("R", "r", 2), Vec::<String>::new());
    assert_eq!(pipe("X", "x", 3), Vec::<String>::new(), "there is nothing on the left");
    assert_eq!(pipe("L", "ll", 1), ["ll!r-x@3"]);
    assert_eq!(pipe("X", "y", 9), ["ll!r-y@9"]);
    assert_eq!(pipe("L", "l", 10), ["T@10"]);
    let text = b.build().unwrap().describe();
    assert!(text.contains("KTABLE-JOINOTHER-0000000013 (stores: [R, L])"), "{text}");
}

#[test]
fn names_of_joins_of_tables() {
    let b = StreamsBuilder::new();
    let (l, r) = (table(&b, "L"), table(&b, "R"));
    l.join(&r, |_, l, _| l.clone());
    l.join_with(&r, |_, l, _| l.clone(), Materialized::default());
    l.join_with(&r, |_, l, _| l.clone(), (Named::new("X"), Materialized::named("kept")));
    let text = b.build().unwrap().describe();
    for part in [
        "KTABLE-MERGE-0000000004 (stores: [])",
        "KTABLE-JOINTHIS-0000000005 (stores: [R])",
        "KTABLE-JOINOTHER-0000000006 (stores: [L])",
        "KTABLE-MERGE-0000000008 (stores: [KTABLE-MERGE-STATE-STORE-0000000007])",
        "X (stores: [kept])",
        "X-join-this (stores: [R])",
        "X-join-other (stores: [L])",
    ] {
        assert!(text.contains(&format!("Processor: {part}")), "{part} in {text}");
    }
}

#[test]
fn tables_that_are_joined_must_be_copartitioned() {
    let b = StreamsBuilder::new();
    let counts = b.stream::<String, String>("S").group_by(|_, v| v.clone()).count();
    let rows = b.table::<String, String>("L").filter(|_, _| true);
    rows.join(&counts, |_, l, n| format!("{l}{n}"));
    let topology = b.build().unwrap();
    let repartition = "KSTREAM-AGGREGATE-STATE-STORE-0000000002-repartition";
    assert_eq!(topology.copartitioned(), [[repartition, "L"]]);
}

#[test]
fn tables_of_two_builders_cannot_be_joined() {
    let (b, other) = (StreamsBuilder::new(), StreamsBuilder::new());
    for _ in 0..3 {
        other.table::<String, String>("x").to_stream();
    }
    let joined = join("outer", &table(&b, "L"), &table(&other, "R"));
    joined.group_by(|k, v| (k.clone(), v)).count();
    assert!(matches!(b.build(), Err(BuildError::Invalid { .. })));
}

/// Whatever is kept where and merged when, the last that was said of a key is the join.
#[test]
fn joins_of_tables_equal_those_of_plain_maps() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let kept = |name: &str| {
            let named = Materialized::named(name);
            if seed % 2 == 0 { named } else { named.with_caching_disabled() }
        };
        let (l, r) = match seed % 3 {
            0 => (b.table::<String, i64>("L"), b.table::<String, i64>("R")),
            _ => (
                b.table_with("L", Consumed::default(), kept("l")),
                b.table_with("R", Consumed::default(), kept("r")),
            ),
        };
        let r = r.filter(|_, n| n % 3 != 0);
        let sum = |l: Option<&i64>, r: Option<&i64>| 100 * l.unwrap_or(&0) + r.unwrap_or(&0);
        let tables = [
            l.join(&r, move |_, l, r| sum(Some(l), Some(r))),
            l.left_join(&r, move |_, l, r| sum(Some(l), r)),
            l.outer_join_with(&r, move |_, l, r| sum(l, r), kept("outer")),
        ];
        for (table, topic) in tables.iter().zip(["inner", "left", "outer"]) {
            table.to_stream().to(topic);
        }
        // Old values, and a join of joins.
        tables[0].outer_join(&tables[1], move |_, l, r| sum(l, r)).to_stream().to("both");
        let grouped = tables[1].group_by(|_, n| (s("all"), n));
        grouped.reduce_with(|a, b| a + b, |a, b| a - b, kept("total"));

        let driver = driver(&b);
        let mut models = [BTreeMap::new(), BTreeMap::new()];
        let mut last: BTreeMap<&str, BTreeMap<String, i64>> = BTreeMap::new();
        for _ in 0..150 {
            let side = random.below(2) as usize;
            let key = format!("k{}", random.below(4));
            let value = (random.below(4) > 0).then(|| random.below(20) as i64);
            let time = random.below(1000) as i64;
            driver.input_topic(["L", "R"][side]).pipe(key.clone(), value, time).unwrap();
            match value.filter(|n| side == 0 || n % 3 != 0) {
                Some(value) => drop(models[side].insert(key, value)),
                None => drop(models[side].remove(&key)),
            }
            let mut expected: BTreeMap<&str, BTreeMap<String, i64>> = BTreeMap::new();
            for n in 0..4 {
                let key = format!("k{n}");
                let (l, r) = (models[0].get(&key), models[1].get(&key));
                let inner = l.and(r).map(|_| sum(l, r));
                let left = l.map(|_| sum(l, r));
                let outer = l.or(r).map(|_| sum(l, r));
                let both = left.map(|_| sum(inner.as_ref(), left.as_ref()));
                for (topic, value) in
                    [("inner", inner), ("left", left), ("outer", outer), ("both", both)]
                {
                    let table = expected.entry(topic).or_default();
                    value.map(|value| table.insert(key.clone(), value));
                }
            }
            for topic in ["inner", "left", "outer", "both"] {
                let table = last.entry(topic).or_default();
                for record in driver.output_topic::<String, Option<i64>>(topic).read_all().unwrap()
                {
                    match record.value {
                        Some(value) => drop(table.insert(record.key, value)),
                        None => drop(table.remove(&record.key)),
                    }
                }
                assert_eq!(last[topic], expected[topic], "{topic}, seed {seed}");
            }
            let all = |store| driver.key_value_store::<String, i64>(store).unwrap().all().unwrap();
            assert_eq!(all("outer"), expected["outer"].clone().into_iter().collect::<Vec<_>>());
            let total: i64 = expected["left"].values().sum();
            let found = all("total").first().map_or(0, |(_, total)| *total);
            assert_eq!(found, total, "seed {seed}");
        }
    }
}

/// As in Kafka: when a row is deleted, the other side has none any more either.
#[test]
fn an_inner_join_of_a_table_with_itself_never_says_a_deletion() {
    let b = StreamsBuilder::new();
    let table = b.table::<String, String>("a");
    table.join(&table, |_, l, r| format!("{l}-{r}")).to_stream().to("out");
    let driver = driver(&b);
    let values = |value: Option<&str>, time| -> Vec<Option<String>> {
        let out: Vec<(String, Option<String>, i64)> = step(&driver, s("k"), value.map(s), time);
        out.into_iter().map(|(_, value, _)| value).collect()
    };
    assert_eq!(values(Some("v"), 1), [some("v-v"), some("v-v")]);
    assert_eq!(values(None, 2), []);
}
