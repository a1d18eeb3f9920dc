//! Joins of tables whose updates are merged until the commit: after it the results that are there are
//! the join of both sides, and none that has gone.

use std::collections::BTreeMap;
use std::time::Duration;

use streams_core::processor::StoreAccess;
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::{ProcessError, Windowed};
use streams_dsl::{
    BufferConfig, Consumed, EmitStrategy, KTable, Materialized, SessionWindows, StreamsBuilder,
    Suppressed, TimeWindows, ValueTransformer,
};

use crate::model::Random;
use crate::s;
use crate::table_joins::{Table, join, pair};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn driver(b: &StreamsBuilder) -> TopologyTestDriver {
    let settings = TestDriverSettings { caching: true, ..TestDriverSettings::default() };
    TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap()
}

/// With every third seed what one record lets go takes a commit for each entry.
fn driver_in_parts(b: &StreamsBuilder, seed: u64) -> TopologyTestDriver {
    let mut settings = TestDriverSettings { caching: true, ..TestDriverSettings::default() };
    if seed.is_multiple_of(3) {
        (settings.seal_bytes, settings.crash_between_parts) = (1, seed.is_multiple_of(2));
    }
    TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap()
}

fn pipe(driver: &TopologyTestDriver, topic: &str, value: &str, time: i64) {
    let value = (value != "-").then(|| s(value));
    driver.input_topic(topic).pipe(s("k"), value, time).unwrap();
}

type Rows = BTreeMap<String, String>;

/// What a topic leaves of each key, with what is new in it.
fn fold(driver: &TopologyTestDriver, topic: &str, rows: &mut Rows) {
    for record in driver.output_topic::<String, Option<String>>(topic).read_all().unwrap() {
        match record.value {
            Some(value) => rows.insert(record.key, value),
            None => rows.remove(&record.key),
        };
    }
}

/// The rows of the join after each commit. `;` is a commit, `l=v` a record of topic `l`, `l=-` a deletion.
fn rows(driver: &TopologyTestDriver, input: &str) -> Vec<String> {
    let (mut out, mut rows) = (Vec::new(), Rows::new());
    for (time, step) in (1..).zip(input.split(' ')) {
        match step.split_once('=') {
            Some((topic, value)) => pipe(driver, topic, value, time),
            None => {
                driver.commit().unwrap();
                fold(driver, "out", &mut rows);
                out.push(rows.values().cloned().collect::<Vec<_>>().join(" "));
            }
        }
    }
    out
}

fn cached(b: &StreamsBuilder, topic: &str) -> Table {
    b.table_with(topic, Consumed::default(), Materialized::named(topic))
}

fn uncached(b: &StreamsBuilder, topic: &str) -> Table {
    b.table_with(topic, Consumed::default(), Materialized::named(topic).with_caching_disabled())
}

fn keeps(value: &str) -> bool {
    !value.starts_with("no")
}

/// As a filter, by code.
struct Keeping;

impl ValueTransformer for Keeping {
    type Key = String;
    type VIn = String;
    type VOut = String;

    fn transform(
        &mut self,
        _: &String,
        value: Option<String>,
        _: &mut StoreAccess<'_>,
    ) -> Result<Option<String>, ProcessError> {
        Ok(value.filter(|value| keeps(value)))
    }
}

fn filtered(table: &Table) -> Table {
    table.filter(|_, value| keeps(value))
}

fn transformed(table: &Table) -> Table {
    table.transform_values(|| Keeping)
}

fn suppressed(table: &Table, millis: u64) -> Table {
    table.suppress(Suppressed::until_time_limit(ms(millis), BufferConfig::unbounded()))
}

fn joined(b: &StreamsBuilder, kind: &str, left: &Table, right: &Table) -> TopologyTestDriver {
    join(kind, left, right).to_stream().to("out");
    driver(b)
}

#[test]
fn a_result_goes_when_both_sides_turn_their_new_values_away() {
    for derived in [filtered, transformed] {
        let b = StreamsBuilder::new();
        let (l, r) = (filtered(&b.table("l")), derived(&b.table("r")));
        let driver = joined(&b, "inner", &l, &r);
        assert_eq!(rows(&driver, "l=a r=b ; l=no1 r=no2 ; l=c r=d ;"), ["a-b", "", "c-d"]);
    }
}

#[test]
fn a_result_goes_when_a_versioned_side_is_deleted_with_the_other_one() {
    for deletions in ["l=- r=-", "r=- l=-"] {
        let b = StreamsBuilder::new();
        let versions = Materialized::versioned("l", ms(1_000));
        let l = b.table_with("l", Consumed::default(), versions);
        let driver = joined(&b, "inner", &l, &cached(&b, "r"));
        assert_eq!(rows(&driver, &format!("l=a r=b ; {deletions} ;")), ["a-b", ""]);
    }
}

#[test]
fn a_result_goes_when_a_suppressed_side_is_deleted_with_the_other_one() {
    for deletions in ["l=- r=-", "r=- l=-"] {
        for wait in [0, 2] {
            let b = StreamsBuilder::new();
            let l = suppressed(&b.table("l"), wait);
            let driver = joined(&b, "inner", &l, &cached(&b, "r"));
            let input = format!("l=a r=b ; l=a ; l=a ; {deletions} ; l=- ; l=- ;");
            assert_eq!(rows(&driver, &input).last().unwrap(), "", "{deletions}, {wait} ms");
        }
    }
}

/// What a suppressed table shows is what it has told, whether its news wait above it or in it.
#[test]
fn nothing_is_joined_with_what_a_suppressed_table_has_not_told() {
    let b = StreamsBuilder::new();
    let l = suppressed(&b.table("l"), 5);
    let driver = joined(&b, "inner", &l, &uncached(&b, "r"));
    // Of `l` the first value makes way for the second; the third waits in the cache, and then in the buffer,
    // while `r` changes.
    let input = "l=a ; ; ; ; l=b r=x ; ; ; ; ; l=c r=y ; r=z ; r=- ; ; ; l=d ;";
    let expected =
        ["", "", "", "", "b-x", "b-x", "b-x", "b-x", "b-x", "b-y", "b-z", "", "", "", ""];
    assert_eq!(rows(&driver, input), expected);
}

type InWindows = KTable<Windowed<String>, String>;

/// The latest value in a window or session, which `-` deletes.
fn latest(
    b: &StreamsBuilder,
    topic: &str,
    (windows, grace): (&str, Duration),
    caching: bool,
) -> InWindows {
    let records = b.stream::<String, Option<String>>(topic).group_by_key();
    let fold = |_: &String, value: Option<String>, _: String| value;
    let kept = match caching {
        true => Materialized::named(topic),
        false => Materialized::named(topic).with_caching_disabled(),
    };
    let size = ms(10);
    match windows {
        "tumbling" => {
            let windows = TimeWindows::of(size).grace(grace);
            records.windowed_by(windows).aggregate_with(String::new, fold, kept)
        }
        "hopping" => {
            let windows = TimeWindows::of(size).advance_by(ms(4)).grace(grace);
            records.windowed_by(windows).aggregate_with(String::new, fold, kept)
        }
        _ => {
            let windows = SessionWindows::of(ms(3)).grace(grace);
            let merge = |_: &String, earlier: String, later: String| earlier.max(later);
            records.windowed_by(windows).aggregate_with(String::new, fold, merge, kept)
        }
    }
}

fn write(table: &InWindows, topic: &str) {
    let name = |k: Windowed<String>| format!("{}@{}..{}", k.key, k.window.start, k.window.end);
    table.to_stream().map(move |k, v| (name(k), v)).to(topic);
}

fn join_windows(kind: &str, l: &InWindows, r: &InWindows) -> InWindows {
    match kind {
        "inner" => l.join(r, |_, l, r| pair(Some(l), Some(r))),
        "left" => l.left_join(r, |_, l, r| pair(Some(l), r)),
        _ => l.outer_join(r, |_, l, r| pair(l, r)),
    }
}

#[test]
fn a_result_with_a_window_that_was_seen_and_has_gone_goes_too() {
    for windows in ["tumbling", "session"] {
        for kind in ["inner", "left", "outer"] {
            let b = StreamsBuilder::new();
            let [l, r] = [("l", false), ("r", true)]
                .map(|(topic, caching)| latest(&b, topic, (windows, ms(0)), caching));
            write(&join_windows(kind, &l, &r), "out");
            let driver = driver(&b);
            for (topic, value) in [("r", "b"), ("l", "a"), ("r", "-"), ("l", "-")] {
                pipe(&driver, topic, value, 1);
            }
            driver.commit().unwrap();
            let mut rows = Rows::new();
            fold(&driver, "out", &mut rows);
            assert_eq!(rows, Rows::new(), "{windows} {kind}");
        }
    }
}

#[test]
fn a_result_with_a_value_that_was_seen_and_is_filtered_away_goes_too() {
    for kind in ["inner", "left", "outer"] {
        let b = StreamsBuilder::new();
        // It knows what its values were before.
        let l = filtered(&cached(&b, "l"));
        let driver = joined(&b, kind, &l, &uncached(&b, "r"));
        assert_eq!(rows(&driver, "l=no r=- ; l=a r=b l=no r=- ;"), ["", ""], "{kind}");
    }
}

/// How many keys have each result.
fn count(results: &Table) {
    let counts = results.group_by(|_, value| (value.clone(), value)).count();
    counts.to_stream().map_values(|_, n| n.filter(|n| *n > 0).map(|n| n.to_string())).to("out");
}

#[test]
fn an_aggregate_of_a_join_that_is_kept_counts_what_there_is() {
    let b = StreamsBuilder::new();
    let both = |_: &String, l: &String, r: &String| pair(Some(l), Some(r));
    count(&cached(&b, "l").join_with(&cached(&b, "r"), both, Materialized::named("both")));
    let driver = driver(&b);
    assert_eq!(rows(&driver, "l=a r=b ; l=- r=- ;"), ["1", ""]);
}

#[test]
fn an_aggregate_of_a_join_hears_of_what_both_sides_have_deleted() {
    for filter in [false, true] {
        let b = StreamsBuilder::new();
        let both = join("inner", &cached(&b, "l"), &cached(&b, "r"));
        let both = if filter { filtered(&both) } else { both };
        count(&both);
        let driver = driver(&b);
        assert_eq!(rows(&driver, "l=a ; r=b ; l=- r=- ;"), ["", "1", ""]);
    }
}

/// A table of a topic, and what it is.
fn base(b: &StreamsBuilder, topic: &str, random: &mut Random) -> (Table, String) {
    let kinds = ["cached", "uncached", "unnamed", "versioned", "aggregate", "uncached aggregate"];
    let kind = kinds[random.below(6) as usize];
    let versions = || Materialized::versioned(topic, ms(10_000));
    let aggregate = |kept| {
        let records = b.stream::<String, Option<String>>(topic).group_by_key();
        records.aggregate_with(String::new, |_, value, _| value, kept)
    };
    let table = match kind {
        "cached" => cached(b, topic),
        "uncached" => uncached(b, topic),
        "unnamed" => b.table(topic),
        "aggregate" => aggregate(Materialized::named(topic)),
        "uncached aggregate" => aggregate(Materialized::named(topic).with_caching_disabled()),
        _ => b.table_with(topic, Consumed::default(), versions()),
    };
    derived((table, s(kind)), topic, random)
}

/// What is computed of it in up to two steps, with a name for their stores.
fn derived(
    (mut table, mut shape): (Table, String),
    name: &str,
    random: &mut Random,
) -> (Table, String) {
    for step in 0..random.below(3) {
        let kept = Materialized::named(format!("{name}{step}"));
        let kept = if random.below(2) == 0 { kept } else { kept.with_caching_disabled() };
        let kinds = ["filter", "transform", "kept filter", "kept transform", "map", "suppress"];
        // Versions cannot be held back; what an unkept join was before is not known exactly.
        let suppresses = !shape.starts_with("versioned") && !shape.starts_with('(');
        let kind = kinds[random.below(if suppresses { 6 } else { 5 }) as usize];
        table = match kind {
            "filter" => filtered(&table),
            "transform" => transformed(&table),
            "kept filter" => table.filter_with(|_, value| keeps(value), kept),
            "kept transform" => table.transform_values_with(|| Keeping, &[], kept),
            "map" => table.map_values(|_, value| value + "'"),
            _ => suppressed(&table, random.below(3) * 8),
        };
        shape = format!("{shape}, {kind}");
    }
    (table, shape)
}

/// One of the kinds of joins.
fn any_kind(random: &mut Random) -> &'static str {
    ["inner", "inner", "left", "outer"][random.below(4) as usize]
}

/// A side of a join: a table of topic `l`, or what is joined of topics `r` and `m`.
fn joined_side(b: &StreamsBuilder, random: &mut Random) -> (Table, String) {
    let (r, right) = base(b, "r", random);
    if random.below(2) == 0 {
        return (r, right);
    }
    let (kind, (m, middle)) = (any_kind(random), base(b, "m", random));
    derived((join(kind, &r, &m), format!("({right} {kind} {middle})")), "rm", random)
}

fn expected(kind: &str, left: &Rows, right: &Rows) -> Rows {
    let is_there = |key: &&String| match kind {
        "inner" => left.contains_key(*key) && right.contains_key(*key),
        "left" => left.contains_key(*key),
        _ => true,
    };
    let keys = left.keys().chain(right.keys()).filter(is_there);
    keys.map(|key| (key.clone(), pair(left.get(key), right.get(key)))).collect()
}

/// Whatever the sides are made of, and whenever there are commits.
#[test]
fn after_a_commit_the_results_are_the_join_of_what_both_sides_have_told() {
    for seed in 0..600 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let (l, left) = base(&b, "l", &mut random);
        let (r, right) = joined_side(&b, &mut random);
        let kind = any_kind(&mut random);
        l.to_stream().to("left");
        r.to_stream().to("right");
        let both = join(kind, &l, &r);
        both.to_stream().to("out");
        if random.below(3) == 0 {
            both.group_by(|_, value| (value.clone(), value)).count(); // asks for old values
        }
        let driver = driver_in_parts(&b, seed);
        let case = format!("seed {seed}: {left} {kind} {right}");
        let mut folds = [Rows::new(), Rows::new(), Rows::new()];
        for time in 1..120 {
            let topic = ["l", "r", "m"][random.below(3) as usize];
            let value = match random.below(6) {
                0..2 => None,
                2..4 => Some(format!("no{time}")),
                _ => Some(time.to_string()),
            };
            let key = format!("k{}", random.below(3));
            if topic == "m" && !right.contains('(') {
                continue;
            }
            driver.input_topic(topic).pipe(key, value, time).unwrap();
            match random.below(40) {
                0..6 => driver.commit().unwrap(),
                6 => driver.crash().unwrap(),
                _ => continue,
            }
            for (topic, rows) in ["left", "right", "out"].iter().zip(&mut folds) {
                fold(&driver, topic, rows);
            }
            assert_eq!(folds[2], expected(kind, &folds[0], &folds[1]), "{case}, at {time}");
        }
    }
}

/// The same of windows and sessions.
#[test]
fn after_a_commit_the_results_are_the_join_of_all_windows_that_both_sides_have_told() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let windows = ["tumbling", "hopping", "session"][random.below(3) as usize];
        let kind = any_kind(&mut random);
        let b = StreamsBuilder::new();
        let mut case = format!("seed {seed}: {windows} {kind}");
        let [l, r] = ["l", "r"].map(|topic| {
            let caching = random.below(3) > 0;
            let grace = ms([1, 1_000][random.below(2) as usize]);
            let table = latest(&b, topic, (windows, grace), caching);
            let shape = ["plain", "filter", "suppress", "finals"][random.below(4) as usize];
            case += &format!(", {shape} {caching} {grace:?}");
            match shape {
                "filter" => table.filter(|_, value| keeps(value)),
                "suppress" => {
                    let limit = ms(random.below(3) * 8);
                    let unbounded = BufferConfig::unbounded();
                    table.suppress(Suppressed::until_time_limit(limit, unbounded))
                }
                "finals" => {
                    let unbounded = BufferConfig::unbounded();
                    table.suppress(Suppressed::until_window_closes(unbounded))
                }
                _ => table,
            }
        });
        write(&l, "left");
        write(&r, "right");
        write(&join_windows(kind, &l, &r), "out");
        let driver = driver_in_parts(&b, seed);
        let mut folds = [Rows::new(), Rows::new(), Rows::new()];
        for time in 0..120 {
            let topic = ["l", "r"][random.below(2) as usize];
            let value = match random.below(6) {
                0..2 => None,
                2..4 => Some(format!("no{time}")),
                _ => Some(time.to_string()),
            };
            let key = format!("k{}", random.below(2));
            let time = (time / 4 - random.below(12) as i64).max(0);
            driver.input_topic(topic).pipe(key, value, time).unwrap();
            match random.below(40) {
                0..6 => driver.commit().unwrap(),
                6 => driver.crash().unwrap(),
                _ => continue,
            }
            for (topic, rows) in ["left", "right", "out"].iter().zip(&mut folds) {
                fold(&driver, topic, rows);
            }
            let expected = expected(kind, &folds[0], &folds[1]);
            assert_eq!(folds[2], expected, "{case}, at {time}");
        }
    }
}

/// As in Kafka; `suppress` shows final results alone.
#[test]
fn windows_that_emit_on_closing_are_looked_into_before() {
    let b = StreamsBuilder::new();
    let [l, r] = ["l", "r"].map(|topic| {
        let records = b.stream::<String, String>(topic).group_by_key();
        let windows = records.windowed_by(TimeWindows::of(ms(10)));
        windows.emit_strategy(EmitStrategy::on_window_close()).reduce(|_, value| value)
    });
    write(&join_windows("inner", &l, &r), "out");
    let driver = driver(&b);
    for (topic, value, time) in [("r", "early", 1), ("l", "a", 1), ("l", "b", 20)] {
        pipe(&driver, topic, value, time);
    }
    driver.commit().unwrap();
    let mut rows = Rows::new();
    fold(&driver, "out", &mut rows);
    assert_eq!(rows.values().collect::<Vec<_>>(), ["a-early"]);
}
