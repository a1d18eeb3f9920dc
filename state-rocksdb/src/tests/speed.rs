//! Figures: `cargo test -p vltava-state-rocksdb restore_speed -- --ignored --nocapture`.

use broker_api::{Batch, BatchBuilder, Horizon};
use streams_core::state::{
    Changelog, KeyValueFormat, LossyEngine, RestorePlan, Restorer, StateEngine,
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
