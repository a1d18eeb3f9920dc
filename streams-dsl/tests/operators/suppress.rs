//! Suppressed tables.

use std::collections::BTreeMap;
use std::time::Duration;

use streams_core::test_driver::{TestDriverError, TopologyTestDriver};
use streams_core::{BuildError, HasSerde, ProcessError, Windowed};
use streams_dsl::{
    BufferConfig, Materialized, SessionWindows, SlidingWindows, StreamsBuilder, Suppressed,
    TimeWindows,
};

use crate::model::Random;
use crate::windows::{append, emit, pipe, uncached};
use crate::{driver, s, some, step};

type Row = (String, Option<String>, i64);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A table of topic `a`, suppressed into topic `out`.
fn suppressed(suppressed: Suppressed<String>) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    b.table::<String, String>("a").suppress(suppressed).to_stream().to("out");
    driver(&b)
}

fn rows(driver: &TopologyTestDriver, inputs: &[(&str, Option<&str>, i64)]) -> Vec<Row> {
    let pipe = |(key, value, time): &(&str, Option<&str>, i64)| -> Vec<Row> {
        step(driver, s(key), value.map(s), *time)
    };
    inputs.iter().flat_map(pipe).collect()
}

/// The updates that example F17 of the semantics has behind its aggregation.
const F17: [(&str, Option<&str>, i64); 4] =
    [("v1", Some("1"), 0), ("v1", Some("0"), 1), ("v2", Some("1"), 1), ("v1", Some("1"), 2)];

#[test]
fn f17_a_time_limit_counts_from_the_first_update_and_sends_the_last() {
    let limit = Suppressed::until_time_limit(millis(2), BufferConfig::unbounded());
    let driver = suppressed(limit);
    assert_eq!(rows(&driver, &F17), [(s("v1"), some("1"), 2)]);
    assert_eq!(rows(&driver, &[("tick", Some("x"), 3)]), [(s("v2"), some("1"), 1)]);
}

#[test]
fn an_update_at_the_end_of_time_waits_no_longer_than_its_limit() {
    let limit = Suppressed::until_time_limit(millis(0), BufferConfig::unbounded());
    let last = [("k", Some("v"), i64::MAX)];
    assert_eq!(rows(&suppressed(limit), &last), [(s("k"), some("v"), i64::MAX)]);
}

#[test]
fn f17_a_full_buffer_sends_the_oldest_early() {
    let limit = Suppressed::until_time_limit(Duration::MAX, BufferConfig::max_records(1));
    let driver = suppressed(limit);
    assert_eq!(rows(&driver, &F17), [(s("v1"), some("0"), 1), (s("v2"), some("1"), 1)]);
    assert_eq!(rows(&driver, &[("tick", Some("x"), 3)]), [(s("v1"), some("1"), 2)]);
}

#[test]
fn a_suppressed_table_passes_deletions_on() {
    let limit = Suppressed::until_time_limit(millis(0), BufferConfig::unbounded());
    let inputs = [("k", Some("v"), 1), ("k", None, 2)];
    let out = rows(&suppressed(limit), &inputs);
    assert_eq!(out, [(s("k"), some("v"), 1), (s("k"), None, 2)]);
}

#[test]
fn bytes_of_keys_and_values_are_counted_too() {
    // A key of 2, a time of 8, no old value, a new one with its length: 2 + 8 + 1 + 5 + 10.
    let limit = Suppressed::until_time_limit(Duration::MAX, BufferConfig::max_bytes(26 + 20));
    let driver = suppressed(limit);
    let inputs = [("k1", Some("0123456789"), 1), ("k2", Some("0123"), 2), ("k1", Some("0"), 3)];
    assert_eq!(rows(&driver, &inputs), []);
    let out = rows(&driver, &[("k2", Some("01234567890123"), 4)]);
    assert_eq!(out, [(s("k1"), some("0"), 3)], "17 + 30 are too many");
}

#[test]
fn a_strict_buffer_that_is_full_ends_the_application() {
    let buffer = BufferConfig::max_records(1).shut_down_when_full();
    let driver = suppressed(Suppressed::until_time_limit(millis(9), buffer));
    assert_eq!(rows(&driver, &[("a", Some("x"), 1), ("a", Some("y"), 2)]), []);
    let failed = driver.input_topic("a").pipe(s("b"), some("x"), 3).unwrap_err();
    assert!(failed.to_string().ends_with("or let it emit early when full (emit_early_when_full)"));
    let TestDriverError::Process(ProcessError::BufferFull { node, reason, .. }) = failed else {
        panic!("{failed}");
    };
    assert_eq!(node, "KTABLE-SUPPRESS-0000000003");
    assert!(reason.starts_with("holds back 2 of 1 keys and "), "{reason}");
}

#[test]
fn a_full_buffer_of_final_results_is_not_told_to_emit_early() {
    let b = StreamsBuilder::new();
    let windows = TimeWindows::of(millis(10)).grace(millis(5));
    let buffer = BufferConfig::max_records(1).shut_down_when_full();
    b.stream::<String, String>("a")
        .group_by_key()
        .windowed_by(windows)
        .count()
        .suppress(Suppressed::until_window_closes(buffer));
    let (driver, input) = (driver(&b), |key| (s(key), s("v"), 1));
    let pipe =
        |(key, value, time)| driver.input_topic::<String, String>("a").pipe(key, value, time);
    pipe(input("a")).unwrap();
    let failed = pipe(input("b")).unwrap_err().to_string();
    let advice = "raise the limit of its BufferConfig, or give the windows less grace";
    assert!(failed.contains(advice) && !failed.contains("emit early"), "{failed}");
}

#[test]
fn headers_and_time_are_those_of_the_last_update() {
    use streams_core::Record;
    let b = StreamsBuilder::new();
    let limit = Suppressed::until_time_limit(millis(5), BufferConfig::unbounded());
    b.table::<String, String>("a").suppress(limit).to_stream().to("out");
    let driver = driver(&b);
    for (value, time, header) in [("v", 1, "first"), ("w", 0, "last"), ("x", 6, "tick")] {
        let key = if header == "tick" { "other" } else { "k" };
        let header = broker_api::Header { name: header.into(), value: None };
        let record = Record { headers: vec![header].into(), ..Record::new(s(key), s(value), time) };
        driver.input_topic("a").pipe_record(record).unwrap();
    }
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].value.as_str(), out[0].timestamp), ("w", 0));
    assert_eq!(out[0].headers.as_slice()[0].name, "last");
}

#[test]
fn what_waits_for_input_that_ended_goes_on_by_the_wall_clock() {
    let limit = Suppressed::until_time_limit(millis(50), BufferConfig::unbounded());
    let driver = suppressed(limit.after_idle(millis(100)));
    assert_eq!(
        rows(&driver, &[("k", Some("v"), 1_000), ("l", Some("v"), 1_090)]),
        [(s("k"), some("v"), 1_000)]
    );
    let out = || -> Vec<Row> {
        let out = driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
        out.into_iter().map(|record| (record.key, record.value, record.timestamp)).collect()
    };
    driver.advance_wall_clock(millis(99)).unwrap();
    assert_eq!(out(), []);
    driver.advance_wall_clock(millis(1)).unwrap();
    assert_eq!(out(), [(s("l"), some("v"), 1_090)]);
    // Stream time was 1,190 then, and stays there when records come again.
    assert_eq!(rows(&driver, &[("k", Some("w"), 1_140)]), [(s("k"), some("w"), 1_140)]);
}

#[test]
fn a_suppressed_table_has_kafkas_names() {
    let b = StreamsBuilder::new();
    let table = b.table::<String, String>("a");
    let limit = || Suppressed::until_time_limit(millis(1), BufferConfig::unbounded());
    table.suppress(limit());
    table.suppress(limit().with_name("X"));
    table.suppress_with(limit(), String::serde(), String::serde());
    let described = b.build().unwrap().describe();
    for node in [
        "KTABLE-SUPPRESS-0000000003 (stores: [KTABLE-SUPPRESS-STATE-STORE-0000000004])",
        "X (stores: [X-store])",
        "KTABLE-SUPPRESS-0000000005 (stores: [KTABLE-SUPPRESS-STATE-STORE-0000000006])",
    ] {
        assert!(described.contains(node), "{described}");
    }
}

fn closed<K>() -> Suppressed<Windowed<K>> {
    Suppressed::until_window_closes(BufferConfig::unbounded())
}

fn grouped(b: &StreamsBuilder) -> streams_dsl::KGroupedStream<String, String> {
    b.stream::<String, String>("a").group_by_key()
}

#[test]
fn f15_a_window_has_one_result_when_it_closes() {
    let b = StreamsBuilder::new();
    let windows = TimeWindows::of(millis(2)).grace(millis(1));
    emit(&grouped(&b).windowed_by(windows).count().suppress(closed()));
    let driver = driver(&b);
    for time in [0, 1, 2, 1, 0] {
        assert!(pipe(&driver, "k", "", time).is_empty());
    }
    assert_eq!(pipe(&driver, "k", "", 5), ["k@0/2=4@1", "k@2/4=1@2"]);
    assert!(pipe(&driver, "k", "", 0).is_empty());
    assert_eq!(driver.dropped()["closed window"], 1);
}

/// Kafka sends the result a millisecond too early, and a second one after it.
#[test]
fn f16_a_session_has_no_final_result_while_it_can_still_grow() {
    let b = StreamsBuilder::new();
    emit(&grouped(&b).windowed_by(SessionWindows::of(millis(5))).count().suppress(closed()));
    let driver = driver(&b);
    assert!(pipe(&driver, "k1", "", 0).is_empty());
    assert!(pipe(&driver, "k2", "", 5).is_empty(), "Kafka: k1 [0,0]=1");
    assert!(pipe(&driver, "k1", "", 5).is_empty());
    assert_eq!(pipe(&driver, "k3", "", 11), ["k1@0/5=2@5", "k2@5/5=1@5"]);
}

#[test]
fn f16_a_sliding_window_has_no_final_result_while_it_can_still_grow() {
    let b = StreamsBuilder::new();
    emit(&grouped(&b).windowed_by(SlidingWindows::of(millis(5))).count().suppress(closed()));
    let driver = driver(&b);
    assert!(pipe(&driver, "k1", "", 10).is_empty(), "Kafka: [5,10]=1");
    assert!(pipe(&driver, "k1", "", 10).is_empty(), "Kafka: [5,10]=2");
    assert_eq!(pipe(&driver, "k2", "", 11), ["k1@5/10=2@10"]);
}

#[test]
fn closing_needs_windows_above() {
    let b = StreamsBuilder::new();
    b.table::<Windowed<String>, String>("a").suppress(closed());
    let BuildError::Invalid { node, reason } = b.build().err().unwrap() else { panic!() };
    assert_eq!(node, "KTABLE-SUPPRESS-0000000003");
    assert!(reason.contains("its table has none"), "{reason}");
}

/// What comes out is the last of what would have come out without, once for each window, when
/// stream time allows it; and what never closes, never comes.
#[test]
fn a_final_result_is_the_last_one_of_its_window() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let (grace, store) = (
            millis(random.below(4) * 5),
            if seed % 2 == 0 { uncached() } else { Materialized::named("s") },
        );
        let grouped = grouped(&b);
        let kind = random.below(4);
        let table =
            match kind {
                0 => grouped.windowed_by(TimeWindows::of(millis(10)).grace(grace)).aggregate_with(
                    String::new,
                    append,
                    store,
                ),
                1 => {
                    let hopping = TimeWindows::of(millis(10)).advance_by(millis(4)).grace(grace);
                    grouped.windowed_by(hopping).aggregate_with(String::new, append, store)
                }
                2 => grouped
                    .windowed_by(SlidingWindows::of(millis(10)).grace(grace))
                    .aggregate_with(String::new, append, store),
                _ => {
                    let sessions = SessionWindows::of(millis(6)).grace(grace);
                    let merge = |_: &String, a: String, b: String| format!("{a}+{b}");
                    grouped.windowed_by(sessions).aggregate_with(String::new, append, merge, store)
                }
            };
        table
            .to_stream()
            .select_key(|k, _| format!("{}@{}/{}", k.key, k.window.start, k.window.end))
            .to("all");
        emit(&table.suppress(closed()));
        let driver = driver(&b);
        let mut last: BTreeMap<String, (Option<String>, i64)> = BTreeMap::new();
        let (mut finals, mut now, mut stream_time) = (BTreeMap::new(), 0, 0);
        for n in 0..150 {
            now += if random.below(10) == 0 { random.below(30) } else { random.below(4) } as i64;
            let back = if random.below(3) == 0 { random.below(20) as i64 } else { 0 };
            let key = format!("k{}", random.below(3));
            let out = pipe(&driver, &key, &n.to_string(), (now - back).max(0));
            for row in driver.output_topic::<String, Option<String>>("all").read_all().unwrap() {
                assert!(
                    !finals.contains_key(&row.key),
                    "seed {seed}: {} changed after its final result",
                    row.key
                );
                stream_time = row.timestamp.max(stream_time);
                last.insert(row.key, (row.value, row.timestamp));
            }
            for row in out {
                let (window, rest) = row.split_once('=').unwrap();
                let (value, time) = rest.rsplit_once('@').unwrap();
                let expected = (Some(s(value)), time.parse().unwrap());
                assert_eq!(last.get(window), Some(&expected), "seed {seed}: {window}");
                assert_eq!(finals.insert(s(window), ()), None, "seed {seed}: {window} came twice");
            }
        }
        let after = [0, 0, 1, 7][kind as usize] + grace.as_millis() as i64;
        for (window, (value, _)) in last {
            let end: i64 = window.rsplit_once('/').unwrap().1.parse().unwrap();
            let is_over = value.is_some() && end + after <= stream_time;
            assert_eq!(finals.contains_key(&window), is_over, "seed {seed}: {window}");
        }
        assert!(finals.len() > 10, "seed {seed}");
    }
}

#[test]
fn windows_of_input_that_ended_close_by_the_wall_clock_and_stay_closed() {
    let b = StreamsBuilder::new();
    let windows = TimeWindows::of(millis(10)).grace(millis(5));
    let suppressed = closed().after_idle(millis(100));
    emit(&grouped(&b).windowed_by(windows).count().suppress(suppressed));
    let driver = driver(&b);
    assert!(pipe(&driver, "k", "", 1_003).is_empty());
    let out = || driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
    driver.advance_wall_clock(millis(99)).unwrap();
    assert!(out().is_empty());
    driver.advance_wall_clock(millis(1)).unwrap();
    let rows = out();
    assert_eq!((rows.len(), rows[0].key.as_str()), (1, "k@1000/1010"));
    assert!(pipe(&driver, "k", "", 1_004).is_empty(), "its stream time would have taken it");
    assert_eq!(driver.dropped()["closed window"], 1);
    assert!(pipe(&driver, "k", "", 1_200).is_empty());
}

/// Kafka sends `C` with the old value `B` here, which nobody has added, and the sum goes wrong.
#[test]
fn the_old_value_is_what_was_sent_last_so_that_sums_stay_right() {
    let b = StreamsBuilder::new();
    let limit = Suppressed::until_time_limit(millis(5), BufferConfig::unbounded());
    b.table::<String, String>("a")
        .suppress(limit)
        .group_by(|_, v| (s("all"), v))
        .reduce(|sum, v| format!("{sum}+{v}"), |sum, v| format!("{sum}-{v}"))
        .to_stream()
        .to("out");
    let driver = driver(&b);
    let out = rows(&driver, &[("k", Some("A"), 0), ("l", Some("X"), 5)]);
    assert_eq!(out, [(s("all"), some("A"), 0)]);
    assert_eq!(rows(&driver, &[("k", Some("B"), 6), ("k", Some("C"), 7)]), []);
    let out = rows(&driver, &[("m", Some("Y"), 11)]);
    assert_eq!(out, [(s("all"), some("A+X"), 5), (s("all"), some("A+X-A+C"), 7)]);
}
