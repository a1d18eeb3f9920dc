//! Frames whose checksums fit but whose entries are not what any broker has written: an error is an
//! answer, a panic is none. What is understood comes back from a checkpoint as it was.

use std::path::Path;

use broker_api::{TopicConfig, TopicId};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::entry::tests::examples;
use super::file::JournalFile;
use super::frame::{FrameHead, HEAD_LEN};
use super::recovery::{Position, fold};
use crate::checkpoint;
use crate::sequencer::partition::Log;
use crate::sequencer::state::State;

/// A state with the partition that the examples name.
fn state() -> State {
    let mut state = State::default();
    let logs = (0..3).map(|_| Log { end: 5, ..Log::default() }).collect();
    state.add_topic(TopicId(0x11), "t".into(), TopicConfig::default(), logs);
    state
}

/// Folds a frame of these bytes.
fn folded(entries: u32, payload: &[u8]) -> Option<State> {
    let mut state = state();
    let head = FrameHead {
        payload: payload.len() as u32,
        seq: 1,
        durable_seq: 0,
        now: 1_000,
        first_lsn: 0,
        entries,
    };
    let bytes = [&[0; HEAD_LEN][..], payload].concat();
    let file = JournalFile::missing(Path::new("/journal"), 0);
    let position = Position { at: 0, seq: 1 };
    fold(&file, position, &head, Bytes::from(bytes), &mut state).ok().map(|()| state)
}

#[test]
fn entries_as_they_are_written_are_folded() {
    let (entry, bytes) = examples().swap_remove(1);
    let state = folded(1, &bytes).unwrap();
    let end = state.partitions().map(|(_, p)| p.lock().end).max();
    assert_eq!(end, entry.batches().last().map(|placed| placed.batch.next_offset()));
    checkpoint::tests::comes_back(&state);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(16),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_entries_below_checksums_that_fit_are_survived(
        chosen in proptest::collection::vec(any::<Index>(), 1..5),
        changes in proptest::collection::vec((any::<Index>(), prop_oneof![Just(0u8), Just(255), any::<u8>()]), 0..4),
        cut in proptest::option::weighted(0.2, any::<Index>()),
        tail in proptest::collection::vec(any::<u8>(), 0..2),
    ) {
        let examples = examples();
        let mut payload: Vec<u8> =
            chosen.iter().flat_map(|which| which.get(&examples).1.clone()).collect();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        payload.truncate(cut.map_or(payload.len(), |cut| cut.index(payload.len() + 1)));
        payload.extend_from_slice(&tail);
        if let Some(state) = folded(chosen.len() as u32, &payload) {
            checkpoint::tests::comes_back(&state);
        }
    }
}
