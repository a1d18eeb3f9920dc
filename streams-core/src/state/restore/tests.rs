//! Restores against the fold of a changelog.

use std::collections::BTreeMap;
use std::path::Path;

use broker_api::BatchBuilder;
use proptest::prelude::*;

use super::*;
use crate::state::{KeyValueFormat, LossyEngine, StateEngine, engine_suite};

type Record = (u16, Option<Vec<u8>>);
type Fold = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys that share their beginning, some of them shorter than eight bytes.
fn key(number: u16) -> Vec<u8> {
    let text = format!("key{number}");
    if number.is_multiple_of(3) {
        text.into_bytes()
    } else {
        format!("key-with-more-{text}").into_bytes()
    }
}

fn batches(records: &[Record], batch_len: usize) -> Vec<Batch> {
    let mut base = 0;
    let batch = |records: &[Record]| {
        let mut builder = BatchBuilder::new();
        for (number, value) in records {
            builder.push(7, Some(&key(*number)), value.as_deref(), &[]).unwrap();
        }
        let batch = builder.finish().unwrap().assigned(base, 1);
        base = batch.next_offset() + 1; // as if a marker took an offset
        batch
    };
    records.chunks(batch_len).map(batch).collect()
}

fn fold(batches: &[Batch], from: Offset, end: Offset, mut fold: Fold) -> Fold {
    for record in batches.iter().flat_map(Batch::records).map(Result::unwrap) {
        if (from..end).contains(&record.offset) {
            let key = record.key.unwrap().to_vec();
            match record.value {
                Some(value) => {
                    fold.insert(key, [&7i64.to_be_bytes(), value].concat());
                }
                None => {
                    fold.remove(&key);
                }
            }
        }
    }
    fold
}

fn contents(store: &dyn StoreEngine) -> Fold {
    let entries = store.scan(&[], None).unwrap();
    entries.map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn changelog(end: Offset) -> Changelog {
    let position = engine_suite::position(0);
    Changelog {
        cluster_id: position.cluster_id,
        topic_id: position.topic_id,
        horizon: Horizon::default(),
        end,
        kind: StoreKind::KeyValue,
    }
}

fn open(engine: &LossyEngine) -> Arc<dyn StoreEngine> {
    engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0)
}

fn restorer(engine: &LossyEngine, end: Offset, memory: usize, dir: &Path) -> Restorer {
    let store = open(engine);
    let changelog = changelog(end);
    let plan = RestorePlan::decide(store.position().unwrap().as_ref(), &changelog);
    let format = Arc::new(KeyValueFormat);
    Restorer::new(store, format, &plan, &changelog, memory, dir.join("spill")).unwrap()
}

fn record() -> impl Strategy<Value = Record> {
    (0..40u16, proptest::option::weighted(0.8, proptest::collection::vec(any::<u8>(), 0..12)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(5),
        ..ProptestConfig::default()
    })]

    /// A rebuild up to some offset, perhaps interrupted, and then the tail in one or two parts.
    #[test]
    fn equals_the_fold_of_the_changelog(
        records in proptest::collection::vec(record(), 1..400),
        batch_len in 1..20usize,
        memory in prop_oneof![Just(0usize), 0..4000usize, Just(1 << 20)],
        parts in (0.0..1.0f64, 0.0..1.0f64),
        interrupted: bool,
        keep in 0..4usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let engine = LossyEngine::new();
        let batches = batches(&records, batch_len);
        let last = batches.last().unwrap().next_offset();
        let at = |part: f64| (part * last as f64) as Offset;
        if interrupted {
            let mut restorer = restorer(&engine, last, memory, dir.path());
            for batch in &batches[..batches.len() / 2] {
                restorer.feed(batch, last).unwrap();
            }
            drop(restorer);
            prop_assert_eq!(open(&engine).position().unwrap(), None);
        }
        for end in [at(parts.0.min(parts.1)), at(parts.0.max(parts.1)), last] {
            let mut restorer = restorer(&engine, end, memory, dir.path());
            for batch in &batches {
                if batch.next_offset() > restorer.next_offset() && batch.base_offset() < end {
                    restorer.feed(batch, end).unwrap();
                    if restorer.is_full() {
                        restorer.apply_part().unwrap();
                    }
                }
            }
            prop_assert!(restorer.next_offset() <= end);
            restorer.finish(&engine_suite::position(end)).unwrap();
            let expected = fold(&batches, 0, end, Fold::new());
            prop_assert_eq!(contents(&*open(&engine)), expected);
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
            // a crash afterwards leaves the fold up to whatever position is left
            engine.crash(|unflushed| unflushed.saturating_sub(keep));
            let position = open(&engine).position().unwrap();
            let reached = position.map_or(0, |position| position.next_offset);
            let expected = fold(&batches, 0, reached, Fold::new());
            prop_assert_eq!(contents(&*open(&engine)), expected);
        }
    }
}

#[test]
fn a_small_memory_spills_and_merges_many_runs() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LossyEngine::new();
    let records: Vec<Record> = (0..20_000u16)
        .map(|n| (n.wrapping_mul(7919) % 3000, (n % 5 != 0).then(|| n.to_be_bytes().to_vec())))
        .collect();
    let batches = batches(&records, 100);
    let end = batches.last().unwrap().next_offset();
    let mut restorer = restorer(&engine, end, 10_000, dir.path());
    batches.iter().for_each(|batch| restorer.feed(batch, end).unwrap());
    let stats = restorer.finish(&engine_suite::position(end)).unwrap();
    assert_eq!(stats.records, 20_000);
    assert!(stats.spills > 64, "{}", stats.spills);
    assert_eq!(contents(&*open(&engine)), fold(&batches, 0, end, Fold::new()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_position_is_trusted_only_where_the_changelog_still_tells_the_rest() {
    let position = |next_offset| Some(engine_suite::position(next_offset));
    let horizon = Horizon { log_start: 10, tombstones_gone_below: 20, compacted_below: 90 };
    let changelog = Changelog { horizon, ..changelog(100) };
    let decide = |position: Option<Position>| RestorePlan::decide(position.as_ref(), &changelog);
    let rebuilds = |position| matches!(decide(position), RestorePlan::Rebuild { .. });
    assert!(rebuilds(None));
    assert!(rebuilds(position(9)), "below the start of the log");
    assert!(rebuilds(position(19)), "a deletion may be missing");
    assert_eq!(decide(position(20)), RestorePlan::Tail { from: 20 });
    assert_eq!(decide(position(99)), RestorePlan::Tail { from: 99 });
    assert_eq!(decide(position(100)), RestorePlan::UpToDate);
    assert!(rebuilds(position(101)), "ahead of the changelog");
    assert!(rebuilds(position(50).map(|p| Position { topic_id: TopicId(1), ..p })));
    assert!(rebuilds(position(50).map(|p| Position { cluster_id: "other".into(), ..p })));
    let of = |kind| position(100).map(|p| Position { kind: Some(kind), ..p });
    assert_eq!(decide(of(StoreKind::KeyValue)), RestorePlan::UpToDate);
    assert!(rebuilds(of(StoreKind::Versioned)), "of another kind");
    let empty = Changelog { end: 10, ..changelog.clone() };
    assert_eq!(RestorePlan::decide(None, &empty), RestorePlan::UpToDate);
}

#[test]
fn the_newest_time_of_any_key_may_be_the_last_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LossyEngine::new();
    let batches = batches(&[(1, Some(vec![1])), (2, Some(vec![2]))], 1);
    let end = batches[1].next_offset();
    let mut restorer = restorer(&engine, end, 1 << 20, dir.path());
    let expires_by = |at: &[u8]| if at == key(1) { 5 } else { Timestamp::MAX };
    restorer.leave_out(Expiry { expires_by, up_to: 0 }).unwrap();
    batches.iter().for_each(|batch| restorer.feed(batch, end).unwrap());
    restorer.finish(&engine_suite::position(end)).unwrap();
    let position = open(&engine).position().unwrap().unwrap();
    assert_eq!(position.stream_time, Timestamp::MAX);
}

#[test]
fn a_rebuild_replaces_what_was_there_and_merges_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = LossyEngine::new();
    let mut stale = crate::state::EntryBatch::new();
    stale.put(b"stale", Some(b"12345678stale"));
    let foreign = Position { cluster_id: "other".into(), ..engine_suite::position(1) };
    open(&engine).apply(&mut stale, &foreign).unwrap();
    let batches = batches(&[(1, Some(vec![1]))], 1);
    let mut restorer = restorer(&engine, 1, 1 << 20, dir.path());
    restorer.feed(&batches[0], 1).unwrap();
    assert_eq!(open(&engine).get(b"stale").unwrap().as_deref(), Some(&b"12345678stale"[..]));
    restorer.finish(&engine_suite::position(1)).unwrap();
    assert_eq!(contents(&*open(&engine)), fold(&batches, 0, 1, Fold::new()));
}
