//! The simulated disk against the real one, and against what it promises about crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::*;

fn read(file: &dyn VfsFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn read_path(vfs: &SimVfs, path: &str) -> Option<Vec<u8>> {
    let path = Path::new(path);
    vfs.exists(path).unwrap().then(|| read(&*vfs.open(path, OpenMode::Read).unwrap()))
}

fn put(vfs: &SimVfs, path: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = vfs.open(Path::new(path), OpenMode::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

fn put_durably(vfs: &SimVfs, path: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = put(vfs, path, bytes);
    file.sync().unwrap();
    vfs.sync_dir(Path::new(path).parent().unwrap()).unwrap();
    file
}

/// Runs random operations and returns everything that they answered.
fn random_script(vfs: &dyn Vfs, base: &Path, seed: u64) -> Vec<String> {
    let mut dice = Dice::new(seed);
    let mut seen = Vec::new();
    let mut open: Vec<Arc<dyn VfsFile>> = Vec::new();
    for _ in 0..200 {
        let path = base.join(["a", "b", "d/a", "d/b", "d/e/a"][dice.below(5) as usize]);
        let other = path.with_file_name(["a", "b"][dice.below(2) as usize]);
        let kind = |e: io::Error| e.kind().to_string();
        let said = match dice.below(12) {
            0 => format!("{:?}", vfs.create_dir(path.parent().unwrap()).map_err(kind)),
            1 => format!("{:?}", vfs.create_dir_all(path.parent().unwrap()).map_err(kind)),
            2 => format!("{:?}", vfs.list(path.parent().unwrap()).map_err(kind)),
            3 | 4 => {
                let modes = [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew];
                match vfs.open(&path, modes[dice.below(3) as usize]) {
                    Ok(file) => {
                        open.push(file);
                        "opened".into()
                    }
                    Err(e) => kind(e),
                }
            }
            5 => format!("{:?}", vfs.rename(&path, &other).map_err(kind)),
            6 => format!("{:?}", vfs.remove(&path).map_err(kind)),
            7 => format!("{:?}", vfs.exists(&path).map_err(kind)),
            8 if dice.below(8) == 0 => {
                format!("{:?}", vfs.remove_dir_all(path.parent().unwrap()).map_err(kind))
            }
            _ if open.is_empty() => continue,
            n => {
                let file = &open[dice.below(open.len() as u64) as usize];
                let at = dice.below(2_000);
                match n {
                    // What a read-only file answers to a write differs; both refuse.
                    9 => {
                        let bytes = vec![dice.below(256) as u8; dice.below(1_500) as usize + 1];
                        format!("{:?}", file.write_at(at, &bytes).is_ok())
                    }
                    10 => format!("{:?}", file.set_len(at).is_ok()),
                    _ => format!("{:?} {:?}", file.len().map_err(kind), read(&**file)),
                }
            }
        };
        seen.push(said);
    }
    seen
}

#[test]
fn the_simulated_disk_answers_as_the_real_one() {
    for seed in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let real = random_script(&RealVfs, dir.path(), seed);
        let sim = SimVfs::new(seed);
        sim.create_dir(Path::new("/base")).unwrap();
        let simulated = random_script(&sim, Path::new("/base"), seed);
        for (i, (real, simulated)) in real.iter().zip(&simulated).enumerate() {
            assert_eq!(real, simulated, "seed {seed}, operation {i}");
        }
    }
}

#[test]
fn locks_name_their_holder_and_end_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let sim = SimVfs::new(0);
    let places: [(&dyn Vfs, PathBuf); 2] =
        [(&RealVfs, dir.path().join("LOCK")), (&sim, "/LOCK".into())];
    for (vfs, path) in places {
        let lock = vfs.lock(&path, "process 1").unwrap().map_err(|_| ()).unwrap();
        assert_eq!(vfs.lock(&path, "process 2").unwrap().err().unwrap(), "process 1");
        drop(lock);
        let _lock = vfs.lock(&path, "process 2").unwrap().map_err(|_| ()).unwrap();
        assert_eq!(vfs.lock(&path, "process 3").unwrap().err().unwrap(), "process 2");
    }
    sim.crash();
    assert!(sim.lock(Path::new("/LOCK"), "after the crash").unwrap().is_ok());
}

/// After a crash each sector must be one of the versions it had since the last sync, and the
/// length one of the lengths.
#[test]
fn a_crash_leaves_each_sector_in_one_of_its_unsynced_versions() {
    const SECTOR: usize = 512;
    let mut outcomes = BTreeSet::new();
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let vfs = SimVfs::new(seed);
        let file = put_durably(&vfs, "/f", &[7; 3_000]);
        let mut versions = vec![read(&*file)];
        for _ in 0..dice.below(12) {
            let at = dice.below(4_000);
            match dice.below(8) {
                0 => file.set_len(at).unwrap(),
                1 => {
                    file.sync().unwrap();
                    versions.clear();
                }
                _ => {
                    let bytes = vec![dice.below(256) as u8; dice.below(1_500) as usize];
                    file.write_at(at, &bytes).unwrap();
                }
            }
            versions.push(read(&*file));
        }
        vfs.crash();
        let after = read_path(&vfs, "/f").unwrap();
        assert!(versions.iter().any(|v| v.len() == after.len()), "seed {seed}: length");
        let padded = |bytes: &[u8], from: usize| {
            let mut sector = bytes.get(from..).unwrap_or_default().to_vec();
            sector.resize(SECTOR, 0);
            sector
        };
        for from in (0..after.len()).step_by(SECTOR) {
            let to = (from + SECTOR).min(after.len());
            let known = versions.iter().any(|v| padded(v, from)[..to - from] == after[from..to]);
            assert!(known, "seed {seed}: the sector at {from} was never like this");
        }
        outcomes.insert(versions.iter().position(|v| *v == after).is_some());
        if versions.len() > 1 {
            outcomes.insert(versions[0] != after);
        }
    }
    assert_eq!(outcomes.len(), 2, "whole and mixed versions both occur");
}

#[test]
fn power_cuts_tear_reorder_and_lose_whatever_is_not_synced() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let vfs = SimVfs::new(seed);
        let file = put_durably(&vfs, "/f", &[0; 2_048]);
        file.write_at(0, &[1; 1_024]).unwrap();
        file.write_at(1_024, &[1; 1_024]).unwrap();
        vfs.crash();
        let after = read_path(&vfs, "/f").unwrap();
        seen.insert([after[0], after[512], after[1_024], after[1_536]]);
    }
    for expected in [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]] {
        assert!(seen.contains(&expected), "{expected:?} never happened");
    }
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let mut kept = BTreeSet::new();
    for seed in 0..60 {
        let vfs = SimVfs::new(seed);
        put_durably(&vfs, "/old", b"old");
        put(&vfs, "/new", b"new").sync().unwrap();
        vfs.remove(Path::new("/old")).unwrap();
        vfs.crash();
        let names = vfs.list(Path::new("/")).unwrap();
        if names.contains(&"new".to_string()) {
            assert_eq!(read_path(&vfs, "/new").unwrap(), b"new", "contents were synced");
        }
        kept.insert(names);
    }
    assert_eq!(kept.len(), 4, "each of the two changes survives or not: {kept:?}");
}

#[test]
fn a_rename_happens_or_not_but_the_name_never_vanishes() {
    let mut seen = BTreeMap::<_, u32>::new();
    for seed in 0..60 {
        let vfs = SimVfs::new(seed);
        put_durably(&vfs, "/f", b"old");
        put_durably(&vfs, "/f.new", b"new");
        vfs.rename(Path::new("/f.new"), Path::new("/f")).unwrap();
        vfs.crash();
        let f = read_path(&vfs, "/f").expect("one of the two must be there");
        *seen.entry((f, read_path(&vfs, "/f.new"))).or_default() += 1;
    }
    let expected = [(b"new".to_vec(), None), (b"old".to_vec(), Some(b"new".to_vec()))];
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn what_a_failed_sync_dropped_is_only_saved_by_writing_it_again() {
    let mut lost = 0;
    let mut lied = 0;
    for seed in 0..80 {
        let vfs = SimVfs::new(seed);
        let file = put_durably(&vfs, "/f", b"old");
        file.write_at(0, b"new").unwrap();
        vfs.fail_sync(vfs.syncs());
        assert!(file.sync().is_err());
        let readable = read(&*file) == b"new";
        file.sync().unwrap(); // proves nothing
        let other = vfs.fork(seed);
        vfs.crash();
        if read_path(&vfs, "/f").unwrap() == b"old" {
            lost += 1;
            lied += u32::from(readable);
        }
        let again = other.open(Path::new("/f"), OpenMode::ReadWrite).unwrap();
        again.write_at(0, b"new").unwrap();
        again.sync().unwrap();
        other.crash();
        assert_eq!(read_path(&other, "/f").unwrap(), b"new");
    }
    assert!(lost > 10 && lied > 5, "lost {lost}, of which still readable {lied}");
}

#[test]
fn directories_are_durable_when_created_even_after_a_kill_half_way() {
    for kill_at in 0..6 {
        for seed in 0..20 {
            let vfs = SimVfs::new(seed);
            vfs.fail_operation(kill_at * 2, ErrorKind::Other);
            let _ = vfs.create_dir_all(Path::new("/a/b/c"));
            vfs.kill();
            vfs.create_dir_all(Path::new("/a/b/c")).unwrap();
            vfs.crash();
            assert!(vfs.exists(Path::new("/a/b/c")).unwrap(), "seed {seed}, killed at {kill_at}");
        }
    }
}

#[test]
fn a_full_disk_refuses_new_blocks_and_takes_overwrites() {
    let vfs = SimVfs::new(1);
    vfs.set_capacity(Some(2_048));
    let file = put(&vfs, "/f", &[1; 1_500]);
    assert_eq!(vfs.used(), 1_536);
    let error = file.write_at(1_500, &[2; 2_000]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 2_048, "what fits is written");
    file.write_at(0, &[3; 2_048]).unwrap();
    assert_eq!(
        put(&vfs, "/empty", &[]).write_at(0, b"x").unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    vfs.remove(Path::new("/f")).unwrap();
    assert_eq!(vfs.used(), 2_048, "still open");
    drop(file);
    put(&vfs, "/g", &[4; 2_048]);
}

#[test]
fn planned_errors_hit_the_planned_operation_once() {
    let vfs = SimVfs::new(1);
    let file = put_durably(&vfs, "/f", &[0; 100]);
    vfs.fail_operation(vfs.operations() + 1, ErrorKind::PermissionDenied);
    file.len().unwrap();
    let error = file.read_at(0, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    file.read_at(0, &mut [0; 10]).unwrap();
}

#[test]
fn after_a_power_cut_nothing_works_until_the_restart_and_old_handles_never() {
    for seed in 0..20 {
        let vfs = SimVfs::new(seed);
        let file = put_durably(&vfs, "/f", b"old");
        vfs.cut_power_at(vfs.changes() + 1);
        file.write_at(0, b"new").unwrap();
        assert!(file.sync().is_err());
        assert!(vfs.power_is_cut());
        assert!(file.len().is_err() && vfs.list(Path::new("/")).is_err());
        vfs.crash();
        assert!(!vfs.power_is_cut());
        assert!(file.len().is_err(), "opened before the crash");
        let after = read_path(&vfs, "/f").unwrap();
        assert!(after == b"old" || after == b"new");
    }
}

#[test]
fn a_flipped_bit_is_read_and_survives() {
    let vfs = SimVfs::new(1);
    put_durably(&vfs, "/f", &[0; 100]);
    vfs.flip(Path::new("/f"), 42, 0b100).unwrap();
    assert_eq!(read_path(&vfs, "/f").unwrap()[42], 4);
    vfs.crash();
    assert_eq!(read_path(&vfs, "/f").unwrap()[42], 4);
    assert_eq!(vfs.flip(Path::new("/f"), 100, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn the_same_seed_crashes_in_the_same_way() {
    let run = |seed| {
        let vfs = SimVfs::with_sector(seed, 64);
        random_script(&vfs, Path::new("/"), 5);
        vfs.crash();
        let files = vfs.files();
        let contents: Vec<_> =
            files.iter().map(|(path, _)| read_path(&vfs, path.to_str().unwrap())).collect();
        (files, contents)
    };
    assert_eq!(run(3), run(3));
    assert!((0..10).any(|seed| run(seed) != run(3)));
}
