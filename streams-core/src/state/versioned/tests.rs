//! The store against a plain map of histories, under random puts, seals, flushes, crashes and restores.

use std::collections::BTreeMap;
use std::path::Path;

use broker_api::{Batch, BatchBuilder};
use proptest::prelude::*;

use super::*;
use crate::serde::HasSerde;
use crate::state::{EntryBatch, LossyEngine, Position, StateEngine, engine_suite};

const RETENTION: Timestamp = 10;

fn open(engine: &LossyEngine) -> Arc<dyn StoreEngine> {
    engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0)
}

fn store(engine: &LossyEngine) -> VersionedStore<String, i64> {
    let options = VersionedOptions { logged: true, retention: RETENTION };
    VersionedStore::new("s", String::serde(), i64::serde(), open(engine), options)
}

fn new() -> VersionedStore<String, i64> {
    store(&LossyEngine::new())
}

fn put(
    store: &mut VersionedStore<String, i64>,
    value: impl Into<Option<i64>>,
    at: Timestamp,
) -> Put {
    store.put(&"k".into(), value.into().as_ref(), at).unwrap()
}

fn as_of(store: &mut VersionedStore<String, i64>, time: Timestamp) -> Option<i64> {
    store.get_as_of(&"k".into(), time).unwrap().map(|(value, _)| value)
}

/// Example F23 of the semantics.
#[test]
fn f23_what_is_older_than_the_history_is_rejected() {
    let mut store = new();
    store.put(&"other".into(), Some(&0), RETENTION + 10).unwrap();
    assert_eq!(put(&mut store, 1, 10), Put::Latest, "10 is not earlier than 10");
    assert_eq!(put(&mut store, 1, 9), Put::Rejected);
    let mut store = new();
    assert_eq!(put(&mut store, 2, 20), Put::Latest);
    assert_eq!(put(&mut store, 1, 10), Put::Until(20));
    assert_eq!(put(&mut store, 3, 20), Put::Latest, "the same time replaces");
    assert_eq!(store.get(&"k".into()).unwrap(), Some((3, 20)));
}

#[test]
fn a_version_is_valid_until_the_next_one() {
    let mut store = new();
    for (value, at) in [(Some(1), 2), (Some(3), 6), (None, 8), (Some(2), 4)] {
        put(&mut store, value, at);
    }
    let found: Vec<_> = (1..10).map(|time| as_of(&mut store, time)).collect();
    let (a, b, c) = (Some(1), Some(2), Some(3));
    assert_eq!(found, [None, a, a, b, b, c, c, None, None]);
    let version = |value, from, to| Version { value, from, to };
    let history = store.history(&"k".into(), 3, 5).unwrap();
    assert_eq!(history, [version(1, 2, Some(4)), version(2, 4, Some(6))]);
    let history = store.history(&"k".into(), 6, 100).unwrap();
    assert_eq!(history, [version(3, 6, Some(8))]);
}

#[test]
fn of_times_before_the_history_only_the_latest_value_is_known() {
    let mut store = new();
    put(&mut store, 1, 1);
    put(&mut store, 2, 3);
    store.put(&"other".into(), Some(&0), 50).unwrap();
    assert_eq!((as_of(&mut store, 2), as_of(&mut store, 3)), (None, Some(2)));
    put(&mut store, 3, 45);
    assert_eq!((as_of(&mut store, 39), as_of(&mut store, 40)), (None, Some(2)));
}

#[test]
fn what_is_no_history_any_more_is_deleted_from_the_changelog_too() {
    let (mut store, mut log) = (new(), Log::default());
    put(&mut store, 1, 1);
    put(&mut store, 2, 5);
    store.seal(&mut log).unwrap();
    store.put(&"other".into(), Some(&0), 14).unwrap();
    store.seal(&mut log).unwrap();
    let key = |at: u8| [b'k', 0, 0, 0, 0, 0, 0, 0, at].to_vec();
    assert!(log.0.iter().all(|(_, value, _)| value.is_some()), "until 5 it was valid");
    store.put(&"other".into(), Some(&0), 15).unwrap();
    store.seal(&mut log).unwrap();
    assert!(log.0.contains(&(key(1), None, 1)));
    assert_eq!(log.compacted().iter().filter(|(k, ..)| k[0] == b'k').count(), 1);
    assert_eq!(as_of(&mut store, 14), Some(2));
}

#[test]
fn what_a_leap_of_time_ends_is_deleted_in_slices_also_across_crashes() {
    let engine = LossyEngine::new();
    let (mut store, mut log) = (store(&engine), Log::default());
    let key = |number: i64| format!("k{}", number % 30);
    for number in 0..300 {
        store.put(&key(number), Some(&number), number / 30).unwrap();
    }
    store.seal(&mut log).unwrap();
    store.put(&"other".into(), Some(&0), 1000).unwrap();
    let mut seals = 0;
    while log.compacted().len() > 31 {
        let before = log.0.len();
        store.seal(&mut log).unwrap();
        assert!(log.0.len() - before < 10, "records of seal {seals}");
        for number in 0..30 {
            let time = 1000 - RETENTION;
            let found = store.get_as_of(&key(number), time).unwrap();
            assert_eq!(found, Some((270 + number, 9)));
            assert_eq!(store.get_as_of(&key(number), 8).unwrap(), None, "swept or not");
            assert_eq!(store.history(&key(number), 0, 8).unwrap(), []);
        }
        if seals % 10 == 5 {
            let position = engine_suite::position(log.0.len() as i64);
            open(&engine).apply(&mut store.begin_flush().unwrap(), &position).unwrap();
            store.flushed();
        }
        if seals % 10 == 9 {
            engine.crash(|unflushed| unflushed / 2);
            let position = open(&engine).position().unwrap();
            let from = position.map_or(0, |position| position.next_offset as usize);
            replay(&engine, &log.0[from..], &engine_suite::position(log.0.len() as i64));
            store = self::store(&engine);
            store.advance_time(1000);
        }
        seals += 1;
        assert!(seals < 1000, "it comes to an end");
    }
    assert!(seals > 20);
}

/// A record of a changelog: key, value, timestamp.
type Logged = (Vec<u8>, Option<Vec<u8>>, Timestamp);

/// The records of a changelog.
#[derive(Clone, Default)]
struct Log(Vec<Logged>);

impl Log {
    /// What compaction leaves: the last record of each key.
    fn compacted(&self) -> Vec<Logged> {
        let last = |at: usize, key: &[u8]| self.0[at + 1..].iter().all(|(k, ..)| k != key);
        let kept = self.0.iter().enumerate().filter(|(at, (key, ..))| last(*at, key));
        kept.map(|(_, record)| record.clone()).filter(|(_, value, _)| value.is_some()).collect()
    }
}

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

/// Replays changelog records into an engine.
fn replay(engine: &LossyEngine, records: &[Logged], position: &Position) {
    let mut entries = BTreeMap::new();
    for (key, value, timestamp) in records {
        let mut builder = BatchBuilder::new();
        builder.push(*timestamp, Some(key), value.as_deref(), &[]).unwrap();
        let batch: Batch = builder.finish().unwrap();
        let mut changes = EntryBatch::new();
        for record in batch.records() {
            VersionedFormat.entries(&record.unwrap(), &mut changes).unwrap();
        }
        let owned =
            |(key, value): (&[u8], Option<&[u8]>)| (key.to_vec(), value.map(<[u8]>::to_vec));
        entries.extend(changes.iter().map(owned));
    }
    let mut batch = EntryBatch::new();
    entries.iter().for_each(|(key, value)| batch.put(key, value.as_deref()));
    open(engine).apply(&mut batch, position).unwrap();
}

type Versions = BTreeMap<Timestamp, Option<i64>>;

/// The whole history of every key.
#[derive(Clone, Default)]
struct Model {
    keys: BTreeMap<String, Versions>,
    time: Timestamp,
}

impl Model {
    fn put(&mut self, key: &str, value: Option<i64>, at: Timestamp) -> Put {
        self.time = self.time.max(at);
        if at < self.time - RETENTION {
            return Put::Rejected;
        }
        let versions = self.keys.entry(key.into()).or_default();
        versions.insert(at, value);
        versions.range(at + 1..).next().map_or(Put::Latest, |(next, _)| Put::Until(*next))
    }

    fn versions(&self, key: &str) -> Vec<Version<Option<i64>>> {
        let Some(versions) = self.keys.get(key) else { return Vec::new() };
        let end = |from: Timestamp| versions.range(from + 1..).next().map(|(next, _)| *next);
        let all = versions.iter().map(|(&from, &value)| Version { value, from, to: end(from) });
        all.filter(|version| version.to.is_none_or(|to| to > self.time - RETENTION)).collect()
    }

    fn as_of(&self, key: &str, time: Timestamp) -> Option<(i64, Timestamp)> {
        let versions = self.versions(key);
        let valid = versions.iter().find(|v| v.from <= time && v.to.is_none_or(|to| to > time))?;
        let is_known = time >= self.time - RETENTION || valid.to.is_none();
        valid.value.filter(|_| is_known).map(|value| (value, valid.from))
    }

    fn history(&self, key: &str, from: Timestamp, to: Timestamp) -> Vec<Version<i64>> {
        let versions = self.versions(key).into_iter();
        let overlaps = |v: &Version<_>| v.from <= to && v.to.is_none_or(|end| end > from);
        let present = |Version { value, from, to }: Version<Option<i64>>| {
            value.map(|value| Version { value, from, to })
        };
        versions.filter(overlaps).filter_map(present).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize, Option<i64>, Timestamp),
    Seal,
    Flush,
    Budget(usize),
    Crash(usize),
    Rebuild,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..3usize, proptest::option::of(0..99i64), -14..6i64)
            .prop_map(|(key, value, at)| Op::Put(key, value, at)),
        3 => Just(Op::Seal),
        3 => Just(Op::Flush),
        1 => prop_oneof![Just(0), Just(usize::MAX)].prop_map(Op::Budget),
        1 => (0..3usize).prop_map(Op::Crash),
        1 => Just(Op::Rebuild),
    ]
}

const KEYS: [&str; 3] = ["", "a", "a\u{0}"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agrees_with_a_map_of_histories(ops in proptest::collection::vec(op(), 0..70)) {
        let mut engine = LossyEngine::new();
        let mut store = store(&engine);
        let (mut model, mut sealed, mut log) = (Model::default(), Model::default(), Log::default());
        for op in ops {
            match op {
                Op::Put(key, value, by) => {
                    let (key, at) = (KEYS[key], (model.time + by).max(0));
                    let put = store.put(&key.into(), value.as_ref(), at).unwrap();
                    assert_eq!(put, model.put(key, value, at));
                }
                Op::Seal => {
                    store.seal(&mut log).unwrap();
                    sealed = model.clone();
                }
                Op::Flush => {
                    store.seal(&mut log).unwrap();
                    sealed = model.clone();
                    let position = engine_suite::position(log.0.len() as i64);
                    open(&engine).apply(&mut store.begin_flush().unwrap(), &position).unwrap();
                    store.flushed();
                }
                Op::Budget(bytes) => store.set_budget(bytes),
                Op::Crash(keep) => {
                    engine.crash(|unflushed| keep.min(unflushed));
                    let position = open(&engine).position().unwrap();
                    let from = position.map_or(0, |position| position.next_offset as usize);
                    let position = engine_suite::position(log.0.len() as i64);
                    replay(&engine, &log.0[from..], &position);
                    store = self::store(&engine);
                    store.advance_time(sealed.time);
                    model = sealed.clone();
                }
                Op::Rebuild => {
                    engine = LossyEngine::new();
                    replay(&engine, &log.compacted(), &engine_suite::position(log.0.len() as i64));
                    store = self::store(&engine);
                    store.advance_time(sealed.time);
                    model = sealed.clone();
                }
            }
            for key in KEYS {
                let latest = model.versions(key).pop();
                let latest = latest.and_then(|v| v.value.map(|value| (value, v.from)));
                assert_eq!(store.get(&key.into()).unwrap(), latest);
                for time in [0, model.time - 11, model.time - 10, model.time - 5, model.time] {
                    assert_eq!(store.get_as_of(&key.into(), time).unwrap(), model.as_of(key, time));
                }
                let (from, to) = (model.time - 8, model.time - 2);
                let history = store.history(&key.into(), from, to).unwrap();
                assert_eq!(history, model.history(key, from, to));
            }
        }
        // In the end hardly more is left than what can still be asked for.
        while store.must_sweep() {
            store.seal(&mut log).unwrap();
        }
        let left = log.compacted().len();
        let wanted: usize = KEYS.iter().map(|key| model.versions(key).len()).sum();
        assert!(left <= wanted, "{left} records for {wanted} versions");
    }
}
