//! Stores over bytes that nobody of us has written: an error is an answer, a panic is none.

use std::path::Path;
use std::sync::Arc;

use broker_api::{BatchBuilder, Timestamp};
use bytes::Bytes;
use proptest::prelude::*;

use super::windowed_keys::{Kind, Layout};
use super::*;
use crate::record::{Change, Data, Headers, Record};
use crate::serde::{DynSerde, HasSerde};
use crate::windowed::{Window, Windowed};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Bytes that look a little like keys: short ones, first bytes that mean something, extreme numbers.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        (0..50i64).boxed(),
        Just(i64::MAX).boxed(),
        Just(i64::MIN).boxed(),
        Just(-1i64).boxed(),
        any::<i64>().boxed(),
    ];
    let part = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        (0..3u8).prop_map(|byte| vec![byte]),
        number.prop_map(|number| number.to_be_bytes().to_vec()),
        prop_oneof![Just(0u32), Just(1), Just(9), Just(u32::MAX)]
            .prop_map(|number| number.to_be_bytes().to_vec()),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn entries() -> impl Strategy<Value = Entries> {
    proptest::collection::vec((bytes(), bytes()), 0..12)
}

fn engine(entries: &Entries) -> Arc<dyn StoreEngine> {
    let engine = LossyEngine::new().open(Path::new("0_0"), &["s"]).unwrap().remove(0);
    let mut batch = EntryBatch::new();
    entries.iter().for_each(|(key, value)| batch.put(key, Some(value)));
    engine.apply(&mut batch, &engine_suite::position(1)).unwrap();
    engine
}

struct Ignored;

impl ChangelogWriter for Ignored {
    fn put(
        &mut self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Timestamp,
    ) -> Result<(), crate::error::StateError> {
        Ok(())
    }
}

/// What every store does. Answers do not matter.
fn store(store: &mut dyn Store, budget: usize) {
    let _ = store.dump();
    if store.seal(&mut Ignored).is_ok() && store.begin_flush().is_ok() {
        store.flushed();
    }
    store.set_budget(budget);
    store.advance_time(30);
    store.advance_time(Timestamp::MAX);
    let _ = (store.expiry(), store.unsealed_bytes(), store.cached_bytes(), store.dump());
}

fn all_stores<K: Data + Eq + std::hash::Hash, V: Data>(
    (key_serde, value_serde): (DynSerde<K>, DynSerde<V>),
    (key, value): (K, V),
    entries: &Entries,
    time: Timestamp,
) {
    let serdes = || (key_serde.clone(), value_serde.clone());
    let some = || Some(value.clone());
    for max_entries in [None, Some(1)] {
        let (k, v) = serdes();
        let forward_on_seal = max_entries.is_none();
        let options = StoreOptions { forward_on_seal, max_entries, ..StoreOptions::default() };
        let mut s = KeyValueStore::new("s", k, v, engine(entries), options);
        let _ = (s.get(&key).is_ok(), s.all(), s.range(Some(&key), None));
        let _ = s.put(key.clone(), some(), time);
        while let Ok(Some(_)) = s.next_forward() {}
        store(&mut s, 0);
    }
    for (by_time, points) in [(false, false), (true, false), (false, true)] {
        let forward_on_seal = true;
        let options =
            WindowedOptions { by_time, points, forward_on_seal, ..WindowedOptions::new(20) };
        let (k, v) = serdes();
        let mut s = WindowStore::<K, V>::new("s", k, v, engine(entries), 10, options);
        let _ = (s.get(&key, time), s.fetch(&key, 0, time), s.all());
        let after = Windowed::new(key.clone(), 1, 2);
        let _ = (s.find_by_time(0, time, None, 2), s.find_by_time(0, time, Some(&after), 9));
        let _ = (s.add(&key, time, value.clone(), time), s.put(&key, time, some(), time));
        s.forward_with(Headers::default());
        while let Ok(Some(_)) = s.next_forward() {}
        let _ = (s.add(&key, time, value.clone(), time), s.fetch(&key, time, Timestamp::MAX));
        while let Ok(Some(_)) = s.next_forward() {}
        s.release(time);
        store(&mut s, 0);
        let (k, v) = serdes();
        let mut s = SessionStore::<K, V>::new("s", k, v, engine(entries), options);
        let session = Window { start: time.min(5), end: time };
        let _ = (s.get(&key, session), s.find(&key, 0, time), s.all());
        let after = Windowed::new(key.clone(), 1, 2);
        let _ = (s.find_by_time(0, time, None, 2), s.find_by_time(0, time, Some(&after), 9));
        let _ = s.put(&key, session, some(), time);
        while let Ok(Some(_)) = s.next_forward() {}
        s.release(time);
        store(&mut s, 0);
    }
    {
        let (k, v) = serdes();
        let mut s = BufferStore::new("s", k, v, engine(entries), true);
        let _ = (s.oldest(0), s.oldest(1), s.all());
        let entry =
            Buffered { time, class: 1, key: key.clone(), value: value.clone(), timestamp: 1 };
        let _ = (s.add(&entry), s.remove(time, 0, &key));
        let _ = (s.drain(&[(1, time), (0, Timestamp::MAX)], 2), s.drain(&[(0, time)], 9));
        store(&mut s, 0);
    }
    {
        let (k, v) = serdes();
        let mut s = ChangeBuffer::new("s", k, v, engine(entries), true);
        let _ = (s.get(&key), s.waiting());
        let value = Change::new(some(), some());
        let headers = Headers::default();
        let _ = s.put(time, Record { key: key.clone(), value, timestamp: time, headers });
        let first = s.first_place().ok().flatten();
        let _ = (first.map(|place| s.take(&place).is_ok()), s.has_due(time));
        store(&mut s, 0);
    }
    {
        let (k, v) = serdes();
        let options = VersionedOptions { logged: true, retention: 20 };
        let mut s = VersionedStore::new("s", k, v, engine(entries), options);
        let _ = (s.get(&key), s.get_as_of(&key, time), s.history(&key, 0, time));
        let _ = s.put(&key, Some(&value), time);
        store(&mut s, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(11),
        ..ProptestConfig::default()
    })]

    #[test]
    fn stores_over_any_bytes_do_not_panic(
        entries in entries(),
        key in bytes(),
        time in prop_oneof![0..50i64, Just(i64::MAX), any::<i64>()],
    ) {
        let raw = (Bytes::from(key.clone()), Bytes::from_static(b"v"));
        all_stores((Bytes::serde(), Bytes::serde()), raw, &entries, time);
        let typed = (String::from_utf8_lossy(&key).into_owned(), 7);
        all_stores((String::serde(), i64::serde()), typed, &entries, time);
    }

    #[test]
    fn changelogs_of_any_bytes_do_not_panic(key in proptest::option::of(bytes()), value in bytes()) {
        let formats = [(false, 0), (true, 0)].map(|(by_time, retention)| WindowedOptions {
            by_time,
            ..WindowedOptions::new(retention)
        });
        let mut builder = BatchBuilder::new();
        builder.push(-1, key.as_deref(), Some(&value), &[]).unwrap();
        builder.push(i64::MAX, key.as_deref(), None, &[]).unwrap();
        let batch = builder.finish().unwrap();
        for record in batch.records().map(Result::unwrap) {
            let mut out = EntryBatch::new();
            let _ = KeyValueFormat.entries(&record, &mut out);
            for options in &formats {
                let windows = WindowStore::<String, i64>::changelog_format(options);
                let sessions = SessionStore::<String, i64>::changelog_format(options);
                for format in [windows, sessions] {
                    let _ = format.entries(&record, &mut out);
                    if let Some(expiry) = format.expiry(i64::MIN) {
                        let _ = out.iter().filter(|(key, _)| expiry.is_over(key)).count();
                    }
                }
            }
            let _ = VersionedStore::<String, i64>::changelog_format().entries(&record, &mut out);
        }
    }

    #[test]
    fn keys_of_windows_and_positions_of_any_bytes_do_not_panic(bytes in bytes()) {
        let _ = Position::decode(&bytes, Path::new("p"));
        for kind in [Kind::Window, Kind::Session] {
            for by_time in [false, true] {
                let layout = Layout { kind, by_time };
                let Some(parts) = layout.parts(&bytes) else { continue };
                prop_assert!(parts.key.end <= bytes.len());
                prop_assert_eq!((layout.time_of())(&bytes), parts.end);
                let mut other = Vec::new();
                if layout.is_by_time(&bytes) {
                    layout.put_by_key(&bytes, &mut other).unwrap();
                } else if by_time && bytes.first() == Some(&0) {
                    layout.put_by_time(&bytes, &mut other).unwrap();
                } else {
                    continue;
                }
                let back = layout.parts(&other).unwrap();
                prop_assert_eq!((back.start, back.end, back.number), (parts.start, parts.end, parts.number));
                prop_assert_eq!(&other[back.key], &bytes[parts.key]);
            }
        }
    }
}
