//! Windows against brute force, over random input.

use std::collections::BTreeMap;
use std::time::Duration;

use streams_core::test_driver::TopologyTestDriver;
use streams_dsl::{
    EmitStrategy, Materialized, SlidingWindows, StreamsBuilder, TimeWindowedKStream, TimeWindows,
    Windows,
};

use crate::model::Random;
use crate::{driver, s};

/// Counts by key and start of the window.
type Counts = BTreeMap<(String, i64), i64>;

fn ms(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

/// Counts in windows, into store `s` and topic `out`.
fn counting<W>(windows: W, emit: EmitStrategy, kept: Option<Duration>) -> TopologyTestDriver
where
    W: Windows<Stream<String, String> = TimeWindowedKStream<String, String>>,
{
    let store = Materialized::named("s");
    let store = kept.into_iter().fold(store, Materialized::with_retention);
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a")
        .group_by_key()
        .windowed_by(windows)
        .emit_strategy(emit)
        .count_with(store)
        .to_stream_present()
        .select_key(|k, _| format!("{}@{}", k.key, k.window.start))
        .to("out");
    driver(&b)
}

/// Random records of three keys, sometimes late, sometimes after a jump.
fn records(seed: u64) -> Vec<(String, i64)> {
    let mut random = Random(seed);
    let mut below = |end| random.below(end) as i64;
    let mut now = 0;
    let record = |_| {
        now += if below(10) == 0 { below(40) } else { below(4) };
        let late = if below(3) == 0 { below(30) } else { 0 };
        (format!("k{}", below(3)), (now - late).max(0))
    };
    (0..200).map(record).collect()
}

fn pipe(driver: &TopologyTestDriver, (key, time): &(String, i64)) {
    driver.input_topic("a").pipe(key.clone(), s("x"), *time).unwrap();
}

fn stored(driver: &TopologyTestDriver) -> Counts {
    let all = driver.window_store::<String, i64>("s").unwrap().all().unwrap();
    all.into_iter().map(|(k, count, _)| ((k.key, k.window.start), count)).collect()
}

/// Some windows: their size, advance and grace.
fn hopping(seed: u64) -> (TimeWindows, (i64, i64, i64)) {
    let mut random = Random(seed);
    let mut below = |end: i64| random.below(end.unsigned_abs()) as i64;
    let size = 1 + below(15);
    let (advance, grace) = (1 + below(size), below(20));
    let windows = TimeWindows::of(ms(size)).advance_by(ms(advance)).grace(ms(grace));
    (windows, (size, advance, grace))
}

/// The windows that are open when a record comes count it, the others do not.
fn hopping_counts(records: &[(String, i64)], (size, advance, grace): (i64, i64, i64)) -> Counts {
    let mut counts = Counts::new();
    let mut stream_time = 0;
    for (key, time) in records {
        stream_time = stream_time.max(*time);
        let starts = (0..=*time).filter(|start| start % advance == 0 && time - start < size);
        for start in starts.filter(|start| start + size > stream_time - grace) {
            *counts.entry((key.clone(), start)).or_default() += 1;
        }
    }
    counts
}

#[test]
fn hopping_windows_count_what_came_while_they_were_open() {
    for seed in 0..12 {
        let (windows, numbers) = hopping(seed + 1_000);
        let driver = counting(windows, EmitStrategy::on_window_update(), Some(ms(1 << 40)));
        let records = records(seed);
        records.iter().for_each(|record| pipe(&driver, record));
        let expected = hopping_counts(&records, numbers);
        assert_eq!(stored(&driver), expected, "seed {seed}, {windows:?}");
    }
}

#[test]
fn each_window_is_said_once_when_it_has_closed() {
    for seed in 0..12 {
        let (windows, numbers) = hopping(seed + 2_000);
        let (size, _, grace) = numbers;
        let driver = counting(windows, EmitStrategy::on_window_close(), None);
        let records = records(seed);
        records.iter().for_each(|record| pipe(&driver, record));
        let end = records.iter().map(|(_, time)| *time).max().unwrap_or_default();
        let mut expected: Vec<_> = hopping_counts(&records, numbers)
            .into_iter()
            .filter(|((_, start), _)| start + size <= end - grace)
            .map(|((key, start), count)| (start, key, count))
            .collect();
        expected.sort();
        let expected: Vec<_> = expected.iter().map(|(s, k, n)| (format!("{k}@{s}"), *n)).collect();
        let found = driver.output_topic::<String, i64>("out").read_all().unwrap();
        let found: Vec<_> = found.into_iter().map(|record| (record.key, record.value)).collect();
        assert_eq!(found, expected, "seed {seed}, {windows:?}");
    }
}

/// With a grace so long that nothing is late: a window for each record, and one after it.
#[test]
fn sliding_windows_hold_what_is_near_a_record() {
    for seed in 0..12 {
        let difference = Random(seed + 3_000).below(20) as i64;
        let windows = SlidingWindows::of(ms(difference)).grace(ms(1 << 40));
        let driver = counting(windows, EmitStrategy::on_window_update(), Some(ms(1 << 41)));
        let records = records(seed);
        records.iter().for_each(|record| pipe(&driver, record));
        let mut expected = Counts::new();
        for (key, time) in &records {
            for start in [(time - difference).max(0), time + 1] {
                let within =
                    |(k, t): &&(String, i64)| k == key && (start..=start + difference).contains(t);
                let count = records.iter().filter(within).count() as i64;
                if count > 0 {
                    expected.insert((key.clone(), start), count);
                }
            }
        }
        assert_eq!(stored(&driver), expected, "seed {seed}, {windows:?}");
    }
}

/// Also where windows are a single moment.
#[test]
fn what_sliding_windows_say_on_closing_is_their_last_update() {
    for seed in 0..12 {
        let difference = if seed % 4 == 0 { 0 } else { Random(seed).below(20) as i64 };
        let grace = Random(seed + 4_000).below(20) as i64;
        let windows = SlidingWindows::of(ms(difference)).grace(ms(grace));
        let run = |emit| {
            let driver = counting(windows, emit, None);
            records(seed).iter().for_each(|record| pipe(&driver, record));
            let out = driver.output_topic::<String, i64>("out").read_all().unwrap();
            out.into_iter().map(|record| (record.key, record.value)).collect::<Vec<_>>()
        };
        let end = records(seed).iter().map(|(_, time)| *time).max().unwrap_or_default();
        let is_closed = |window: &str| {
            let start = window.split_once('@').map(|(_, start)| start.parse::<i64>().unwrap());
            start.is_some_and(|start| start + difference < end - grace)
        };
        let updates: BTreeMap<_, _> = run(EmitStrategy::on_window_update()).into_iter().collect();
        let last: Vec<_> = updates.into_iter().filter(|(window, _)| is_closed(window)).collect();
        let mut closed = run(EmitStrategy::on_window_close());
        closed.sort();
        assert_eq!(closed, last, "seed {seed}, {windows:?}");
    }
}

/// A window then is a moment; it stays open for the grace.
#[test]
fn sliding_windows_without_a_difference_count_what_is_at_one_time() {
    for seed in 0..6 {
        let grace = Random(seed + 5_000).below(20) as i64;
        let windows = SlidingWindows::of(ms(0)).grace(ms(grace));
        let driver = counting(windows, EmitStrategy::on_window_close(), None);
        let records = records(seed);
        records.iter().for_each(|record| pipe(&driver, record));
        let (mut expected, mut stream_time) = (Counts::new(), 0);
        for (key, time) in &records {
            stream_time = stream_time.max(*time);
            if *time >= stream_time - grace {
                *expected.entry((key.clone(), *time)).or_default() += 1;
            }
        }
        expected.retain(|(_, time), _| *time < stream_time - grace);
        let out = driver.output_topic::<String, i64>("out").read_all().unwrap();
        let found: BTreeMap<_, _> = out.into_iter().map(|r| (r.key, r.value)).collect();
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|((key, time), n)| (format!("{key}@{time}"), n)).collect();
        assert_eq!(found, expected, "seed {seed}, {windows:?}");
    }
}

/// The sum of all counts in sliding windows, by key: each update takes the window's count before it away.
fn summed(windows: SlidingWindows, caching: bool) -> TopologyTestDriver {
    let store = |name: &str| Materialized::named(name).with_retention(ms(1 << 41));
    let counts = if caching { store("s") } else { store("s").with_caching_disabled() };
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a")
        .group_by_key()
        .windowed_by(windows)
        .count_with(counts)
        .group_by(|window, count| (window.key.clone(), count))
        .reduce_with(|sum, n| sum + n, |sum, n| sum - n, Materialized::named("sums"));
    driver(&b)
}

fn sums(driver: &TopologyTestDriver) -> BTreeMap<String, i64> {
    driver.key_value_store("sums").unwrap().all().unwrap().into_iter().collect()
}

#[test]
fn a_new_sliding_window_has_no_count_of_another_one_as_its_old_one() {
    for (times, expected) in [([10, 15], 4), ([5, 16], 2)] {
        for caching in [true, false] {
            let driver = summed(SlidingWindows::of(ms(10)), caching);
            times.iter().for_each(|time| pipe(&driver, &(s("A"), *time)));
            assert_eq!(sums(&driver)["A"], expected, "{times:?}, caching: {caching}");
        }
    }
}

#[test]
fn sums_of_sliding_windows_are_those_of_their_store() {
    for seed in 0..12 {
        let mut random = Random(seed + 6_000);
        let (difference, grace) = (random.below(20) as i64, random.below(20) as i64);
        for caching in [true, false] {
            let driver = summed(SlidingWindows::of(ms(difference)).grace(ms(grace)), caching);
            records(seed).iter().for_each(|record| pipe(&driver, record));
            let mut expected = BTreeMap::new();
            for ((key, _), count) in stored(&driver) {
                *expected.entry(key).or_insert(0) += count;
            }
            assert_eq!(sums(&driver), expected, "seed {seed}, caching: {caching}");
        }
    }
}
