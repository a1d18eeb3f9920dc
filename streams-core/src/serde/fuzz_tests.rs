//! Bytes that nobody of us has written: an error is an answer, a panic is none. What can be decoded
//! comes back as it was.

use std::fmt::Debug;

use broker_api::Header;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::record::Headers;
use crate::windowed::Windowed;

/// What happens to bytes: some are changed, the end is cut off, something follows.
#[derive(Clone, Debug)]
struct Harm {
    changes: Vec<(Index, u8)>,
    cut: Option<Index>,
    tail: Vec<u8>,
}

fn harm() -> impl Strategy<Value = Harm> {
    let byte = || prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()];
    let changes = proptest::collection::vec((any::<Index>(), byte()), 0..4);
    let tail = proptest::collection::vec(byte(), 0..9);
    (changes, any::<Option<Index>>(), tail).prop_map(|(changes, cut, tail)| Harm {
        changes,
        cut,
        tail,
    })
}

impl Harm {
    fn done_to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for (at, byte) in self.changes.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bytes.truncate(self.cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
        bytes.extend_from_slice(&self.tail);
        bytes
    }
}

fn survives<T: PartialEq + Debug + 'static>(serde: &DynSerde<T>, value: &T, harm: &Harm) {
    let there_and_back = |value: &T| {
        let mut out = Vec::new();
        serde.put(value, &mut out).unwrap();
        assert_eq!(&serde.get(&out, &Bytes::new()).unwrap(), value);
        out
    };
    let harmed = Bytes::from(harm.done_to(there_and_back(value)));
    if let Ok(other) = serde.get(&harmed, &harmed) {
        there_and_back(&other);
    }
    let _ = serde.get(&harm.tail, &Bytes::new());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(12),
        ..ProptestConfig::default()
    })]

    #[test]
    fn windowed_keys_survive_any_bytes(
        key in ".{0,5}", start in any::<i64>(), end in any::<i64>(), size in 0..i64::MAX, harm in harm(),
    ) {
        let window = Windowed::new(key.clone(), start, start.saturating_add(size));
        survives(&time_windowed(String::serde(), size), &window, &harm);
        survives(&session_windowed(String::serde()), &Windowed::new(key, start, end), &harm);
        survives(&session_windowed(i64::serde()), &Windowed::new(end, start, end), &harm);
    }

    #[test]
    fn values_with_headers_survive_any_bytes(
        value in ".{0,5}",
        headers in proptest::collection::vec((".{0,3}", any::<Option<Vec<u8>>>()), 0..4),
        harm in harm(),
    ) {
        let header =
            |(name, value): (String, Option<Vec<u8>>)| Header { name, value: value.map(Bytes::from) };
        let headers: Headers = headers.into_iter().map(header).collect::<Vec<_>>().into();
        survives(&with_headers(String::serde()), &(value, headers), &harm);
    }
}
