//! The stores against a plain map, under random operations, and their rules one by one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker_api::BatchBuilder;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::StateError;
use crate::serde::HasSerde;
use crate::state::{
    BulkLoad, ChangelogWriter, EntryBatch, Forward, LossyEngine, Position, Scan, StateEngine,
    Store, engine_suite,
};
use crate::windowed::Window;

const RETENTION: Timestamp = 12;

/// Takes changelog records, and remembers them.
#[derive(Default)]
struct Log(Vec<(Vec<u8>, Option<Vec<u8>>, Timestamp)>);

impl ChangelogWriter for Log {
    fn put(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.0.push((key.to_vec(), value.map(<[u8]>::to_vec), timestamp));
        Ok(())
    }
}

fn open(engine: &LossyEngine) -> Arc<dyn StoreEngine> {
    engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0)
}

fn options(by_time: bool) -> WindowedOptions {
    WindowedOptions {
        by_time,
        forward_on_seal: true,
        keep_old: true,
        ..WindowedOptions::new(RETENTION)
    }
}

fn windows(engine: &LossyEngine, by_time: bool) -> WindowStore<String, i64> {
    let (key, value) = (String::serde(), i64::serde());
    WindowStore::<_, _>::new("s", key, value, open(engine), 10, options(by_time))
}

fn points(engine: &LossyEngine) -> WindowStore<String, i64> {
    let options = WindowedOptions { points: true, ..options(false) };
    WindowStore::<_, _>::new("s", String::serde(), i64::serde(), open(engine), 10, options)
}

fn sessions(engine: &LossyEngine, by_time: bool) -> SessionStore<String, i64> {
    let (key, value) = (String::serde(), i64::serde());
    SessionStore::<_, _>::new("s", key, value, open(engine), options(by_time))
}

/// Found by time, a few at once.
fn all_by_time<W: WindowKind>(
    store: &mut WindowedStore<String, i64, W>,
    from: Timestamp,
    to: Timestamp,
) -> Vec<Found<String, i64>> {
    let mut all: Vec<Found<String, i64>> = Vec::new();
    loop {
        let last = all.last().map(|(windowed, ..)| windowed.clone());
        let found = store.find_by_time(from, to, last.as_ref(), 3).unwrap();
        let is_all = found.len() < 3;
        all.extend(found);
        if is_all {
            return all;
        }
    }
}

fn flush<W: WindowKind>(
    store: &mut WindowedStore<String, i64, W>,
    engine: &LossyEngine,
) -> Vec<Forward<Windowed<String>, i64>> {
    let forwards = std::iter::from_fn(|| store.next_forward().unwrap()).collect();
    store.all_told();
    store.seal(&mut Log::default()).unwrap();
    let mut batch = store.begin_flush().unwrap();
    let position = Position { stream_time: store.time(), ..engine_suite::position(1) };
    open(engine).apply(&mut batch, &position).unwrap();
    open(engine).expire(store.expiry().unwrap());
    open(engine).flush().unwrap();
    store.flushed();
    forwards
}

/// Keys of which some begin others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just(""), Just("a"), Just("a\0"), Just("a\0\0\0\0\0\0\0\0\0"), Just("b")]
        .prop_map(String::from)
}

#[derive(Clone, Debug)]
enum Op {
    Put(String, Timestamp, Timestamp, Option<i64>),
    Find(String, Timestamp, Timestamp),
    ByTime(Timestamp, Timestamp),
    Flush,
    Budget(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let time = || 0..40i64;
    prop_oneof![
        8 => (name(), time(), 0..6i64, proptest::option::weighted(0.8, 0..9i64))
            .prop_map(|(name, start, length, value)| Op::Put(name, start, start + length, value)),
        4 => (name(), time(), time()).prop_map(|(name, from, to)| Op::Find(name, from, to)),
        2 => (time(), time()).prop_map(|(from, to)| Op::ByTime(from, to)),
        2 => Just(Op::Flush),
        1 => prop_oneof![Just(0), Just(800), Just(usize::MAX)].prop_map(Op::Budget),
    ]
}

/// Which changes a flush has to forward: what differs from the last one, in order of last change.
#[derive(Default)]
struct Forwards {
    last: BTreeMap<(String, Timestamp, Timestamp), i64>,
    order: Vec<(String, Timestamp, Timestamp)>,
}

impl Forwards {
    fn note(&mut self, key: &(String, Timestamp, Timestamp)) {
        self.order.retain(|other| other != key);
        self.order.push(key.clone());
    }

    fn take(
        &mut self,
        now: &BTreeMap<(String, Timestamp, Timestamp), i64>,
    ) -> Vec<(Windowed<String>, Option<i64>, Option<i64>)> {
        let mut forwards = Vec::new();
        for key in std::mem::take(&mut self.order) {
            let new = now.get(&key).copied();
            let old = match new {
                Some(new) => self.last.insert(key.clone(), new),
                None => self.last.remove(&key),
            };
            if new.is_some() || old.is_some() {
                forwards.push((Windowed::new(key.0, key.1, key.2), new, old));
            }
        }
        forwards
    }
}

fn check(ops: Vec<Op>, is_session: bool, by_points: bool) {
    let engine = LossyEngine::new();
    let (mut windows, mut sessions) = (windows(&engine, true), sessions(&engine, true));
    if by_points {
        windows = points(&engine);
    }
    // By key, start and end; nothing is ever removed by age, as nothing is released.
    let mut model: BTreeMap<(String, Timestamp, Timestamp), i64> = BTreeMap::new();
    let mut forwards = Forwards::default();
    let mut time = -1;
    for op in ops {
        match op {
            Op::Put(name, start, end, value) => {
                let end = if is_session { end } else { start };
                time = time.max(end);
                let taken = end > time - RETENTION;
                let window = Window { start, end };
                assert_eq!(
                    taken,
                    match is_session {
                        true => sessions.put(&name, window, value, 0).unwrap(),
                        false => windows.put(&name, start, value, 0).unwrap(),
                    }
                );
                if taken {
                    let end = if is_session { end } else { start + 10 };
                    let key = (name, start, end);
                    forwards.note(&key);
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
            }
            Op::Find(name, from, to) => {
                let live = |first: Timestamp| first > time - RETENTION;
                let of_key = model.iter().filter(|((key, ..), _)| *key == name);
                if is_session {
                    let mut expected: Vec<_> = of_key
                        .filter(|((_, start, end), _)| *end >= from && *start <= to && live(*end))
                        .map(|((_, start, end), value)| (*end, *start, *value))
                        .collect();
                    expected.sort_unstable();
                    let found = sessions.find(&name, from, to).unwrap().into_iter();
                    let found: Vec<_> =
                        found.map(|(w, value, _)| (w.end, w.start, value)).collect();
                    assert_eq!(found, expected);
                } else {
                    let expected: Vec<_> = of_key
                        .filter(|((_, start, _), _)| (from..=to).contains(start) && live(*start))
                        .map(|((_, start, _), value)| (*start, *value))
                        .collect();
                    let found = windows.fetch(&name, from, to).unwrap().into_iter();
                    let found: Vec<_> = found.map(|(start, value, _)| (start, value)).collect();
                    assert_eq!(found, expected);
                }
            }
            Op::ByTime(..) if by_points => {}
            Op::ByTime(from, to) => {
                let first = |(_, start, end): &(String, Timestamp, Timestamp)| {
                    if is_session { *end } else { *start }
                };
                let mut expected: Vec<_> = model
                    .iter()
                    .filter(|(key, _)| (from..=to).contains(&first(key)))
                    .map(|(key, value)| (first(key), key.1, key.0.clone(), *value))
                    .collect();
                expected.sort();
                let found = match is_session {
                    true => all_by_time(&mut sessions, from, to),
                    false => all_by_time(&mut windows, from, to),
                };
                let row = |(windowed, value, _): Found<String, i64>| {
                    let Window { start, end } = windowed.window;
                    (if is_session { end } else { start }, start, windowed.key, value)
                };
                assert_eq!(found.into_iter().map(row).collect::<Vec<_>>(), expected);
            }
            Op::Flush => {
                let flushed = match is_session {
                    true => flush(&mut sessions, &engine),
                    false => flush(&mut windows, &engine),
                };
                let flushed: Vec<_> = flushed.into_iter().map(|f| (f.key, f.new, f.old)).collect();
                assert_eq!(flushed, forwards.take(&model));
            }
            Op::Budget(budget) => {
                windows.set_budget(budget);
                sessions.set_budget(budget);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn window_store_agrees_with_a_plain_map(ops in proptest::collection::vec(op(), 0..80)) {
        check(ops, false, false);
    }

    #[test]
    fn window_store_of_points_agrees_with_a_plain_map(
        ops in proptest::collection::vec(op(), 0..80)
    ) {
        check(ops, false, true);
    }

    #[test]
    fn session_store_agrees_with_a_plain_map(ops in proptest::collection::vec(op(), 0..80)) {
        check(ops, true, false);
    }
}

#[test]
fn equal_windows_of_a_key_are_all_kept_in_the_order_of_their_arrival() {
    let engine = LossyEngine::new();
    let options = WindowedOptions { forward_on_seal: false, ..options(false) };
    let (key, value) = (String::serde(), i64::serde());
    let mut store: WindowStore<String, i64> =
        WindowStore::new("s", key, value, open(&engine), 0, options);
    for value in [7, 5, 6] {
        assert!(store.add(&"k".into(), 20, value, 20).unwrap());
        flush(&mut store, &engine);
    }
    assert!(!store.add(&"k".into(), 8, 1, 20).unwrap(), "it has expired");
    assert_eq!(store.fetch(&"k".into(), 0, 99).unwrap(), [(20, 7, 20), (20, 5, 20), (20, 6, 20)]);
}

/// Counts the entries that are read.
struct Counted(Arc<dyn StoreEngine>, AtomicUsize);

impl StoreEngine for Counted {
    fn position(&self) -> Result<Option<Position>, StateError> {
        self.0.position()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.0.get(key)
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Result<Scan<'a>, StateError> {
        let count = || _ = self.1.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(self.0.scan(from, to)?.inspect(move |_| count())))
    }

    fn apply(&self, batch: &mut EntryBatch, position: &Position) -> Result<(), StateError> {
        self.0.apply(batch, position)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.0.flush()
    }

    fn bulk_load(&self) -> Result<Box<dyn BulkLoad>, StateError> {
        self.0.bulk_load()
    }
}

#[test]
fn thousands_of_values_of_one_window_are_added_without_a_look_at_all_of_them() {
    let engine = LossyEngine::new();
    let counted = Arc::new(Counted(open(&engine), AtomicUsize::default()));
    let options = || WindowedOptions { forward_on_seal: false, ..options(false) };
    let mut added = Vec::new();
    for size in [1, 15, 16, 17, 1_000, 300] {
        let (key, value) = (String::serde(), i64::serde());
        let mut store: WindowStore<String, i64> =
            WindowStore::new("s", key, value, counted.clone(), 0, options());
        store.advance_time(20);
        let before = counted.1.load(Ordering::Relaxed);
        for _ in 0..size {
            added.push((20, added.len() as i64, 20));
            assert!(store.add(&"k".into(), 20, added.len() as i64 - 1, 20).unwrap());
        }
        let read = counted.1.load(Ordering::Relaxed) - before;
        assert!(read <= size * 16 * 24, "{read} entries read to add {size}");
        assert_eq!(store.fetch(&"k".into(), 0, 99).unwrap(), added);
        flush(&mut store, &engine);
    }
    assert!(counted.1.load(Ordering::Relaxed) > 0, "the engine was asked");
}

#[test]
fn the_changelog_has_kafkas_keys_and_nothing_by_time() {
    let engine = LossyEngine::new();
    let mut store = windows(&engine, true);
    store.put(&"k".into(), 258, Some(3), 300).unwrap();
    while store.next_forward().unwrap().is_some() {}
    let mut log = Log::default();
    store.seal(&mut log).unwrap();
    let key = vec![b'k', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0];
    assert_eq!(log.0, [(key, Some(3i64.to_be_bytes().to_vec()), 300)]);
}

#[test]
fn what_was_not_released_is_found_by_time_however_old() {
    let engine = LossyEngine::new();
    let mut store = windows(&engine, true);
    store.put(&"k".into(), 1, Some(1), 1).unwrap();
    store.put(&"k".into(), 2, Some(2), 2).unwrap();
    store.put(&"k".into(), 1000, Some(3), 1000).unwrap();
    store.release(1);
    flush(&mut store, &engine);
    store.set_budget(0);
    let found = all_by_time(&mut store, 0, Timestamp::MAX - 1);
    let found: Vec<_> = found.iter().map(|(windowed, ..)| windowed.window.start).collect();
    assert_eq!(found, [2, 1000]);
    assert_eq!(store.get(&"k".into(), 2).unwrap(), None, "it has expired");
}

#[test]
fn what_has_expired_leaves_the_engine_unless_it_is_to_be_read_by_time() {
    for (by_time, left) in [(false, 11), (true, 2 * 500)] {
        let engine = LossyEngine::new();
        let mut store = windows(&engine, by_time);
        for start in 0..500 {
            store.put(&"k".into(), start, Some(1), start).unwrap();
            flush(&mut store, &engine);
        }
        let entries = open(&engine).scan(&[], None).unwrap().count();
        assert!((left..=2 * left + 2).contains(&entries), "{entries} of {left}");
        assert_eq!(store.fetch(&"k".into(), 0, 999).unwrap().len(), 12);
        store.release(499);
        flush(&mut store, &engine);
        for start in 500..1_000 {
            store.put(&"k".into(), start, Some(1), 500).unwrap();
            flush(&mut store, &engine);
            store.release(start);
        }
        let entries = open(&engine).scan(&[], None).unwrap().count();
        assert!((11..=48).contains(&entries), "{entries} after the release");
    }
}

#[test]
fn windows_and_sessions_are_found_by_ranges_of_keys_and_times() {
    let engine = LossyEngine::new();
    for by_points in [false, true] {
        let mut store = if by_points { points(&engine) } else { windows(&engine, true) };
        for (key, start) in [("a", 3), ("b", 1), ("b", 5), ("b", 9), ("c", 5), ("d", 5)] {
            store.put(&key.into(), start, Some(start), start).unwrap();
        }
        let mut range = |from: Option<&str>, to: Option<&str>, first, last| {
            let (from, to) = (from.map(String::from), to.map(String::from));
            let found = store.range(from.as_ref(), to.as_ref(), first, last).unwrap();
            found.into_iter().map(|(w, ..)| format!("{}{}", w.key, w.window.start)).collect()
        };
        let found: [Vec<String>; 3] = [
            range(Some("b"), Some("c"), 2, 9),
            range(None, None, 5, 5),
            range(Some("c"), Some("b"), 0, 99),
        ];
        assert_eq!(found[0], ["b5", "b9", "c5"]);
        assert_eq!(found[1], ["b5", "c5", "d5"]);
        assert!(found[2].is_empty());
    }
    let mut store = sessions(&LossyEngine::new(), false);
    for (key, start, end) in [("a", 1, 4), ("a", 6, 9), ("b", 2, 8)] {
        store.put(&key.into(), Window { start, end }, Some(end), end).unwrap();
    }
    let ends = |found: Vec<Found<String, i64>>| found.iter().map(|f| f.1).collect::<Vec<_>>();
    assert_eq!(ends(store.range(None, None, 5, 9).unwrap()), [9, 8]);
    assert_eq!(ends(store.range(None, Some(&"a".into()), 0, 99).unwrap()), [4, 9]);
}

#[test]
fn what_has_expired_leaves_memory_without_waiting_for_the_budget() {
    for by_points in [false, true] {
        let engine = LossyEngine::new();
        let mut store = if by_points { points(&engine) } else { windows(&engine, false) };
        let mut most = 0;
        for start in 0..1_000 {
            store.put(&"k".into(), start, Some(1), start).unwrap();
            flush(&mut store, &engine);
            most = most.max(store.cached_bytes());
        }
        let mut one = if by_points { points(&engine) } else { windows(&engine, false) };
        one.put(&"k".into(), 0, Some(1), 0).unwrap();
        assert!(most <= 40 * one.cached_bytes(), "{most} bytes of a dozen entries");
        assert_eq!(store.fetch(&"k".into(), 0, 9_999).unwrap().len(), 12);
    }
}

/// What a store wrote to its changelog makes the very entries that it wrote to its engine.
#[test]
fn the_changelog_gives_the_same_entries_as_the_store() {
    for by_time in [false, true] {
        let (written, restored) = (LossyEngine::new(), LossyEngine::new());
        let mut store = sessions(&written, by_time);
        let mut batch = BatchBuilder::new();
        for (start, value) in [(5, Some(1)), (7, Some(2)), (5, None)] {
            let session = Window { start, end: 9 };
            store.put(&"k".into(), session, value, start).unwrap();
            while store.next_forward().unwrap().is_some() {}
            let mut log = Log::default();
            store.seal(&mut log).unwrap();
            for (key, value, time) in &log.0 {
                batch.push(*time, Some(key), value.as_deref(), &[]).unwrap();
            }
        }
        let mut entries = store.begin_flush().unwrap();
        open(&written).apply(&mut entries, &engine_suite::position(1)).unwrap();
        let format = SessionStore::<String, i64>::changelog_format(&options(by_time));
        for record in batch.finish().unwrap().records() {
            let mut entries = EntryBatch::new();
            format.entries(&record.unwrap(), &mut entries).unwrap();
            open(&restored).apply(&mut entries, &engine_suite::position(1)).unwrap();
        }
        let all = |engine| open(engine).scan(&[], None).unwrap().map(Result::unwrap).collect();
        let (written, restored): (Vec<_>, Vec<_>) = (all(&written), all(&restored));
        assert_eq!(written.len(), if by_time { 2 } else { 1 });
        assert_eq!(written, restored);
    }
}

#[test]
fn a_window_that_somebody_has_seen_is_said_to_be_gone() {
    fn check<W: WindowKind>(mut store: WindowedStore<String, i64, W>) {
        let (key, window) = ("k".to_string(), Window { start: 3, end: 3 });
        let change = |store: &mut WindowedStore<String, i64, W>, value, timestamp| {
            assert!(store.set(&key, (3, 3, 0), value, timestamp).unwrap());
        };
        for is_seen in [false, true] {
            change(&mut store, Some(5), 7);
            assert_eq!(store.forwarded(&key, window).unwrap(), Some(None));
            if is_seen {
                assert_eq!(store.value_seen(&key, (3, 3), false).unwrap(), Some((5, 7)));
            }
            change(&mut store, None, 8);
            let told = store.next_forward().unwrap().map(|f| (f.new, f.old, f.was_seen));
            assert_eq!(told, is_seen.then_some((None, None, true)));
            assert_eq!(store.forwarded(&key, window).unwrap(), None, "nothing waits");
        }
        change(&mut store, Some(6), 9);
        assert!(store.next_forward().unwrap().is_some());
        change(&mut store, None, 10);
        assert_eq!(store.forwarded(&key, window).unwrap(), Some(Some(6)));
        let told = store.next_forward().unwrap().map(|f| (f.new, f.old, f.was_seen));
        assert_eq!(told, Some((None, Some(6), false)));
    }
    check(windows(&LossyEngine::new(), false));
    check(points(&LossyEngine::new()));
    check(sessions(&LossyEngine::new(), false));
}
