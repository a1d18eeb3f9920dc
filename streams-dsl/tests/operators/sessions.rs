//! Sessions.

use std::collections::BTreeMap;

use streams_core::{BuildError, Data, HasSerde, Window};
use streams_dsl::{
    BufferConfig, EmitStrategy, Materialized, SessionWindowedKStream, SessionWindows,
    StreamsBuilder, Suppressed,
};

use crate::model::Random;
use crate::windows::{append, emit, ms, pipe, uncached};
use crate::{driver, s, some, step};

/// Topic `a` in sessions, grouped by key.
fn sessions<V: Data + HasSerde>(
    b: &StreamsBuilder,
    windows: SessionWindows,
) -> SessionWindowedKStream<String, V> {
    b.stream::<String, V>("a").group_by_key().windowed_by(windows)
}

fn gap(millis: u64) -> SessionWindows {
    SessionWindows::of(ms(millis))
}

fn count_uncached() -> Materialized<String, i64> {
    Materialized::named("s").with_caching_disabled()
}

#[test]
fn a_session_that_is_prolonged_or_updated_is_deleted_first() {
    let b = StreamsBuilder::new();
    emit(&sessions::<String>(&b, gap(5)).count_with(count_uncached()));
    let driver = driver(&b);
    assert_eq!(pipe(&driver, "k1", "", 0), ["k1@0/0=1@0"]);
    assert_eq!(pipe(&driver, "k1", "", 5), ["k1@0/0=T@0", "k1@0/5=2@5"]);
    assert_eq!(pipe(&driver, "k1", "", 1), ["k1@0/5=T@5", "k1@0/5=3@5"]);
    assert_eq!(pipe(&driver, "k2", "", 11), ["k2@11/11=1@11"]);
    assert!(pipe(&driver, "k1", "", 5).is_empty(), "[0,5] is closed: 5 < 11 - 5");
    assert_eq!(pipe(&driver, "k1", "", 30), ["k1@30/30=1@30"]);
    assert_eq!(driver.dropped().get("closed window"), Some(&1));
}

#[test]
fn with_caching_a_session_that_stays_is_only_updated() {
    let b = StreamsBuilder::new();
    emit(&sessions::<String>(&b, gap(5)).count());
    let driver = driver(&b);
    assert_eq!(pipe(&driver, "k", "", 0), ["k@0/0=1@0"]);
    assert_eq!(pipe(&driver, "k", "", 5), ["k@0/0=T@0", "k@0/5=2@5"]);
    assert_eq!(pipe(&driver, "k", "", 1), ["k@0/5=3@5"]);
}

#[test]
fn a_record_is_late_when_it_would_be_a_session_that_is_closed() {
    for (stream_time, accepted) in [(11, true), (12, false)] {
        let b = StreamsBuilder::new();
        emit(&sessions::<String>(&b, gap(10).grace(ms(1))).count());
        let driver = driver(&b);
        pipe(&driver, "other", "", stream_time);
        assert_eq!(!pipe(&driver, "k", "", 0).is_empty(), accepted, "at {stream_time}");
    }
}

#[test]
fn an_old_record_is_not_late_where_it_falls_into_a_session_that_is_open() {
    let b = StreamsBuilder::new();
    emit(&sessions::<String>(&b, gap(10)).count());
    let driver = driver(&b);
    for time in [0, 10, 20, 30] {
        pipe(&driver, "k", "", time);
    }
    assert_eq!(pipe(&driver, "k", "", 1), ["k@0/30=5@30"]);
    assert!(pipe(&driver, "other", "", 1).is_empty());
}

#[test]
fn a_record_between_sessions_makes_one_of_them() {
    for materialized in [uncached(), Materialized::named("s")] {
        let b = StreamsBuilder::new();
        let sessions = sessions(&b, gap(5).grace(ms(100)));
        let merge = |_: &String, earlier: String, later: String| format!("({earlier}{later})");
        emit(&sessions.aggregate_with(String::new, append, merge, materialized));
        let driver = driver(&b);
        pipe(&driver, "k", "c", 8);
        pipe(&driver, "k", "a", 0);
        assert_eq!(
            pipe(&driver, "k", "b", 4),
            ["k@0/0=T@0", "k@8/8=T@8", "k@0/8=((a)c)+b@8"],
            "merged from the initial value on, by rising end, then the record"
        );
    }
}

#[test]
fn reduce_merges_as_it_combines() {
    let b = StreamsBuilder::new();
    let sessions = sessions::<String>(&b, gap(5).grace(ms(100)));
    emit(&sessions.reduce(|so_far, value| format!("{so_far}{value}")));
    let driver = driver(&b);
    pipe(&driver, "k", "c", 8);
    pipe(&driver, "k", "a", 0);
    assert_eq!(pipe(&driver, "k", "b", 4).last(), Some(&s("k@0/8=acb@8")));
}

#[test]
fn an_aggregate_of_none_deletes_its_session() {
    for (materialized, deletion) in [
        (uncached(), vec!["k@0/1=T@1", "k@0/1=T@1"]),
        (Materialized::named("s"), vec!["k@0/1=T@1"]),
    ] {
        let b = StreamsBuilder::new();
        let fold = |_: &String, value: String, so_far: String| {
            (value != "clear").then_some(so_far + &value)
        };
        let merge = |_: &String, earlier: String, later: String| earlier + &later;
        let sessions = sessions(&b, gap(5));
        emit(&sessions.aggregate_with(String::new, fold, merge, materialized));
        let driver = driver(&b);
        pipe(&driver, "k", "a", 0);
        pipe(&driver, "k", "b", 1);
        assert_eq!(pipe(&driver, "k", "clear", 1), deletion);
        assert_eq!(pipe(&driver, "k", "c", 2), ["k@2/2=c@2"]);
    }
}

#[test]
fn null_keys_are_dropped_and_null_values_count() {
    let b = StreamsBuilder::new();
    let grouped = b.stream::<Option<String>, Option<String>>("a").group_by_key();
    let counts = grouped.windowed_by(gap(5)).count();
    counts.to_stream_present().select_key(|k, _| k.key.clone()).to("out");
    let driver = driver(&b);
    type Row = (Option<String>, i64, i64);
    let out: Vec<Row> = step(&driver, None::<String>, some("v"), 100);
    assert!(out.is_empty());
    let out: Vec<Row> = step(&driver, some("k"), None::<String>, 7);
    assert_eq!(out, [(some("k"), 1, 7)], "a null key does not advance stream time either");
    let dropped: Vec<_> = driver.dropped().into_iter().collect();
    assert_eq!(dropped, [("null key", 1)]);
}

#[test]
fn on_window_close_there_is_one_result_for_each_session() {
    let b = StreamsBuilder::new();
    let sessions = sessions::<String>(&b, gap(5)).emit_strategy(EmitStrategy::on_window_close());
    emit(&sessions.reduce(|so_far, value| so_far + &value));
    let driver = driver(&b);
    for (key, value, time) in [("k2", "x", 3), ("k1", "a", 0), ("k1", "b", 3), ("k3", "y", 8)] {
        assert!(pipe(&driver, key, value, time).is_empty());
    }
    assert_eq!(pipe(&driver, "k3", "z", 9), ["k1@0/3=ab@3", "k2@3/3=x@3"], "by end and start");
    assert!(pipe(&driver, "k1", "late", 3).is_empty());
    assert_eq!(pipe(&driver, "k9", "", 1_000_000), ["k3@8/9=yz@9"], "also when stream time leaps");
}

#[test]
fn suppressed_until_it_closes_a_session_has_one_result() {
    let b = StreamsBuilder::new();
    let counts = sessions::<String>(&b, gap(5)).count();
    emit(&counts.suppress(Suppressed::until_window_closes(BufferConfig::unbounded())));
    let driver = driver(&b);
    for time in [0, 5, 1] {
        assert!(pipe(&driver, "k1", "", time).is_empty());
    }
    assert_eq!(pipe(&driver, "k2", "", 11), ["k1@0/5=3@5"]);
    assert!(pipe(&driver, "k1", "", 5).is_empty());
    assert_eq!(pipe(&driver, "k1", "", 30), ["k2@11/11=1@11"]);
}

#[test]
fn a_closed_session_is_final_with_and_without_caching() {
    for materialized in [uncached(), Materialized::named("s")] {
        let b = StreamsBuilder::new();
        let merge = |_: &String, earlier: String, later: String| earlier + &later;
        emit(&sessions(&b, gap(6)).aggregate_with(String::new, append, merge, materialized));
        let driver = driver(&b);
        pipe(&driver, "k", "a", 10);
        pipe(&driver, "other", "", 16);
        assert_eq!(
            pipe(&driver, "k", "b", 16),
            ["k@10/10=T@10", "k@10/16=a+b@16"],
            "one gap apart, at the very end of its time"
        );
        pipe(&driver, "other", "", 24);
        assert_eq!(pipe(&driver, "k", "c", 19), ["k@19/19=c@19"], "[10,16] is closed: 16 < 24 - 6");
    }
}

#[test]
fn the_numbers_of_a_session_are_kafkas() {
    let b = StreamsBuilder::new();
    let rekeyed = b.stream::<String, String>("a").select_key(|_, v| v.clone()).group_by_key();
    let sessions = rekeyed.windowed_by(gap(5));
    sessions.count_with(Materialized::default());
    sessions.reduce(|_, new| new);
    let text = b.build().unwrap().describe();
    for expected in [
        "KSTREAM-AGGREGATE-0000000004 (stores: [KSTREAM-AGGREGATE-STATE-STORE-0000000003])",
        "(topic: KSTREAM-AGGREGATE-STATE-STORE-0000000003-repartition)",
        "KSTREAM-REDUCE-0000000009 (stores: [KSTREAM-REDUCE-STATE-STORE-0000000008])",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn sessions_without_a_gap_or_kept_too_briefly_are_refused() {
    let b = StreamsBuilder::new();
    sessions::<String>(&b, gap(0)).count();
    let error = b.build().err().unwrap().to_string();
    assert!(error.contains("a gap of 0 ms"), "{error}");

    let b = StreamsBuilder::new();
    let brief = Materialized::named("s").with_retention(ms(11));
    sessions::<String>(&b, gap(10).grace(ms(2))).count_with(brief);
    let error = b.build().err().unwrap();
    assert!(matches!(error, BuildError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("a retention of 12 ms or more"), "{error}");

    let b = StreamsBuilder::new();
    let enough = Materialized::named("s").with_retention(ms(12));
    sessions::<String>(&b, gap(10).grace(ms(2))).count_with(enough);
    assert_eq!(b.build().err(), None);
}

#[test]
fn the_store_of_sessions_can_be_looked_into() {
    let b = StreamsBuilder::new();
    emit(&sessions::<String>(&b, gap(5).grace(ms(5))).count_with(Materialized::named("s")));
    let driver = driver(&b);
    for time in [0, 3, 12, 20] {
        pipe(&driver, "k", "", time);
    }
    let store = driver.session_store::<String, i64>("s").unwrap();
    let [first, second] = [Window { start: 12, end: 12 }, Window { start: 20, end: 20 }];
    assert_eq!(store.sessions(&s("k")).unwrap(), [(first, 1), (second, 1)], "[0,3] is closed");
    assert_eq!(store.get(&s("k"), second).unwrap(), Some(1));
    assert_eq!(store.all().unwrap().len(), 2);
    assert!(driver.window_store::<String, i64>("s").is_err());
}

/// What becomes of sessions is subtracted from what is made of their table.
#[test]
fn a_group_of_sessions_counts_each_record_once() {
    for seed in 0..8 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let store = Materialized::named("s");
        let store = if seed % 2 == 0 { store } else { store.with_caching_disabled() };
        sessions::<String>(&b, gap(6).grace(ms(5)))
            .count_with(store)
            .group_by(|session, count| (session.key.clone(), count))
            .reduce_with(|sum, new| sum + new, |sum, old| sum - old, Materialized::named("sums"));
        let driver = driver(&b);
        let mut now = 0;
        for _ in 0..150 {
            now += random.below(4) as i64;
            let time = (now - random.below(25) as i64).max(0);
            driver.input_topic("a").pipe(s("k"), s(""), time).unwrap();
        }
        let late = driver.dropped().get("closed window").copied().unwrap_or_default();
        let sum = driver.key_value_store::<String, i64>("sums").unwrap().get(&s("k")).unwrap();
        assert_eq!(sum, Some(150 - late as i64), "seed {seed}");
    }
}

/// Sessions by brute force: all records of what is open are put in order and cut where the gaps are.
#[derive(Default)]
struct Naive {
    stream_time: i64,
    /// By key: the times of the records of open sessions.
    open: BTreeMap<String, Vec<i64>>,
    /// Like `k@0/10`, with the number of records.
    closed: BTreeMap<String, i64>,
}

const GAP: i64 = 6;

impl Naive {
    fn cut(times: &[i64]) -> Vec<Vec<i64>> {
        let mut times = times.to_vec();
        times.sort_unstable();
        times.chunk_by(|earlier, later| later - earlier <= GAP).map(<[i64]>::to_vec).collect()
    }

    fn row(key: &str, session: &[i64]) -> (String, i64) {
        let (start, end) = (session[0], session[session.len() - 1]);
        (format!("{key}@{start}/{end}"), session.len() as i64)
    }

    fn add(&mut self, key: &str, time: i64, grace: i64) {
        self.stream_time = time.max(self.stream_time);
        let open_since = self.stream_time - grace - GAP;
        for (key, times) in &mut self.open {
            let (open, closed): (Vec<_>, Vec<_>) = Self::cut(times)
                .into_iter()
                .partition(|session| session[session.len() - 1] >= open_since);
            *times = open.concat();
            self.closed.extend(closed.iter().map(|session| Self::row(key, session)));
        }
        let times = self.open.entry(s(key)).or_default();
        times.push(time);
        let is_open = |session: &Vec<i64>| session[session.len() - 1] >= open_since;
        *times = Self::cut(times).into_iter().filter(is_open).collect::<Vec<_>>().concat();
    }

    fn all(&self) -> BTreeMap<String, i64> {
        let mut all = self.closed.clone();
        for (key, times) in &self.open {
            all.extend(Self::cut(times).iter().map(|session| Self::row(key, session)));
        }
        all
    }
}

#[test]
fn sessions_are_what_brute_force_makes_of_the_records() {
    for seed in 0..18 {
        let mut random = Random(seed);
        let grace = random.below(20);
        let (on_close, caching) = (seed % 3 == 0, seed % 2 == 0);
        let b = StreamsBuilder::new();
        let mut windowed = sessions::<String>(&b, gap(GAP as u64).grace(ms(grace)));
        if on_close {
            windowed = windowed.emit_strategy(EmitStrategy::on_window_close());
        }
        let store = Materialized::named("s");
        emit(&windowed.count_with(if caching { store } else { store.with_caching_disabled() }));
        let driver = driver(&b);
        let (mut naive, mut found) = (Naive::default(), BTreeMap::new());
        let mut now = 0;
        for _ in 0..200 {
            now += random.below(4) as i64;
            let key = format!("k{}", random.below(3));
            let time = (now - random.below(25) as i64).max(0);
            naive.add(&key, time, grace as i64);
            driver.input_topic("a").pipe(key, s(""), time).unwrap();
            for record in driver.output_topic::<String, Option<String>>("out").read_all().unwrap() {
                let count = record.value.map(|count| count.parse::<i64>().unwrap());
                let before = match count {
                    Some(count) => found.insert(record.key, count),
                    None => found.remove(&record.key),
                };
                assert!(!on_close || before.is_none(), "seed {seed}: emitted twice");
            }
            let expected = if on_close { naive.closed.clone() } else { naive.all() };
            assert_eq!(found, expected, "seed {seed}, at {now}");
        }
    }
}
