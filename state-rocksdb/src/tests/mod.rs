//! The engine against its suite, crashes and damage.

mod crashes;
mod damage;
mod speed;

use std::fs;
use std::path::Path;

use streams_core::state::{EntryBatch, engine_suite};

use super::*;

/// Small buffers, so that small stores have files.
fn engine() -> RocksDb {
    RocksDb::new(Settings { ingest_above_bytes: 64 << 10, ..Settings::default() })
}

fn open(engine: &RocksDb, dir: &Path) -> Arc<dyn StoreEngine> {
    engine.open(dir, &["store"]).unwrap().remove(0)
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn contents(store: &dyn StoreEngine) -> Result<Entries, StateError> {
    store.scan(&[], None)?.map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec()))).collect()
}

fn write(store: &dyn StoreEngine, entries: &[(&str, Option<&str>)], next_offset: i64) {
    let mut batch = EntryBatch::new();
    for (key, value) in entries {
        batch.put(key.as_bytes(), value.map(str::as_bytes));
    }
    store.apply(&mut batch, &engine_suite::position(next_offset)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn keeps_the_promises_of_an_engine() {
    let dir = tempfile::tempdir().unwrap();
    engine_suite::run(&engine(), dir.path());
}

#[test]
fn a_directory_in_use_is_refused_and_not_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("0_0");
    let store = open(&engine(), &task);
    write(&*store, &[("a", Some("1"))], 1);
    let error = engine().open(&task, &["store"]).err().unwrap();
    assert!(matches!(error, StateError::Io { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
