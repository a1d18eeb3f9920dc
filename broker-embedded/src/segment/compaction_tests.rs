//! Compaction against a plain map.

use std::collections::BTreeMap;

use broker_api::{Batch, BatchBuilder, Error, Header, Horizon, Offset, TopicId};

use super::*;
use crate::vfs::Dice;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Lets the records from `from` on, below `to`, act on a state.
fn fold(mut state: State, batches: &[Batch], from: Offset, to: Offset) -> State {
    for record in batches.iter().flat_map(Batch::records).map(Result::unwrap) {
        let Some(key) = record.key else { continue };
        if !(from..to).contains(&record.offset) {
            continue;
        }
        match record.value {
            Some(value) => state.insert(key.into(), value.into()),
            None => state.remove(key),
        };
    }
    state
}

/// Batches of a few records with few keys, some of them tombstones, some without key.
fn random_log(dice: &mut Dice, batches: u64, keys: u64, next: &mut Offset) -> Vec<Batch> {
    let mut log = Vec::new();
    for _ in 0..batches {
        let mut builder = BatchBuilder::new();
        for i in 0..dice.below(6) + 1 {
            let key = format!("key {}", dice.below(keys));
            let value = format!("{} in {next}", i);
            let headers = [Header { name: "n".into(), value: Some(value.clone().into()) }];
            builder
                .push(
                    dice.below(1_000) as i64,
                    (!dice.chance(1) || dice.chance(4)).then_some(key.as_bytes()),
                    (!dice.chance(2)).then_some(value.as_bytes()),
                    if dice.chance(4) { &headers } else { &[] },
                )
                .unwrap();
        }
        *next += if dice.chance(1) { 3 } else { 0 };
        let batch = builder.finish().unwrap().assigned(*next, *next * 10);
        *next = batch.next_offset();
        log.push(batch);
    }
    log
}

fn compact(
    log: &[Batch],
    drop_tombstones_below: Offset,
    memory_bytes: usize,
) -> (Vec<Batch>, Horizon, usize) {
    let settings = CompactionSettings { drop_tombstones_below, memory_bytes };
    let mut planner = CompactionPlanner::new(TopicId(7), settings);
    let mut rounds = 1;
    loop {
        log.iter().for_each(|batch| planner.add(batch).unwrap());
        match planner.end_of_input() {
            Round::Done => break,
            Round::Another => rounds += 1,
        }
    }
    let mut compaction = planner.finish();
    let horizon = Horizon {
        log_start: 0,
        tombstones_gone_below: compaction.tombstones_gone_below(),
        compacted_below: compaction.compacted_below(),
    };
    let kept = log.iter().filter_map(|batch| compaction.filter(batch).unwrap()).collect();
    (kept, horizon, rounds)
}

/// Offset, timestamp, key, value, headers.
type Record = (Offset, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>);

fn records(log: &[Batch]) -> Vec<Record> {
    let records = log.iter().flat_map(Batch::records).map(Result::unwrap);
    records
        .map(|r| {
            let headers = r.headers.to_vec().unwrap();
            (r.offset, r.timestamp, r.key.map(Vec::from), r.value.map(Vec::from), headers)
        })
        .collect()
}

/// The log goes through several compactions while it grows, as a changelog does. Each must leave
/// the same state behind, to everyone above the watermarks.
#[test]
fn the_compacted_log_folds_to_the_same_state_for_all_above_the_watermarks() {
    let (mut dropped_tombstones, mut many_rounds) = (0, 0);
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let keys = dice.below(30) + 1;
        let memory = [64, 300, 1 << 20][dice.below(3) as usize];
        let (mut end, mut clean_below) = (0, 0);
        let mut original = Vec::new();
        let mut log = Vec::new();
        let mut horizon = Horizon::default();
        for _ in 0..4 {
            let more = dice.below(20);
            let new = random_log(&mut dice, more, keys, &mut end);
            original.extend(new.iter().cloned());
            log.extend(new);
            let (kept, found, rounds) = compact(&log, clean_below, memory);
            many_rounds += usize::from(rounds > 3);
            dropped_tombstones += usize::from(found.tombstones_gone_below > 0);
            horizon.tombstones_gone_below =
                horizon.tombstones_gone_below.max(found.tombstones_gone_below);
            horizon.compacted_below = horizon.compacted_below.max(found.compacted_below);
            log = kept;
            clean_below = end;

            let state = fold(State::new(), &original, 0, end);
            assert_eq!(fold(State::new(), &log, 0, end), state, "seed {seed}");
            for position in 0..=end {
                let then = fold(State::new(), &original, 0, position);
                if position >= horizon.compacted_below {
                    let told = fold(State::new(), &log, 0, position);
                    assert_eq!(told, then, "seed {seed}, as of {position}");
                }
                if position >= horizon.tombstones_gone_below {
                    let caught_up = fold(then, &log, position, end);
                    assert_eq!(caught_up, state, "seed {seed}, restored from {position}");
                }
            }
        }
    }
    assert!(dropped_tombstones > 100 && many_rounds > 100, "{dropped_tombstones} {many_rounds}");
}

#[test]
fn what_stays_is_unchanged_and_each_key_stays_once() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let log = random_log(&mut dice, 30, 20, &mut 0);
        let (kept, _, _) = compact(&log, 0, 1 << 20);
        let newest: BTreeMap<_, _> = records(&log)
            .into_iter()
            .filter_map(|record| Some((record.2.clone()?, record)))
            .collect();
        let mut expected: Vec<_> = newest.into_values().collect();
        expected.sort_by_key(|record| record.0);
        assert_eq!(records(&kept), expected, "seed {seed}");
        for batch in &kept {
            let before = log.iter().find(|b| b.base_offset() == batch.base_offset()).unwrap();
            assert_eq!(batch.next_offset(), before.next_offset());
            assert_eq!(batch.append_time(), before.append_time());
            let parsed = Batch::parse(batch.bytes().clone()).unwrap();
            assert_eq!(parsed.count(), batch.count());
        }
    }
}

#[test]
fn few_memory_gives_the_same_result_in_more_rounds() {
    let log = random_log(&mut Dice::new(1), 200, 300, &mut 0);
    let (kept, horizon, rounds) = compact(&log, 50, 1 << 20);
    assert_eq!(rounds, 1);
    for memory in [64, 640, 6_400] {
        let (same, same_horizon, more_rounds) = compact(&log, 50, memory);
        assert_eq!((same, same_horizon), (kept.clone(), horizon));
        assert!(more_rounds > rounds, "{memory} bytes");
    }
}

#[test]
fn a_tombstone_stays_the_first_time_and_goes_the_second() {
    let mut builder = BatchBuilder::new();
    builder.push(0, Some(b"k"), Some(b"v"), &[]).unwrap();
    builder.push(0, Some(b"k"), None, &[]).unwrap();
    builder.push(0, Some(b"other"), Some(b"v"), &[]).unwrap();
    let log = [builder.finish().unwrap()];
    let (first, horizon, _) = compact(&log, 0, 1 << 20);
    assert_eq!(records(&first).iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((horizon.compacted_below, horizon.tombstones_gone_below), (2, 0));
    let (second, horizon, _) = compact(&first, 3, 1 << 20);
    assert_eq!(records(&second).iter().map(|r| r.0).collect::<Vec<_>>(), [2]);
    assert_eq!((horizon.compacted_below, horizon.tombstones_gone_below), (0, 2));
    assert_eq!((second[0].base_offset(), second[0].next_offset()), (0, 3));
}

#[test]
fn a_malformed_batch_is_an_error() {
    let mut builder = BatchBuilder::new();
    builder.push(0, Some(b"key"), Some(b"value"), &[]).unwrap();
    let mut bytes = builder.finish().unwrap().bytes().to_vec();
    bytes[61] = 0x7f;
    let batch = Batch::parse_trusted(bytes.into()).unwrap();
    let settings = CompactionSettings { drop_tombstones_below: 0, memory_bytes: 1_000 };
    let mut planner = CompactionPlanner::new(TopicId(7), settings);
    assert!(matches!(planner.add(&batch), Err(Error::InvalidBatch { .. })));
}
