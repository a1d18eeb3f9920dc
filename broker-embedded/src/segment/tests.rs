//! Segment files: their bytes, reading from anywhere, damage, crashes.

use std::collections::BTreeSet;
use std::path::Path;

use broker_api::{Batch, BatchBuilder};

use super::*;
use crate::vfs::{Dice, OpenMode, SimVfs};

fn dir(vfs: &SimVfs) -> SegmentDir {
    let path = PathBuf::from("/t/0");
    vfs.create_dir_all(&path).unwrap();
    let partition = TopicPartition::new("words", 0);
    let (vfs, handles) = (Arc::new(vfs.clone()), Handles::new(2));
    SegmentDir { vfs, handles, path, topic: TopicId(0xfeed), partition }
}

fn batch(base: Offset, append_time: i64, values: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (i, value) in values.iter().enumerate() {
        let key = format!("key {i}");
        builder.push(1_000 + i as i64, Some(key.as_bytes()), Some(value), &[]).unwrap();
    }
    builder.finish().unwrap().assigned(base, append_time)
}

/// Batches of some records each, with gaps between some of them.
fn random_batches(seed: u64, count: usize) -> Vec<Batch> {
    let mut dice = Dice::new(seed);
    let (mut next, mut time) = (100, 5_000);
    (0..count)
        .map(|_| {
            let value = vec![dice.below(256) as u8; dice.below(3_000) as usize];
            let values = vec![&value[..]; dice.below(4) as usize + 1];
            next += if dice.chance(2) { dice.below(50) as i64 } else { 0 };
            time += dice.below(3) as i64 - i64::from(dice.chance(1));
            let batch = batch(next, time, &values);
            next = batch.next_offset();
            batch
        })
        .collect()
}

fn write(dir: &SegmentDir, base: Offset, batches: &[Batch], next: Offset) -> Segment {
    let mut writer = SegmentWriter::create(dir, base, 7).unwrap();
    batches.iter().for_each(|batch| writer.append(batch).unwrap());
    writer.seal(next).unwrap().publish().unwrap()
}

fn read_all(segment: &Segment) -> Result<Vec<Batch>, Error> {
    segment.batches().collect()
}

fn bytes(vfs: &SimVfs, path: &Path) -> Vec<u8> {
    crate::disk::read_file(vfs, path).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_bytes_of_log_and_index_are_as_documented() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    let batches = [batch(100, 5_000, &[b"a"]), batch(103, 4_999, &[b"b", b"c"])];
    write(&dir, 99, &batches, 110);
    let log = bytes(&vfs, &dir.file(99, "log"));
    let length = |i: usize| batches[i].bytes().len();
    let second = 128 + 32 + length(0);
    assert_eq!(log.len(), second + 32 + length(1));
    assert_eq!(log[second + 32..], batches[1].bytes()[..]);
    let identity = "0000000000000000000000000000feed";
    let head = format!(
        "{}00000002{}{}{}{}{}{}{}{}{}{}{}{}",
        hex(b"VLTVSEGM"),
        "00000000",         // partition
        identity,           // topic
        "0000000000000063", // base 99
        "000000000000006e", // next 110
        "00000000000000e1", // 225 bytes of batches
        "0000000000000002", // 2 batches
        "0000000000001388", // the latest append time, 5000
        "188e49e7",         // checksum of the checksums
        "0000000000000007", // generation
        "00000000000003e9", // the highest timestamp, 1001
        "00".repeat(32),
        "87167ba3", // checksum
    );
    assert_eq!(hex(&log[..128]), head);
    let first = "9f1a2ea40000004a000000000000006400000000000000650000000000001388";
    assert_eq!(hex(&log[128..160]), first);
    let index = format!(
        "{}00000001{}{}{}{}{}{}{}{}{}{}",
        hex(b"VLTVSIDX"),
        "00000000",         // partition
        identity,           // topic
        "0000000000000063", // base
        "00000000000000e1", // bytes of batches
        "188e49e7",         // the log's checksum of checksums
        "00000001",         // 1 entry:
        "0000000000000064", // offset 100,
        "8000000000000000", // appended before it: nothing,
        "0000000000000000", // position
        "83b38007",         // checksum
    );
    assert_eq!(hex(&bytes(&vfs, &dir.file(99, "idx"))), index);
}

#[test]
fn reading_from_any_offset_finds_just_what_follows() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    let batches = random_batches(1, 120);
    let end = batches[119].next_offset() + 7;
    write(&dir, 90, &batches, end);
    let segment = Segment::open(&dir, 90).unwrap();
    assert!(segment.len() > 3 * 32 * 1024, "several index entries");
    assert_eq!(read_all(&segment).unwrap(), batches);
    for from in 90..=end {
        for max_bytes in [1, 5_000, usize::MAX] {
            let read = segment.read(from, max_bytes).unwrap();
            let after = batches.iter().filter(|batch| batch.next_offset() > from);
            let expected: Vec<_> = after.take(read.batches.len()).cloned().collect();
            assert_eq!(read.batches, expected, "from {from}");
            let all = read.batches.last().is_none_or(|last| *last == batches[119]);
            match read.batches.last() {
                Some(last) if read.next == last.next_offset() => {}
                _ => assert_eq!((all, read.next), (true, end)),
            }
            let bytes = |batches: &[Batch]| batches.iter().map(|b| b.bytes().len()).sum::<usize>();
            let but_last = &read.batches[..read.batches.len().saturating_sub(1)];
            assert!(bytes(but_last) < max_bytes, "at most one batch above the limit");
        }
    }
}

#[test]
fn the_first_batch_after_a_time_is_found_though_the_clock_went_back() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    let batches = random_batches(2, 150);
    write(&dir, 0, &batches, 10_000);
    let segment = Segment::open(&dir, 0).unwrap();
    let last = batches.iter().map(Batch::append_time).max().unwrap();
    for time in 4_990..=last {
        let expected = batches.iter().find(|batch| batch.append_time() > time);
        let expected = expected.map(Batch::base_offset);
        assert_eq!(segment.appended_after(time).unwrap(), expected, "after {time}");
    }
}

#[test]
fn a_segment_of_nothing_but_a_gap_is_passed() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    write(&dir, 10, &[], 50);
    let segment = Segment::open(&dir, 10).unwrap();
    let read = segment.read(20, 1_000).unwrap();
    assert_eq!((read.batches.len(), read.next), (0, 50));
    assert_eq!(segment.appended_after(0).unwrap(), None);
}

#[test]
fn every_flipped_byte_of_a_log_is_reported_with_file_and_partition() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    write(&dir, 100, &random_batches(3, 4), 200);
    let path = dir.file(100, "log");
    for keep_index in [true, false] {
        for at in 0..bytes(&vfs, &path).len() as u64 {
            let vfs = vfs.fork(at);
            if !keep_index {
                vfs.remove(&dir.file(100, "idx")).unwrap();
            }
            vfs.flip(&path, at, 1 << (at % 8)).unwrap();
            let dir = SegmentDir { vfs: Arc::new(vfs), ..dir.clone() };
            let result = Segment::open(&dir, 100).and_then(|segment| read_all(&segment));
            match result {
                Err(Error::Corrupt { file, at: found, partition, .. }) => {
                    assert_eq!((file, partition), (path.clone(), Some(dir.partition.clone())));
                    assert!(found <= at, "byte {at} reported at {found}");
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_log_that_was_cut_or_extended_or_is_gone_is_reported() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    write(&dir, 100, &random_batches(3, 4), 200);
    let path = dir.file(100, "log");
    let len = bytes(&vfs, &path).len() as u64;
    for new_len in (0..len).step_by(7).chain([len + 1]) {
        let vfs = vfs.fork(0);
        vfs.open(&path, OpenMode::ReadWrite).unwrap().set_len(new_len).unwrap();
        let dir = SegmentDir { vfs: Arc::new(vfs), ..dir.clone() };
        assert!(matches!(Segment::open(&dir, 100), Err(Error::Corrupt { .. })), "{new_len}");
    }
    vfs.remove(&path).unwrap();
    assert!(matches!(Segment::open(&dir, 100), Err(Error::Corrupt { .. })));
}

#[test]
fn a_log_in_the_place_of_another_partition_is_reported() {
    let vfs = SimVfs::new(0);
    let here = dir(&vfs);
    write(&here, 100, &random_batches(3, 4), 200);
    let elsewhere = SegmentDir { partition: TopicPartition::new("words", 1), ..here };
    assert!(matches!(Segment::open(&elsewhere, 100), Err(Error::Corrupt { .. })));
}

#[test]
fn a_newer_format_is_named_as_such() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    write(&dir, 100, &random_batches(3, 4), 200);
    let file = vfs.open(&dir.file(100, "log"), OpenMode::ReadWrite).unwrap();
    let mut head = [0; layout::HEAD_LEN];
    file.read_at(0, &mut head).unwrap();
    head[11] = 3;
    let crc = crc32c::crc32c(&head[..124]);
    head[124..].copy_from_slice(&crc.to_be_bytes());
    file.write_at(0, &head).unwrap();
    let error = Segment::open(&dir, 100).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 3, supported: 2, .. }), "{error}");
}

#[test]
fn a_lost_damaged_or_foreign_index_is_made_anew() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    let batches = random_batches(4, 90);
    write(&dir, 100, &batches, 1_000);
    let path = dir.file(100, "idx");
    let index = bytes(&vfs, &path);
    let check = |vfs: SimVfs, what: &str| {
        let dir = SegmentDir { vfs: Arc::new(vfs.clone()), ..dir.clone() };
        let segment = Segment::open(&dir, 100).unwrap();
        for from in (100..1_000).step_by(37) {
            let read = segment.read(from, usize::MAX).unwrap();
            let expected: Vec<_> =
                batches.iter().filter(|b| b.next_offset() > from).cloned().collect();
            assert_eq!(read.batches, expected, "{what}");
        }
        assert_eq!(bytes(&vfs, &path), index, "{what}");
    };
    for at in 0..index.len() as u64 {
        let vfs = vfs.fork(at);
        vfs.flip(&path, at, 0x10).unwrap();
        check(vfs, &format!("byte {at} flipped"));
    }
    let lost = vfs.fork(0);
    lost.remove(&path).unwrap();
    check(lost, "lost");
    let foreign = vfs.fork(0);
    let other = SegmentDir { vfs: Arc::new(foreign.clone()), path: "/t/1".into(), ..dir.clone() };
    foreign.create_dir_all(&other.path).unwrap();
    write(&other, 100, &random_batches(5, 90), 1_000);
    let file = foreign.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_at(0, &bytes(&foreign, &other.file(100, "idx"))).unwrap();
    check(foreign, "of another log");
}

/// Replaces a segment by another one of the same base, with a power cut at every change.
#[test]
fn a_power_cut_leaves_the_old_segment_or_the_new_one() {
    let base = SimVfs::new(0);
    let old = random_batches(6, 5);
    let new: Vec<_> = old.iter().skip(2).cloned().collect();
    write(&dir(&base), 100, &old, 1_000);
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let vfs = base.fork(seed);
        let dir = dir(&vfs);
        vfs.cut_power_at(vfs.changes() + seed % 12);
        let replace = || {
            let mut writer = SegmentWriter::create(&dir, 100, 8)?;
            new.iter().try_for_each(|batch| writer.append(batch))?;
            writer.seal(1_000)?.publish()
        };
        let published = replace().is_ok();
        vfs.crash();
        dir.remove_leftovers().unwrap();
        assert_eq!(dir.bases().unwrap(), [100]);
        let found = read_all(&Segment::open(&dir, 100).unwrap()).unwrap();
        assert!(found == new || (found == old && !published), "seed {seed}");
        assert_eq!(vfs.list(&dir.path).unwrap().len(), 2, "nothing is left behind");
        seen.insert((found == new, published));
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn an_open_segment_stays_readable_when_it_is_replaced_or_removed() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    let batches = random_batches(7, 10);
    let first = write(&dir, 100, &batches, 1_000);
    let second = write(&dir, 100, &batches[5..], 1_000);
    dir.remove(100).unwrap();
    dir.remove(100).unwrap();
    assert_eq!(dir.bases().unwrap(), []);
    assert_eq!(read_all(&first).unwrap(), batches);
    assert_eq!(read_all(&second).unwrap(), batches[5..]);
}

#[test]
fn batches_out_of_order_are_refused() {
    let vfs = SimVfs::new(0);
    let mut writer = SegmentWriter::create(&dir(&vfs), 100, 8).unwrap();
    writer.append(&batch(100, 0, &[b"a", b"b"])).unwrap();
    assert!(writer.append(&batch(101, 0, &[b"c"])).is_err());
    assert!(writer.seal(101).is_err());
}

#[test]
fn errors_of_the_disk_come_back_as_errors() {
    let vfs = SimVfs::new(0);
    let dir = dir(&vfs);
    let batches = random_batches(8, 3);
    write(&dir, 100, &batches, 1_000);
    let operations = vfs.operations();
    read_all(&Segment::open(&dir, 100).unwrap()).unwrap();
    for n in 0..vfs.operations() - operations {
        let vfs = vfs.fork(n);
        vfs.fail_operation(vfs.operations() + n, std::io::ErrorKind::Other);
        let dir = SegmentDir { vfs: Arc::new(vfs), ..dir.clone() };
        match Segment::open(&dir, 100).and_then(|segment| read_all(&segment)) {
            Ok(found) => assert_eq!(found, batches, "only the index was unreadable"),
            Err(e) => assert!(matches!(e, Error::Io { .. }), "{e}"),
        }
    }
    let full = vfs.fork(0);
    full.set_capacity(Some(full.used() + 512));
    let dir = SegmentDir { vfs: Arc::new(full), ..dir };
    let mut writer = SegmentWriter::create(&dir, 2_000, 8).unwrap();
    writer.append(&batch(2_000, 0, &[&[0; 2_000]])).unwrap();
    assert!(matches!(writer.seal(3_000).map(|_| ()), Err(Error::DiskFull { .. })));
    assert_eq!(read_all(&Segment::open(&dir, 100).unwrap()).unwrap(), batches);
}

#[test]
fn no_more_segment_files_are_open_than_the_setting_says() {
    let vfs = SimVfs::new(1);
    let dir = dir(&vfs);
    let write = |base: Offset, generation| {
        let mut writer = SegmentWriter::create(&dir, base, generation).unwrap();
        writer.append(&batch(base, 1, &[b"v"])).unwrap();
        writer.seal(base + 1).unwrap().publish().unwrap()
    };
    let mut segments: Vec<Segment> = (0..10).map(|base| write(base, 1)).collect();
    segments.extend((0..10).map(|base| Segment::open(&dir, base).unwrap()));
    for (i, segment) in segments.iter().enumerate() {
        assert_eq!(read_all(segment).unwrap()[0].base_offset(), i as Offset % 10);
        assert_eq!(dir.handles.count(), 2);
    }
    // A segment whose name goes to another one stays readable if it is pinned before.
    segments[3].pin().unwrap();
    let newer = write(3, 2);
    segments.iter().for_each(|segment| drop(read_all(segment)));
    assert_eq!(read_all(&segments[3]).unwrap().len(), 1);
    assert_eq!(read_all(&newer).unwrap().len(), 1);
    let error = read_all(&segments[13]).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "not pinned, it is not mistaken: {error}");
    drop((segments, newer));
    assert_eq!(dir.handles.count(), 0);
}
