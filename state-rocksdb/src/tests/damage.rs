//! Damaged files: found, or without effect.

use super::*;

/// A directory with files of all kinds, and what it held at each flush.
fn sample(dir: &Path) -> Vec<(Option<i64>, Entries)> {
    let store = open(&engine(), dir);
    let mut states = vec![(None, Vec::new())];
    for round in 0..3 {
        let mut batch = EntryBatch::new();
        for key in 0..40u32 {
            let value = format!("value {round} {key}");
            batch.put(&(key * 3 + round).to_be_bytes(), Some(value.as_bytes()));
        }
        batch.put(&(round * 5 + 1).to_be_bytes(), None);
        store.apply(&mut batch, &engine_suite::position(round.into())).unwrap();
        store.flush().unwrap();
        states.push((Some(round.into()), contents(&*store).unwrap()));
    }
    let mut load = store.bulk_load().unwrap();
    load.put(b"loaded", b"value").unwrap();
    load.finish(&engine_suite::position(5)).unwrap();
    states.push((Some(5), contents(&*store).unwrap()));
    write(&*store, &[("z", Some("last"))], 6);
    store.flush().unwrap();
    states.push((Some(6), contents(&*store).unwrap()));
    states
}

/// Position and contents, if the engine gives any.
fn look(dir: &Path) -> Result<(Option<i64>, Entries), StateError> {
    let store = open(&engine(), dir);
    let position = store.position()?.map(|position| position.next_offset);
    Ok((position, contents(&*store)?))
}

#[test]
fn every_flipped_byte_is_found_or_without_effect() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let states = sample(&whole);
    let mut files: Vec<_> = fs::read_dir(&whole).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.is_file() && !path.ends_with("LOCK"));
    files.sort();
    let (mut found, mut harmless) = (0, 0);
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&file).unwrap();
        // the texts LOG and OPTIONS are long, and nothing reads them
        let step = if name.starts_with("LOG") || name.starts_with("OPTIONS") { 4001 } else { 61 };
        for at in (0..bytes.len()).step_by(step) {
            let case = dir.path().join("case");
            let _ = fs::remove_dir_all(&case);
            let task = case.join("0_0");
            copy(&whole, &task);
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            fs::write(task.join(&name), &damaged).unwrap();
            match look(&task) {
                Err(StateError::Corrupt { .. }) => {
                    found += 1;
                    assert_eq!(look(&task).unwrap(), states[0], "{name} at {at}: set aside");
                }
                Err(error) => panic!("{name} at {at}: {error}"),
                // an earlier state is as true as the last: the changelog goes on from its position
                Ok(state) => {
                    assert!(states.contains(&state), "{name} at {at}: served {state:?}");
                    if state == states[0] { found += 1 } else { harmless += 1 }
                }
            }
        }
    }
    assert!(found > 20 && harmless > 0, "{found} found, {harmless} harmless");
}

#[test]
fn a_missing_or_cut_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let states = sample(&whole);
    let names: Vec<_> = fs::read_dir(&whole).unwrap().map(|e| e.unwrap().file_name()).collect();
    for name in names {
        let name = name.to_string_lossy().into_owned();
        let matters = name.ends_with(".sst") || name == "CURRENT" || name.starts_with("MANIFEST");
        for cut in [true, false].into_iter().filter(|_| matters) {
            let task = dir.path().join(format!("{name}-{cut}")).join("0_0");
            copy(&whole, &task);
            let file = task.join(&name);
            if cut {
                let bytes = fs::read(&file).unwrap();
                fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            } else {
                fs::remove_file(&file).unwrap();
            }
            let state = look(&task).unwrap();
            assert!(states.contains(&state), "{name} cut: {cut}: served {state:?}");
        }
    }
}

#[test]
fn damage_found_while_running_is_an_error_and_set_aside_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("0_0");
    let store = open(&engine(), &task);
    let mut batch = EntryBatch::new();
    for key in 0..100u32 {
        let value: Vec<u8> = (0..400).map(|n| (n * (key + 7) % 251) as u8).collect();
        batch.put(&key.to_be_bytes(), Some(&value));
    }
    store.apply(&mut batch, &engine_suite::position(1)).unwrap();
    store.flush().unwrap();
    drop(store);
    let table = newest_table(&task);
    let mut bytes = fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&table, bytes).unwrap();

    let store = open(&engine(), &task);
    assert_eq!(store.position().unwrap(), Some(engine_suite::position(1)), "its block is whole");
    let error = contents(&*store).unwrap_err();
    assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
    drop(store);
    let store = open(&engine(), &task);
    assert_eq!((store.position().unwrap(), contents(&*store).unwrap()), (None, vec![]));
    assert!(dir.path().join("0_0.damaged-1").exists());
}

fn newest_table(dir: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "sst")).max().unwrap()
}

#[test]
fn the_last_three_directories_set_aside_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("0_0");
    for round in 1..=5 {
        let store = open(&engine(), &task);
        assert_eq!(store.position().unwrap(), None, "an empty store takes its place");
        write(&*store, &[("a", Some("1"))], 1);
        store.flush().unwrap();
        drop(store);
        let table = newest_table(&task);
        let mut bytes = fs::read(&table).unwrap();
        bytes[5] ^= 1; // in the only data block
        fs::write(&table, bytes).unwrap();
        // found at the first look, which is at the position, while opening
        let store = open(&engine(), &task);
        assert_eq!(store.position().unwrap(), None);
        drop(store);
        assert!(dir.path().join(format!("0_0.damaged-{round}")).exists());
    }
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1 + 3, "the task's directory, and the last three that were set aside");
}
