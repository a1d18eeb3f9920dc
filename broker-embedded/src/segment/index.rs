//! The sparse index of a segment: where in the log to start looking for an offset or a time.

use broker_api::{Offset, Timestamp};
use bytes::Bytes;

use super::SegmentDir;
use super::layout::Head;
use crate::codec::{Malformed, Put, Take};
use crate::disk::{io_error, read_file};
use crate::vfs::OpenMode;

const FORMAT: u32 = 1;
const MAGIC: u64 = u64::from_be_bytes(*b"VLTVSIDX");

/// One entry for about so many bytes of log.
const INTERVAL: u64 = 32 << 10;

/// A batch begins at `position` bytes into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    base: Offset,
    /// The latest append time of all batches before.
    time_before: Timestamp,
    position: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    entries: Vec<Entry>,
    latest: Timestamp,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), latest: Timestamp::MIN }
    }

    /// The latest append time of all batches.
    pub(super) fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Notes a batch, in the order of the log.
    pub(super) fn add(&mut self, base: Offset, append_time: Timestamp, position: u64) {
        if self.entries.last().is_none_or(|last| position >= last.position + INTERVAL) {
            self.entries.push(Entry { base, time_before: self.latest, position });
        }
        self.latest = self.latest.max(append_time);
    }

    /// Where to start looking for the first batch that ends above this offset.
    pub(super) fn position(&self, offset: Offset) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.base <= offset);
        self.entries.get(after.saturating_sub(1)).map(|entry| entry.position)
    }

    /// Where to start looking for the first batch that was appended after this time.
    pub(super) fn position_after(&self, time: Timestamp) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.time_before <= time);
        self.entries.get(after.saturating_sub(1)).map(|entry| entry.position)
    }

    fn encode(&self, head: &Head) -> Vec<u8> {
        let mut out = Vec::new();
        out.u64(MAGIC);
        out.u32(FORMAT);
        out.u32(head.partition);
        out.u128(head.topic.0);
        out.i64(head.base);
        out.u64(head.data_len);
        out.u32(head.data_crc);
        out.u32(self.entries.len() as u32);
        for entry in &self.entries {
            out.i64(entry.base);
            out.i64(entry.time_before);
            out.u64(entry.position);
        }
        out.u32(crc32c::crc32c(&out));
        out
    }

    /// `None`: damaged, of another format, or of another log.
    fn decode(bytes: Vec<u8>, head: &Head) -> Option<Self> {
        let body = bytes.len().checked_sub(4)?;
        if crc32c::crc32c(&bytes[..body]).to_be_bytes() != bytes[body..] {
            return None;
        }
        let mut take = Take::new(Bytes::from(bytes).slice(..body));
        let mut decode = || -> Result<Option<Self>, Malformed> {
            let fits = take.u64()? == MAGIC
                && take.u32()? == FORMAT
                && take.u32()? == head.partition
                && take.u128()? == head.topic.0
                && take.i64()? == head.base
                && take.u64()? == head.data_len
                && take.u32()? == head.data_crc;
            if !fits {
                return Ok(None);
            }
            let entries = (0..take.u32()?)
                .map(|_| {
                    let (base, time_before) = (take.i64()?, take.i64()?);
                    Ok(Entry { base, time_before, position: take.u64()? })
                })
                .collect::<Result<_, Malformed>>()?;
            Ok(Some(Self { entries, latest: head.max_append_time }))
        };
        decode().ok().flatten()
    }

    /// Reads the index of this log; `None` if there is none that can be used.
    pub(super) fn load(dir: &SegmentDir, head: &Head) -> Option<Self> {
        let bytes = read_file(&*dir.vfs, &dir.file(head.base, "idx")).ok()?;
        Self::decode(bytes, head)
    }

    /// Writes and syncs the index under its temporary name.
    pub(super) fn write(&self, dir: &SegmentDir, head: &Head) -> Result<(), broker_api::Error> {
        let path = dir.file(head.base, "idx.tmp");
        let write = || {
            if dir.vfs.exists(&path)? {
                dir.vfs.remove(&path)?;
            }
            let file = dir.vfs.open(&path, OpenMode::CreateNew)?;
            file.write_at(0, &self.encode(head))?;
            file.sync()
        };
        write().map_err(|e| io_error("writing", &path, e))
    }
}
