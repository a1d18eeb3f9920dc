//! Figures: `cargo test --release -p vltava-streams-core --lib windowed_count_speed -- --ignored --nocapture`.

use std::path::Path;

use super::*;
use crate::error::StateError;
use crate::serde::HasSerde;
use crate::state::{
    ChangelogWriter, KeyValueStore, LossyEngine, Position, StateEngine, Store, StoreOptions,
    engine_suite,
};

const RECORDS: u64 = 2_000_000;
const MINUTE: Timestamp = 60_000;

struct Ignored;

impl ChangelogWriter for Ignored {
    fn put(&mut self, _: &[u8], _: Option<&[u8]>, _: Timestamp) -> Result<(), StateError> {
        Ok(())
    }
}

fn position(store: &dyn Store) -> Position {
    Position { stream_time: store.time(), ..engine_suite::position(1) }
}

/// Counts records, seals every 10,000 of them, and writes the engine every 200,000.
fn run<S: Store>(
    name: &str,
    keys: u64,
    make: impl FnOnce(Arc<dyn StoreEngine>) -> S,
    mut count: impl FnMut(&mut S, &String, Timestamp),
    mut drain: impl FnMut(&mut S),
) -> f64 {
    let names: Vec<String> = (0..keys).map(|key| format!("key-{key:07}")).collect();
    let engine = LossyEngine::new().open(Path::new("0_0"), &["s"]).unwrap().remove(0);
    let mut store = make(engine.clone());
    store.set_budget(256 << 20);
    let mut seed = 1u64;
    let before = cpu_seconds();
    let mut writing = 0.0;
    for record in 0..RECORDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // A record a millisecond.
        count(&mut store, &names[((seed >> 33) % keys) as usize], record as Timestamp);
        if record % 10_000 == 9_999 {
            drain(&mut store);
            store.seal(&mut Ignored).unwrap();
        }
        if record % 200_000 == 199_999 {
            let mut batch = store.begin_flush().unwrap();
            let begun = cpu_seconds();
            engine.apply(&mut batch, &position(&store)).unwrap();
            if let Some(expiry) = store.expiry() {
                engine.expire(expiry);
            }
            engine.flush().unwrap();
            writing += cpu_seconds() - begun;
            store.flushed();
        }
    }
    let seconds = cpu_seconds() - before - writing;
    let each = seconds * 1e9 / RECORDS as f64;
    println!("{name}, {keys} keys: {each:.0} ns a record, {} MiB", store.cached_bytes() >> 20);
    seconds
}

#[test]
#[ignore = "prints figures"]
fn windowed_count_speed() {
    let serdes = || (String::serde(), i64::serde());
    for keys in [1_000, 100_000] {
        let plain = run(
            "key-value",
            keys,
            |engine| {
                let (key, value) = serdes();
                let options = StoreOptions { forward_on_seal: true, ..StoreOptions::default() };
                KeyValueStore::new("s", key, value, engine, options)
            },
            |store, key, time| {
                let one = |value: &mut Option<i64>, _: Option<Timestamp>| {
                    *value.get_or_insert(0) += 1;
                    time
                };
                store.update(key, one).unwrap();
            },
            |store| while store.next_forward().unwrap().is_some() {},
        );
        for points in [true, false] {
            let windowed = run(
                if points { "tumbling, by points" } else { "tumbling" },
                keys,
                |engine| {
                    let (key, value) = serdes();
                    let options = WindowedOptions {
                        points,
                        forward_on_seal: true,
                        ..WindowedOptions::new(2 * MINUTE)
                    };
                    WindowStore::<String, i64>::new("s", key, value, engine, MINUTE, options)
                },
                |store, key, time| {
                    let start = time - time % MINUTE;
                    let count = store.get(key, start).unwrap().map_or(0, |(count, _)| count);
                    store.put(key, start, Some(count + 1), time).unwrap();
                },
                |store| while store.next_forward().unwrap().is_some() {},
            );
            println!("{keys} keys: a windowed count costs {:.1} plain ones", windowed / plain);
        }
    }
}

/// Of the process (on Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}
