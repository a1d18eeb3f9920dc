//! A result that was held back and fails once it is let go: it alone is left out, not the record that
//! happens to let it go, and it does not come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use streams_core::failure::{ErrorHandlers, Response, log_and_continue};
use streams_core::serde::{DynSerde, SerdeError, from_fns};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::{HasSerde, Record, Windowed};
use streams_dsl::{
    BufferConfig, Consumed, EmitStrategy, JoinWindows, Joined, KTable, Materialized, Produced,
    SessionWindows, StreamsBuilder, Suppressed, TimeWindows,
};

use crate::s;
use crate::windows::ms;

const BAD: &str = "bad";

/// A function of the application that cannot take one value.
fn takes(value: &str) -> String {
    assert!(value != BAD, "poison");
    value.to_owned()
}

/// The values that come out of an input of which one is bad, or is not there; and how many dead letters.
fn outcome(
    build: &dyn Fn(&StreamsBuilder),
    is_bad_there: bool,
    settings: &TestDriverSettings,
) -> (Vec<String>, usize) {
    let b = StreamsBuilder::new();
    build(&b);
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some("dead".into()),
        ..Default::default()
    };
    let settings = TestDriverSettings { handlers, ..settings.clone() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    let records =
        [("x", 1), (BAD, 2), ("y", 3), ("z", 12), ("w", 13), ("q", 25), ("r", 100), ("s", 200)];
    for (value, time) in records {
        if value != BAD || is_bad_there {
            driver.input_topic("in").pipe(format!("key {value}"), s(value), time).unwrap();
        }
    }
    driver.commit().unwrap();
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    let letters = match is_bad_there {
        true => driver.output_topic::<Option<String>, Option<String>>("dead").len().unwrap(),
        false => 0,
    };
    (out.into_iter().map(|record| record.value).collect(), letters)
}

/// Nothing is missing but what is bad, and that has one dead letter; also where there is room for one
/// entry a commit.
fn only_the_bad_is_left_out(build: impl Fn(&StreamsBuilder)) {
    for caching in [false, true] {
        for seal_bytes in [None, Some(1)] {
            let mut settings = TestDriverSettings { caching, ..Default::default() };
            settings.seal_bytes = seal_bytes.unwrap_or(settings.seal_bytes);
            let (good, _) = outcome(&build, false, &settings);
            assert!(good.len() > 4, "{good:?}");
            let (out, letters) = outcome(&build, true, &settings);
            // Where a record's results take several commits, one branch may overtake the other.
            let of_branch = |all: &[String], even: bool| -> Vec<String> {
                all.iter().filter(|value| value.starts_with("even") == even).cloned().collect()
            };
            for even in [false, true] {
                let (out, good) = (of_branch(&out, even), of_branch(&good, even));
                assert_eq!(out, good, "caching {caching}, {seal_bytes:?}");
            }
            assert_eq!(letters, 1, "caching {caching}, {seal_bytes:?}");
        }
    }
}

/// The latest value of each key and window goes to "out", by a function that cannot take one.
fn out(table: &KTable<Windowed<String>, String>) {
    table.to_stream_present().map(|key, value| (key.key, takes(&value))).to("out");
}

#[test]
fn behind_suppress() {
    only_the_bad_is_left_out(|b| {
        let windows = b.stream("in").group_by_key().windowed_by(TimeWindows::of(ms(10)));
        let finals = Suppressed::until_window_closes(BufferConfig::unbounded());
        out(&windows.reduce(|_, value| value).suppress(finals));
    });
}

#[test]
fn behind_suppress_that_has_no_room() {
    only_the_bad_is_left_out(|b| {
        let windows = b.stream("in").group_by_key().windowed_by(TimeWindows::of(ms(10)));
        let two = BufferConfig::max_records(2).emit_early_when_full();
        out(&windows.reduce(|_, value| value).suppress(Suppressed::until_time_limit(ms(10), two)));
    });
}

#[test]
fn behind_windows_that_emit_on_closing() {
    only_the_bad_is_left_out(|b| {
        let windows = b.stream("in").group_by_key().windowed_by(TimeWindows::of(ms(10)));
        out(&windows.emit_strategy(EmitStrategy::on_window_close()).reduce(|_, value| value));
    });
}

#[test]
fn behind_sessions_that_emit_on_closing() {
    only_the_bad_is_left_out(|b| {
        let sessions = b.stream("in").group_by_key().windowed_by(SessionWindows::of(ms(5)));
        out(&sessions.emit_strategy(EmitStrategy::on_window_close()).reduce(|_, value| value));
    });
}

#[test]
fn in_the_joiner_of_a_left_join() {
    only_the_bad_is_left_out(|b| {
        let joiner = |_: &String, value: &String, _: Option<&String>| takes(value);
        let other = b.stream::<String, String>("other");
        b.stream("in").left_join(&other, joiner, JoinWindows::of(ms(5))).to("out");
    });
}

#[test]
fn in_the_joiner_with_a_versioned_table() {
    only_the_bad_is_left_out(|b| {
        let versions = Materialized::versioned("versions", ms(100));
        let table = b.table_with::<String, String>("table", Consumed::default(), versions);
        let joiner = |_: &String, value: &String, _: Option<&String>| takes(value);
        let grace = Joined::default().with_grace(ms(10));
        b.stream("in").left_join_table_with(&table, joiner, grace).to("out");
    });
}

#[test]
fn behind_one_of_two_operators_that_let_go_with_the_same_record() {
    only_the_bad_is_left_out(|b| {
        let input = b.stream::<String, String>("in");
        let finals = || Suppressed::until_window_closes(BufferConfig::unbounded());
        let windows = |size| input.group_by_key().windowed_by(TimeWindows::of(ms(size)));
        let even = windows(10).reduce(|_, value| value).suppress(finals());
        let even = even.to_stream_present().filter(|_, value| value != BAD);
        even.map(|key, value| (key.key, format!("even {value}"))).to("out");
        out(&windows(7).reduce(|_, value| value).suppress(finals()));
    });
}

#[test]
fn in_an_async_call_behind_suppress() {
    only_the_bad_is_left_out(|b| {
        let windows = b.stream("in").group_by_key().windowed_by(TimeWindows::of(ms(10)));
        let finals = Suppressed::until_window_closes(BufferConfig::unbounded());
        let table = windows.reduce(|_, value: String| value).suppress(finals);
        let call = |_: String, value: String| async move {
            if value == BAD { Err("poison".to_owned()) } else { Ok(value) }
        };
        let values = table.to_stream_present().map(|key, value| (key.key, value));
        values.map_values_async(call).to("out");
    });
}

#[test]
fn what_the_wall_clock_lets_go_has_one_dead_letter() {
    let b = StreamsBuilder::new();
    let windows = b.stream("in").group_by_key().windowed_by(TimeWindows::of(ms(10)));
    let finals = Suppressed::until_window_closes(BufferConfig::unbounded());
    out(&windows.reduce(|_, value| value).suppress(finals.after_idle(ms(1_000))));
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some("dead".into()),
        ..Default::default()
    };
    let settings = TestDriverSettings { handlers, ..Default::default() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    for (key, value) in [("a", "x"), ("b", BAD), ("c", "y")] {
        driver.input_topic("in").pipe(s(key), s(value), 1).unwrap();
    }
    for _ in 0..20 {
        driver.advance_wall_clock(ms(1_000)).unwrap();
    }
    let values = driver.output_topic::<String, String>("out").read_all().unwrap();
    let values: Vec<_> = values.into_iter().map(|record| record.value).collect();
    assert_eq!(values, ["x", "y"]);
    assert_eq!(driver.output_topic::<Option<String>, Option<String>>("dead").len().unwrap(), 1);
}

#[test]
fn the_dead_letter_of_what_was_held_back_has_no_record() {
    let b = StreamsBuilder::new();
    let windows = b.stream("in").group_by_key().windowed_by(TimeWindows::of(ms(10)));
    out(&windows.emit_strategy(EmitStrategy::on_window_close()).reduce(|_, value| value));
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some("dead".into()),
        ..Default::default()
    };
    let settings = TestDriverSettings { handlers, ..Default::default() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    driver.input_topic("in").pipe(s("k"), s(BAD), 1).unwrap();
    driver.input_topic("in").pipe(s("innocent"), s("good"), 20).unwrap();
    let letters = driver.output_topic::<Option<String>, Option<String>>("dead").read_all().unwrap();
    let Record { key, value, headers, .. } = &letters[0];
    assert_eq!((letters.len(), key, value), (1, &None, &None));
    let header = |name: &str| {
        let found = headers.as_slice().iter().find(|header| header.name == name).unwrap();
        String::from_utf8(found.value.as_deref().unwrap().to_vec()).unwrap()
    };
    let message = header("__streams.errors.message");
    assert!(message.contains("poison"), "{message}");
    // Nor was it a punctuation.
    let trace = header("__streams.errors.stacktrace");
    let end = "\n  in task 0_0\n  with a result that was held back";
    assert!(trace.ends_with(end), "{trace}");
}

/// It was held back, too, where it fails at the very end.
#[test]
fn the_dead_letter_of_what_was_held_back_and_cannot_be_written_has_no_record() {
    let picky = from_fns(
        |value: &String, out: &mut Vec<u8>| {
            if value == BAD {
                return Err(SerdeError::new("poison"));
            }
            out.extend(value.as_bytes());
            Ok(())
        },
        |bytes: &[u8]| Ok(String::from_utf8_lossy(bytes).into_owned()),
    );
    let b = StreamsBuilder::new();
    let windows = b.stream::<String, String>("in").group_by_key();
    let windows = windows.windowed_by(TimeWindows::of(ms(10)));
    let table = windows.emit_strategy(EmitStrategy::on_window_close()).reduce(|_, value| value);
    let values = table.to_stream_present().map(|key, value| (key.key, value));
    values.to_with("out", Produced::with(String::serde(), picky));
    let handlers = ErrorHandlers {
        production: Arc::new(|_| Response::resume()),
        dead_letter_topic: Some("dead".into()),
        ..Default::default()
    };
    let settings = TestDriverSettings { handlers, ..Default::default() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    driver.input_topic("in").pipe(s("k"), s(BAD), 1).unwrap();
    driver.input_topic("in").pipe(s("innocent"), s("good"), 20).unwrap();
    let letters = driver.output_topic::<Option<String>, Option<String>>("dead").read_all().unwrap();
    let Record { key, value, .. } = &letters[0];
    assert_eq!((letters.len(), key, value), (1, &None, &None));
}

/// What comes out of values of one key, of which one is bad, and how many dead letters: all in one
/// generation.
fn of_one_generation(
    build: impl Fn(&StreamsBuilder),
    values: &[(&str, &str, i64)],
) -> (Vec<String>, u64) {
    let b = StreamsBuilder::new();
    build(&b);
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some("dead".into()),
        ..Default::default()
    };
    let settings = TestDriverSettings { handlers, caching: true, ..Default::default() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    for (key, value, time) in values {
        driver.input_topic("in").pipe(s(key), s(value), *time).unwrap();
    }
    driver.commit().unwrap();
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    let letters = driver.output_topic::<Option<String>, Option<String>>("dead").len().unwrap();
    (out.into_iter().map(|record| record.value).collect(), letters as u64)
}

/// With this serde for values.
fn suppressed(b: &StreamsBuilder, serde: DynSerde<String>, limit: Suppressed<String>) {
    let consumed = Consumed::with(String::serde(), serde);
    let table = b.table_with("in", consumed, Materialized::default()).suppress(limit);
    let values = table.to_stream_present().map_values(|_, value: String| takes(&value));
    values.to_with("out", Produced::with(String::serde(), String::serde()));
}

#[test]
fn of_two_updates_that_leave_one_place_of_suppress_only_the_bad_is_left_out() {
    let full = |b: &StreamsBuilder| {
        let one = BufferConfig::max_records(1).emit_early_when_full();
        suppressed(b, String::serde(), Suppressed::until_time_limit(ms(1_000), one));
    };
    let updates = [("a", "good", 5), ("b", "x", 6), ("a", BAD, 5), ("a", "late", 5)];
    assert_eq!(of_one_generation(full, &updates), (vec![s("good"), s("late")], 1));
    let at_once = |b: &StreamsBuilder| {
        let all = BufferConfig::unbounded();
        suppressed(b, String::serde(), Suppressed::until_time_limit(ms(0), all));
    };
    let updates = [("a", "good", 5), ("a", BAD, 5), ("a", "late", 5)];
    assert_eq!(of_one_generation(at_once, &updates), (vec![s("good"), s("late")], 1));
}

#[test]
fn of_two_records_of_one_key_and_time_that_waited_for_a_table_only_the_bad_is_left_out() {
    let build = |b: &StreamsBuilder| {
        let versions = Materialized::versioned("versions", ms(100));
        let table = b.table_with::<String, String>("table", Consumed::default(), versions);
        let joiner = |_: &String, value: &String, _: Option<&String>| takes(value);
        let grace = Joined::default().with_grace(ms(0));
        b.stream("in").left_join_table_with(&table, joiner, grace).to("out");
    };
    let records = [("a", "good", 5), ("a", BAD, 5), ("a", "late", 5)];
    assert_eq!(of_one_generation(build, &records), (vec![s("good"), s("late")], 1));
}

/// A map may be written in another order each time, so what an entry holds may look different when it
/// comes again.
#[test]
fn an_entry_that_is_never_encoded_in_the_same_way_is_left_out_all_the_same() {
    let count = AtomicU64::new(0);
    let changing = from_fns(
        move |value: &String, out: &mut Vec<u8>| {
            out.extend(count.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            out.extend(value.as_bytes());
            Ok(())
        },
        |bytes: &[u8]| {
            let value = bytes.get(8..).filter(|_| bytes[0] == 0).unwrap_or(bytes);
            Ok(String::from_utf8_lossy(value).into_owned())
        },
    );
    let build = |b: &StreamsBuilder| {
        let all = BufferConfig::unbounded();
        suppressed(b, changing.clone(), Suppressed::until_time_limit(ms(0), all));
    };
    let updates = [("a", "good", 5), ("b", BAD, 5), ("c", "late", 5)];
    assert_eq!(of_one_generation(build, &updates), (vec![s("good"), s("late")], 1));
}
