//! What operators write into internal topics and stores, harmed: an error is an answer, a panic is
//! none. What can be decoded comes back as it was.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use streams_core::serde::DynSerde;
use streams_core::{Change, HasSerde};

use super::change::changes;
use super::stream_join::{Side, SideSerde};
use super::subscription::{
    Instruction, Response, Subscriber, Subscription, responses, subscribers, subscriptions,
};

/// What happens to bytes: some are changed, the end is cut off, something follows.
#[derive(Clone, Debug)]
struct Harm {
    changes: Vec<(Index, u8)>,
    cut: Option<Index>,
    tail: Vec<u8>,
}

fn harm() -> impl Strategy<Value = Harm> {
    let byte = || prop_oneof![0..4u8, Just(255), any::<u8>()];
    let changes = proptest::collection::vec((any::<Index>(), byte()), 0..4);
    let tail = proptest::collection::vec(byte(), 0..9);
    (changes, any::<Option<Index>>(), tail).prop_map(|(changes, cut, tail)| Harm {
        changes,
        cut,
        tail,
    })
}

fn survives<T: PartialEq + Debug + 'static>(serde: &DynSerde<T>, value: &T, harm: &Harm) {
    let there_and_back = |value: &T| {
        let mut out = Vec::new();
        serde.put(value, &mut out).unwrap();
        assert_eq!(&serde.get(&out, &Bytes::new()).unwrap(), value);
        out
    };
    let mut harmed = there_and_back(value);
    for (at, byte) in &harm.changes {
        let at = at.index(harmed.len());
        harmed[at] = *byte;
    }
    harmed.truncate(harm.cut.map_or(harmed.len(), |cut| cut.index(harmed.len() + 1)));
    harmed.extend_from_slice(&harm.tail);
    for bytes in [harmed, harm.tail.clone()].map(Bytes::from) {
        if let Ok(other) = serde.get(&bytes, &bytes) {
            there_and_back(&other);
        }
    }
}

fn instruction() -> impl Strategy<Value = Instruction> {
    prop_oneof![
        Just(Instruction::Forget),
        Just(Instruction::ForgetAndAnswer),
        Just(Instruction::Answer),
        Just(Instruction::AnswerIfFound),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(14),
        ..ProptestConfig::default()
    })]

    #[test]
    fn foreign_key_joins_survive_any_bytes(
        (instruction, partition, hash) in (instruction(), any::<u32>(), any::<Option<u128>>()),
        (key, value, is_due) in (".{0,5}", any::<Option<i64>>(), any::<bool>()),
        gone in proptest::option::of(".{0,5}"),
        harm in harm(),
    ) {
        let subscription = Subscription { instruction, partition, key, hash };
        survives(&subscriptions(String::serde()), &subscription, &harm);
        let gone = gone.filter(|_| value.is_none()).map(Bytes::from);
        let response = Response { partition, hash, value, is_due, gone };
        survives(&responses(i64::serde()), &response, &harm);
        let subscriber = Subscriber { partition, hash: hash.unwrap_or_default() };
        survives(&subscribers(), &subscriber, &harm);
    }

    #[test]
    fn changes_of_grouped_tables_survive_any_bytes(
        (new, old) in (".{0,9}", proptest::option::of(".{0,9}")),
        numbers in any::<(i64, i64)>(),
        harm in harm(),
    ) {
        let text = changes(String::serde());
        survives(&text, &Change::new(Some(new.clone()), old), &harm);
        survives(&text, &Change::new(None, Some(new)), &harm);
        survives(&changes(i64::serde()), &Change::new(Some(numbers.0), Some(numbers.1)), &harm);
    }

    #[test]
    fn the_sides_of_a_stream_join_survive_any_bytes(
        (left, right) in (".{0,5}", any::<i64>()),
        harm in harm(),
    ) {
        let sides = SideSerde { left: String::serde(), right: i64::serde() };
        let serde: DynSerde<Side<String, i64>> = Arc::new(sides);
        survives(&serde, &Side::Left(left), &harm);
        survives(&serde, &Side::Right(right), &harm);
    }
}
