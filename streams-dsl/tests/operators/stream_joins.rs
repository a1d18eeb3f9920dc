//! Joins of two streams: worked examples, and the shared input of all joins.

use std::time::Duration;

use streams_core::test_driver::TopologyTestDriver;
use streams_dsl::{JoinWindows, StreamsBuilder};

use crate::stream_table_joins::{Row, SHARED_INPUT, Text, pipe, rows};
use crate::{driver, s, some};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

use Kind::{Inner, Left, Outer};

/// Topics `l` and `r` joined to topic `out`, as `left-right`; times in milliseconds.
fn joined(kind: Kind, difference: u64, grace: u64) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    let (l, r) = (b.stream::<Text, Text>("l"), b.stream::<Text, Text>("r"));
    let [difference, grace] = [difference, grace].map(Duration::from_millis);
    let windows = JoinWindows::of(difference).grace(grace);
    let text = |value: Option<&Text>| value.cloned().flatten().unwrap_or("null".into());
    let pair = move |l: Option<&Text>, r: Option<&Text>| format!("{}-{}", text(l), text(r));
    match kind {
        Inner => l.join(&r, move |_, l, r| pair(Some(l), Some(r)), windows),
        Left => l.left_join(&r, move |_, l, r| pair(Some(l), r), windows),
        Outer => l.outer_join(&r, move |_, l, r| pair(l, r), windows),
    }
    .to("out");
    driver(&b)
}

/// What comes out for one record: `side key=value@time`, where `null` is none.
fn at(driver: &TopologyTestDriver, input: &str) -> Vec<String> {
    let (side, record) = input.split_once(' ').unwrap();
    let (key, record) = record.split_once('=').unwrap();
    let (value, time) = record.split_once('@').unwrap();
    let text = |part: &str| Some(part).filter(|part| *part != "null").map(s);
    let out = pipe(driver, side, text(key), text(value), time.parse().unwrap());
    let row = |(key, value, time): Row| format!("{} {value}@{time}", key.unwrap_or("null".into()));
    out.into_iter().map(row).collect()
}

fn none() -> Vec<String> {
    vec![]
}

/// As in Kafka: the store hides what is as old as windows and grace are long.
#[test]
fn the_bound_of_a_one_sided_window_needs_a_grace() {
    for (grace, found) in [(0, none()), (1, vec![s("l-r@10")])] {
        let b = StreamsBuilder::new();
        let (l, r) = (b.stream::<String, String>("l"), b.stream::<String, String>("r"));
        let [after, grace] = [10, grace].map(Duration::from_millis);
        let windows = JoinWindows::of(Duration::ZERO).after(after).grace(grace);
        l.join(&r, |_, l, r| format!("{l}-{r}"), windows).to("out");
        let driver = driver(&b);
        for (topic, key, time) in [("l", "k", 0), ("l", "other", 10), ("r", "k", 10)] {
            driver.input_topic(topic).pipe(s(key), s(topic), time).unwrap();
        }
        let out = driver.output_topic::<String, String>("out").read_all().unwrap();
        let out: Vec<_> = out.iter().map(|r| format!("{}@{}", r.value, r.timestamp)).collect();
        assert_eq!(out, found, "grace {grace:?}");
    }
}

#[test]
fn f2_the_grace_does_not_hold_back_what_is_behind_its_window_already() {
    let driver = joined(Left, 100, 1_000);
    assert_eq!(at(&driver, "l x=X@200"), none());
    assert_eq!(at(&driver, "l k=G@50"), ["k G-null@50"]);
    assert_eq!(at(&driver, "r k=g@60"), ["k G-g@60"]);
}

#[test]
fn f3_expired_records_come_right_before_left_and_before_the_results_of_the_record() {
    let driver = joined(Outer, 100, 10);
    for record in ["l 0=A0@0", "r 1=11@0", "l 1=A1@101", "r 0=10@101"] {
        assert_eq!(at(&driver, record), none());
    }
    assert_eq!(at(&driver, "r 0=100@112"), ["1 null-11@0", "0 A0-null@0"]);

    let driver = joined(Outer, 100, 0);
    assert_eq!(at(&driver, "l 0=A0@0"), none());
    assert_eq!(at(&driver, "l 1=A1@100"), none());
    assert_eq!(at(&driver, "r 1=11@110"), ["0 A0-null@0", "1 A1-11@110"]);
}

#[test]
fn f4_only_a_record_at_stream_time_that_has_a_value_looks_for_expired_ones() {
    let driver = joined(Left, 10, 0);
    assert_eq!(at(&driver, "l k=A@0"), none());
    assert_eq!(at(&driver, "r k=null@100"), none());
    assert_eq!(at(&driver, "l z=Z@50"), ["z Z-null@50"]);
    assert_eq!(at(&driver, "l z=Y@100"), ["k A-null@0"]);

    let driver = joined(Left, 10, 0);
    assert_eq!(at(&driver, "l k=A@0"), none());
    assert_eq!(at(&driver, "l j=x@10"), none());
    assert_eq!(at(&driver, "l j=y@11"), ["k A-null@0"]);
}

#[test]
fn f5_records_without_a_key_have_no_partner() {
    for (kind, left, right) in [
        (Inner, none(), none()),
        (Left, vec![s("null E-null@16")], none()),
        (Outer, vec![s("null E-null@16")], vec![s("null null-e@17")]),
    ] {
        let driver = joined(kind, 10, 0);
        assert_eq!(at(&driver, "l null=E@16"), left);
        assert_eq!(at(&driver, "r null=e@17"), right);
    }
}

#[test]
fn f7_records_of_one_key_and_time_are_all_kept_in_the_order_of_their_arrival() {
    let driver = joined(Inner, 10, 0);
    assert_eq!(at(&driver, "l 0=A0@0"), none());
    assert_eq!(at(&driver, "r 0=a0@0"), ["0 A0-a0@0"]);
    assert_eq!(at(&driver, "l 0=B0@0"), ["0 B0-a0@0"]);
    assert_eq!(at(&driver, "r 0=b0@0"), ["0 A0-b0@0", "0 B0-b0@0"]);
}

#[test]
fn f22_a_repartition_drops_null_keys_unless_a_left_join_follows() {
    let b = StreamsBuilder::new();
    b.stream::<Text, String>("l").repartition().to("out");
    assert_eq!(pipe(&driver(&b), "l", None, some("x"), 0), []);

    let b = StreamsBuilder::new();
    let table = b.table::<Text, String>("r");
    let stream = b.stream::<Text, String>("l").repartition();
    stream.left_join_table(&table, crate::stream_table_joins::value).to("out");
    assert_eq!(pipe(&driver(&b), "l", None, some("x"), 0), [(None, s("x-null"), 0)]);
}

/// What comes out of steps, by their numbers.
fn steps(kind: Kind, steps: &[(&str, Text, &str, i64)]) -> Vec<(usize, String, i64)> {
    let driver = joined(kind, 10_000, 24 * 3_600_000);
    let mut out = Vec::new();
    for (number, (side, key, value, time)) in (1..).zip(steps) {
        let value = Some(*value).filter(|value| *value != "-").map(s);
        let found = pipe(&driver, side, key.clone(), value, *time);
        out.extend(found.into_iter().map(|(_, value, time)| (number, value, time)));
    }
    out
}

const UP_TO_13: [(usize, &str, i64); 9] = [
    (4, "A-a", 4),
    (5, "B-a", 5),
    (6, "A-b", 6),
    (6, "B-b", 6),
    (9, "C-a", 9),
    (9, "C-b", 9),
    (10, "A-c", 10),
    (10, "B-c", 10),
    (10, "C-c", 10),
];

#[test]
fn the_shared_input_of_seventeen_steps() {
    let keyed = SHARED_INPUT.iter().map(|(side, value, time)| (*side, some("0"), *value, *time));
    let mut input: Vec<_> = keyed.take(13).collect();
    input.extend([("r", some("0"), "d", 14), ("l", some("0"), "D", 15)]);
    input.extend([("l", None, "E", 16), ("r", None, "e", 17)]);
    let inner = [
        (14, "A-d", 14),
        (14, "B-d", 14),
        (14, "C-d", 14),
        (15, "D-a", 15),
        (15, "D-b", 15),
        (15, "D-c", 15),
        (15, "D-d", 15),
    ];
    let mut expected = [&UP_TO_13[..], &inner].concat();
    assert_eq!(steps(Inner, &input), rows(&expected));
    expected.push((16, "E-null", 16));
    assert_eq!(steps(Left, &input), rows(&expected));
    expected.push((17, "null-e", 17));
    assert_eq!(steps(Outer, &input), rows(&expected));
}

#[test]
fn the_shared_input_of_twenty_three_steps() {
    let keyed = SHARED_INPUT.iter().map(|(side, value, time)| (*side, some("0"), *value, *time));
    let input: Vec<_> = keyed.collect();
    let out_of_order = [
        (14, "A-d", 7),
        (14, "B-d", 7),
        (14, "C-d", 9),
        (15, "D-a", 6),
        (15, "D-b", 6),
        (15, "D-d", 7),
        (15, "D-c", 10),
        (18, "A-e", 14),
        (18, "B-e", 14),
        (18, "D-e", 14),
        (18, "C-e", 14),
        (19, "E-a", 15),
        (19, "E-b", 15),
        (19, "E-d", 15),
        (19, "E-c", 15),
        (19, "E-e", 15),
        (22, "F-a", 4),
        (22, "F-b", 6),
        (22, "F-d", 7),
        (22, "F-c", 10),
        (22, "F-e", 14),
        (23, "A-f", 3),
        (23, "F-f", 4),
        (23, "B-f", 5),
        (23, "D-f", 6),
        (23, "C-f", 9),
        (23, "E-f", 15),
    ];
    let expected = [&UP_TO_13[..], &out_of_order].concat();
    for kind in [Inner, Left, Outer] {
        assert_eq!(steps(kind, &input), rows(&expected));
    }
}
