//! Checkpoints: the state as it was at the beginning of a journal file, so that the files before
//! need not be read again. Two are kept; a damaged one is passed over as long as the journal still
//! has what came after the other.
//!
//! A checkpoint is made of the checkpoint before and the retired journal file in between, by the
//! code that recovers: the running broker is not disturbed, and what a recovery would find is
//! tried every time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_api::{CommittedOffset, Error, Horizon, Offset, TopicId};
use bytes::Bytes;

use crate::codec::{Malformed, Put, Take};
use crate::disk::{corrupt, io_error, read_file, write_file};
use crate::journal::entry::{put_config, take_config};
use crate::journal::file::JournalFile;
use crate::sequencer::extent::{Extent, Located, Place};
use crate::sequencer::partition::Log;
use crate::sequencer::state::{Group, Known, State};
use crate::vfs::Vfs;

const MAGIC: &[u8; 4] = b"VCKP";
const FORMAT: u32 = 1;

/// Journal files by the number of their first entry.
pub(crate) type Files = BTreeMap<u64, Arc<JournalFile>>;

fn path(dir: &Path, lsn: u64) -> PathBuf {
    dir.join(format!("{lsn:020}.ckpt"))
}

/// The checkpoints that are there, by the number of the first entry that they do not contain.
pub(crate) fn list(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u64>, Error> {
    let names = vfs.list(dir).map_err(|e| io_error("listing", dir, e))?;
    let number = |name: &String| name.strip_suffix(".ckpt").and_then(|lsn| lsn.parse().ok());
    let mut lsns: Vec<u64> = names.iter().filter_map(number).collect();
    lsns.sort_unstable();
    Ok(lsns)
}

/// Writes the checkpoint of `state` and removes all but the newest two.
pub(crate) fn write(vfs: &dyn Vfs, dir: &Path, state: &State) -> Result<(), Error> {
    write_file(vfs, &path(dir, state.next_lsn), &encode(state))?;
    let lsns = list(vfs, dir)?;
    lsns.iter().rev().skip(2).try_for_each(|lsn| remove(vfs, dir, *lsn))
}

fn remove(vfs: &dyn Vfs, dir: &Path, lsn: u64) -> Result<(), Error> {
    let path = path(dir, lsn);
    let removed = vfs.remove(&path).and_then(|()| vfs.sync_dir(dir));
    removed.map_err(|e| io_error("removing", &path, e))
}

/// Removes checkpoints that are damaged and not needed.
pub(crate) fn remove_damaged(
    vfs: &dyn Vfs,
    dir: &Path,
    damaged: Vec<(u64, Error)>,
) -> Result<(), Error> {
    let left = list(vfs, dir)?;
    for (lsn, error) in damaged.into_iter().filter(|(lsn, _)| left.contains(lsn)) {
        tracing::warn!(%error, "a damaged checkpoint is not needed and removed");
        remove(vfs, dir, lsn)?;
    }
    Ok(())
}

/// What [`newest`] finds.
pub(crate) struct Newest {
    /// The state at the newest good checkpoint.
    pub(crate) state: Option<State>,
    /// Newer ones, which are damaged.
    pub(crate) damaged: Vec<(u64, Error)>,
}

/// Reads the newest checkpoint that is good.
pub(crate) fn newest(
    vfs: &dyn Vfs,
    dir: &Path,
    journal: &Path,
    files: &mut Files,
) -> Result<Newest, Error> {
    let mut damaged = Vec::new();
    for lsn in list(vfs, dir)?.into_iter().rev() {
        match read(vfs, dir, lsn, journal, files) {
            Ok(state) => return Ok(Newest { state: Some(state), damaged }),
            Err(error @ Error::Corrupt { .. }) => damaged.push((lsn, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(Newest { state: None, damaged })
}

/// Reads the checkpoint before entry `lsn`. Journal files that it names and that `files` lacks are
/// added as missing: what comes later in the journal must have made them unnecessary.
fn read(
    vfs: &dyn Vfs,
    dir: &Path,
    lsn: u64,
    journal: &Path,
    files: &mut Files,
) -> Result<State, Error> {
    let path = path(dir, lsn);
    let bytes = Bytes::from(read_file(vfs, &path)?);
    let bad = |reason: String| corrupt(&path, 0, None, reason);
    if bytes.len() < 16 || &bytes[..4] != MAGIC {
        return Err(bad("this is not a checkpoint".into()));
    }
    let (body, crc) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(body).to_be_bytes() != crc {
        return Err(bad("its checksum does not fit".into()));
    }
    let mut fields = Take::new(bytes.slice(4..bytes.len() - 4));
    let malformed = |Malformed(reason)| bad(reason);
    let (format, oldest_reader) =
        fields.u32().and_then(|format| Ok((format, fields.u32()?))).map_err(malformed)?;
    if oldest_reader > FORMAT {
        return Err(Error::NewerFormat { path, found: format, supported: FORMAT });
    }
    let state = decode(&mut fields, journal, files).map_err(malformed)?;
    if state.next_lsn != lsn || !fields.is_done() {
        return Err(bad("it bears another's name, or has more than its fields".into()));
    }
    Ok(state)
}

fn encode(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.u32(FORMAT);
    out.u32(FORMAT); // the oldest version that can read it
    out.u64(state.next_lsn);
    out.i64(state.last_time);
    out.u32(state.epoch_floor);
    out.u64(state.group_floor);
    out.u32(state.topics.len() as u32);
    for (name, topic) in &state.topics {
        out.u128(topic.id.0);
        out.str(name);
        put_config(&topic.config, &mut out);
        out.u32(topic.partitions.len() as u32);
        topic.partitions.iter().for_each(|partition| put_log(&partition.lock(), &mut out));
    }
    out.u32(state.groups.len() as u32);
    for (name, group) in &state.groups {
        out.str(name);
        out.u64(group.member);
        out.u64(group.epoch);
        out.i64(group.used);
        out.u32(group.offsets.len() as u32);
        for ((topic, partition), committed) in &group.offsets {
            out.u128(topic.0);
            out.u32(*partition);
            out.i64(committed.offset);
            out.str(&committed.metadata);
        }
    }
    out.u32(state.producers.len() as u32);
    for (id, known) in &state.producers {
        out.str(id);
        out.u32(known.epoch);
        out.i64(known.used);
    }
    let crc = crc32c::crc32c(&out);
    out.u32(crc);
    out
}

fn decode(fields: &mut Take, journal: &Path, files: &mut Files) -> Result<State, Malformed> {
    let mut state = State {
        next_lsn: fields.u64()?,
        last_time: fields.i64()?,
        epoch_floor: fields.u32()?,
        group_floor: fields.u64()?,
        ..State::default()
    };
    for _ in 0..fields.u32()? {
        let (id, name) = (TopicId(fields.u128()?), fields.str()?);
        let config = take_config(fields)?;
        let logs = (0..fields.u32()?)
            .map(|_| take_log(fields, journal, files))
            .collect::<Result<_, _>>()?;
        state.add_topic(id, name.into(), config, logs);
    }
    for _ in 0..fields.u32()? {
        let name = fields.str()?;
        let mut group = Group {
            offsets: BTreeMap::new(),
            member: fields.u64()?,
            epoch: fields.u64()?,
            used: fields.i64()?,
        };
        for _ in 0..fields.u32()? {
            let key = (TopicId(fields.u128()?), fields.u32()?);
            let committed = CommittedOffset { offset: fields.i64()?, metadata: fields.str()? };
            group.offsets.insert(key, committed);
        }
        state.groups.insert(name.into(), group);
    }
    for _ in 0..fields.u32()? {
        let (id, epoch, used) = (fields.str()?, fields.u32()?, fields.i64()?);
        state.producers.insert(id.into(), Known { epoch, used });
    }
    Ok(state)
}

fn put_log(log: &Log, out: &mut Vec<u8>) {
    let horizon = &log.horizon;
    for offset in [
        horizon.log_start,
        horizon.tombstones_gone_below,
        horizon.compacted_below,
        log.cleaned,
        log.segments_end,
        log.end,
    ] {
        out.i64(offset);
    }
    let in_journal = |extent: &&Extent| extent.segment().is_none();
    out.u32(log.extents.iter().filter(in_journal).count() as u32);
    for extent in &log.extents {
        let Place::Journal { file, batches } = &extent.place else { continue };
        out.u64(file.first_lsn);
        out.i64(extent.base);
        out.i64(extent.end);
        out.i64(extent.max_timestamp);
        out.u32(batches.len() as u32);
        for batch in batches {
            out.i64(batch.base);
            out.i64(batch.time);
            out.u32(batch.at);
            out.u32(batch.len);
        }
    }
}

fn take_log(fields: &mut Take, journal: &Path, files: &mut Files) -> Result<Log, Malformed> {
    let mut offsets: [Offset; 6] = [0; 6];
    for offset in &mut offsets {
        *offset = fields.i64()?;
    }
    let [log_start, tombstones_gone_below, compacted_below, cleaned, segments_end, end] = offsets;
    let mut log = Log {
        horizon: Horizon { log_start, tombstones_gone_below, compacted_below },
        start: log_start,
        cleaned,
        segments_end,
        end,
        durable_end: end,
        ..Log::default()
    };
    for _ in 0..fields.u32()? {
        let first_lsn = fields.u64()?;
        let file = files
            .entry(first_lsn)
            .or_insert_with(|| JournalFile::missing(journal, first_lsn))
            .clone();
        let (base, end, max_timestamp) = (fields.i64()?, fields.i64()?, fields.i64()?);
        let batches = (0..fields.u32()?)
            .map(|_| {
                let (base, time) = (fields.i64()?, fields.i64()?);
                Ok(Located { base, time, at: fields.u32()?, len: fields.u32()? })
            })
            .collect::<Result<_, _>>()?;
        let place = Place::Journal { file, batches };
        log.extents.push_back(Extent { base, end, max_timestamp, place });
    }
    Ok(log)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vfs::SimVfs;
    use broker_api::{CleanupPolicy, TopicConfig};

    fn state() -> State {
        let mut state = State {
            next_lsn: 9,
            last_time: 1_000,
            epoch_floor: 5,
            group_floor: 12,
            ..State::default()
        };
        let extent = Extent {
            base: 3,
            end: 5,
            max_timestamp: 998,
            place: Place::Journal {
                file: JournalFile::missing(Path::new("/journal"), 4),
                batches: vec![Located { base: 3, time: 999, at: 4_200, len: 70 }],
            },
        };
        let log = Log {
            horizon: Horizon { log_start: 1, tombstones_gone_below: 2, compacted_below: 3 },
            cleaned: 2,
            segments_end: 3,
            end: 5,
            extents: vec![extent].into(),
            ..Log::default()
        };
        let config = TopicConfig { cleanup_policy: CleanupPolicy::Compact, ..Default::default() };
        state.add_topic(TopicId(0x11), "t".into(), config, vec![log]);
        let committed = CommittedOffset { offset: 4, metadata: "m".into() };
        let offsets = BTreeMap::from([((TopicId(0x11), 0), committed)]);
        state.groups.insert("g".into(), Group { offsets, member: 6, epoch: 7, used: 997 });
        state.producers.insert("p".into(), Known { epoch: 8, used: 996 });
        state
    }

    #[test]
    fn golden_bytes() {
        #[rustfmt::skip]
        let expected: Vec<u8> = [
            &b"VCKP"[..], &[0, 0, 0, 1], &[0, 0, 0, 1],
            &9u64.to_be_bytes(), &1_000i64.to_be_bytes(), &5u32.to_be_bytes(), &12u64.to_be_bytes(),
            &[0, 0, 0, 1], &0x11u128.to_be_bytes(), &[0, 0, 0, 1], b"t",
            &[1], &[0xff; 16], &[0; 8], &(16u32 << 20).to_be_bytes(), // compact, no retention, no lag, 16 MiB
            &[0, 0, 0, 1], // one partition
            &1i64.to_be_bytes(), &2i64.to_be_bytes(), &3i64.to_be_bytes(),
            &2i64.to_be_bytes(), &3i64.to_be_bytes(), &5i64.to_be_bytes(),
            &[0, 0, 0, 1], &4u64.to_be_bytes(), &3i64.to_be_bytes(), &5i64.to_be_bytes(),
            &998i64.to_be_bytes(),
            &[0, 0, 0, 1], &3i64.to_be_bytes(), &999i64.to_be_bytes(),
            &4_200u32.to_be_bytes(), &70u32.to_be_bytes(),
            &[0, 0, 0, 1], &[0, 0, 0, 1], b"g", &6u64.to_be_bytes(), &7u64.to_be_bytes(),
            &997i64.to_be_bytes(),
            &[0, 0, 0, 1], &0x11u128.to_be_bytes(), &[0; 4], &4i64.to_be_bytes(),
            &[0, 0, 0, 1], b"m",
            &[0, 0, 0, 1], &[0, 0, 0, 1], b"p", &8u32.to_be_bytes(), &996i64.to_be_bytes(),
        ].concat();
        let bytes = encode(&state());
        assert_eq!(bytes[..bytes.len() - 4], expected);
    }

    /// Writes a checkpoint with a checksum that fits, and reads it.
    fn read_back(mut body: Vec<u8>, lsn: u64) -> Result<State, Error> {
        let (vfs, dir) = (SimVfs::new(1), Path::new("/checkpoint"));
        vfs.create_dir_all(dir).unwrap();
        body.u32(crc32c::crc32c(&body));
        write_file(&vfs, &path(dir, lsn), &body).unwrap();
        read(&vfs, dir, lsn, Path::new("/journal"), &mut Files::new())
    }

    /// A state is the same after it was written and read.
    pub(crate) fn comes_back(state: &State) {
        let mut bytes = encode(state);
        bytes.truncate(bytes.len() - 4);
        let back = read_back(bytes, state.next_lsn).unwrap();
        assert_eq!(encode(&back), encode(state));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1_000,
            failure_persistence: None,
            rng_seed: proptest::test_runner::RngSeed::Fixed(15),
            ..ProptestConfig::default()
        })]

        /// What is read comes back; what is wrong is an error and no panic.
        #[test]
        fn any_bytes_below_a_checksum_that_fits_are_survived(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<Option<proptest::sample::Index>>(),
            tail in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut bytes = encode(&state());
            bytes.truncate(bytes.len() - 4);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
            bytes.extend_from_slice(&tail);
            if let Ok(state) = read_back(bytes, 9) {
                comes_back(&state);
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed_and_two_are_kept() {
        let vfs = SimVfs::new(1);
        let (dir, journal) = (Path::new("/checkpoint"), Path::new("/journal"));
        vfs.create_dir_all(dir).unwrap();
        for lsn in [3, 5, 9] {
            write(&vfs, dir, &State { next_lsn: lsn, ..state() }).unwrap();
        }
        assert_eq!(list(&vfs, dir).unwrap(), [5, 9]);
        let read = |vfs: &SimVfs| read(vfs, dir, 9, journal, &mut Files::new());
        let bytes = encode(&read(&vfs).unwrap());
        assert_eq!(bytes, encode(&state()));
        for at in 0..bytes.len() as u64 {
            vfs.flip(&path(dir, 9), at, 0x20).unwrap();
            assert!(read(&vfs).is_err(), "byte {at}");
            vfs.flip(&path(dir, 9), at, 0x20).unwrap();
        }
    }
}
