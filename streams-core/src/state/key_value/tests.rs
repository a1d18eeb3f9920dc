//! The store against a plain map, under random operations, and its rules one by one.

use std::path::Path;

use proptest::prelude::*;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::serde::{HasSerde, nullable};
use crate::state::{LossyEngine, Position, StateEngine, engine_suite};

type Model = BTreeMap<u8, (i64, Timestamp)>;
type Update = Forward<u8, i64>;

/// A changelog, and the fold of it.
#[derive(Default)]
struct Log {
    records: Vec<(u8, Option<i64>, Timestamp)>,
    fold: Model,
}

impl ChangelogWriter for Log {
    fn put(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        let value = value.map(|value| i64::from_be_bytes(value.try_into().unwrap()));
        self.records.push((key[0], value, timestamp));
        match value {
            Some(value) => self.fold.insert(key[0], (value, timestamp)),
            None => self.fold.remove(&key[0]),
        };
        Ok(())
    }
}

fn open(engine: &LossyEngine) -> Arc<dyn StoreEngine> {
    engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0)
}

fn store(engine: &LossyEngine, options: StoreOptions) -> KeyValueStore<u8, i64> {
    KeyValueStore::new("s", u8::serde(), i64::serde(), open(engine), options)
}

fn forwards<K: Data + Eq + Hash>(store: &mut KeyValueStore<K, i64>) -> Vec<Forward<K, i64>> {
    std::iter::from_fn(|| store.next_forward().unwrap()).collect()
}

fn flush(store: &mut KeyValueStore<u8, i64>, engine: &LossyEngine, at: i64) {
    let mut batch = store.begin_flush().unwrap();
    open(engine).apply(&mut batch, &engine_suite::position(at)).unwrap();
    store.flushed();
}

const CACHED: StoreOptions =
    StoreOptions { logged: true, forward_on_seal: true, keep_old: false, max_entries: None };
const WITH_OLD: StoreOptions = StoreOptions { keep_old: true, ..CACHED };
const UNCACHED: StoreOptions = StoreOptions { forward_on_seal: false, ..CACHED };

#[derive(Clone, Debug)]
enum Op {
    Put(u8, Option<i64>),
    Update(u8, i64),
    DeleteIn(u8),
    Get(u8),
    Range(u8, u8),
    Forward(usize),
    Seal,
    BeginFlush,
    Flushed,
    Budget(usize),
    Crash(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..6u8; // few: the order is tidied and entries are evicted often
    prop_oneof![
        3 => (key.clone(), proptest::option::of(any::<i8>()))
            .prop_map(|(key, value)| Op::Put(key, value.map(i64::from))),
        16 => (key.clone(), -3..4i64).prop_map(|(key, by)| Op::Update(key, by)),
        1 => key.clone().prop_map(Op::DeleteIn),
        2 => key.clone().prop_map(Op::Get),
        1 => (key.clone(), key).prop_map(|(from, to)| Op::Range(from, to)),
        2 => (0..4usize).prop_map(Op::Forward),
        2 => Just(Op::Seal),
        2 => Just(Op::BeginFlush),
        2 => Just(Op::Flushed),
        1 => (0..500usize).prop_map(Op::Budget),
        1 => (0..3usize).prop_map(Op::Crash),
    ]
}

/// What the store must do, told by plain maps.
struct World {
    engine: LossyEngine,
    options: StoreOptions,
    store: KeyValueStore<u8, i64>,
    log: Log,
    model: Model,
    /// As of the last forward, and the keys updated since in order of their last update.
    forwarded: Model,
    changed: Vec<(u8, Timestamp)>,
    /// The keys in order of their last use.
    uses: Vec<u8>,
    /// Taken for the engine, and the length of the log at that moment.
    in_flight: Option<(EntryBatch, usize)>,
    budget: usize,
    now: Timestamp,
}

impl World {
    fn new(options: StoreOptions) -> Self {
        let engine = LossyEngine::new();
        let store = store(&engine, options);
        let (log, model, forwarded) = (Log::default(), Model::new(), Model::new());
        let (changed, uses, in_flight, now) = (Vec::new(), Vec::new(), None, 0);
        Self {
            engine,
            options,
            store,
            log,
            model,
            forwarded,
            changed,
            uses,
            in_flight,
            budget: DEFAULT_BUDGET,
            now,
        }
    }

    fn changed(&mut self, key: u8) {
        self.changed.retain(|(other, _)| *other != key);
        self.changed.push((key, self.now));
    }

    /// A key was read or changed; the one that was used least recently is dropped, if there are too many.
    fn used(&mut self, key: u8) {
        self.uses.retain(|other| *other != key);
        self.uses.extend(self.model.contains_key(&key).then_some(key));
        if self.options.max_entries.is_some_and(|most| self.uses.len() > most) {
            self.model.remove(&self.uses.remove(0));
        }
    }

    /// One update that the store must forward now, or none.
    fn next_forward(&mut self) -> Option<Update> {
        while !self.changed.is_empty() {
            let (key, timestamp) = self.changed.remove(0);
            let new = self.model.get(&key).map(|(value, _)| *value);
            let before = match new {
                Some(value) => self.forwarded.insert(key, (value, timestamp)),
                None => self.forwarded.remove(&key),
            };
            let before = before.map(|(value, _)| value);
            if new.is_some() || before.is_some() {
                let old = before.filter(|_| self.options.keep_old);
                let (was_seen, headers) = (false, Headers::default());
                return Some(Forward { key, new, old, was_seen, timestamp, headers });
            }
        }
        None
    }

    fn forward(&mut self, most: usize) {
        if self.options.forward_on_seal {
            for _ in 0..most {
                let expected = self.next_forward();
                let ended = expected.is_none();
                assert_eq!(self.store.next_forward().unwrap(), expected);
                if ended {
                    break;
                }
            }
        }
    }

    fn step(&mut self, op: &Op) {
        self.now += 1;
        let returns_old = self.options.keep_old && !self.options.forward_on_seal;
        match *op {
            Op::Put(key, value) => {
                let before = match value {
                    Some(value) => self.model.insert(key, (value, self.now)),
                    None => self.model.remove(&key),
                };
                let before = before.map(|(value, _)| value);
                let old = self.store.put(key, value, self.now).unwrap();
                assert_eq!(old, before.filter(|_| returns_old));
                self.changed(key);
                self.used(key);
            }
            Op::Update(key, by) => {
                let before = self.model.get(&key).copied();
                let now = self.now;
                let updated = self.store.update(&key, |value, time| {
                    assert_eq!(value.zip(time), before);
                    *value.get_or_insert(0) += by;
                    now
                });
                let updated = updated.unwrap();
                let new = before.map_or(0, |(value, _)| value) + by;
                assert_eq!((updated.new, updated.timestamp), (Some(&new), now));
                assert_eq!(updated.old, before.map(|b| b.0).filter(|_| returns_old));
                self.model.insert(key, (new, now));
                self.changed(key);
                self.used(key);
            }
            Op::DeleteIn(key) => {
                let before = self.model.remove(&key).map(|(value, _)| value);
                let now = self.now;
                let updated = self.store.update(&key, |value, _| {
                    *value = None;
                    now
                });
                let updated = updated.unwrap();
                assert_eq!((updated.new, updated.old), (None, before.filter(|_| returns_old)));
                if before.is_some() || self.changed.iter().any(|(other, _)| *other == key) {
                    self.changed(key);
                }
                self.used(key);
            }
            Op::Get(key) => {
                let found = self.store.get(&key).unwrap().map(|(value, time)| (*value, time));
                assert_eq!(found, self.model.get(&key).copied());
                self.used(key);
            }
            Op::Range(from, to) => {
                let found = self.store.range(Some(&from), Some(&to)).unwrap();
                let expected: Vec<_> = (self.model.iter())
                    .filter(|(key, _)| (from..=to).contains(*key))
                    .map(|(key, (value, time))| (*key, *value, *time))
                    .collect();
                assert_eq!(found, expected);
            }
            Op::Forward(most) => self.forward(most),
            Op::Seal => {
                self.forward(usize::MAX);
                self.store.seal(&mut self.log).unwrap();
                assert_eq!(self.log.fold, self.model, "the fold of the changelog is the store");
                self.forwarded = self.model.clone();
                self.changed.clear();
            }
            Op::BeginFlush => {
                if self.in_flight.is_none() {
                    self.step(&Op::Seal);
                    let batch = self.store.begin_flush().unwrap();
                    self.in_flight = Some((batch, self.log.records.len()));
                }
            }
            Op::Flushed => {
                if let Some((mut batch, end)) = self.in_flight.take() {
                    let position = engine_suite::position(end as i64);
                    open(&self.engine).apply(&mut batch, &position).unwrap();
                    self.store.flushed();
                }
            }
            Op::Budget(bytes) => {
                self.budget = bytes;
                self.store.set_budget(bytes);
            }
            Op::Crash(keep) => self.crash(keep),
        }
        assert!(self.store.dirty_bytes() <= self.store.cached_bytes());
    }

    /// What was not sealed is gone; the engine loses its last batches; the store is opened again on
    /// the engine and the tail of the changelog.
    fn crash(&mut self, keep: usize) {
        self.in_flight = None;
        self.engine.crash(|unflushed| unflushed.saturating_sub(keep));
        let engine = open(&self.engine);
        let from = engine.position().unwrap().map_or(0, |position| position.next_offset as usize);
        let mut fold = Model::new();
        let mut tail = EntryBatch::new();
        let mut newest = BTreeMap::new();
        for (at, (key, value, timestamp)) in self.log.records.iter().enumerate() {
            match value {
                Some(value) => fold.insert(*key, (*value, *timestamp)),
                None => fold.remove(key),
            };
            if at >= from {
                newest.insert(*key, value.map(|value| (value, *timestamp)));
            }
            if at + 1 == from {
                let found: Vec<_> = engine.scan(&[], None).unwrap().map(Result::unwrap).collect();
                let expected: Vec<(Bytes, Bytes)> = (fold.iter())
                    .map(|(key, entry)| (vec![*key].into(), encoded(*entry).into()))
                    .collect();
                assert_eq!(found, expected, "the engine is the fold up to its position");
            }
        }
        for (key, entry) in newest {
            tail.put(&[key], entry.map(encoded).as_deref());
        }
        let end = self.log.records.len() as i64;
        engine.apply(&mut tail, &engine_suite::position(end)).unwrap();
        self.store = store(&self.engine, self.options);
        self.store.set_budget(self.budget);
        self.model = self.log.fold.clone();
        self.forwarded = self.model.clone();
        self.changed.clear();
        self.uses = self.model.keys().copied().collect();
        self.uses.sort_by_key(|key| self.model[key].1);
    }
}

fn encoded((value, timestamp): (i64, Timestamp)) -> Vec<u8> {
    [timestamp.to_be_bytes(), value.to_be_bytes()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(3),
        ..ProptestConfig::default()
    })]

    #[test]
    fn equals_a_map_under_random_operations(
        forward_on_seal: bool,
        keep_old: bool,
        ops in proptest::collection::vec(op(), 1..300),
    ) {
        let options = StoreOptions { forward_on_seal, keep_old, ..StoreOptions::default() };
        let mut world = World::new(options);
        ops.iter().for_each(|op| world.step(op));
        let all = world.store.all().unwrap();
        let expected: Vec<_> =
            world.model.iter().map(|(key, (value, time))| (*key, *value, *time)).collect();
        prop_assert_eq!(all, expected);
    }

    #[test]
    fn a_store_of_so_many_entries_holds_those_that_were_used_last(
        keep_old: bool,
        most in 1..6usize,
        ops in proptest::collection::vec(op(), 1..300),
    ) {
        let max_entries = Some(most);
        let mut world = World::new(StoreOptions { keep_old, max_entries, ..UNCACHED });
        for op in &ops {
            world.step(op);
            let all = world.store.all().unwrap();
            let expected: Vec<_> =
                world.model.iter().map(|(key, (value, time))| (*key, *value, *time)).collect();
            prop_assert!(all.len() <= most);
            prop_assert_eq!(all, expected);
        }
    }
}

#[test]
fn a_store_that_may_hold_fewer_entries_than_it_has_drops_a_few_at_a_time() {
    let engine = LossyEngine::new();
    let bounded = |most| StoreOptions { max_entries: Some(most), ..UNCACHED };
    let mut large = store(&engine, bounded(100));
    for key in 0..100 {
        large.put(key, Some(0), 1_000 - i64::from(key)).unwrap();
    }
    large.seal(&mut Log::default()).unwrap();
    flush(&mut large, &engine, 1);
    let mut small = store(&engine, bounded(60));
    let mut log = Log::default();
    let mut left = Vec::new();
    for key in 100..105 {
        small.put(key, Some(1), 2_000).unwrap();
        left.push(small.all().unwrap().len());
    }
    assert_eq!(left, [85, 70, 60, 60, 60]);
    small.seal(&mut log).unwrap();
    let dropped: Vec<u8> =
        log.records.iter().filter(|(_, value, _)| value.is_none()).map(|(key, ..)| *key).collect();
    assert_eq!(dropped, (55..100).rev().collect::<Vec<u8>>(), "the oldest times go first");
}

#[test]
fn forwards_come_in_the_order_of_last_updates_with_the_last_forwarded_value() {
    let engine = LossyEngine::new();
    let mut store = store(&engine, WITH_OLD);
    let mut log = Log::default();
    for (key, value) in [(3, 1), (1, 1), (2, 1), (3, 2)] {
        store.put(key, Some(value), value).unwrap();
    }
    let update = |key, new, old, timestamp| Forward {
        key,
        new,
        old,
        was_seen: false,
        timestamp,
        headers: Headers::default(),
    };
    let expected =
        [update(1, Some(1), None, 1), update(2, Some(1), None, 1), update(3, Some(2), None, 2)];
    assert_eq!(forwards(&mut store), expected);
    store.seal(&mut log).unwrap();
    assert_eq!(log.records, [(1, Some(1), 1), (2, Some(1), 1), (3, Some(2), 2)]);
    store.put(3, Some(7), 3).unwrap();
    store.put(1, None, 4).unwrap();
    store.put(3, Some(8), 5).unwrap();
    let expected = [update(1, None, Some(1), 4), update(3, Some(8), Some(2), 5)];
    assert_eq!(forwards(&mut store), expected);
}

#[test]
fn a_key_that_somebody_has_seen_is_said_to_be_deleted() {
    for options in [CACHED, WITH_OLD] {
        let mut store = store(&LossyEngine::new(), options);
        store.put(1, Some(5), 7).unwrap();
        assert_eq!(store.look_up(&1).unwrap(), Some((&5, 7)));
        store.put(1, None, 8).unwrap();
        let (new, old, headers) = (None, None, Headers::default());
        let expected = Forward { key: 1, new, old, was_seen: true, timestamp: 8, headers };
        assert_eq!(forwards(&mut store), [expected]);
        assert_eq!(store.look_up(&1).unwrap(), None);
    }
}

#[test]
fn what_was_forwarded_last_is_known_as_long_as_a_change_waits() {
    for (options, old) in [(CACHED, None), (WITH_OLD, Some(&5))] {
        let mut store = store(&LossyEngine::new(), options);
        store.put(1, Some(5), 7).unwrap();
        assert_eq!(store.forwarded(&1), Some(None), "nothing was");
        forwards(&mut store);
        assert_eq!(store.forwarded(&1), None, "nothing waits");
        store.put(1, None, 8).unwrap();
        assert_eq!(store.forwarded(&1), Some(old));
    }
}

#[test]
fn a_key_created_and_deleted_between_two_forwards_gives_nothing() {
    for options in [CACHED, WITH_OLD] {
        let mut store = store(&LossyEngine::new(), options);
        store.put(1, Some(1), 1).unwrap();
        store.put(1, None, 2).unwrap();
        store.put(2, None, 3).unwrap();
        assert_eq!(forwards(&mut store), []);
    }
}

#[test]
fn deleting_a_key_that_only_the_engine_knows_gives_a_tombstone() {
    for (options, old) in [(CACHED, None), (WITH_OLD, Some(5))] {
        let engine = LossyEngine::new();
        let mut first = store(&engine, options);
        first.put(1, Some(5), 1).unwrap();
        forwards(&mut first);
        first.seal(&mut Log::default()).unwrap();
        flush(&mut first, &engine, 1);
        let mut again = store(&engine, options);
        again.put(1, None, 2).unwrap();
        again.put(2, None, 3).unwrap();
        let headers = Headers::default();
        assert_eq!(
            forwards(&mut again),
            [Forward { key: 1, new: None, old, was_seen: false, timestamp: 2, headers }]
        );
    }
}

#[test]
fn a_key_of_the_last_of_all_times_is_found_in_the_engine_too() {
    let engine = LossyEngine::new();
    let store = || {
        let (options, serde) = (StoreOptions::default(), (u8::serde(), i64::serde()));
        let time_of = |_: &u8| Timestamp::MAX;
        KeyValueStore::with_times("s", serde.0, serde.1, open(&engine), options, time_of)
    };
    let mut before = store();
    before.put(1, Some(7), 0).unwrap();
    before.seal(&mut NoLog).unwrap();
    let stream_time = Timestamp::MAX;
    let position = Position { stream_time, ..engine_suite::position(1) };
    open(&engine).apply(&mut before.begin_flush().unwrap(), &position).unwrap();
    before.flushed();
    before.set_budget(0);
    for mut store in [store(), before] {
        assert_eq!(store.get(&1).unwrap(), Some((&7, 0)));
    }
}

#[test]
fn what_is_updated_while_it_is_flushed_is_flushed_again() {
    let engine = LossyEngine::new();
    let mut store = store(&engine, UNCACHED);
    let mut log = Log::default();
    store.put(1, Some(1), 1).unwrap();
    store.seal(&mut log).unwrap();
    let mut batch = store.begin_flush().unwrap();
    store.put(1, Some(2), 2).unwrap();
    open(&engine).apply(&mut batch, &engine_suite::position(1)).unwrap();
    store.flushed();
    assert!(store.dirty_bytes() > 0);
    store.seal(&mut log).unwrap();
    flush(&mut store, &engine, 2);
    assert_eq!(store.dirty_bytes(), 0);
    store.set_budget(0);
    assert_eq!(store.cached_bytes(), 0);
    assert_eq!(store.get(&1).unwrap(), Some((&2, 2)));
}

#[test]
fn a_value_that_is_written_as_null_deletes() {
    let engine = LossyEngine::new();
    let serde = nullable(i64::serde());
    let mut store =
        KeyValueStore::<u8, Option<i64>>::new("s", u8::serde(), serde, open(&engine), CACHED);
    store.put(1, Some(Some(1)), 1).unwrap();
    store.put(1, Some(None), 2).unwrap();
    assert_eq!(store.get(&1).unwrap(), None);
    let updated = store.update(&2, |value, _| {
        *value = Some(None);
        3
    });
    assert_eq!(updated.unwrap().new, None);
}

#[test]
fn a_hot_key_leaves_the_order_short() {
    let mut store = store(&LossyEngine::new(), CACHED);
    for round in 0..100_000i64 {
        store.put((round % 2) as u8, Some(round), round).unwrap();
    }
    assert!(store.cache.order_len() < 10_000, "{}", store.cache.order_len());
    assert_eq!(forwards(&mut store).len(), 2);
}

#[test]
fn a_null_key_and_bytes_that_do_not_fit_are_errors() {
    let engine = LossyEngine::new();
    let mut batch = EntryBatch::new();
    batch.put(&[1], Some(b"short"));
    batch.put(&[2], Some(b"12345678not eight"));
    open(&engine).apply(&mut batch, &engine_suite::position(1)).unwrap();
    let mut store = store(&engine, CACHED);
    assert!(matches!(store.get(&1), Err(StateError::Corrupt { .. })));
    assert!(matches!(store.get(&2), Err(StateError::Serde { .. })));
    let mut store =
        KeyValueStore::<(), i64>::new("s", <()>::serde(), i64::serde(), open(&engine), CACHED);
    assert!(matches!(store.update(&(), |_, _| 1), Err(StateError::Serde { .. })));
    store.put((), Some(1), 1).unwrap();
    forwards(&mut store);
    assert!(matches!(store.seal(&mut Log::default()), Err(StateError::Serde { .. })));
}

/// `cargo test --release -p vltava-streams-core update_speed -- --ignored --nocapture`
#[test]
#[ignore = "prints figures"]
fn update_speed() {
    for (keys, updates) in [(10_000u64, 20_000_000u32), (1_000_000, 5_000_000)] {
        let engine = LossyEngine::new();
        let mut store =
            KeyValueStore::<u64, i64>::new("s", u64::serde(), i64::serde(), open(&engine), CACHED);
        store.set_budget(usize::MAX);
        let mut log = Count(0);
        let (mut updating, mut sealing) = (0, 0);
        let mut seed = 1u64;
        for _ in 0..updates / 200_000 {
            let start = cpu_time();
            for _ in 0..200_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = (seed >> 33) % keys;
                let updated = store.update(&key, |value, time| {
                    *value.get_or_insert(0) += 1;
                    time.map_or(5, |time| time.max(5))
                });
                updated.unwrap();
            }
            let middle = cpu_time();
            while store.next_forward().unwrap().is_some() {}
            store.seal(&mut log).unwrap();
            updating += middle - start;
            sealing += cpu_time() - middle;
        }
        let each = |time: u64, n: u64| time as f64 / n as f64;
        println!(
            "{keys} keys: update {:.1} ns, forward and seal {:.1} ns an entry",
            each(updating, updates.into()),
            each(sealing, log.0)
        );
    }
}

/// Nanoseconds that this thread has run (on Linux).
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

struct Count(u64);

impl ChangelogWriter for Count {
    fn put(&mut self, _: &[u8], _: Option<&[u8]>, _: Timestamp) -> Result<(), StateError> {
        self.0 += 1;
        Ok(())
    }
}

#[test]
fn keys_are_found_by_what_they_begin_with() {
    let engine = LossyEngine::new();
    let mut store = KeyValueStore::<Vec<u8>, i64>::new(
        "s",
        HasSerde::serde(),
        i64::serde(),
        open(&engine),
        UNCACHED,
    );
    let keys: [&[u8]; 7] =
        [&[1], &[1, 2], &[1, 2, 255], &[1, 255], &[1, 255, 255, 3], &[2], &[255, 255]];
    for (number, key) in keys.iter().enumerate() {
        store.put(key.to_vec(), Some(number as i64), 1).unwrap();
        if number == 3 {
            store.seal(&mut NoLog).unwrap();
            let mut batch = store.begin_flush().unwrap();
            open(&engine).apply(&mut batch, &engine_suite::position(1)).unwrap();
            store.flushed();
        }
    }
    let mut found = |prefix: &[u8]| {
        let found = store.prefix_scan(prefix).unwrap();
        found.into_iter().map(|(_, value, _)| value).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(found(&[1]), [0, 1, 2, 3, 4]);
    assert_eq!(found(&[1, 2]), [1, 2]);
    assert_eq!(found(&[1, 255]), [3, 4]);
    assert_eq!(found(&[255]), [6]);
    assert!(found(&[1, 3]).is_empty());
    assert_eq!(store.put_if_absent(vec![2], 9, 2).unwrap(), Some((5, 1)));
    assert_eq!(store.put_if_absent(vec![3], 9, 2).unwrap(), None);
    assert_eq!(store.get(&vec![3]).unwrap(), Some((&9, 2)));
}

struct NoLog;

impl ChangelogWriter for NoLog {
    fn put(&mut self, _: &[u8], _: Option<&[u8]>, _: Timestamp) -> Result<(), StateError> {
        Ok(())
    }
}
