//! The buffer against a plain list, under random operations, flushes and crashes.

use std::collections::BTreeMap;
use std::path::Path;

use broker_api::Header;
use proptest::prelude::*;

use super::*;
use crate::record::Headers;
use crate::serde::{HasSerde, Serde};
use crate::state::{LossyEngine, StateEngine, engine_suite};

/// The records of the changelog.
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

fn buffer(engine: &LossyEngine) -> ChangeBuffer<String, i64> {
    ChangeBuffer::new("s", String::serde(), i64::serde(), open(engine), true)
}

fn update(key: &str, old: Option<i64>, new: Option<i64>) -> Record<String, Change<i64>> {
    let headers = match new {
        Some(n) if n % 2 == 0 => vec![Header { name: "n".into(), value: None }].into(),
        _ => Headers::default(),
    };
    Record { headers, ..Record::new(key.into(), Change::new(new, old), 7) }
}

fn take_first<K: Data + Eq + std::hash::Hash, V: Data>(
    buffer: &mut ChangeBuffer<K, V>,
) -> Result<Option<Record<K, Change<V>>>, StateError> {
    let Some(place) = buffer.first_place()? else { return Ok(None) };
    Ok(buffer.take(&place)?.map(|taken| taken.update))
}

#[test]
fn golden_bytes() {
    let mut buffer = buffer(&LossyEngine::new());
    buffer.put(258, update("k", None, Some(2))).unwrap();
    let mut log = Log::default();
    buffer.seal(&mut log).unwrap();
    let mut held = vec![0, 0, 0, 0, 0, 0, 1, 2];
    held.extend([0]); // no old value
    held.extend([1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]);
    held.extend([0, 0, 0, 1, b'n', 0, 0, 0, 0]);
    let place = vec![1, 0, 0, 0, 0, 0, 0, 1, 2, b'k'];
    assert_eq!(log.0, [(vec![0, b'k'], Some(held), 7), (place, Some(vec![]), 7)]);
}

#[test]
fn what_comes_out_has_the_value_before_the_first_update() {
    let mut buffer = buffer(&LossyEngine::new());
    buffer.put(5, update("k", Some(1), Some(2))).unwrap();
    buffer.put(9, update("k", Some(2), Some(3))).unwrap();
    assert_eq!(buffer.get(&"k".into()).unwrap(), Some(update("k", Some(1), Some(3))));
    assert!(buffer.drain(5, 10).unwrap().is_empty());
    assert_eq!(buffer.drain(6, 10).unwrap(), [update("k", Some(1), Some(3))]);
    assert_eq!(take_first(&mut buffer).unwrap(), None);
}

#[derive(Clone, Debug)]
enum Op {
    Put(Timestamp, usize, Option<i64>),
    Drain(Timestamp, usize),
    First,
    Flush,
    Budget(usize),
    Crash(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..9i64, 0..3usize, proptest::option::of(any::<i64>()))
            .prop_map(|(time, key, new)| Op::Put(time, key, new)),
        3 => (0..9i64, 1..3usize).prop_map(|(before, most)| Op::Drain(before, most)),
        2 => Just(Op::First),
        3 => Just(Op::Flush),
        1 => prop_oneof![Just(0), Just(usize::MAX)].prop_map(Op::Budget),
        2 => (0..3usize).prop_map(Op::Crash),
    ]
}

/// What waits: place, update, and bytes are known by key.
type Model = BTreeMap<String, (Timestamp, Record<String, Change<i64>>)>;

fn first(model: &Model) -> Option<(Timestamp, String)> {
    model.iter().map(|(key, (time, _))| (*time, key.clone())).min()
}

fn sizes(model: &Model) -> Waiting {
    let serde = HeldSerde(i64::serde());
    let size = |(key, (time, record)): (&String, &(Timestamp, Record<String, Change<i64>>))| {
        let Record { value: Change { new, old, .. }, headers, .. } = record.clone();
        let mut out = Vec::new();
        serde.put(&Held { time: *time, old, new, headers, bytes: 0 }, &mut out).unwrap();
        key.len() + out.len()
    };
    Waiting { keys: model.len(), bytes: model.iter().map(size).sum() }
}

#[test]
fn what_waits_since_the_end_of_time_is_taken_out_too() {
    let mut buffer = buffer(&LossyEngine::new());
    buffer.put(i64::MAX, update("last", None, Some(1))).unwrap();
    buffer.put(3, update("first", None, Some(2))).unwrap();
    let mut first = || take_first(&mut buffer).unwrap().map(|record| record.key);
    assert_eq!(first().as_deref(), Some("first"));
    assert_eq!(first().as_deref(), Some("last"));
    assert_eq!(first(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agrees_with_a_sorted_list(ops in proptest::collection::vec(op(), 0..60)) {
        let engine = LossyEngine::new();
        let mut buffer = buffer(&engine);
        let mut model = Model::new();
        // Snapshots of the model: one for each position of the engine.
        let mut flushed = vec![model.clone()];
        for op in ops {
            buffer.waiting().unwrap();
            match op {
                Op::Put(time, key, new) => {
                    let key = ["", "a", "a\0"][key];
                    let known = model.get(key).cloned();
                    let (place, old) = known.map_or((time, Some(-1)), |(place, r)| (place, r.value.old));
                    buffer.put(time, update(key, Some(-1), new)).unwrap();
                    model.insert(key.into(), (place, update(key, old, new)));
                }
                Op::Drain(before, most) => {
                    let mut expected = Vec::new();
                    while let Some((_, key)) = first(&model).filter(|(time, _)| *time < before)
                        && expected.len() < most
                    {
                        expected.extend(model.remove(&key).map(|(_, record)| record));
                    }
                    assert_eq!(buffer.drain(before, most).unwrap(), expected);
                }
                Op::First => {
                    let expected = first(&model).and_then(|(_, key)| model.remove(&key));
                    assert_eq!(take_first(&mut buffer).unwrap(), expected.map(|(_, record)| record));
                }
                Op::Flush => {
                    buffer.seal(&mut Log::default()).unwrap();
                    let mut batch = buffer.begin_flush().unwrap();
                    let at = flushed.len() as i64;
                    open(&engine).apply(&mut batch, &engine_suite::position(at)).unwrap();
                    buffer.flushed();
                    flushed.push(model.clone());
                }
                Op::Budget(bytes) => buffer.set_budget(bytes),
                Op::Crash(keep) => {
                    engine.crash(|unflushed| keep.min(unflushed));
                    let position = open(&engine).position().unwrap();
                    flushed.truncate(position.map_or(0, |p| p.next_offset as usize) + 1);
                    model = flushed.last().cloned().unwrap_or_default();
                    buffer = self::buffer(&engine);
                }
            }
            assert_eq!(buffer.waiting().unwrap(), sizes(&model));
        }
    }
}
