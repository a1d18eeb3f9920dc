//! Every byte of a small directory flipped.

use std::path::Path;

use broker_api::{Broker, Error, View};
use broker_embedded::Settings;
use broker_embedded::vfs::SimVfs;

use crate::model::State;
use crate::observe::{now, observe};
use crate::world::{World, settings};

fn small() -> Settings {
    Settings { journal_file_bytes: 16 << 10, reserve_bytes: 0, ..settings() }
}

/// A directory that was closed in good order and has a bit of everything: records in the journal
/// and in segments, some of them compacted.
fn closed() -> SimVfs {
    let try_seed = |seed| {
        let mut world = World::on(SimVfs::new(seed), seed, small());
        world.open().unwrap();
        world.run(20).unwrap();
        world.close().unwrap();
        let (state, _) = look(&world.vfs.fork(0)).unwrap();
        let partitions = || state.topics.values().flat_map(|topic| &topic.partitions);
        let records: usize = partitions().map(|p| p.records.len()).sum();
        let compacted = partitions().any(|p| p.horizon.compacted_below > 0);
        let is_segment = |path: &Path| {
            path.starts_with("/data/topics") && path.extension().is_some_and(|e| e == "log")
        };
        let segments = world.vfs.files().iter().filter(|(path, _)| is_segment(path)).count();
        (records > 20 && compacted && segments > 2).then_some(world.vfs)
    };
    (0..500).find_map(try_seed).expect("some script gets there")
}

/// What a broker on this disk shows.
fn look(vfs: &SimVfs) -> Result<(State, String), Error> {
    let mut world = World::on(vfs.clone(), 0, small());
    world.open()?;
    let id = now(world.broker().admin().cluster_id())?;
    Ok((observe(world.broker(), View::Durable)?, id))
}

#[test]
fn every_flipped_byte_is_reported_or_without_effect() {
    let vfs = closed();
    let intact = look(&vfs.fork(0)).unwrap();
    let (mut reported, mut blamed, mut harmless) = (0, 0, 0);
    for (path, len) in vfs.files() {
        for at in 0..len {
            let damaged = vfs.fork(at);
            damaged.flip(&path, at, 1 << (at % 8)).unwrap();
            match look(&damaged) {
                Ok(found) => {
                    assert!(found == intact, "{} byte {at}: silently wrong", path.display());
                    harmless += 1;
                }
                Err(e) => {
                    blamed += u32::from(check_report(&e, &path, at));
                    reported += 1;
                }
            }
        }
    }
    println!("{reported} flips reported, {blamed} with their partition; {harmless} without effect");
    assert!(reported > 0 && blamed > 0 && harmless > 0);
}

/// The report names the file and a place at or before the byte; returns whether it names a
/// partition.
fn check_report(error: &Error, path: &Path, at: u64) -> bool {
    match error {
        Error::Corrupt { file, at: found, partition, .. } if file == path && *found <= at => {
            partition.is_some()
        }
        other => panic!("{} byte {at}: reported as: {other}", path.display()),
    }
}
