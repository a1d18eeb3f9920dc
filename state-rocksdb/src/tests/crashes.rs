//! What a crash leaves. The files of an open store, copied, are what a killed process leaves behind.

use super::*;

#[test]
fn a_crash_loses_only_what_was_not_flushed_and_keeps_the_position_true() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&engine(), &dir.path().join("0_0"));
    write(&*store, &[("a", Some("1")), ("b", Some("1"))], 1);
    store.flush().unwrap();
    write(&*store, &[("a", None), ("c", Some("2"))], 2);
    copy(&dir.path().join("0_0"), &dir.path().join("crashed"));
    drop(store);

    let crashed = open(&engine(), &dir.path().join("crashed"));
    assert_eq!(crashed.position().unwrap(), Some(engine_suite::position(1)));
    assert_eq!(contents(&*crashed).unwrap().len(), 2);
    // an orderly end writes out what is in memory
    let closed = open(&engine(), &dir.path().join("0_0"));
    assert_eq!(closed.position().unwrap(), Some(engine_suite::position(2)));
    assert_eq!(contents(&*closed).unwrap().len(), 2);
}

#[test]
fn a_large_batch_is_durable_together_with_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&engine(), &dir.path().join("0_0"));
    write(&*store, &[("a", Some("1")), ("b", Some("1"))], 1);
    let mut batch = EntryBatch::new();
    batch.put(b"big", Some(&[7; 100_000]));
    batch.put(b"a", None);
    store.apply(&mut batch, &engine_suite::position(2)).unwrap();
    copy(&dir.path().join("0_0"), &dir.path().join("crashed"));

    let crashed = open(&engine(), &dir.path().join("crashed"));
    assert_eq!(crashed.position().unwrap(), Some(engine_suite::position(2)));
    let keys: Vec<_> = contents(&*crashed).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [&b"b"[..], b"big"]);
}

#[test]
fn a_crash_in_a_bulk_load_leaves_the_old_entries_and_position() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("0_0");
    let store = open(&engine(), &task);
    write(&*store, &[("a", Some("old"))], 1);
    store.flush().unwrap();
    let mut load = store.bulk_load().unwrap();
    for key in 0..100_000u32 {
        load.put(&key.to_be_bytes(), &[1; 500]).unwrap(); // more than one file
    }
    assert!(fs::read_dir(task.join("ingest")).unwrap().count() > 0);
    copy(&task, &dir.path().join("loading"));
    load.finish(&engine_suite::position(9)).unwrap();
    copy(&task, &dir.path().join("loaded"));

    let loading = open(&engine(), &dir.path().join("loading"));
    assert_eq!(loading.position().unwrap(), Some(engine_suite::position(1)));
    assert_eq!(contents(&*loading).unwrap(), [(b"a".to_vec(), b"old".to_vec())]);
    assert!(!dir.path().join("loading/ingest").exists());
    let loaded = open(&engine(), &dir.path().join("loaded"));
    assert_eq!(loaded.position().unwrap(), Some(engine_suite::position(9)));
    assert_eq!(contents(&*loaded).unwrap().len(), 100_000);
    assert_eq!(fs::read_dir(task.join("ingest")).unwrap().count(), 0);
}

#[test]
fn of_two_families_the_newest_with_a_position_wins() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Arc::new(Shared::new(Settings::default()));
    for (with_position, expected) in [(2, 2), (1, 1), (0, 0)] {
        let task = dir.path().join(format!("{with_position}"));
        drop(open(&engine(), &task)); // makes family 0
        let options = shared.database();
        let families = ["default", "store.0"];
        let db = Db::open_cf(&options, &task, families).unwrap();
        for number in 0..=2 {
            if number > 0 {
                db.create_cf(format!("store.{number}"), &shared.family()).unwrap();
            }
            if number <= with_position {
                let family = db.cf_handle(&format!("store.{number}")).unwrap();
                let position = engine_suite::position(number).encode();
                db.put_cf(&family, crate::store::POSITION, position).unwrap();
            }
        }
        drop(db);
        let store = open(&engine(), &task);
        assert_eq!(store.position().unwrap(), Some(engine_suite::position(expected)));
        drop(store);
        let left = Db::list_cf(&options, &task).unwrap();
        assert_eq!(left, ["default".to_string(), format!("store.{expected}")]);
    }
}
