//! Figures: `cargo test -p vltava-state-rocksdb restore_speed -- --ignored --nocapture`.

use broker_api::{Batch, BatchBuilder, Horizon};
use streams_core::state::{
    Changelog, KeyValueFormat, LossyEngine, RestorePlan, Restorer, StateEngine, StoreKind,
};

use super::*;

#[test]
#[ignore = "prints figures"]
fn restore_speed() {
    let batches = changelog(5_000_000, 1_000_000);
    let end = batches.last().unwrap().next_offset();
    let dir = tempfile::tempdir().unwrap();
    for (name, engine) in [
        ("lossy", Box::new(LossyEngine::new()) as Box<dyn StateEngine>),
        ("RocksDB", Box::new(RocksDb::default())),
    ] {
        for memory in [256 << 20, 16 << 20] {
            let task = dir.path().join(format!("{name}-{memory}"));
            let store = engine.open(&task, &["store"]).unwrap().remove(0);
            let seconds = restore(store, &batches, end, memory, &task.join("spill"));
            let rate = 5.0 / seconds;
            println!("{name}, {} MiB: {rate:.2} M records per CPU-second", memory >> 20);
        }
    }
}

fn restore(
    store: Arc<dyn StoreEngine>,
    batches: &[Batch],
    end: i64,
    memory: usize,
    spill: &Path,
) -> f64 {
    let position = engine_suite::position(end);
    let changelog = Changelog {
        cluster_id: position.cluster_id.clone(),
        topic_id: position.topic_id,
        horizon: Horizon::default(),
        end,
        kind: StoreKind::KeyValue,
    };
    let before = cpu_seconds();
    let plan = RestorePlan::decide(None, &changelog);
    let format = Arc::new(KeyValueFormat);
    let mut restorer =
        Restorer::new(store, format, &plan, &changelog, memory, spill.to_owned()).unwrap();
    batches.iter().for_each(|batch| restorer.feed(batch, end).unwrap());
    let fed = cpu_seconds();
    let stats = restorer.finish(&position).unwrap();
    assert_eq!(stats.records, 5_000_000);
    let end = cpu_seconds();
    println!("feeding {:.2} s, finishing {:.2} s", fed - before, end - fed);
    end - before
}

fn changelog(records: u64, keys: u64) -> Vec<Batch> {
    let mut seed = 1u64;
    let mut base = 0;
    let batch = |_| {
        let mut builder = BatchBuilder::new();
        for _ in 0..1000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = format!("key-{:07}", (seed >> 33) % keys);
            builder.push(7, Some(key.as_bytes()), Some(&seed.to_be_bytes()), &[]).unwrap();
        }
        let batch = builder.finish().unwrap().assigned(base, 1);
        base = batch.next_offset();
        batch
    };
    (0..records / 1000).map(batch).collect()
}

/// Of the process with all its threads (on Linux).
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

fn start_of(key: &[u8]) -> i64 {
    key.last_chunk().map_or(i64::MAX, |start| i64::from_be_bytes(*start))
}

/// Windows of which one in twenty is live in the end: what is left of them in the files, and what it
/// costs. By time: with a second entry for each, by which they are found and deleted.
#[test]
#[ignore = "prints figures"]
fn expiry_cost() {
    const KEYS: u64 = 20_000;
    const LIVE: i64 = 10;
    for way in ["never", "in compactions", "by time"] {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { write_buffer_bytes: 4 << 20, ..Settings::default() };
        let store = open(&RocksDb::new(settings), &dir.path().join("0_0"));
        let before = cpu_seconds();
        for start in 0..20 * LIVE {
            let mut batch = EntryBatch::new();
            for key in 0..KEYS {
                let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
                batch.put(&[&[0][..], &key, &start.to_be_bytes()].concat(), Some(&[7; 16]));
                if way == "by time" {
                    batch.put(&[&[1][..], &start.to_be_bytes(), &key].concat(), Some(&[]));
                }
            }
            let old = start - LIVE;
            if way == "by time" && old >= 0 {
                let span = [[&[1][..], &old.to_be_bytes()], [&[1][..], &(old + 1).to_be_bytes()]];
                let [from, to] = span.map(|bound| bound.concat());
                for entry in store.scan(&from, Some(&to)).unwrap() {
                    let (by_time, _) = entry.unwrap();
                    batch.put(&[&[0][..], &by_time[9..], &by_time[1..9]].concat(), None);
                    batch.put(&by_time, None);
                }
            }
            store.apply(&mut batch, &engine_suite::position(start)).unwrap();
            if way == "in compactions" {
                store.expire(Expiry { expires_by: start_of, up_to: old });
            }
            store.flush().unwrap();
        }
        drop(store); // waits for compactions
        let seconds = cpu_seconds() - before;
        let files = fs::read_dir(dir.path().join("0_0")).unwrap().map(Result::unwrap);
        let tables = files.filter(|file| file.path().extension().is_some_and(|e| e == "sst"));
        let bytes: u64 = tables.map(|file| file.metadata().unwrap().len()).sum();
        println!("{way}: {} KiB in files, {seconds:.1} CPU-seconds", bytes >> 10);
    }
}
