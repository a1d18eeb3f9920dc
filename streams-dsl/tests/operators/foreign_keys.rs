//! Joins of tables by a foreign key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};

use streams_core::HasSerde;
use streams_core::serde::from_fns;
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_dsl::{Consumed, KTable, Materialized, StreamsBuilder, TableJoined};

use crate::model::Random;
use crate::{driver, s};

type Table = KTable<String, String>;

/// Rows are `value|foreign key`; without a bar they refer to nothing.
fn foreign_key(row: &str) -> Option<String> {
    row.split_once('|').map(|(_, key)| s(key))
}

fn pair(left: &str, right: Option<&String>) -> String {
    format!("({left},{})", right.map_or("null", String::as_str))
}

fn join(is_left: bool, left: &Table, right: &Table) -> Table {
    match is_left {
        true => {
            left.left_join_on_foreign_key(right, |_, row| foreign_key(row), |_, l, r| pair(l, r))
        }
        false => {
            left.join_on_foreign_key(right, |_, row| foreign_key(row), |_, l, r| pair(l, Some(r)))
        }
    }
}

/// Topics `L` and `R`, joined into `out`.
struct App(TopologyTestDriver);

impl App {
    fn new(is_left: bool) -> Self {
        Self::with(is_left, false)
    }

    /// If it is `caching`, nothing is committed by itself.
    fn with(is_left: bool, caching: bool) -> Self {
        let b = StreamsBuilder::new();
        join(is_left, &b.table("L"), &b.table("R")).to_stream().to("out");
        let settings = TestDriverSettings { caching, ..TestDriverSettings::default() };
        Self(TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap())
    }

    fn pipe(&self, topic: &str, key: &str, value: Option<&str>, time: i64) -> Vec<String> {
        self.0.input_topic(topic).pipe(s(key), value.map(str::to_string), time).unwrap();
        self.outputs()
    }

    fn outputs(&self) -> Vec<String> {
        let out = self.0.output_topic::<String, Option<String>>("out").read_all().unwrap();
        let text = |value: Option<String>| value.unwrap_or_else(|| s("T"));
        out.into_iter().map(|r| format!("{}={}@{}", r.key, text(r.value), r.timestamp)).collect()
    }
}

const NOTHING: [&str; 0] = [];

/// Example F20 of the semantics.
#[test]
fn a_row_without_a_partner_comes_and_goes() {
    let inner = App::new(false);
    assert_eq!(inner.pipe("L", "lhs1", Some("x|r1"), 0), NOTHING);
    assert_eq!(inner.pipe("L", "lhs1", None, 1), ["lhs1=T@1"], "not needed, but sent");
    assert_eq!(inner.pipe("L", "lhs1", None, 2), NOTHING);
    let left = App::new(true);
    assert_eq!(left.pipe("L", "lhs1", Some("x|r1"), 0), ["lhs1=(x|r1,null)@0"]);
    assert_eq!(left.pipe("L", "lhs1", None, 1), ["lhs1=T@1"]);
    assert_eq!(left.pipe("L", "lhs1", None, 2), NOTHING);
}

#[test]
fn an_update_of_the_right_row_answers_all_that_refer_to_it() {
    for is_left in [false, true] {
        let app = App::new(is_left);
        app.pipe("R", "r1", Some("w"), 1);
        for key in ["l2", "l1", "l3"] {
            app.pipe("L", key, Some("v|r1"), 2);
        }
        app.pipe("L", "other", Some("v|r11"), 2);
        let expected = ["l1=(v|r1,x)@3", "l2=(v|r1,x)@3", "l3=(v|r1,x)@3"];
        assert_eq!(app.pipe("R", "r1", Some("x"), 3), expected);
        let gone = if is_left { "(v|r1,null)" } else { "T" };
        let expected = ["l1", "l2", "l3"].map(|key| format!("{key}={gone}@4"));
        assert_eq!(app.pipe("R", "r1", None, 4), expected);
    }
}

/// As the book says of values with a `HashMap`: they have no results, and only a counter tells.
#[test]
fn a_row_with_other_bytes_each_time_has_no_results() {
    let times = AtomicU8::new(0);
    let restless = from_fns(
        move |row: &String, out: &mut Vec<u8>| {
            out.push(times.fetch_add(1, Ordering::Relaxed));
            out.extend(row.as_bytes());
            Ok(())
        },
        |bytes: &[u8]| Ok(String::from_utf8_lossy(&bytes[1..]).into_owned()),
    );
    let b = StreamsBuilder::new();
    let left =
        b.table_with("L", Consumed::with(String::serde(), restless), Materialized::default());
    join(false, &left, &b.table("R")).to_stream().to("out");
    let app = App(driver(&b));
    app.pipe("R", "r1", Some("w"), 1);
    assert_eq!(app.pipe("L", "l", Some("-v|r1"), 2), NOTHING);
    assert_eq!(app.0.dropped()["stale answer of a foreign-key join"], 1);
}

#[test]
fn more_subscribers_than_are_read_at_once_are_all_answered() {
    let app = App::new(false);
    let key = |n: usize| format!("l{n:05}");
    for n in 0..2048 {
        app.0.input_topic("L").pipe(key(n), s("v|r1"), 1).unwrap();
    }
    let expected: Vec<_> = (0..2048).map(|n| format!("{}=(v|r1,w)@2", key(n))).collect();
    assert_eq!(app.pipe("R", "r1", Some("w"), 2), expected);
}

#[test]
fn a_row_that_refers_to_another_one_has_one_result_and_is_free_of_the_old_one() {
    for is_left in [false, true] {
        let app = App::new(is_left);
        app.pipe("R", "r1", Some("w1"), 1);
        app.pipe("R", "r2", Some("w2"), 2);
        assert_eq!(app.pipe("L", "l", Some("v|r1"), 3), ["l=(v|r1,w1)@3"]);
        assert_eq!(app.pipe("L", "l", Some("v|r2"), 4), ["l=(v|r2,w2)@4"]);
        assert_eq!(app.pipe("R", "r1", Some("w3"), 5), NOTHING);
        let gone = if is_left { "(v|r3,null)" } else { "T" };
        assert_eq!(app.pipe("L", "l", Some("v|r3"), 6), [format!("l={gone}@6")]);
    }
}

#[test]
fn a_row_that_refers_to_nothing_is_dropped_or_stands_alone() {
    let inner = App::new(false);
    inner.pipe("R", "r1", Some("w"), 1);
    assert_eq!(inner.pipe("L", "l", Some("alone"), 2), NOTHING);
    assert_eq!(inner.0.dropped()["null foreign key"], 1);
    assert_eq!(inner.pipe("L", "l", Some("v|r1"), 3), ["l=(v|r1,w)@3"]);
    assert_eq!(inner.pipe("L", "l", Some("alone"), 4), ["l=T@4"]);
    let left = App::new(true);
    left.pipe("R", "r1", Some("w"), 1);
    assert_eq!(left.pipe("L", "l", Some("alone"), 2), ["l=(alone,null)@2"]);
    assert_eq!(left.pipe("L", "l", Some("v|r1"), 3), ["l=(v|r1,w)@3"]);
    assert_eq!(left.pipe("L", "l", Some("alone"), 4), ["l=(alone,null)@4"]);
}

/// Example F21.
#[test]
fn a_result_that_the_right_row_caused_has_its_time_alone() {
    let app = App::new(false);
    app.pipe("R", "r1", Some("w"), 100);
    assert_eq!(app.pipe("L", "l", Some("v|r1"), 50), ["l=(v|r1,w)@100"]);
    assert_eq!(app.pipe("R", "r1", Some("w2"), 70), ["l=(v|r1,w2)@70"]);
    assert_eq!(app.pipe("L", "l", Some("u|r1"), 200), ["l=(u|r1,w2)@200"]);
    assert_eq!(app.pipe("R", "r1", Some("w3"), 90), ["l=(u|r1,w3)@90"]);
}

/// What arrives late because another partition was slower.
#[test]
fn an_answer_to_what_a_row_was_before_is_dropped() {
    let app = App::new(false);
    app.pipe("R", "r1", Some("w"), 1);
    app.pipe("L", "l", Some("v|r1"), 2);
    let responses = "test-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-0000000014-topic";
    let sent = app.0.output_topic::<String, Vec<u8>>(responses);
    let answer = sent.read_all().unwrap().remove(0);
    let again = |bytes: Vec<u8>| {
        app.0.input_topic(responses).pipe(s("l"), bytes, 3).unwrap();
        app.outputs()
    };
    assert_eq!(again(answer.value.clone()), ["l=(v|r1,w)@3"], "it is still the same row");
    app.pipe("L", "l", Some("u|r1"), 4);
    assert_eq!(again(answer.value.clone()), NOTHING);
    app.pipe("L", "l", None, 5);
    assert_eq!(again(answer.value), NOTHING);
    assert_eq!(app.0.dropped()["stale answer of a foreign-key join"], 2);
}

/// The right side's answer is to what the row was, and so is dropped. That the row does not lose its
/// result by that it says itself no more, as it still refers to the same key.
#[test]
fn a_row_that_changes_while_the_one_it_refers_to_is_deleted_loses_its_result() {
    for is_left in [false, true] {
        let app = App::with(is_left, true);
        for (row, gone) in [("u|r1", "(u|r1,null)"), ("u|r2", "(u|r2,null)"), ("u", "(u,null)")] {
            let commit = || app.0.commit().unwrap();
            app.pipe("R", "r1", Some("w"), 1);
            app.pipe("L", "l", Some("v|r1"), 2);
            commit();
            assert_eq!(app.outputs().last().unwrap(), "l=(v|r1,w)@2");
            app.pipe("L", "l", Some(row), 3);
            app.pipe("R", "r1", None, 4);
            commit(); // the answer and the row's new subscription pass each other
            let last = app.outputs().pop().unwrap();
            let (last, _) = last.split_once('@').unwrap();
            assert_eq!(last, format!("l={}", if is_left { gone } else { "T" }), "{row}");
            // It is as it was, and finds its partner again.
            app.pipe("L", "l", Some("v|r1"), 5);
            app.pipe("R", "r1", Some("x"), 6);
            commit();
            assert_eq!(app.outputs().pop().unwrap(), "l=(v|r1,x)@6", "{row}");
            app.pipe("L", "l", None, 7);
            app.pipe("R", "r1", None, 7);
            commit();
            app.outputs();
        }
    }
}

/// The row refers to another key by the time it hears of that, and has a result with it.
#[test]
fn a_row_does_not_lose_its_new_result_when_the_one_it_referred_to_is_deleted() {
    let app = App::with(false, true);
    app.pipe("R", "r1", Some("w"), 1);
    app.pipe("R", "r2", Some("w"), 1);
    app.pipe("L", "l", Some("v|r1"), 2);
    app.0.commit().unwrap();
    app.pipe("L", "l", Some("v|r2"), 3);
    app.pipe("R", "r1", None, 4);
    app.0.commit().unwrap();
    assert_eq!(app.outputs().pop().unwrap(), "l=(v|r2,w)@3");
}

#[test]
fn names_of_foreign_key_joins() {
    let b = StreamsBuilder::new();
    let table =
        |topic| -> Table { b.table_with(topic, Consumed::default(), Materialized::named(topic)) };
    let (l, r) = (table("L"), table("R"));
    let kept = Materialized::named("kept");
    let named = TableJoined::named("x");
    l.join_on_foreign_key_with(
        &r,
        |_, row| foreign_key(row),
        |_, l, r| pair(l, Some(r)),
        named,
        kept,
    );
    l.filter(|_, _| true).to_stream();
    let text = b.build().unwrap().describe();
    for part in [
        "Processor: x-subscription-registration-processor (stores: [])",
        "Sink: x-subscription-registration-sink (topic: x-subscription-registration-topic)",
        "Source: x-subscription-registration-source (topics: [x-subscription-registration-topic])",
        "Processor: x-subscription-receive (stores: [x-subscription-store])",
        "Processor: x-subscription-join-foreign (stores: [R])",
        "Processor: x-foreign-join-subscription (stores: [x-subscription-store])",
        "Sink: x-subscription-response-sink (topic: x-subscription-response-topic)",
        "Source: x-subscription-response-source (topics: [x-subscription-response-topic])",
        "Processor: x-subscription-response-resolver (stores: [L])",
        "Processor: x-result (stores: [kept])",
        // The numbers are used up all the same.
        "Processor: KTABLE-FILTER-0000000017 (stores: [])",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn each_topic_of_the_conversation_is_partitioned_like_the_table_that_it_meets() {
    let b = StreamsBuilder::new();
    let right = b.table::<String, String>("R").filter(|_, _| true);
    join(true, &b.table("L"), &right);
    let topology = b.build().unwrap();
    let topic =
        |name: &str, number| format!("KTABLE-FK-JOIN-SUBSCRIPTION-{name}-00000000{number}-topic");
    let subscriptions = vec![topic("REGISTRATION", "07"), s("R")];
    let responses = vec![topic("RESPONSE", "15"), s("L")];
    assert_eq!(topology.copartitioned(), [subscriptions, responses]);
}

#[test]
fn serdes_can_be_given_by_hand() {
    let b = StreamsBuilder::new();
    let (text, number) = (String::serde, i64::serde);
    let left = b.table_with(
        "L",
        Consumed::with(number(), text()),
        Materialized::with(number(), text()).with_name("l"),
    );
    let right = b.table::<String, i64>("R");
    left.join_on_foreign_key_with(
        &right,
        |_, row| row.clone(),
        |_, row, n| format!("{row}{n}"),
        TableJoined::with(number(), text(), text(), number()),
        Materialized::with(number(), text()),
    )
    .to_stream_present()
    .to("out");
    let driver = driver(&b);
    driver.input_topic("R").pipe(s("r"), 5i64, 1).unwrap();
    driver.input_topic("L").pipe(7i64, s("r"), 1).unwrap();
    let out = driver.output_topic::<i64, String>("out").read_all().unwrap();
    assert_eq!(out.iter().map(|r| (r.key, &*r.value)).collect::<Vec<_>>(), [(7, "r5")]);
}

#[test]
fn a_foreign_key_join_equals_that_of_plain_maps() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let kept = |name: &str| {
            let named = Materialized::<String, String>::named(name);
            if seed % 2 == 0 { named } else { named.with_caching_disabled() }
        };
        let l = b.table_with("L", Consumed::default(), kept("l"));
        let r = match seed % 3 {
            0 => b.table("R"),
            _ => b.table_with("R", Consumed::default(), kept("r")).filter(|_, v| v != "v0"),
        };
        join(false, &l, &r).to_stream().to("inner");
        join(true, &l, &r).to_stream().to("left");
        // Looked up and grouped: the result is kept, and says what it was before.
        join(true, &l, &r).join(&l, |_, both, l| format!("{both}{l}")).to_stream().to("again");
        let driver = driver(&b);
        let mut models = [BTreeMap::new(), BTreeMap::new()];
        let mut last: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
        for step in 0..150 {
            let side = random.below(2) as usize;
            let key = format!("k{}", random.below(4));
            let value = (random.below(4) > 0).then(|| match (side, random.below(6)) {
                (0, 0) => s("alone"),
                (0, n) => format!("{}|k{n}", random.below(2)),
                (_, n) => format!("v{n}"),
            });
            driver.input_topic(["L", "R"][side]).pipe(key.clone(), value.clone(), step).unwrap();
            let filtered = value.filter(|v| side == 0 || seed % 3 == 0 || v != "v0");
            match filtered {
                Some(value) => drop(models[side].insert(key, value)),
                None => drop(models[side].remove(&key)),
            }
            let mut expected: BTreeMap<&str, BTreeMap<String, String>> =
                ["inner", "left", "again"].map(|topic| (topic, BTreeMap::new())).into();
            for (key, row) in &models[0] {
                let other = foreign_key(row).and_then(|foreign| models[1].get(&foreign));
                let mut put =
                    |topic, value| expected.entry(topic).or_default().insert(key.clone(), value);
                if let Some(other) = other {
                    put("inner", pair(row, Some(other)));
                }
                put("left", pair(row, other));
                put("again", pair(row, other) + row);
            }
            for topic in ["inner", "left", "again"] {
                let table = last.entry(topic).or_default();
                let out = driver.output_topic::<String, Option<String>>(topic);
                for record in out.read_all().unwrap() {
                    match record.value {
                        Some(value) => drop(table.insert(record.key, value)),
                        None => drop(table.remove(&record.key)),
                    }
                }
                assert_eq!(last[topic], expected[topic], "{topic}, seed {seed}, step {step}");
            }
        }
    }
}
