//! The engine against its suite, crashes and damage.

mod crashes;
mod damage;
mod speed;

use std::fs;
use std::path::Path;

use streams_core::state::{EntryBatch, Expiry, engine_suite};

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

#[test]
fn a_file_in_the_place_of_a_directory_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("0_0");
    for round in 1..=5 {
        fs::write(&task, "not a directory").unwrap();
        assert_eq!(open(&engine(), &task).position().unwrap(), None);
        assert!(dir.path().join(format!("0_0.damaged-{round}")).is_file());
        fs::remove_dir_all(&task).unwrap();
    }
}

#[test]
fn stores_that_left_the_topology_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("0_0");
    let both = engine().open(&task, &["store", "other.1"]).unwrap();
    both.iter().for_each(|store| write(&**store, &[("a", Some("1"))], 1));
    drop(both);
    drop(open(&engine(), &task));
    let families = Db::list_cf(&rocksdb::Options::default(), &task).unwrap();
    assert_eq!(families, ["default", "store.0"]);
}

#[test]
fn a_load_has_succeeded_although_the_old_entries_cannot_be_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Arc::new(Shared::new(Settings::default()));
    let task = dir.path().join("0_0");
    let (database, _) = directory::open_database(&shared, &task).ok().unwrap();
    let store = store::Store::open(&database, "store", &[], false).unwrap();
    write(&store, &[("a", Some("1"))], 1);
    store.database.db.drop_cf("store.0").unwrap();
    let mut load = store.bulk_load().unwrap();
    load.put(b"b", b"2").unwrap();
    load.finish(&engine_suite::position(2)).unwrap();
    assert_eq!(contents(&store).unwrap(), [(b"b".to_vec(), b"2".to_vec())]);
}

#[test]
fn what_the_operating_system_refuses_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("0_0");
    let store = open(&engine(), &task);
    write(&*store, &[("a", Some("1"))], 1);
    store.flush().unwrap();
    drop(store);
    // A directory where RocksDB wants to open a file for writing.
    fs::remove_file(task.join("LOCK")).unwrap();
    fs::create_dir(task.join("LOCK")).unwrap();
    let error = engine().open(&task, &["store"]).err().unwrap();
    assert!(matches!(error, StateError::Io { .. }), "{error}");
    fs::remove_dir(task.join("LOCK")).unwrap();
    assert_eq!(open(&engine(), &task).position().unwrap(), Some(engine_suite::position(1)));
}

fn second_byte(key: &[u8]) -> i64 {
    key.get(1).map_or(i64::MAX, |byte| i64::from(*byte))
}

#[test]
fn a_compaction_removes_what_has_expired_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Arc::new(Shared::new(Settings::default()));
    let Ok((database, families)) = directory::open_database(&shared, dir.path()) else {
        panic!("an empty directory is opened");
    };
    let store = store::Store::open(&database, "store", &families, false).unwrap();
    write(&store, &[("a1", Some("old")), ("a3", Some("old")), ("b1", Some("x"))], 1);
    store.flush().unwrap();
    write(&store, &[("a1", Some("new")), ("a3", Some("new")), ("a", Some("no time"))], 2);
    store.flush().unwrap();
    let compact = || {
        let family = database.family("store.0").unwrap();
        database.db.compact_range_cf(&family, None::<&[u8]>, None::<&[u8]>);
        contents(&store).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(compact(), [&b"a"[..], b"a1", b"a3", b"b1"], "nothing has expired");
    store.expire(Expiry { expires_by: second_byte, up_to: i64::from(b'2') });
    assert_eq!(compact(), [&b"a"[..], b"a3"]);
    assert_eq!(store.get(b"a3").unwrap().as_deref(), Some(&b"new"[..]));
    assert_eq!(store.position().unwrap(), Some(engine_suite::position(2)));
    // The next family of the store is filtered too.
    let mut load = store.bulk_load().unwrap();
    load.put(b"a1", b"again").unwrap();
    load.put(b"a4", b"4").unwrap();
    load.finish(&engine_suite::position(3)).unwrap();
    let family = database.family("store.1").unwrap();
    database.db.compact_range_cf(&family, None::<&[u8]>, None::<&[u8]>);
    assert_eq!(contents(&store).unwrap(), [(b"a4".to_vec(), b"4".to_vec())]);
}
