//! The cache against a plain map, under random operations, and its rules one by one.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::state::{LossyEngine, StateEngine, engine_suite};

/// Keys are a name and a time.
fn key(name: u8, time: u8) -> [u8; 2] {
    [name, time]
}

fn time_of(key: &[u8]) -> Timestamp {
    key[1].into()
}

fn open(engine: &LossyEngine) -> Arc<dyn StoreEngine> {
    engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0)
}

fn cache(engine: &LossyEngine, forwards: bool) -> OrderedCache {
    let mut cache = OrderedCache::new("s", open(engine), time_of, true, forwards);
    cache.set_budget(usize::MAX);
    cache
}

/// The keys of one name make a group, but for those of the first name.
fn group_of(key: &[u8]) -> Option<usize> {
    key.first().filter(|name| **name != 0).map(|_| 1)
}

fn grouped(engine: &LossyEngine) -> OrderedCache {
    let of_key = (time_of as fn(&[u8]) -> Timestamp, group_of as GroupOf);
    let mut cache = OrderedCache::with_groups("s", open(engine), of_key, true, true);
    cache.set_budget(usize::MAX);
    cache
}

type Model = BTreeMap<Vec<u8>, Timed>;

/// What is shown by one of the ways to visit.
fn model(
    show: impl FnOnce(
        &mut dyn FnMut(&[u8], &Bytes, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), StateError>,
) -> Model {
    let mut shown = Model::new();
    let mut last: Option<Vec<u8>> = None;
    show(&mut |key, value, timestamp| {
        assert!(last.as_deref() < Some(key), "keys rise");
        last = Some(key.to_vec());
        shown.insert(key.to_vec(), (value.clone(), timestamp));
        ControlFlow::Continue(())
    })
    .unwrap();
    shown
}

fn shown(cache: &mut OrderedCache, from: &[u8], to: Option<&[u8]>, oldest: Timestamp) -> Model {
    model(|visit| cache.visit(from, to, oldest, visit))
}

fn all_shown(cache: &mut OrderedCache, oldest: Timestamp) -> Model {
    model(|visit| cache.visit_all(oldest, visit))
}

#[derive(Clone, Debug)]
enum Op {
    Put([u8; 2], Option<u8>),
    Get([u8; 2]),
    Visit([u8; 2], Option<[u8; 2]>, u8),
    Forward(usize),
    Commit,
    Flushed,
    Budget(usize),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let any_key = || (0..3u8, 0..8u8).prop_map(|(name, time)| key(name, time));
    prop_oneof![
        16 => (any_key(), proptest::option::weighted(0.7, any::<u8>())).prop_map(|(k, v)| Op::Put(k, v)),
        4 => any_key().prop_map(Op::Get),
        6 => (any_key(), proptest::option::of(any_key()), 0..8u8)
            .prop_map(|(from, to, oldest)| Op::Visit(from, to, oldest)),
        3 => (0..4usize).prop_map(Op::Forward),
        4 => Just(Op::Commit),
        3 => Just(Op::Flushed),
        1 => prop_oneof![Just(0), Just(600), Just(usize::MAX)].prop_map(Op::Budget),
        1 => Just(Op::Restart),
    ]
}

/// What the cache should hold, forward and commit.
#[derive(Default)]
struct Expected {
    now: Model,
    forwarded: Model,
    /// Changed since the last forward, and since the last commit, in order of last change.
    to_forward: Vec<Vec<u8>>,
    uncommitted: Vec<Vec<u8>>,
}

impl Expected {
    fn put(&mut self, key: &[u8], value: Option<Timed>) {
        match value {
            Some(value) => self.now.insert(key.to_vec(), value),
            None => self.now.remove(key),
        };
        for list in [&mut self.to_forward, &mut self.uncommitted] {
            list.retain(|other| other != key);
            list.push(key.to_vec());
        }
    }

    fn next_forward(&mut self) -> Option<(Vec<u8>, Option<Timed>, Option<Timed>)> {
        while !self.to_forward.is_empty() {
            let key = self.to_forward.remove(0);
            let new = self.now.get(&key).cloned();
            let old = match &new {
                Some(value) => self.forwarded.insert(key.clone(), value.clone()),
                None => self.forwarded.remove(&key),
            };
            if new.is_some() || old.is_some() {
                return Some((key, old, new));
            }
        }
        None
    }
}

fn forward(cache: &mut OrderedCache, expected: &mut Expected) -> bool {
    let changed = cache.next_changed();
    let wanted = expected.next_forward();
    let got = changed.map(|c| (c.key.to_vec(), c.old, c.new.map(|value| (value, c.timestamp))));
    assert_eq!(got, wanted);
    got.is_some()
}

fn check(ops: Vec<Op>, has_groups: bool) {
    let engine = LossyEngine::new();
    let new = || if has_groups { grouped(&engine) } else { cache(&engine, true) };
    let mut cache = new();
    let mut expected = Expected::default();
    let mut flushing: Option<EntryBatch> = None;
    let mut fold = Model::new();
    let mut flushed_fold = Model::new();
    let mut flushing_fold = Model::new();
    for (at, op) in ops.into_iter().enumerate() {
        let at = at as i64;
        match op {
            Op::Put(key, value) => {
                let value = value.map(|value| Bytes::from(vec![value]));
                cache.put(&key, value.clone(), at).unwrap();
                expected.put(&key, value.map(|value| (value, at)));
            }
            Op::Get(key) => {
                assert_eq!(cache.get(&key).unwrap(), expected.now.get(&key[..]).cloned());
            }
            Op::Visit(from, to, oldest) => {
                let mut to = to.as_ref().map(|to| &to[..]);
                let end = key(from[0], 7);
                if has_groups {
                    to = Some(&end); // of the same name
                }
                let shown = match group_of(&from).filter(|_| has_groups) {
                    Some(group) => {
                        model(|visit| cache.visit_group(group, &from, &end, oldest.into(), visit))
                    }
                    None => shown(&mut cache, &from, to, oldest.into()),
                };
                let recent = |model: Model| -> Model {
                    model.into_iter().filter(|(key, _)| key[1] >= oldest).collect()
                };
                let within =
                    |key: &&Vec<u8>| key[..] >= from[..] && to.is_none_or(|to| &key[..] < to);
                let wanted = expected.now.iter().filter(|(key, _)| within(key));
                let wanted = wanted.map(|(k, v)| (k.clone(), v.clone())).collect();
                assert_eq!(recent(shown), recent(wanted));
                assert_eq!(
                    recent(all_shown(&mut cache, oldest.into())),
                    recent(expected.now.clone())
                );
            }
            Op::Forward(most) => {
                for _ in 0..most {
                    forward(&mut cache, &mut expected);
                }
            }
            Op::Commit => {
                while forward(&mut cache, &mut expected) {}
                assert!(!cache.has_changed());
                let mut order = Vec::new();
                cache
                    .commit(|key, value, timestamp| {
                        order.push(key.to_vec());
                        match value {
                            Some(value) => fold
                                .insert(key.to_vec(), (Bytes::copy_from_slice(value), timestamp)),
                            None => fold.remove(key),
                        };
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(order, std::mem::take(&mut expected.uncommitted));
                assert_eq!(fold, expected.now);
                if flushing.is_none() && at % 2 == 0 {
                    flushing = Some(cache.begin_flush().unwrap());
                    flushing_fold = fold.clone();
                }
            }
            Op::Flushed => {
                if let Some(mut batch) = flushing.take() {
                    open(&engine).apply(&mut batch, &engine_suite::position(at)).unwrap();
                    cache.flushed();
                    flushed_fold = flushing_fold.clone();
                }
            }
            Op::Budget(budget) => cache.set_budget(budget),
            Op::Restart => {
                // What is not flushed is lost; the engine's state is what was flushed last.
                cache = new();
                flushing = None;
                fold = flushed_fold.clone();
                expected = Expected {
                    now: flushed_fold.clone(),
                    forwarded: flushed_fold.clone(),
                    ..Expected::default()
                };
            }
        }
        assert_eq!(cache.has_uncommitted(), !expected.uncommitted.is_empty());
        let weights = cache.slots.iter().map(|slot| (slot.weight(), slot.state));
        let uncommitted = cache.slots.iter().filter(|slot| slot.state == State::Uncommitted);
        let uncommitted: usize = uncommitted.map(Slot::payload).sum();
        assert_eq!(cache.uncommitted_bytes, uncommitted);
        let (mut all, mut dirty) = (0, 0);
        for (weight, state) in weights {
            all += weight;
            dirty += if state == State::Clean { 0 } else { weight };
        }
        assert_eq!((cache.cached_bytes(), cache.dirty_bytes()), (all, dirty));
        for slot in cache.slots.iter() {
            let found = cache.index.find(&slot.key).map(|id| cache.slots.at(id));
            assert!(found.is_some_and(|found| std::ptr::eq(found, slot)), "{slot:?}");
        }
        assert_eq!(cache.index.len(), cache.slots.len());
    }
    assert_eq!(all_shown(&mut cache, Timestamp::MIN), expected.now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_a_plain_map(ops in proptest::collection::vec(op(), 0..120)) {
        check(ops, false);
    }

    #[test]
    fn agrees_with_a_plain_map_when_keys_are_grouped(ops in proptest::collection::vec(op(), 0..120)) {
        check(ops, true);
    }
}

fn flush(cache: &mut OrderedCache, engine: &LossyEngine) {
    cache.commit(|_, _, _| Ok(())).unwrap();
    let mut batch = cache.begin_flush().unwrap();
    open(engine).apply(&mut batch, &engine_suite::position(1)).unwrap();
    cache.flushed();
}

#[test]
fn what_is_recent_is_answered_without_the_engine() {
    let engine = LossyEngine::new();
    let mut cache = cache(&engine, false);
    for time in 0..100u8 {
        cache.put(&key(time % 7, time), Some(Bytes::from_static(b"value")), 0).unwrap();
    }
    flush(&mut cache, &engine);
    cache.set_budget(cache.cached_bytes() - 1);
    let Some(Completeness::From(complete_from)) = cache.completeness else { panic!("none") };
    assert!((1..60).contains(&complete_from), "{complete_from}");
    // Behind the cache's back everything goes: what it still shows is in memory.
    let mut all = EntryBatch::new();
    for time in 0..100u8 {
        all.put(&key(time % 7, time), None);
    }
    open(&engine).apply(&mut all, &engine_suite::position(2)).unwrap();
    let recent = shown(&mut cache, &[], None, complete_from);
    assert_eq!(recent.keys().filter(|key| time_of(key) >= complete_from).count(), {
        100 - complete_from as usize
    });
    assert_eq!(cache.get(&key(0, 70)).unwrap().unwrap().0, "value");
}

#[test]
fn what_has_expired_leaves_memory_and_is_not_written() {
    let engine = LossyEngine::new();
    let mut cache = cache(&engine, false);
    for time in 0..10u8 {
        cache.put(&key(0, time), Some(Bytes::new()), 0).unwrap();
    }
    cache.expire(4);
    flush(&mut cache, &engine);
    assert_eq!(open(&engine).scan(&[], None).unwrap().count(), 5);
    assert_eq!(cache.slots.len(), 5);
}

#[test]
fn what_expires_leaves_memory_at_commits_long_before_a_flush() {
    let engine = LossyEngine::default();
    let mut cache = cache(&engine, false);
    for time in 0..200u8 {
        cache.put(&key(1, time), Some(Bytes::from_static(b"v")), time.into()).unwrap();
        cache.expire(Timestamp::from(time) - 10);
        cache.commit(|_, _, _| Ok(())).unwrap();
        assert!(cache.slots.len() < 40, "{} entries, of which 10 matter", cache.slots.len());
    }
    assert!(cache.committed.len() < 40, "{} keys are listed", cache.committed.len());
    assert_eq!(shown(&mut cache, &key(1, 190), None, 190).len(), 10);
    flush(&mut cache, &engine);
    assert_eq!(cache.dirty_bytes(), 0);
}

#[test]
fn a_visitor_may_break_off() {
    let engine = LossyEngine::new();
    let mut cache = cache(&engine, false);
    for time in 0..4u8 {
        cache.put(&key(0, time), Some(Bytes::new()), 0).unwrap();
        if time == 1 {
            flush(&mut cache, &engine);
            cache.set_budget(0); // the first two are only in the engine
            cache.set_budget(usize::MAX);
        }
    }
    for stop in 0..4 {
        let mut seen = 0;
        let visit = |_: &[u8], _: &Bytes, _| {
            seen += 1;
            if seen > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        cache.visit(&[], None, 0, visit).unwrap();
        assert_eq!(seen, stop + 1);
    }
}

#[test]
fn what_has_the_last_of_all_times_is_found_in_the_engine_too() {
    let engine = LossyEngine::new();
    let cache = || OrderedCache::new("s", open(&engine), |_| Timestamp::MAX, true, false);
    let mut before = cache();
    before.put(&[1], Some(Bytes::from_static(b"value")), 0).unwrap();
    flush(&mut before, &engine);
    before.set_budget(0);
    for mut cache in [cache(), before] {
        assert_eq!(cache.get(&[1]).unwrap().unwrap().0, "value");
        assert_eq!(shown(&mut cache, &[], None, Timestamp::MAX).len(), 1);
    }
}

#[test]
fn longer_keys_in_between_are_of_another_group() {
    let engine = LossyEngine::new();
    let time_of = |key: &[u8]| key.last().copied().map_or(0, Timestamp::from);
    let group_of = |key: &[u8]| key.len().checked_sub(1);
    let of_key = (time_of as fn(&[u8]) -> Timestamp, group_of as GroupOf);
    let mut cache = OrderedCache::with_groups("s", open(&engine), of_key, true, false);
    for key in [&[1, 3][..], &[1, 4, 0], &[1, 5], &[1, 5, 0], &[2, 4]] {
        cache.put(key, Some(Bytes::new()), 0).unwrap();
    }
    let in_group = |cache: &mut OrderedCache| -> Vec<Vec<u8>> {
        model(|visit| cache.visit_group(1, &[1, 0], &[1, 9], 0, visit)).into_keys().collect()
    };
    let wanted = [vec![1, 3], vec![1, 5]];
    assert_eq!(in_group(&mut cache), wanted);
    flush(&mut cache, &engine);
    cache.set_budget(0); // now some are only in the engine
    assert!(cache.completeness > Some(Completeness::From(3)));
    assert_eq!(in_group(&mut cache), wanted);
}
