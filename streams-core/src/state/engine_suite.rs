//! What every state engine must do, as checks that any of them can be run through. They panic
//! with the promise that was broken.
//!
//! What a crash may take is not checked here, since each engine has its own way to crash.

#![allow(clippy::unwrap_used)] // test support: a failure is a broken promise

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use broker_api::{Offset, Timestamp, TopicId};
use bytes::Bytes;

use super::{EntryBatch, Expiry, Position, StateEngine, StoreEngine};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Runs all checks in sub-directories of `dir`, which must be empty.
pub fn run(engine: &dyn StateEngine, dir: &Path) {
    a_new_store_is_empty(engine, &dir.join("new"));
    a_batch_is_visible_at_once_with_its_position(engine, &dir.join("apply"));
    any_bytes_are_keys_and_scans_keep_their_bounds(engine, &dir.join("scan"));
    a_scan_shows_the_moment_it_began(engine, &dir.join("snapshot"));
    what_is_flushed_is_there_after_reopening(engine, &dir.join("reopen"));
    stores_of_a_task_are_independent(engine, &dir.join("independent"));
    a_bulk_load_replaces_everything_at_the_end_only(engine, &dir.join("bulk"));
    a_store_works_on_after_a_bulk_load(engine, &dir.join("after-bulk"));
    a_large_batch_is_like_a_small_one(engine, &dir.join("large"));
    random_batches_equal_a_map(engine, &dir.join("random"));
    only_what_has_expired_may_vanish(engine, &dir.join("expired"));
}

/// A position for tests.
pub fn position(next_offset: Offset) -> Position {
    Position {
        cluster_id: "suite".into(),
        topic_id: TopicId(7),
        next_offset,
        others: Vec::new(),
        stream_time: next_offset * 10,
        kind: None,
    }
}

fn open(engine: &dyn StateEngine, dir: &Path) -> Arc<dyn StoreEngine> {
    engine.open(dir, &["store"]).unwrap().remove(0)
}

fn write(store: &dyn StoreEngine, entries: &[(&[u8], Option<&[u8]>)], next_offset: Offset) {
    let mut batch = EntryBatch::new();
    entries.iter().for_each(|(key, value)| batch.put(key, *value));
    store.apply(&mut batch, &position(next_offset)).unwrap();
}

fn contents(store: &dyn StoreEngine) -> Vec<(Bytes, Bytes)> {
    store.scan(&[], None).unwrap().map(Result::unwrap).collect()
}

fn equals(store: &dyn StoreEngine, model: &Model, what: &str) {
    let found = contents(store);
    assert_eq!(found.len(), model.len(), "{what}: number of entries");
    for ((key, value), (model_key, model_value)) in found.iter().zip(model) {
        assert_eq!((&key[..], &value[..]), (&model_key[..], &model_value[..]), "{what}");
    }
}

fn a_new_store_is_empty(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    assert_eq!(store.position().unwrap(), None);
    assert_eq!(store.get(b"").unwrap(), None);
    assert_eq!(contents(&*store), []);
}

fn a_batch_is_visible_at_once_with_its_position(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    write(&*store, &[(b"a", Some(b"1")), (b"b", Some(b""))], 5);
    assert_eq!(store.position().unwrap(), Some(position(5)));
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.get(b"b").unwrap().as_deref(), Some(&b""[..]), "an empty value is a value");
    write(&*store, &[(b"a", None), (b"missing", None)], 6);
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(contents(&*store), [("b".into(), "".into())]);
    write(&*store, &[], 9);
    assert_eq!(store.position().unwrap(), Some(position(9)), "an empty batch moves the position");
}

fn any_bytes_are_keys_and_scans_keep_their_bounds(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    let keys: [&[u8]; 7] =
        [b"", b"\x00", b"\x00\x00", b"\x01", b"\x01\xff", b"\xff", b"\xff\xff\xff"];
    let entries: Vec<(&[u8], Option<&[u8]>)> = keys.iter().rev().map(|k| (*k, Some(*k))).collect();
    write(&*store, &entries, 1);
    for (from, from_key) in keys.iter().enumerate() {
        assert_eq!(store.get(from_key).unwrap().as_deref(), Some(*from_key));
        let scan = |to: Option<&[u8]>| -> Vec<Bytes> {
            store.scan(from_key, to).unwrap().map(|e| e.unwrap().0).collect()
        };
        assert_eq!(scan(None), keys[from..], "scan from {from_key:?} to the end");
        for (to, to_key) in keys.iter().enumerate() {
            let expected = keys.get(from..to).unwrap_or_default();
            assert_eq!(scan(Some(to_key)), expected, "scan from {from_key:?} to {to_key:?}");
        }
    }
}

fn a_scan_shows_the_moment_it_began(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    write(&*store, &[(b"a", Some(b"1")), (b"b", Some(b"1"))], 1);
    let scan = store.scan(&[], None).unwrap();
    write(&*store, &[(b"a", None), (b"b", Some(b"2")), (b"c", Some(b"2"))], 2);
    let found: Vec<_> = scan.map(Result::unwrap).collect();
    assert_eq!(found, [("a".into(), "1".into()), ("b".into(), "1".into())]);
}

fn what_is_flushed_is_there_after_reopening(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    write(&*store, &[(b"a", Some(b"1")), (b"b", Some(b"1"))], 1);
    write(&*store, &[(b"a", None)], 2);
    store.flush().unwrap();
    drop(store);
    let store = open(engine, dir);
    assert_eq!(store.position().unwrap(), Some(position(2)));
    assert_eq!(contents(&*store), [("b".into(), "1".into())]);
}

fn stores_of_a_task_are_independent(engine: &dyn StateEngine, dir: &Path) {
    let stores = engine.open(dir, &["x", "y"]).unwrap();
    write(&*stores[0], &[(b"k", Some(b"x"))], 1);
    write(&*stores[1], &[(b"k", Some(b"y"))], 2);
    stores.iter().for_each(|store| store.flush().unwrap());
    drop(stores);
    let stores = engine.open(dir, &["z", "y", "x"]).unwrap();
    let found: Vec<_> = stores.iter().map(|store| store.get(b"k").unwrap()).collect();
    assert_eq!(found, [None, Some("y".into()), Some("x".into())]);
    let positions: Vec<_> = stores.iter().map(|store| store.position().unwrap()).collect();
    assert_eq!(positions, [None, Some(position(2)), Some(position(1))]);
}

fn a_bulk_load_replaces_everything_at_the_end_only(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    write(&*store, &[(b"a", Some(b"old")), (b"z", Some(b"old"))], 1);
    store.flush().unwrap();

    let mut abandoned = store.bulk_load().unwrap();
    abandoned.put(b"n", b"never").unwrap();
    drop(abandoned);

    let mut load = store.bulk_load().unwrap();
    load.put(b"a", b"new").unwrap();
    load.put(b"b", b"").unwrap();
    assert!(load.put(b"b", b"again").is_err(), "keys must rise");
    assert!(load.put(b"a", b"again").is_err(), "keys must rise");
    assert_eq!(contents(&*store).len(), 2, "nothing is replaced before the end");
    assert_eq!(store.position().unwrap(), Some(position(1)));
    load.finish(&position(8)).unwrap();
    let expected = [("a".into(), "new".into()), ("b".into(), "".into())];
    assert_eq!(contents(&*store), expected);
    assert_eq!(store.position().unwrap(), Some(position(8)));
    drop(store); // without a flush: finish is durable
    let store = open(engine, dir);
    assert_eq!(contents(&*store), expected);
    assert_eq!(store.position().unwrap(), Some(position(8)));

    store.bulk_load().unwrap().finish(&position(9)).unwrap();
    assert_eq!(contents(&*store), [], "a load without entries empties the store");
    assert_eq!(store.position().unwrap(), Some(position(9)));
}

fn a_store_works_on_after_a_bulk_load(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    for round in 0..3 {
        let mut load = store.bulk_load().unwrap();
        load.put(b"a", b"1").unwrap();
        load.put(b"b", b"1").unwrap();
        load.finish(&position(round * 10)).unwrap();
        write(&*store, &[(b"a", None), (b"c", Some(b"2"))], round * 10 + 1);
        assert_eq!(contents(&*store), [("b".into(), "1".into()), ("c".into(), "2".into())]);
        assert_eq!(store.position().unwrap(), Some(position(round * 10 + 1)));
    }
    store.flush().unwrap();
    drop(store);
    let store = open(engine, dir);
    assert_eq!(contents(&*store), [("b".into(), "1".into()), ("c".into(), "2".into())]);
    assert_eq!(store.position().unwrap(), Some(position(21)));
}

fn a_large_batch_is_like_a_small_one(engine: &dyn StateEngine, dir: &Path) {
    let store = open(engine, dir);
    let mut model = Model::new();
    let mut seed = 1;
    for round in 0..4u32 {
        // rounds 1 and 3 are large, and delete what the small ones before them wrote
        let count = if round % 2 == 0 { 100 } else { 60_000 };
        let mut batch = EntryBatch::new();
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..count {
            let key = (next(&mut seed) % 100_000).to_le_bytes(); // unsorted
            if keys.insert(key) {
                let value = (!next(&mut seed).is_multiple_of(4)).then(|| vec![round as u8; 100]);
                batch.put(&key, value.as_deref());
                match value {
                    Some(value) => model.insert(key.to_vec(), value),
                    None => model.remove(&key[..]),
                };
            }
        }
        store.apply(&mut batch, &position(round.into())).unwrap();
        assert_eq!(store.position().unwrap(), Some(position(round.into())));
        equals(&*store, &model, "after a large batch");
    }
    store.flush().unwrap();
    drop(store);
    equals(&*open(engine, dir), &model, "after large batches and reopening");
}

fn random_batches_equal_a_map(engine: &dyn StateEngine, dir: &Path) {
    let mut model = Model::new();
    let mut seed = 2;
    let mut store = open(engine, dir);
    for round in 0..200 {
        match next(&mut seed) % 10 {
            0 => {
                store.flush().unwrap();
                drop(store);
                store = open(engine, dir);
            }
            1 => {
                model.retain(|_, _| next(&mut seed).is_multiple_of(2));
                let mut load = store.bulk_load().unwrap();
                model.iter().for_each(|(key, value)| load.put(key, value).unwrap());
                load.finish(&position(round)).unwrap();
            }
            _ => {
                let mut batch = EntryBatch::new();
                for key in 0..20u64 {
                    let key = (key * 7 + next(&mut seed) % 7).to_be_bytes();
                    let value = next(&mut seed).to_be_bytes();
                    let value = (!value[7].is_multiple_of(3)).then_some(&value[..]);
                    batch.put(&key, value);
                    match value {
                        Some(value) => model.insert(key.to_vec(), value.to_vec()),
                        None => model.remove(&key[..]),
                    };
                }
                store.apply(&mut batch, &position(round)).unwrap();
                assert_eq!(store.position().unwrap(), Some(position(round)));
            }
        }
        equals(&*store, &model, "after random batches");
    }
}

fn only_what_has_expired_may_vanish(engine: &dyn StateEngine, dir: &Path) {
    /// A key's first byte.
    fn expires_by(key: &[u8]) -> Timestamp {
        key.first().map_or(Timestamp::MAX, |byte| Timestamp::from(*byte))
    }
    let mut store = open(engine, dir);
    for round in 0..100u8 {
        let keys: Vec<[u8; 2]> = (0..9).map(|n| [round, n]).collect();
        let entries: Vec<(&[u8], Option<&[u8]>)> =
            keys.iter().map(|key| (&key[..], Some(&b"v"[..]))).collect();
        write(&*store, &entries, round.into());
        let up_to = Timestamp::from(round) - 10;
        store.expire(Expiry { expires_by, up_to });
        store.flush().unwrap();
        if round % 30 == 29 {
            drop(store);
            store = open(engine, dir);
        }
        let found = contents(&*store);
        let live = found.iter().filter(|(key, _)| expires_by(key) > up_to).count();
        assert_eq!(live, 9 * 10.min(usize::from(round) + 1), "round {round}");
        assert!(found.iter().all(|(key, value)| key.len() == 2 && &value[..] == b"v"));
        assert_eq!(store.position().unwrap(), Some(position(round.into())));
    }
}

/// SplitMix64: the next of a fixed sequence of random numbers.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
