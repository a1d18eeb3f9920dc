//! What housekeeping does under the hood: how much it looks at, and what it writes down.

use std::path::Path;
use std::task::Waker;

use broker_api::{BatchBuilder, ManualClock, Offset, TopicConfig, TopicId};

use super::*;
use crate::journal::entry::Placed;
use crate::mailbox::Mailbox;
use crate::random::Random;
use crate::sequencer::watched::locks;
use crate::settings::Settings;
use crate::vfs::SimVfs;

fn open(vfs: &SimVfs, journal_file_bytes: u64) -> Arc<Core> {
    open_at(vfs, Arc::new(ManualClock::new(1_000)), journal_file_bytes)
}

fn open_at(vfs: &SimVfs, clock: Arc<ManualClock>, journal_file_bytes: u64) -> Arc<Core> {
    let settings = Settings {
        journal_file_bytes,
        retired_journal_files: 1,
        reserve_bytes: 0,
        ..Settings::default()
    };
    let vfs = Arc::new(vfs.clone());
    Core::open(vfs, clock, Path::new("/data"), settings, Random::seeded(1), true).unwrap()
}

fn decided(core: &Core, entry: Entry) {
    core.with(|sequencer, wakes| sequencer.push(entry, Notify::Nobody, Haste::Now, wakes));
}

fn topic(core: &Core, partitions: u32) -> Vec<Arc<Partition>> {
    let (id, config) = (TopicId(7), TopicConfig::compacted());
    decided(core, Entry::TopicCreate { id, name: "t".into(), partitions, config });
    let sequencer = core.lock();
    sequencer.state.partitions().map(|(_, partition)| partition.clone()).collect()
}

fn append(core: &Core, partition: &Arc<Partition>) {
    let mut builder = BatchBuilder::new();
    builder.push(0, Some(b"k"), Some(&[1; 1_000]), &[]).unwrap();
    let base: Offset = partition.lock().end;
    let batch = builder.finish().unwrap().assigned(base, 1_000);
    decided(
        core,
        Entry::Append { now: 1_000, batch: Placed { partition: partition.clone(), batch } },
    );
}

fn write(core: &Core) {
    while core.step_journal(false) == Step::Worked {}
}

fn settle(core: &Core) {
    while core.step_housekeeping() == Step::Worked || core.step_journal(false) == Step::Worked {}
}

/// Twice the partitions are twice the work, not four times as much.
#[test]
fn housekeeping_looks_at_each_partition_a_few_times_only() {
    let looks = |partitions: u32| {
        let core = open(&SimVfs::new(1), u64::from(partitions) << 10);
        let partitions = topic(&core, partitions);
        for _ in 0..4 {
            partitions.iter().for_each(|partition| append(&core, partition));
            write(&core);
        }
        let before = locks();
        settle(&core);
        let moved = partitions.iter().filter(|partition| partition.lock().segments_end > 0).count();
        assert!(moved > partitions.len() / 2, "{moved} partitions were moved");
        locks() - before
    };
    let (few, many) = (looks(50), looks(200));
    assert!(many < few * 5, "{few} times for 50 partitions, {many} for 200");
}

#[test]
fn a_generation_is_not_taken_from_what_a_power_cut_can_unmake() {
    let vfs = SimVfs::new(1);
    let core = open(&vfs, 32 << 10);
    let partition = topic(&core, 1)[0].clone();
    for _ in 0..30 {
        append(&core, &partition);
        write(&core);
    }
    (0..1_000).for_each(|_| append(&core, &partition)); // applied, and that is all
    let (synced, applied) = {
        let sequencer = core.lock();
        (sequencer.synced_lsn, sequencer.state.next_lsn)
    };
    assert!(applied >= synced + 1_000);
    while core.step_housekeeping() == Step::Worked {}
    write(&core);
    assert_eq!(core.step_housekeeping(), Step::Worked); // the first segments get their names
    let generations: Vec<u64> =
        partition.lock().extents.iter().filter_map(|e| Some(e.segment()?.generation())).collect();
    assert!(!generations.is_empty());
    assert!(generations.iter().all(|g| *g < synced + 100), "{generations:?}, synced: {synced}");
}

#[test]
fn ids_without_a_transactor_are_forgotten_and_their_epochs_never_come_back() {
    let (vfs, clock) = (SimVfs::new(1), Arc::new(ManualClock::new(1_000)));
    let core = open_at(&vfs, clock.clone(), 32 << 10);
    for (id, epoch) in [("gone", 4), ("live", 2)] {
        decided(&core, Entry::Producer { now: 1_000, id: id.into(), epoch });
    }
    let mailbox = Arc::new(Mailbox::new(Waker::noop().clone()));
    core.lock().transactors.insert("live".into(), Arc::downgrade(&mailbox));
    settle(&core);
    clock.advance(Duration::from_secs(8 * 24 * 60 * 60));
    settle(&core);
    core.begin_close();
    core.finish_close().unwrap();
    drop(core);
    let reopened = open(&vfs, 32 << 10);
    let sequencer = reopened.lock();
    let state = &sequencer.state;
    let known: Vec<&str> = state.producers.keys().map(|id| &**id).collect();
    assert_eq!(known, ["live"]);
    assert_eq!((state.next_epoch("gone"), state.next_epoch("live")), (5, 3));
}

/// It would name what a recovery does not know any more.
#[test]
fn nothing_is_written_down_about_a_topic_that_was_deleted_meanwhile() {
    let vfs = SimVfs::new(1);
    let core = open(&vfs, 32 << 10);
    let partition = topic(&core, 1)[0].clone();
    append(&core, &partition);
    decided(&core, Entry::TopicDelete { id: partition.topic });
    decide(&core, Entry::ExtentMoved { partition: partition.clone(), end: 1 }, &partition);
    write(&core);
    core.begin_close();
    core.finish_close().unwrap();
    open(&vfs, 32 << 10);
}
