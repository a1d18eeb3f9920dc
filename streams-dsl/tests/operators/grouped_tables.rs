//! Tables grouped by another key.

use std::collections::BTreeMap;
use std::time::Duration;

use streams_dsl::{
    BufferConfig, Consumed, Grouped, KGroupedTable, KTable, Materialized, StreamsBuilder,
    Suppressed,
};

use crate::model::Random;
use crate::{driver, s, step};

type Row = (String, Option<String>, i64);

/// A table of topic `a` whose updates are not merged.
fn table(b: &StreamsBuilder) -> KTable<String, String> {
    b.table_with("a", Consumed::default(), Materialized::named("t").with_caching_disabled())
}

/// What is added and taken away, as text.
fn trace(grouped: KGroupedTable<String, String>) {
    let kept = Materialized::named("agg").with_caching_disabled();
    grouped
        .aggregate_with(|| s("0"), |_, v, a| a + "+" + &v, |_, v, a| a + "-" + &v, kept)
        .to_stream()
        .to("out");
}

fn rows(b: &StreamsBuilder, inputs: &[(&str, Option<&str>, i64)]) -> Vec<Vec<Row>> {
    let driver = driver(b);
    let pipe = |&(key, value, time): &(&str, Option<&str>, i64)| {
        step(&driver, s(key), value.map(str::to_string), time)
    };
    inputs.iter().map(pipe).collect()
}

fn row(key: &str, value: &str, time: i64) -> Row {
    (s(key), Some(s(value)), time)
}

/// Example F18 of the semantics, first half.
#[test]
fn an_update_within_a_group_gives_one_result() {
    let b = StreamsBuilder::new();
    trace(table(&b).group_by(|k, v| (k.clone(), v)));
    let inputs = [("A", 1, 10), ("A", 3, 20), ("B", 2, 15), ("B", 4, 18), ("B", 7, 15)];
    let inputs = inputs.map(|(key, n, time)| (key, n.to_string(), time));
    let inputs: Vec<_> = inputs.iter().map(|(k, n, time)| (*k, Some(&**n), *time)).collect();
    let expected = [
        vec![row("A", "0+1", 10)],
        vec![row("A", "0+1-1+3", 20)],
        vec![row("B", "0+2", 15)],
        vec![row("B", "0+2-2+4", 18)],
        vec![row("B", "0+2-2+4-4+7", 18)],
    ];
    assert_eq!(rows(&b, &inputs), expected);
}

/// Example F18, second half.
#[test]
fn an_update_into_another_group_is_taken_out_of_the_old_one_first() {
    let b = StreamsBuilder::new();
    trace(table(&b).group_by(|_, v| (v.clone(), v)));
    let inputs = [("B", Some("2"), 20), ("B", Some("4"), 23), ("B", Some("7"), 22)];
    let expected = [
        vec![row("2", "0+2", 20)],
        vec![row("2", "0+2-2", 23), row("4", "0+4", 23)],
        vec![row("4", "0+4-4", 23), row("7", "0+7", 22)],
    ];
    assert_eq!(rows(&b, &inputs), expected);
}

#[test]
fn entries_with_a_null_key_or_value_are_in_no_group() {
    let b = StreamsBuilder::new();
    let null = |v: String| (v != "null").then_some(v);
    table(&b)
        .group_by(move |k, v| (null(k.clone()), null(v)))
        .reduce(|a, b| Some(a? + "+" + &b?), |a, b| Some(a? + "-" + &b?))
        .to_stream()
        .to("out");
    let inputs = [
        ("null", Some("1"), 1),
        ("A", Some("null"), 2),
        ("A", Some("1"), 3),
        ("A", Some("null"), 4),
        ("A", None, 5),
    ];
    let expected = [vec![], vec![], vec![row("A", "1", 3)], vec![row("A", "1-1", 4)], vec![]];
    assert_eq!(rows(&b, &inputs), expected);
}

/// The raw updates of example F17.
#[test]
fn a_count_that_falls_to_zero_is_zero() {
    let b = StreamsBuilder::new();
    table(&b)
        .group_by(|k, v| (v, k.clone()))
        .count_with(Materialized::named("c").with_caching_disabled())
        .to_stream()
        .to("out");
    let driver = driver(&b);
    let inputs = [("k1", "v1", 0), ("k1", "v2", 1), ("k2", "v1", 2)];
    let out = inputs.map(|(key, value, time)| -> Vec<(String, Option<i64>, i64)> {
        step(&driver, s(key), s(value), time)
    });
    let row = |key, count, time| (s(key), Some(count), time);
    assert_eq!(out.concat(), [row("v1", 1, 0), row("v1", 0, 1), row("v2", 1, 1), row("v1", 1, 2)]);
}

/// Example F17: those updates, held back.
#[test]
fn a_count_of_groups_can_be_suppressed() {
    let run = |suppressed: Suppressed<String>| {
        let b = StreamsBuilder::new();
        let counts = table(&b)
            .group_by(|_, v| (v, s("one")))
            .count_with(Materialized::named("c").with_caching_disabled());
        counts
            .suppress(suppressed)
            .to_stream()
            .map_values(|_, n| n.map(|n| n.to_string()))
            .to("out");
        let inputs = [
            ("k1", Some("v1"), 0),
            ("k1", Some("v2"), 1),
            ("k2", Some("v1"), 2),
            ("x", Some("x"), 3),
        ];
        rows(&b, &inputs)
    };
    let limit = Suppressed::until_time_limit(Duration::from_millis(2), BufferConfig::unbounded());
    let expected = [vec![], vec![], vec![row("v1", "1", 2)], vec![row("v2", "1", 1)]];
    assert_eq!(run(limit), expected);
    let one = BufferConfig::max_records(1).emit_early_when_full();
    let early = Suppressed::until_time_limit(Duration::from_secs(100), one);
    let expected =
        [vec![], vec![row("v1", "0", 1)], vec![row("v2", "1", 1)], vec![row("v1", "1", 2)]];
    assert_eq!(run(early), expected);
}

#[test]
fn an_aggregate_of_none_is_deleted() {
    let b = StreamsBuilder::new();
    table(&b)
        .group_by(|_, v| (s("all"), v))
        .aggregate_with(
            || 0i64,
            |_, _, n| Some(n + 1),
            |_, _, n| (n > 1).then_some(n - 1),
            Materialized::named("n").with_caching_disabled(),
        )
        .to_stream()
        .to("out");
    let driver = driver(&b);
    let mut out: Vec<(String, Option<i64>, i64)> = step(&driver, s("k"), Some(s("v")), 1);
    out.extend(step::<_, _, String, Option<i64>>(&driver, s("k"), None::<String>, 2));
    assert_eq!(out, [(s("all"), Some(1), 1), (s("all"), None, 2)]);
    let store = driver.key_value_store::<String, i64>("n").unwrap();
    assert_eq!(store.all().unwrap(), []);
}

#[test]
fn a_named_grouping_shares_its_repartition_topic() {
    let b = StreamsBuilder::new();
    let grouped = table(&b).group_by_with(|_, v| (v.clone(), v), Grouped::named("by-value"));
    grouped.count();
    grouped.reduce(|a, _| a, |a, _| a);
    let text = b.build().unwrap().describe();
    assert_eq!(text.matches("Sink:").count(), 1, "{text}");
    assert!(text.contains("(topic: by-value-repartition)"), "{text}");
    assert!(text.contains("Processor: by-value (stores: [])"), "{text}");
    for name in ["KTABLE-AGGREGATE-0000000006", "KTABLE-REDUCE-0000000010"] {
        assert!(text.contains(&format!("Processor: {name}")), "{name} in {text}");
    }
}

#[test]
fn aggregates_of_groups_equal_those_of_the_whole_table() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let caching = |name: &str| {
            let named = Materialized::named(name);
            if seed % 2 == 0 { named } else { named.with_caching_disabled() }
        };
        // Not kept by itself: that it is grouped keeps it.
        let grouped = b
            .table::<String, i64>("a")
            .filter(|_, n| n % 5 != 0)
            .group_by(|_, n| (if n % 2 == 0 { s("even") } else { s("odd") }, n));
        grouped.count_with(caching("counts"));
        grouped.reduce_with(|a, b| a + b, |a, b| a - b, caching("sums")).to_stream().to("out");
        let driver = driver(&b);
        let mut model: BTreeMap<String, i64> = BTreeMap::new();
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        let mut groups: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for _ in 0..200 {
            let key = format!("k{}", random.below(8));
            let value = (random.below(5) > 0).then(|| random.below(50) as i64);
            let time = random.below(1000) as i64;
            for (key, sum, _) in
                step::<_, _, String, Option<i64>>(&driver, key.clone(), value, time)
            {
                last.insert(key, sum.unwrap());
            }
            match value.filter(|n| n % 5 != 0) {
                Some(value) => drop(model.insert(key, value)),
                None => drop(model.remove(&key)),
            }
            groups.values_mut().for_each(|group| *group = (0, 0));
            for n in model.values() {
                let group = groups.entry(if n % 2 == 0 { s("even") } else { s("odd") });
                let group = group.or_default();
                *group = (group.0 + 1, group.1 + n);
            }
            let pick = |of: fn(&(i64, i64)) -> i64| -> Vec<_> {
                groups.iter().map(|(key, group)| (key.clone(), of(group))).collect()
            };
            let all = |store| driver.key_value_store::<String, i64>(store).unwrap().all().unwrap();
            assert_eq!(all("counts"), pick(|group| group.0), "seed {seed}");
            assert_eq!(all("sums"), pick(|group| group.1), "seed {seed}");
            assert_eq!(last.clone().into_iter().collect::<Vec<_>>(), pick(|group| group.1));
        }
    }
}
