//! Tumbling, hopping, sliding and unlimited windows.

use std::fmt::Debug;
use std::time::Duration;

use broker_api::Header;
use streams_core::failure::{ErrorHandlers, log_and_continue};
use streams_core::serde::{json, time_windowed};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::{BuildError, Data, HasSerde, Headers, Record, Windowed};
use streams_dsl::{
    BufferConfig, Consumed, EmitStrategy, Grouped, KTable, Materialized, Produced, SessionWindows,
    SlidingWindows, StreamsBuilder, Suppressed, TimeWindowedKStream, TimeWindows, UnlimitedWindows,
    Windows,
};

use crate::{driver, s, some, step};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Topic `a` in windows, grouped by key.
fn windowed<V, W>(b: &StreamsBuilder, windows: W) -> TimeWindowedKStream<String, V>
where
    V: Data + HasSerde,
    W: Windows<Stream<String, V> = TimeWindowedKStream<String, V>>,
{
    b.stream::<String, V>("a").group_by_key().windowed_by(windows)
}

/// To topic `out`, with keys like `k@0/10`.
pub(crate) fn emit<V: Data + ToString>(table: &KTable<Windowed<String>, V>) {
    let text = |k: &Windowed<String>| format!("{}@{}/{}", k.key, k.window.start, k.window.end);
    let values = table.to_stream().select_key(move |k, _| text(k));
    values.map_values(|_, v| v.map(|v| v.to_string())).to("out");
}

pub(crate) fn append(_: &String, value: String, so_far: String) -> String {
    if so_far.is_empty() { value } else { format!("{so_far}+{value}") }
}

/// Without caching, every update is seen.
pub(crate) fn uncached() -> Materialized<String, String> {
    Materialized::named("s").with_caching_disabled()
}

/// What comes out, like `k@0/10=v@5`; `T` is a deletion.
pub(crate) fn pipe(driver: &TopologyTestDriver, key: &str, value: &str, time: i64) -> Vec<String> {
    let row = |(key, value, time): (String, Option<String>, i64)| {
        format!("{key}={}@{time}", value.unwrap_or(s("T")))
    };
    step(driver, s(key), s(value), time).into_iter().map(row).collect()
}

#[test]
fn a_window_that_stays_open_for_ever_takes_records_at_the_end_of_time() {
    let b = StreamsBuilder::new();
    let patient = TimeWindows::of(ms(10)).grace(Duration::MAX);
    emit(&windowed(&b, patient).aggregate_with(String::new, append, uncached()));
    let patient = driver(&b);
    assert_eq!(pipe(&patient, "k", "a", i64::MAX).len(), 1);
    assert_eq!(pipe(&patient, "k", "b", 5), ["k@0/10=b@5"]);

    let b = StreamsBuilder::new();
    let unlimited = windowed(&b, UnlimitedWindows::of());
    emit(&unlimited.aggregate_with(String::new, append, uncached()));
    let end = i64::MAX;
    assert_eq!(pipe(&driver(&b), "k", "a", end), [format!("k@0/{end}=a@{end}")]);
}

#[test]
fn a_late_record_counts_in_the_windows_that_are_open_still() {
    let b = StreamsBuilder::new();
    let hopping = TimeWindows::of(ms(10)).advance_by(ms(5));
    emit(&windowed(&b, hopping).aggregate_with(String::new, append, uncached()));
    let driver = driver(&b);
    for time in [0, 5, 10] {
        pipe(&driver, "A", "x", time);
    }
    assert_eq!(pipe(&driver, "B", "y", 6), ["B@5/15=y@6"], "[0,10) is closed");
    assert_eq!(driver.dropped().get("closed window"), Some(&1));
}

#[test]
fn on_window_close_there_is_one_result_for_each_window() {
    let b = StreamsBuilder::new();
    let hopping = TimeWindows::of(ms(10)).advance_by(ms(5)).grace(ms(5));
    let on_close = EmitStrategy::on_window_close();
    let table = windowed(&b, hopping).emit_strategy(on_close).aggregate(String::new, append);
    emit(&table);
    let driver = driver(&b);
    for (key, value, time) in
        [("A", "1", 0), ("A", "2", 5), ("A", "3", 10), ("B", "4", 6), ("B", "5", 11)]
    {
        assert!(pipe(&driver, key, value, time).is_empty());
    }
    assert_eq!(pipe(&driver, "B", "6", 15), ["A@0/10=1+2@5", "B@0/10=4@6"]);
    // Kafka loses the windows from 5 to 15: its store does not show them any more.
    assert_eq!(
        pipe(&driver, "C", "7", 25),
        ["A@5/15=2+3@10", "B@5/15=4+5@11", "A@10/20=3@10", "B@10/20=5+6@15"]
    );
}

/// Example F12 of the semantics, second half.
#[test]
fn on_window_close_without_grace_there_is_one_result_for_each_window_too() {
    let b = StreamsBuilder::new();
    let hopping = TimeWindows::of(ms(10)).advance_by(ms(5));
    let on_close = EmitStrategy::on_window_close();
    emit(&windowed(&b, hopping).emit_strategy(on_close).aggregate(String::new, append));
    let driver = driver(&b);
    let cases: [(&str, &str, i64, &[&str]); 7] = [
        ("A", "1", 0, &[]),
        ("A", "2", 5, &[]),
        ("A", "3", 10, &["A@0/10=1+2@5"]),
        ("B", "4", 6, &[]),
        ("B", "5", 11, &[]),
        ("B", "6", 15, &["A@5/15=2+3@10", "B@5/15=4+5@11"]),
        // Kafka loses the windows from 10 to 20.
        ("C", "7", 25, &["A@10/20=3@10", "B@10/20=5+6@15", "B@15/25=6@15"]),
    ];
    for (key, value, time, expected) in cases {
        assert_eq!(pipe(&driver, key, value, time), expected, "{value}");
    }
}

#[test]
fn sliding_windows_end_with_each_record_and_begin_after_it() {
    let b = StreamsBuilder::new();
    let sliding = SlidingWindows::of(ms(10)).grace(ms(5));
    emit(&windowed(&b, sliding).aggregate_with(String::new, append, uncached()));
    let driver = driver(&b);
    let cases: [(&str, i64, &[&str]); 8] = [
        ("1", 0, &["A@0/10=1@0"]),
        ("2", 5, &["A@1/11=2@5", "A@0/10=1+2@5"]),
        ("3", 10, &["A@1/11=2+3@10", "A@0/10=1+2+3@10", "A@6/16=3@10"]),
        ("4", 6, &["A@1/11=2+3+4@10", "A@6/16=3+4@10", "A@7/17=3@10", "A@0/10=1+2+3+4@10"]),
        ("5", 11, &["A@7/17=3+5@11", "A@6/16=3+4+5@11", "A@1/11=2+3+4+5@11", "A@11/21=5@11"]),
        ("6", 16, &["A@11/21=5+6@16", "A@7/17=3+5+6@16", "A@6/16=3+4+5+6@16", "A@12/22=6@16"]),
        ("7", 27, &["A@17/27=7@27", "A@17/27=7@27"]),
        ("8", 11, &[]),
    ];
    for (value, time, expected) in cases {
        assert_eq!(pipe(&driver, "A", value, time), expected, "{value}");
    }
}

#[test]
fn sliding_windows_on_close() {
    let b = StreamsBuilder::new();
    let sliding = windowed(&b, SlidingWindows::of(ms(10)).grace(ms(5)));
    let on_close = sliding.emit_strategy(EmitStrategy::on_window_close());
    emit(&on_close.aggregate(String::new, append));
    let driver = driver(&b);
    for (value, time) in [("1", 0), ("2", 5), ("3", 10), ("4", 6), ("5", 11)] {
        assert!(pipe(&driver, "A", value, time).is_empty());
    }
    assert_eq!(pipe(&driver, "A", "6", 16), ["A@0/10=1+2+3+4@10"]);
    // [12,22] is open: 22 >= 27 - 5.
    let closed = ["A@1/11=2+3+4+5@11", "A@6/16=3+4+5+6@16", "A@7/17=3+5+6@16", "A@11/21=5+6@16"];
    assert_eq!(pipe(&driver, "A", "7", 27), closed);
}

#[test]
fn a_late_record_slides_only_the_windows_that_are_open_still() {
    let b = StreamsBuilder::new();
    emit(&windowed::<String, _>(&b, SlidingWindows::of(ms(5)).grace(ms(15))).count());
    let driver = driver(&b);
    for time in [10, 11, 10, 13, 10, 24] {
        pipe(&driver, "k1", "x", time);
    }
    assert_eq!(pipe(&driver, "k1", "x", 5), ["k1@5/10=4@10"], "[0,5] is closed");
    assert_eq!(pipe(&driver, "k1", "x", 7), ["k1@6/11=5@11", "k1@5/10=5@10"], "[2,7] is closed");
}

/// As in Kafka, whose documentation says otherwise.
#[test]
fn null_values_count_in_windows_but_for_sliding_ones() {
    fn counted<W>(windows: W) -> usize
    where
        W: Windows<Stream<String, Option<String>> = TimeWindowedKStream<String, Option<String>>>,
    {
        let b = StreamsBuilder::new();
        emit(&windowed::<Option<String>, _>(&b, windows).count());
        let driver = driver(&b);
        let none: Vec<(String, Option<String>, i64)> = step(&driver, s("k"), None::<String>, 1);
        none.len()
    }
    assert_eq!(counted(TimeWindows::of(ms(10))), 1);
    assert_eq!(counted(UnlimitedWindows::of()), 1);
    assert_eq!(counted(SlidingWindows::of(ms(10))), 0);
}

#[test]
fn null_values_behind_a_repartition_topic_count_too() {
    let b = StreamsBuilder::new();
    let grouped = b.stream::<String, Option<String>>("a").group_by(|k, _| k.clone());
    emit(&grouped.windowed_by(TimeWindows::of(ms(10))).count());
    let driver = driver(&b);
    let out: Vec<(String, Option<String>, i64)> = step(&driver, s("k"), None::<String>, 1);
    assert_eq!(out, [(s("k@0/10"), some("1"), 1)]);
}

#[test]
fn null_keys_are_dropped_and_leave_stream_time_alone() {
    let b = StreamsBuilder::new();
    let counts = b
        .stream::<Option<String>, String>("a")
        .group_by_key()
        .windowed_by(TimeWindows::of(ms(10)))
        .count();
    counts.to_stream().map(|k, v| (k.key, v)).to("out");
    let driver = driver(&b);
    type Row = (Option<String>, Option<i64>, i64);
    let none: Vec<Row> = step(&driver, None::<String>, s("x"), 100);
    assert!(none.is_empty());
    let out: Vec<Row> = step(&driver, some("k"), s("x"), 1);
    assert_eq!(out, [(some("k"), Some(1), 1)]);
    assert_eq!(driver.dropped().get("null key"), Some(&1));
}

#[test]
fn what_is_before_an_unlimited_window_vanishes() {
    let b = StreamsBuilder::new();
    emit(&windowed::<String, _>(&b, UnlimitedWindows::of().start_on(20)).count());
    let driver = driver(&b);
    assert!(pipe(&driver, "k", "x", 19).is_empty());
    assert_eq!(pipe(&driver, "k", "x", 100), [format!("k@20/{}=1@100", i64::MAX)]);
    assert_eq!(pipe(&driver, "k", "x", 20), [format!("k@20/{}=2@100", i64::MAX)]);
    assert!(driver.dropped().is_empty());
}

#[test]
fn windows_that_cannot_be_are_refused_with_what_to_do() {
    fn reason(build: impl Fn(&StreamsBuilder)) -> String {
        let b = StreamsBuilder::new();
        build(&b);
        match b.build() {
            Err(BuildError::Invalid { reason, .. }) => reason,
            other => format!("{:?}", other.err()),
        }
    }
    let time = |windows: TimeWindows| {
        reason(move |b| {
            windowed::<String, _>(b, windows).count();
        })
    };
    let of = TimeWindows::of(ms(10));
    assert!(time(TimeWindows::of(ms(0))).contains("a millisecond or more"));
    for advance in [0, 11] {
        assert!(time(of.advance_by(ms(advance))).contains("let them advance by 1 to 10 ms"));
    }
    let kept = Materialized::named("s").with_retention(ms(14));
    let retention = reason(|b| {
        windowed::<String, _>(b, of.grace(ms(5))).count_with(kept.clone());
    });
    assert!(retention.contains("give it a retention of 15 ms or more"), "{retention}");
    let unlimited = reason(|b| {
        windowed::<String, _>(b, UnlimitedWindows::of())
            .emit_strategy(EmitStrategy::on_window_close())
            .count();
    });
    assert!(unlimited.contains("never closes"), "{unlimited}");
    let idle = reason(|b| {
        let on_update = EmitStrategy::on_window_update().after_idle(ms(5));
        windowed::<String, _>(b, of).emit_strategy(on_update).count();
    });
    assert!(idle.contains("leave out after_idle"), "{idle}");
    let early = reason(|b| {
        windowed::<String, _>(b, UnlimitedWindows::of().start_on(-1)).count();
    });
    assert!(early.contains("0 or later"), "{early}");
}

#[test]
fn tables_of_windows_are_tables() {
    let b = StreamsBuilder::new();
    let counts = windowed::<String, _>(&b, TimeWindows::of(ms(10))).count();
    let even = counts.filter_with(|_, n| n % 2 == 0, Materialized::named("even"));
    emit(&even.map_values(|k, n| format!("{}:{n}", k.key)));
    let driver = driver(&b);
    assert!(pipe(&driver, "k", "x", 1).is_empty());
    assert_eq!(pipe(&driver, "k", "x", 2), ["k@0/10=k:2@2"]);
    assert_eq!(pipe(&driver, "k", "x", 3), ["k@0/10=T@3"]);
    pipe(&driver, "k", "x", 4);
    let key = [&b"k"[..], &0i64.to_be_bytes()].concat();
    assert_eq!(driver.dump_store("even").unwrap(), [(key, 4i64.to_be_bytes().to_vec(), 4)]);
}

#[test]
fn windowed_keys_reach_topics_as_kafka_writes_them() {
    let b = StreamsBuilder::new();
    windowed::<String, _>(&b, TimeWindows::of(ms(10))).count().to_stream_present().to("out");
    let driver = driver(&b);
    let out: Vec<(Vec<u8>, i64, i64)> = step(&driver, s("k"), s("x"), 25);
    assert_eq!(out, [([&b"k"[..], &20i64.to_be_bytes()].concat(), 1, 25)]);
}

#[test]
fn results_have_the_headers_of_their_record_and_final_ones_of_the_record_that_closed_them() {
    let (update, close) = (EmitStrategy::on_window_update(), EmitStrategy::on_window_close());
    let tumbling = TimeWindows::of(ms(10));
    for (emit, caching, expected) in
        [(update, true, "ab-c"), (update, false, "ab-c"), (close, true, "c")]
    {
        let counts = Materialized::named("s");
        let counts = if caching { counts } else { counts.with_caching_disabled() };
        let b = StreamsBuilder::new();
        let windowed = windowed::<String, _>(&b, tumbling).emit_strategy(emit);
        windowed.count_with(counts).to_stream_present().select_key(|k, _| k.key.clone()).to("out");
        let driver = driver(&b);
        for (header, time) in [(Some("a"), 1), (Some("b"), 2), (None, 3), (Some("c"), 10)] {
            let mut record = Record::new(s("k"), s("x"), time);
            if let Some(name) = header {
                record.headers.push(Header { name: name.into(), value: None });
            }
            driver.input_topic("a").pipe_record(record).unwrap();
        }
        let out = driver.output_topic::<String, i64>("out").read_all().unwrap();
        let name =
            |headers: &Headers| headers.as_slice().first().map_or(s("-"), |h| h.name.clone());
        let names: String = out.iter().map(|record| name(&record.headers)).collect();
        assert_eq!(names, expected, "{emit:?}, caching: {caching}");
    }
}

#[test]
fn windows_of_input_that_ended_close_by_the_wall_clock() {
    let on_close = EmitStrategy::on_window_close().after_idle(ms(100));
    let grouped = |b: &StreamsBuilder| b.stream::<String, String>("a").group_by_key();
    let tumbling = |b: &StreamsBuilder| {
        let windowed = grouped(b).windowed_by(TimeWindows::of(ms(10)));
        windowed.emit_strategy(on_close).aggregate(String::new, append)
    };
    let sliding = |b: &StreamsBuilder| {
        let windowed = grouped(b).windowed_by(SlidingWindows::of(ms(10)));
        windowed.emit_strategy(on_close).aggregate(String::new, append)
    };
    let sessions = |b: &StreamsBuilder| {
        let windowed = grouped(b).windowed_by(SessionWindows::of(ms(10)));
        windowed.emit_strategy(on_close).reduce(|a, b| format!("{a}+{b}"))
    };
    type Build<'a> = &'a dyn Fn(&StreamsBuilder) -> KTable<Windowed<String>, String>;
    let cases: [(Build<'_>, &str); 3] = [
        (&tumbling, "k@1000/1010=1+2@1004"),
        (&sliding, "k@994/1004=1+2@1004"),
        (&sessions, "k@1000/1004=1+2@1004"),
    ];
    for (build, last) in cases {
        let b = StreamsBuilder::new();
        emit(&build(&b));
        let driver = driver(&b);
        let out = || -> Vec<String> {
            let out = driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
            let row = |r: Record<String, Option<String>>| {
                format!("{}={}@{}", r.key, r.value.unwrap_or_default(), r.timestamp)
            };
            out.into_iter().map(row).collect()
        };
        pipe(&driver, "k", "1", 1_000);
        assert!(!pipe(&driver, "k", "2", 1_004).contains(&s(last)));
        driver.advance_wall_clock(ms(99)).unwrap();
        assert!(out().is_empty());
        driver.advance_wall_clock(ms(1)).unwrap();
        assert!(out().contains(&s(last)), "{last}");
        // Stream time was 1,104 then, and nothing went on after that: nothing was open.
        driver.advance_wall_clock(ms(1_000)).unwrap();
        assert!(out().is_empty());
        assert!(pipe(&driver, "k", "late", 1_050).is_empty());
        assert_eq!(driver.dropped().get("closed window"), Some(&1), "{last}");
        assert!(pipe(&driver, "k", "3", 1_110).is_empty());
        assert_eq!(driver.dropped().get("closed window"), Some(&1), "{last}");
    }
}

#[test]
fn nothing_overflows_at_the_end_of_time() {
    fn counted<W>(windows: W)
    where
        W: Windows<Stream<String, String> = TimeWindowedKStream<String, String>> + Copy + Debug,
    {
        for on in [EmitStrategy::on_window_update(), EmitStrategy::on_window_close()] {
            let b = StreamsBuilder::new();
            emit(&windowed::<String, _>(&b, windows).emit_strategy(on).count());
            let driver = driver(&b);
            for time in [0, 7, i64::MAX - 1, i64::MAX, i64::MAX] {
                let rows = pipe(&driver, "k", "x", time);
                let is_counted = !rows.is_empty() || on == EmitStrategy::on_window_close();
                assert!(is_counted, "{windows:?}: the record at {time} is in no window");
            }
        }
    }
    counted(TimeWindows::of(ms(10)));
    counted(TimeWindows::of(Duration::MAX).advance_by(ms((1 << 62) + 12_345)));
    counted(TimeWindows::of(Duration::MAX).grace(Duration::MAX));
    counted(SlidingWindows::of(ms(10)));
    counted(SlidingWindows::of(Duration::MAX).grace(Duration::MAX));
}

/// As in Kafka: a count with an unnamed store uses up a number, but not that of sliding windows.
#[test]
fn the_numbers_of_windowed_aggregations_are_kafkas() {
    let described = |count: &dyn Fn(&StreamsBuilder)| {
        let b = StreamsBuilder::new();
        count(&b);
        b.build().unwrap().describe()
    };
    let unnamed = || Materialized::<String, i64>::default();
    let (time, sliding) = (TimeWindows::of(ms(10)), SlidingWindows::of(ms(10)));
    for (text, store, node) in [
        (described(&|b| drop(windowed::<String, _>(b, time).count())), 1, 2),
        (described(&|b| drop(windowed::<String, _>(b, time).count_with(unnamed()))), 2, 3),
        (described(&|b| drop(windowed::<String, _>(b, sliding).count_with(unnamed()))), 1, 2),
    ] {
        let line = format!(
            "KSTREAM-AGGREGATE-{node:010} (stores: [KSTREAM-AGGREGATE-STATE-STORE-{store:010}])"
        );
        assert!(text.contains(&line), "{text}");
    }
    let reduced = described(&|b| drop(windowed::<String, _>(b, time).reduce(|_, last| last)));
    assert!(reduced.contains("KSTREAM-REDUCE-0000000002"), "{reduced}");
}

/// Serdes by hand reach the store and what follows.
#[test]
fn windows_of_types_without_a_serde() {
    #[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
    struct Customer(String);
    let b = StreamsBuilder::new();
    let customers = json::<Customer>();
    let grouped = b.stream_with("a", Consumed::with(customers.clone(), i64::serde()));
    grouped
        .group_by_key_with(Grouped::with(customers, i64::serde()))
        .windowed_by(TimeWindows::of(ms(10)))
        .reduce_with(|a, b| a + b, Materialized::with(json(), i64::serde()))
        .to_stream_present()
        .to_with("out", Produced::with(time_windowed(json::<Customer>(), 10), i64::serde()));
    let driver = driver(&b);
    let out: Vec<(Vec<u8>, i64, i64)> = step(&driver, s("\"ann\""), 5i64, 25);
    assert_eq!(out, [([&b"\"ann\""[..], &20i64.to_be_bytes()].concat(), 5, 25)]);
}

/// The operator's task is opened again whenever a record fails.
#[test]
fn windows_close_by_the_wall_clock_although_records_are_left_out() {
    let closes = |b: &StreamsBuilder, on_close: bool| {
        let ended = EmitStrategy::on_window_close().after_idle(ms(100));
        let input = b.stream::<String, String>("a").filter(|_, value| {
            assert!(value != "bad", "no luck");
            true
        });
        let windowed = input.group_by_key().windowed_by(TimeWindows::of(ms(10)));
        let unbounded = BufferConfig::unbounded();
        let table = match on_close {
            true => windowed.emit_strategy(ended).aggregate(String::new, append),
            false => {
                let finals = Suppressed::until_window_closes(unbounded).after_idle(ms(100));
                windowed.aggregate(String::new, append).suppress(finals)
            }
        };
        emit(&table);
    };
    for on_close in [true, false] {
        let b = StreamsBuilder::new();
        closes(&b, on_close);
        let handlers = ErrorHandlers { processing: log_and_continue(), ..Default::default() };
        let settings = TestDriverSettings { handlers, ..Default::default() };
        let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
        let input = driver.input_topic::<String, String>("a");
        input.pipe(s("k"), s("1"), 1_000).unwrap();
        for _ in 0..4 {
            driver.advance_wall_clock(Duration::from_millis(60)).unwrap();
            input.pipe(s("k"), s("bad"), 1_000).unwrap();
        }
        let out = driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
        let keys: Vec<String> = out.into_iter().map(|record| record.key).collect();
        assert_eq!(keys, ["k@1000/1010"], "{on_close}");
    }
}
