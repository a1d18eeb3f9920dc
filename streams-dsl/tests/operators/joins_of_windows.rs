//! Joins of tables of windows and sessions: results are told late, by caches, buffers and answers, and
//! by then the windows have long expired.

use std::collections::BTreeMap;
use std::time::Duration;

use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::{Data, Windowed};
use streams_dsl::{
    BufferConfig, EmitStrategy, KTable, SessionWindows, SlidingWindows, StreamsBuilder, Suppressed,
    TimeWindows,
};

use crate::model::Random;
use crate::s;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

type Counts = KTable<Windowed<String>, i64>;

/// What is joined: counts in windows of a kind, that tell their results at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Always,
    Suppressed,
    Limited,
    OnClose,
}

/// How long limited results are held back.
const LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

fn counts(b: &StreamsBuilder, topic: &str, windows: &str, told: Told) -> Counts {
    let records = b.stream::<String, String>(topic).group_by_key();
    let emit = match told {
        Told::OnClose => EmitStrategy::on_window_close(),
        Told::Always | Told::Suppressed | Told::Limited => EmitStrategy::on_window_update(),
    };
    let (size, grace) = (ms(10), ms(5));
    let counts = match windows {
        "tumbling" => {
            let windows = TimeWindows::of(size).grace(grace);
            records.windowed_by(windows).emit_strategy(emit).count()
        }
        "hopping" => {
            let windows = TimeWindows::of(size).advance_by(ms(4)).grace(grace);
            records.windowed_by(windows).emit_strategy(emit).count()
        }
        "sliding" => {
            let windows = SlidingWindows::of(size).grace(grace);
            records.windowed_by(windows).emit_strategy(emit).count()
        }
        _ => {
            let windows = SessionWindows::of(size).grace(grace);
            records.windowed_by(windows).emit_strategy(emit).count()
        }
    };
    match told {
        Told::Suppressed => {
            counts.suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
        }
        Told::Limited => {
            counts.suppress(Suppressed::until_time_limit(LIMIT, BufferConfig::unbounded()))
        }
        Told::Always | Told::OnClose => counts,
    }
}

/// What a join makes of two counts.
fn joined(kind: &str, l: &Counts, r: &Counts) -> KTable<Windowed<String>, String> {
    match kind {
        "inner" => l.join(r, |_, l, r| format!("{l}~{r}")),
        "left" => l.left_join(r, |_, l, r| format!("{l}~{r:?}")),
        _ => l.outer_join(r, |_, l, r| format!("{l:?}~{r:?}")),
    }
}

fn write<V: Data + std::fmt::Display + streams_core::HasSerde>(
    table: &KTable<Windowed<String>, V>,
) {
    let name = |k: Windowed<String>| format!("{}@{}..{}", k.key, k.window.start, k.window.end);
    table.to_stream().map(move |k, v| (name(k), v.map(|v| v.to_string()))).to("out");
}

fn driver(b: &StreamsBuilder, caching: bool) -> TopologyTestDriver {
    let settings = TestDriverSettings { caching, ..TestDriverSettings::default() };
    TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap()
}

fn app(windows: &str, told: Told, kind: &str, caching: bool) -> TopologyTestDriver {
    app_with(windows, told, kind, TestDriverSettings { caching, ..TestDriverSettings::default() })
}

fn app_with(
    windows: &str,
    told: Told,
    kind: &str,
    settings: TestDriverSettings,
) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    write(&joined(kind, &counts(&b, "l", windows, told), &counts(&b, "r", windows, told)));
    TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap()
}

/// Has room for one result in each commit, and perhaps crashes between them.
fn in_parts(caching: bool, crash_between_parts: bool) -> TestDriverSettings {
    let default = TestDriverSettings::default();
    TestDriverSettings { caching, crash_between_parts, seal_bytes: 1, ..default }
}

fn pipe(driver: &TopologyTestDriver, topic: &str, key: &str, time: i64) {
    driver.input_topic(topic).pipe(s(key), s("v"), time).unwrap();
}

/// The rows that the results leave.
fn rows(driver: &TopologyTestDriver) -> BTreeMap<String, String> {
    driver.commit().unwrap();
    let mut rows = BTreeMap::new();
    for result in driver.output_topic::<String, Option<String>>("out").read_all().unwrap() {
        match result.value {
            Some(value) => rows.insert(result.key, value),
            None => rows.remove(&result.key),
        };
    }
    rows
}

/// The rows after one record of `k` on either side and a leap of time on both.
fn after_a_leap(windows: &str, told: Told, kind: &str, caching: bool, leap: i64) -> Vec<String> {
    let driver = app(windows, told, kind, caching);
    for (topic, key, time) in [("l", "k", 1), ("r", "k", 1), ("l", "z", leap), ("r", "z", leap)] {
        pipe(&driver, topic, key, time);
    }
    let of_k = rows(&driver).into_iter().filter(|(key, _)| key.starts_with('k'));
    of_k.map(|(_, value)| value).collect()
}

const A_YEAR: i64 = 365 * 24 * 60 * 60 * 1000;

#[test]
fn windows_that_expire_before_the_caches_are_drained_are_joined() {
    for windows in ["tumbling", "session"] {
        for leap in [100, A_YEAR] {
            for caching in [false, true] {
                let rows = |kind| after_a_leap(windows, Told::Always, kind, caching, leap);
                assert_eq!(rows("inner"), ["1~1"], "{windows} {leap} {caching}");
                assert_eq!(rows("left"), ["1~Some(1)"], "{windows} {leap} {caching}");
                assert_eq!(rows("outer"), ["Some(1)~Some(1)"], "{windows} {leap} {caching}");
            }
        }
    }
}

#[test]
fn final_results_find_each_other_though_time_leapt_over_their_windows() {
    for windows in ["tumbling", "session"] {
        for leap in [100, A_YEAR] {
            for (told, caching) in
                [(Told::Suppressed, false), (Told::Suppressed, true), (Told::OnClose, false)]
            {
                let rows = |kind| after_a_leap(windows, told, kind, caching, leap);
                assert_eq!(rows("inner"), ["1~1"], "{windows} {told:?} {leap} {caching}");
                assert_eq!(
                    rows("outer"),
                    ["Some(1)~Some(1)"],
                    "{windows} {told:?} {leap} {caching}"
                );
            }
        }
    }
}

#[test]
fn a_suppressed_table_is_not_looked_into_before_it_says_something() {
    for caching in [false, true] {
        let driver = app("tumbling", Told::Suppressed, "left", caching);
        for (topic, key, time) in [("l", "k", 1), ("r", "k", 1), ("l", "z", 100)] {
            pipe(&driver, topic, key, time);
        }
        let rows = rows(&driver);
        assert_eq!(
            rows.into_iter().collect::<Vec<_>>(),
            [(s("k@0..10"), s("1~None"))],
            "{caching}"
        );
    }
}

#[test]
fn answers_to_windows_that_have_expired_are_no_stale_ones() {
    for caching in [false, true] {
        let b = StreamsBuilder::new();
        let names = b.table::<String, String>("r");
        let counts = counts(&b, "l", "tumbling", Told::Always);
        write(&counts.left_join_on_foreign_key(
            &names,
            |k, _| Some(k.key.clone()),
            |_, n, name: Option<&String>| format!("{n}~{name:?}"),
        ));
        let driver = driver(&b, caching);
        for (topic, key, time) in [("r", "k", 1), ("l", "k", 2), ("l", "z", 100)] {
            pipe(&driver, topic, key, time);
        }
        let expected = [(s("k@0..10"), s("1~Some(\"v\")")), (s("z@100..110"), s("1~None"))];
        assert_eq!(rows(&driver).into_iter().collect::<Vec<_>>(), expected, "{caching}");
    }
}

/// Time goes on by little, and now and then by hours, on both sides.
fn input(random: &mut Random) -> Vec<(&'static str, String, i64)> {
    let (mut now, mut input) = (0, Vec::new());
    for _ in 0..80 {
        if random.below(12) == 0 {
            now += [40, 1000, 3_600_000, 20_000_000][random.below(4) as usize];
            input.extend([("l", s("leap"), now), ("r", s("leap"), now)]);
        }
        now += random.below(4) as i64;
        let topic = if random.below(2) == 0 { "l" } else { "r" };
        let late = random.below(12) as i64;
        input.push((topic, format!("k{}", random.below(2)), (now - late).max(0)));
    }
    input
}

#[test]
fn caching_changes_no_row_of_a_join_of_windows() {
    for seed in 8..10 {
        for windows in ["tumbling", "hopping", "sliding", "session"] {
            for told in [Told::Always, Told::Suppressed] {
                for kind in ["inner", "left", "outer"] {
                    let mut random = Random(seed);
                    let input = input(&mut random);
                    let [plain, cached] = [false, true].map(|c| app(windows, told, kind, c));
                    for (topic, key, time) in &input {
                        pipe(&plain, topic, key, *time);
                        pipe(&cached, topic, key, *time);
                        match random.below(40) {
                            0..4 => cached.commit().unwrap(),
                            4 => cached.crash().unwrap(),
                            5 => plain.crash().unwrap(),
                            _ => {}
                        }
                    }
                    let case = format!("seed {seed}, {windows} {told:?} {kind}");
                    let (plain, cached) = (rows(&plain), rows(&cached));
                    assert_eq!(plain, cached, "{case}");
                    assert!(!plain.is_empty(), "{case}");
                }
            }
        }
    }
}

/// Time leaps so often that the windows have expired for long when they are told of.
#[test]
fn results_that_are_let_go_in_several_commits_find_each_other() {
    for windows in ["tumbling", "hopping", "sliding", "session"] {
        for told in [Told::Suppressed, Told::Limited] {
            for (caching, crash) in [(false, true), (true, false), (true, true)] {
                let case = format!("{windows} {told:?} {caching} {crash}");
                let driver = app_with(windows, told, "inner", in_parts(caching, crash));
                for topic in ["l", "r"] {
                    (0..20).for_each(|n| pipe(&driver, topic, &format!("k{n}"), 1));
                }
                driver.commit().unwrap();
                for leap in 1..5 {
                    for topic in ["l", "r"] {
                        pipe(&driver, topic, "z", leap * A_YEAR);
                    }
                }
                let before = driver.commits();
                let rows = rows(&driver);
                assert!(!caching || driver.commits() > before + 10, "{case}");
                assert_eq!(rows.keys().filter(|key| key.starts_with('k')).count(), 20, "{case}");
            }
        }
    }
}

#[test]
fn results_are_found_for_as_long_as_others_are_held_back() {
    for windows in ["tumbling", "session"] {
        for caching in [false, true] {
            let driver = app(windows, Told::Limited, "inner", caching);
            for minutes in 0..4 * 6 {
                let key = if minutes == 0 { "k" } else { "z" };
                for topic in ["l", "r"] {
                    pipe(&driver, topic, key, minutes * 10 * 60 * 1000);
                }
                driver.commit().unwrap();
            }
            assert!(rows(&driver).keys().any(|key| key.starts_with('k')), "{windows} {caching}");
        }
    }
}
