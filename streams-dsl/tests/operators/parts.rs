//! What one record lets go comes out in several commits as it does in one, also with a crash after each.

use broker_api::Header;
use streams_core::processor::{FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::{HasSerde, ProcessError, Record};
use streams_dsl::{
    BufferConfig, Consumed, EmitStrategy, JoinWindows, Joined, Materialized, SessionWindows,
    SlidingWindows, StreamsBuilder, Suppressed, TimeWindows,
};

use crate::model::Random;
use crate::s;
use crate::windows::{append, emit, ms, uncached};

/// What is piped: topic, key, value, time; its header is its number.
type Input = (&'static str, String, String, i64);

/// What comes out: key, value, time, headers.
type Row = (String, Option<String>, i64, Vec<String>);

type Build<'a> = &'a dyn Fn(&StreamsBuilder);

/// Records of a few dozen keys, and from time to time one that is much later.
fn inputs(topics: &[&'static str], seed: u64) -> Vec<Input> {
    let mut random = Random(seed);
    let mut now = 0;
    let mut inputs = Vec::new();
    for n in 0..150 {
        now += if random.below(40) == 0 { 500 } else { random.below(2) as i64 };
        let topic = topics[random.below(topics.len() as u64) as usize];
        let time = (now - random.below(12) as i64).max(0);
        inputs.push((topic, format!("k{}", random.below(20)), n.to_string(), time));
    }
    inputs.push((topics[0], s("last"), s("last"), now + 5_000));
    inputs
}

/// What comes out, and how many commits that took.
fn run(build: Build<'_>, inputs: &[Input], settings: TestDriverSettings) -> (Vec<Row>, u64) {
    run_with("", build, inputs, settings)
}

/// The same, with more in the names of the headers.
fn run_with(
    more: &str,
    build: Build<'_>,
    inputs: &[Input],
    settings: TestDriverSettings,
) -> (Vec<Row>, u64) {
    let b = StreamsBuilder::new();
    build(&b);
    let caching = settings.caching;
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    for (n, (topic, key, value, time)) in inputs.iter().enumerate() {
        let mut record = Record::new(key.clone(), value.clone(), *time);
        record.headers.push(Header { name: format!("{n}{more}"), value: None });
        driver.input_topic::<String, String>(topic).pipe_record(record).unwrap();
        if caching && n % 50 == 0 {
            driver.commit().unwrap();
        }
    }
    driver.advance_wall_clock(ms(1_000_000)).unwrap();
    driver.commit().unwrap();
    let out = driver.output_topic::<String, Option<String>>("out").read_all().unwrap();
    let row = |r: Record<String, Option<String>>| {
        let headers = r.headers.as_slice().iter().map(|header| header.name.clone()).collect();
        (r.key, r.value, r.timestamp, headers)
    };
    (out.into_iter().map(row).collect(), driver.commits())
}

fn in_parts(seal_bytes: usize, crash_between_parts: bool, caching: bool) -> TestDriverSettings {
    let default = TestDriverSettings::default();
    TestDriverSettings { seal_bytes, crash_between_parts, caching, ..default }
}

/// Compares parts of several sizes with what comes out without limit.
fn same_in_parts(name: &str, build: Build<'_>, topics: &[&'static str], cached: bool) {
    for seed in 0..2 {
        let inputs = inputs(topics, seed);
        for caching in if cached { &[false, true][..] } else { &[false] } {
            let (expected, whole) = run(build, &inputs, in_parts(usize::MAX, false, *caching));
            assert!(expected.len() > 40, "{name}: {} results", expected.len());
            for (seal_bytes, crash) in [(1, seed == 0), (200, seed == 1)] {
                let (rows, parts) = run(build, &inputs, in_parts(seal_bytes, crash, *caching));
                let what = format!("{name}, {seal_bytes} bytes, crash: {crash}, cached: {caching}");
                assert!(parts > whole, "{what}: {parts} commits, and {whole}");
                assert!(rows == expected, "{what}: {rows:?}\n{expected:?}");
            }
        }
    }
}

#[test]
fn windows_close_in_parts() {
    let on_close = EmitStrategy::on_window_close();
    let grouped = |b: &StreamsBuilder| b.stream::<String, String>("a").group_by_key();
    let tumbling = |b: &StreamsBuilder| {
        let windows = grouped(b).windowed_by(TimeWindows::of(ms(10)).grace(ms(5)));
        emit(&windows.emit_strategy(on_close).aggregate(String::new, append));
    };
    same_in_parts("tumbling", &tumbling, &["a"], true);
    let hopping = |b: &StreamsBuilder| {
        let windows = grouped(b).windowed_by(TimeWindows::of(ms(10)).advance_by(ms(4)));
        emit(&windows.emit_strategy(on_close).aggregate(String::new, append));
    };
    same_in_parts("hopping", &hopping, &["a"], true);
    let sliding = |b: &StreamsBuilder| {
        let windows = grouped(b).windowed_by(SlidingWindows::of(ms(10)).grace(ms(5)));
        emit(&windows.emit_strategy(on_close).aggregate(String::new, append));
    };
    same_in_parts("sliding", &sliding, &["a"], true);
    let sessions = |b: &StreamsBuilder| {
        let windows = grouped(b).windowed_by(SessionWindows::of(ms(10)).grace(ms(5)));
        emit(&windows.emit_strategy(on_close).reduce(|a, b| format!("{a}+{b}")));
    };
    same_in_parts("sessions", &sessions, &["a"], true);
}

#[test]
fn windows_that_the_wall_clock_closes_close_in_parts() {
    let idle = EmitStrategy::on_window_close().after_idle(ms(100));
    let windowed = |b: &StreamsBuilder| {
        let windows = b.stream::<String, String>("a").group_by_key();
        let windows = windows.windowed_by(TimeWindows::of(ms(20_000)).advance_by(ms(200)));
        emit(&windows.emit_strategy(idle).aggregate(String::new, append));
    };
    same_in_parts("idle", &windowed, &["a"], true);
}

#[test]
fn suppressed_updates_go_on_in_parts() {
    let windowed = |advance: u64| {
        move |b: &StreamsBuilder| {
            let windows = TimeWindows::of(ms(10)).advance_by(ms(advance)).grace(ms(5));
            let windows = b.stream::<String, String>("a").group_by_key().windowed_by(windows);
            let table = windows.aggregate(String::new, append);
            emit(&table.suppress(Suppressed::until_window_closes(BufferConfig::unbounded())));
        }
    };
    same_in_parts("tumbling", &windowed(10), &["a"], true);
    same_in_parts("hopping", &windowed(4), &["a"], true);
    fn limited<F>(buffer: fn() -> BufferConfig<F>) -> impl Fn(&StreamsBuilder) {
        move |b: &StreamsBuilder| {
            let limit = Suppressed::until_time_limit(ms(30), buffer());
            b.table::<String, String>("a").suppress(limit).to_stream().to("out");
        }
    }
    let most = || BufferConfig::max_records(12);
    let strict = || BufferConfig::max_records(21).shut_down_when_full();
    same_in_parts("time", &limited(BufferConfig::unbounded), &["a"], false);
    same_in_parts("early", &limited(most), &["a"], false);
    same_in_parts("strict", &limited(strict), &["a"], false);
    let idle = |b: &StreamsBuilder| {
        let windows = b.stream::<String, String>("a").group_by_key();
        let table = windows.windowed_by(TimeWindows::of(ms(8_000))).aggregate(String::new, append);
        let closes = Suppressed::until_window_closes(BufferConfig::unbounded());
        emit(&table.suppress(closes.after_idle(ms(100))));
    };
    let inputs = inputs(&["a"], 1);
    let (expected, _) = run(&idle, &inputs, in_parts(usize::MAX, false, true));
    assert_eq!(run(&idle, &inputs, in_parts(1, true, true)).0, expected);
}

/// The second operator lets go what the first one lets go to it.
#[test]
fn one_operator_behind_another_stops_and_goes_on_before_it() {
    let twice = |b: &StreamsBuilder| {
        let windows = b.stream::<String, String>("a").group_by_key();
        let windows = windows.windowed_by(TimeWindows::of(ms(10)));
        let closed = windows.emit_strategy(EmitStrategy::on_window_close());
        let table = closed.aggregate(String::new, append);
        let limit = Suppressed::until_time_limit(ms(3), BufferConfig::max_records(20));
        emit(&table.suppress(limit));
    };
    same_in_parts("twice", &twice, &["a"], true);
    let joined = |b: &StreamsBuilder| {
        let windows = b.stream::<String, String>("a").group_by_key();
        let windows = windows.windowed_by(TimeWindows::of(ms(10)));
        let closed = windows.emit_strategy(EmitStrategy::on_window_close());
        let table = closed.aggregate(String::new, append);
        let closed = table.to_stream_present().select_key(|k, _| k.key.clone());
        let grouped = closed.group_by_key().windowed_by(TimeWindows::of(ms(50)));
        let last = grouped.emit_strategy(EmitStrategy::on_window_close());
        emit(&last.aggregate(String::new, append));
    };
    same_in_parts("through a topic", &joined, &["a"], true);
}

#[test]
fn unmatched_records_come_out_in_parts() {
    let windows = JoinWindows::of(ms(6)).grace(ms(5));
    let text = |value: Option<&String>| value.cloned().unwrap_or(s("-"));
    let pair = move |l: Option<&String>, r: Option<&String>| text(l) + "/" + &text(r);
    let outer = |b: &StreamsBuilder| {
        let (l, r) = (b.stream::<String, String>("l"), b.stream::<String, String>("r"));
        l.outer_join(&r, move |_, l, r| pair(l, r), windows).to("out");
    };
    same_in_parts("outer", &outer, &["l", "r"], false);
    let left = |b: &StreamsBuilder| {
        let (l, r) = (b.stream::<String, String>("l"), b.stream::<String, String>("r"));
        l.left_join(&r, move |_, l, r| pair(Some(l), r), windows).to("out");
    };
    same_in_parts("left", &left, &["l", "r"], false);
    let with_itself = |b: &StreamsBuilder| {
        let l = b.stream::<String, String>("l");
        let even = l.filter(|_, value| value.len() % 2 == 0);
        l.outer_join(&even, move |_, l, r| pair(l, r), windows).to("out");
    };
    // A record that came too early would be too late in its window.
    let in_windows = |b: &StreamsBuilder| {
        let (l, r) = (b.stream::<String, String>("l"), b.stream::<String, String>("r"));
        let pairs = l.outer_join(&r, move |_, l, r| pair(l, r), windows).group_by_key();
        let pairs = pairs.windowed_by(TimeWindows::of(ms(20)).grace(ms(30)));
        emit(&pairs.aggregate_with(String::new, append, uncached()));
    };
    same_in_parts("in windows", &in_windows, &["l", "r"], false);
    same_in_parts("with itself", &with_itself, &["l"], false);
}

/// One record becomes several, each with a time of its own ("L:100 R:44").
#[derive(Clone, Default)]
struct Explode;

impl FixedKeyProcessor for Explode {
    type Key = String;
    type VIn = String;
    type VOut = String;

    fn process(
        &mut self,
        record: FixedKeyRecord<String, String>,
        cx: &mut FixedKeyContext<'_, '_, String, String>,
    ) -> Result<(), ProcessError> {
        let parts: Vec<String> = record.value().split(' ').map(str::to_owned).collect();
        for part in parts {
            let (side, time) = part.split_once(':').unwrap();
            let time = time.parse().unwrap();
            cx.forward(record.clone().with_value(s(side)).with_timestamp(time));
        }
        Ok(())
    }
}

/// The first lets go what has found no partner, in parts. The second would have been one.
#[test]
fn one_record_becomes_two_and_the_second_is_the_late_partner_of_what_the_first_lets_go() {
    let build = |b: &StreamsBuilder| {
        let all = b.stream::<String, String>("in").process_values(|| Explode);
        let left = all.filter(|_, side: &String| side == "L");
        let right = all.filter(|_, side: &String| side == "R");
        let joiner = |_: &String, _: &String, right: Option<&String>| {
            right.map_or(s("nobody"), String::clone)
        };
        left.left_join(&right, joiner, JoinWindows::of(ms(5)).grace(ms(50))).to("out");
    };
    let inputs = [("j", "L:42"), ("k", "L:42"), ("k", "L:100 R:44"), ("z", "L:1000")];
    let inputs = inputs.map(|(key, value)| ("in", s(key), s(value), 0));
    let (whole, _) = run(&build, &inputs, in_parts(usize::MAX, false, false));
    let rows: Vec<_> = whole.iter().map(|(key, value, ..)| (&**key, value.as_deref())).collect();
    let nobody = Some("nobody");
    assert_eq!(rows, [("j", nobody), ("k", nobody), ("k", Some("R")), ("k", nobody)]);
    for crash in [false, true] {
        assert_eq!(run(&build, &inputs, in_parts(1, crash, false)).0, whole);
    }
}

#[test]
fn records_that_wait_for_a_versioned_table_are_joined_in_parts() {
    let build = |b: &StreamsBuilder| {
        let versioned = Materialized::versioned("t", ms(1_000));
        let table = b.table_with("t", Consumed::with(String::serde(), String::serde()), versioned);
        let joined = Joined::default().with_grace(ms(40));
        let stream = b.stream::<String, String>("l");
        stream.left_join_table_with(&table, |_, l, r| format!("{l}/{r:?}"), joined).to("out");
    };
    same_in_parts("grace", &build, &["l", "t"], false);
}

/// An offset, with which they would ride, takes no more than so much in Kafka.
#[test]
fn what_a_record_with_long_headers_lets_go_comes_out_in_one_commit() {
    let windowed = |b: &StreamsBuilder| {
        let windows = b.stream::<String, String>("l").group_by_key();
        let windows = windows.windowed_by(TimeWindows::of(ms(10)));
        let closed = windows.emit_strategy(EmitStrategy::on_window_close());
        emit(&closed.aggregate_with(String::new, append, uncached()));
    };
    let outer = |b: &StreamsBuilder| {
        let (l, r) = (b.stream::<String, String>("l"), b.stream::<String, String>("r"));
        let windows = JoinWindows::of(ms(6)).grace(ms(5));
        l.outer_join(&r, |_, l, r| format!("{l:?}/{r:?}"), windows).to("out");
    };
    let topologies: [(Build<'_>, &[&'static str]); 2] =
        [(&windowed, &["l"]), (&outer, &["l", "r"])];
    for (build, topics) in topologies {
        let inputs = inputs(topics, 1);
        let whole = |more: &str| run_with(more, build, &inputs, in_parts(usize::MAX, false, false));
        let parts = |more: &str| run_with(more, build, &inputs, in_parts(1, true, false));
        let short = ".".repeat(700);
        let ((rows, commits), (all, fewer)) = (parts(&short), whole(&short));
        assert_eq!(rows, all);
        assert!(commits > fewer, "{commits} commits, and {fewer}");
        let long = ".".repeat(1100);
        assert_eq!(parts(&long), whole(&long));
    }
}
