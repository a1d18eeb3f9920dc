//! Writing a segment.

use std::path::PathBuf;
use std::sync::Arc;

use broker_api::{Batch, Error, Offset, Timestamp};

use super::index::Index;
use super::layout::{self, BATCH_HEADER_LEN, BatchHeader, HEAD_LEN, Head};
use super::{Segment, SegmentDir};
use crate::disk::io_error;
use crate::vfs::{OpenMode, VfsFile};

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;

/// Writes a new segment under a temporary name. Dropped half-way, it leaves a file that
/// [`SegmentDir::remove_leftovers`] removes.
pub(crate) struct SegmentWriter {
    dir: SegmentDir,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    base: Offset,
    generation: u64,
    next: Offset,
    seed: u32,
    buffer: Vec<u8>,
    /// Bytes of batches, those in the buffer included.
    data_len: u64,
    batches: u64,
    data_crc: u32,
    max_timestamp: Timestamp,
    index: Index,
}

impl SegmentWriter {
    /// Begins the segment that starts at offset `base`. After a crash it may be found together
    /// with those that it replaces: its generation must be higher than theirs.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`]; here and in all that follows.
    pub(crate) fn create(dir: &SegmentDir, base: Offset, generation: u64) -> Result<Self, Error> {
        let path = dir.file(base, "log.tmp");
        let create = || {
            if dir.vfs.exists(&path)? {
                dir.vfs.remove(&path)?;
            }
            dir.vfs.open(&path, OpenMode::CreateNew)
        };
        let file = create().map_err(|e| io_error("creating", &path, e))?;
        Ok(Self {
            dir: dir.clone(),
            file,
            base,
            generation,
            next: base,
            seed: layout::seed(dir.topic, dir.partition.partition, base),
            buffer: Vec::new(),
            data_len: 0,
            batches: 0,
            data_crc: 0,
            max_timestamp: Timestamp::MIN,
            index: Index::new(),
            path,
        })
    }

    /// Bytes of batches so far.
    pub(crate) fn len(&self) -> u64 {
        self.data_len
    }

    /// Appends a batch, which must not begin below the end of the last one; gaps are fine.
    pub(crate) fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.base_offset() < self.next {
            let (base, next) = (batch.base_offset(), self.next);
            let reason = format!("it begins at offset {base}, the segment is already at {next}");
            return Err(Error::InvalidBatch { reason });
        }
        let length = u32::try_from(batch.bytes().len())
            .map_err(|_| Error::InvalidBatch { reason: "it has more than 4 GiB".into() })?;
        self.index.add(batch.base_offset(), batch.append_time(), self.data_len);
        let mut header = BatchHeader {
            crc: 0,
            length,
            base: batch.base_offset(),
            next: batch.next_offset(),
            append_time: batch.append_time(),
        };
        let start = self.buffer.len();
        header.encode(&mut self.buffer);
        self.buffer.extend_from_slice(batch.bytes());
        header.crc = layout::batch_crc(self.seed, &self.buffer[start..]);
        let crc = header.crc.to_be_bytes();
        self.buffer[start..start + 4].copy_from_slice(&crc);
        self.data_crc = crc32c::crc32c_append(self.data_crc, &crc);
        self.data_len += BATCH_HEADER_LEN as u64 + u64::from(length);
        self.batches += 1;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp());
        self.next = batch.next_offset();
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let at = HEAD_LEN as u64 + self.data_len - self.buffer.len() as u64;
        let written = self.file.write_at(at, &self.buffer);
        self.buffer.clear();
        written.map_err(|e| io_error("writing", &self.path, e))
    }

    /// Ends the segment at offset `next` and syncs it. It still has its temporary name.
    pub(crate) fn seal(mut self, next: Offset) -> Result<SealedSegment, Error> {
        if next < self.next {
            let reason = format!("the segment ends at {}, not at {next}", self.next);
            return Err(Error::InvalidBatch { reason });
        }
        self.flush()?;
        let head = Head {
            topic: self.dir.topic,
            partition: self.dir.partition.partition,
            base: self.base,
            next,
            data_len: self.data_len,
            batches: self.batches,
            max_append_time: self.index.latest(),
            data_crc: self.data_crc,
            generation: self.generation,
            max_timestamp: self.max_timestamp,
        };
        self.file
            .write_at(0, &head.encode())
            .and_then(|()| self.file.sync())
            .map_err(|e| io_error("writing", &self.path, e))?;
        self.index.write(&self.dir, &head)?;
        Ok(SealedSegment { dir: self.dir, head, index: self.index, file: self.file })
    }
}

/// A segment that is complete and synced, and waits for its name.
pub(crate) struct SealedSegment {
    dir: SegmentDir,
    head: Head,
    index: Index,
    file: Arc<dyn VfsFile>,
}

impl SealedSegment {
    /// The first offset it stands for.
    pub(crate) fn base(&self) -> Offset {
        self.head.base
    }

    /// Gives the segment its name, replacing an older one with the same base. Durable when it
    /// returns. A crash in between leaves the old one or the new one: what the new one leaves out
    /// must be announced (the horizon) before.
    pub(crate) fn publish(self) -> Result<Segment, Error> {
        let vfs = &self.dir.vfs;
        let base = self.head.base;
        for extension in ["idx", "log"] {
            let path = self.dir.file(base, extension);
            vfs.rename(&self.dir.file(base, &format!("{extension}.tmp")), &path)
                .map_err(|e| io_error("renaming", &path, e))?;
        }
        vfs.sync_dir(&self.dir.path).map_err(|e| io_error("syncing", &self.dir.path, e))?;
        Ok(Segment::new(&self.dir, self.head, self.index, self.file))
    }
}
