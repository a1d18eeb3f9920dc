//! Reading a segment. Nothing is handed out that was not verified.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use broker_api::{Batch, Error, Offset, Timestamp, TopicPartition};
use bytes::Bytes;

use super::SegmentDir;
use super::handles::Handle;
use super::index::Index;
use super::layout::{self, BATCH_HEADER_LEN, BadHead, BatchHeader, FORMAT, HEAD_LEN, Head};
use crate::disk::{corrupt, io_error, read_exact};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// The least and the most that is read at once, but for larger batches. What was read stays in
/// memory as long as one of its batches does.
const MIN_READ: usize = 16 << 10;
const MAX_READ: usize = 256 << 10;

/// A segment. Its file is open while it is in use, and closed when others are used more. Before its
/// name goes to another file it must be pinned; before it is removed nobody else may have it.
pub(crate) struct Segment {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    partition: TopicPartition,
    handle: Handle,
    pinned: OnceLock<Arc<dyn VfsFile>>,
    head: Head,
    seed: u32,
    index: Index,
}

/// What was found from an offset on.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) batches: Vec<Batch>,
    /// Where reading goes on.
    pub(crate) next: Offset,
}

impl Segment {
    pub(super) fn new(dir: &SegmentDir, head: Head, index: Index, file: Arc<dyn VfsFile>) -> Self {
        Self {
            vfs: dir.vfs.clone(),
            path: dir.file(head.base, "log"),
            partition: dir.partition.clone(),
            handle: dir.handles.add(file),
            pinned: OnceLock::new(),
            seed: layout::seed(head.topic, head.partition, head.base),
            head,
            index,
        }
    }

    /// Opens the segment that begins at `base`. Without a good index the whole log is read, and
    /// the index made anew.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
    pub(crate) fn open(dir: &SegmentDir, base: Offset) -> Result<Self, Error> {
        let path = dir.file(base, "log");
        let damaged =
            |at: u64, reason: String| corrupt(&path, at, Some(dir.partition.clone()), reason);
        let (file, len, head) = open_file(&*dir.vfs, &path, &dir.partition)?;
        if (head.topic, head.partition, head.base) != (dir.topic, dir.partition.partition, base) {
            let reason = format!(
                "it belongs to topic {}, partition {}, offset {}",
                head.topic, head.partition, head.base
            );
            return Err(damaged(0, reason));
        }
        if len - HEAD_LEN as u64 != head.data_len {
            let reason = format!("{} bytes expected", HEAD_LEN as u64 + head.data_len);
            return Err(damaged(len, reason));
        }
        match Index::load(dir, &head) {
            Some(index) => Ok(Self::new(dir, head, index, file)),
            None => {
                let mut segment = Self::new(dir, head, Index::new(), file);
                segment.index = segment.index_anew()?;
                segment.save_index(dir);
                Ok(segment)
            }
        }
    }

    /// Not being able to write an index is no reason not to read.
    fn save_index(&self, dir: &SegmentDir) {
        let (from, to) = (dir.file(self.head.base, "idx.tmp"), dir.file(self.head.base, "idx"));
        let saved = self
            .index
            .write(dir, &self.head)
            .and_then(|()| dir.vfs.rename(&from, &to).map_err(|e| io_error("renaming", &to, e)));
        match saved {
            Ok(()) => {
                tracing::warn!(index = %to.display(), "a missing or damaged index was made anew")
            }
            Err(e) => tracing::warn!(index = %to.display(), "an index cannot be made anew: {e}"),
        }
    }

    /// Reads everything, and returns what the index should say.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    fn index_anew(&self) -> Result<Index, Error> {
        let mut index = Index::new();
        let mut scan = self.scan_at(0, MAX_READ);
        let (mut batches, mut data_crc) = (0, 0);
        loop {
            let position = scan.position;
            let Some(batch) = scan.next() else { break };
            let batch = batch?;
            index.add(batch.base_offset(), batch.append_time(), position);
            batches += 1;
            data_crc = crc32c::crc32c_append(data_crc, &scan.crc.to_be_bytes());
        }
        if (batches, data_crc) != (self.head.batches, self.head.data_crc) {
            return Err(self.damaged(0, "the head does not fit the batches".into()));
        }
        Ok(index)
    }

    fn file(&self) -> Result<Arc<dyn VfsFile>, Error> {
        if let Some(file) = self.pinned.get() {
            return Ok(file.clone());
        }
        self.handle.file(|| {
            let (file, _, head) = open_file(&*self.vfs, &self.path, &self.partition)?;
            if head == self.head {
                return Ok(file);
            }
            Err(self.damaged(0, "another segment has taken its name".into()))
        })
    }

    /// Keeps the file open from now on: its name goes to another one.
    pub(crate) fn pin(&self) -> Result<(), Error> {
        let file = self.file()?;
        self.pinned.get_or_init(|| file);
        Ok(())
    }

    /// The first offset it stands for.
    pub(crate) fn base(&self) -> Offset {
        self.head.base
    }

    /// Of segments that overlap, the one with the highest is the newest.
    pub(crate) fn generation(&self) -> u64 {
        self.head.generation
    }

    /// Where the log goes on after it. The last offsets before may be gone.
    pub(crate) fn next(&self) -> Offset {
        self.head.next
    }

    /// The highest timestamp of all records.
    pub(crate) fn max_timestamp(&self) -> Timestamp {
        self.head.max_timestamp
    }

    /// Bytes of batches.
    pub(crate) fn len(&self) -> u64 {
        self.head.data_len
    }

    /// About `max_bytes` of batches from offset `from` on, at least one if there is any. The first
    /// may begin before `from`.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn read(&self, from: Offset, max_bytes: usize) -> Result<Read, Error> {
        let position = self.index.position(from).unwrap_or(self.head.data_len);
        let mut batches = Vec::new();
        let mut bytes = 0;
        for batch in self.scan_at(position, max_bytes) {
            let batch = batch?;
            if batch.next_offset() <= from {
                continue;
            }
            bytes += batch.bytes().len();
            let next = batch.next_offset();
            batches.push(batch);
            if bytes >= max_bytes {
                return Ok(Read { batches, next });
            }
        }
        Ok(Read { batches, next: self.head.next })
    }

    /// All batches in order.
    pub(crate) fn batches(&self) -> Scan<'_> {
        self.scan_at(0, MAX_READ)
    }

    /// The base offset of the first batch that was appended after this time.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn appended_after(&self, time: Timestamp) -> Result<Option<Offset>, Error> {
        if self.head.max_append_time <= time {
            return Ok(None);
        }
        let position = self.index.position_after(time).unwrap_or(self.head.data_len);
        for batch in self.scan_at(position, MIN_READ) {
            let batch = batch?;
            if batch.append_time() > time {
                return Ok(Some(batch.base_offset()));
            }
        }
        Ok(None)
    }

    fn scan_at(&self, position: u64, read: usize) -> Scan<'_> {
        let read = read.clamp(MIN_READ, MAX_READ);
        Scan { segment: self, position, read, chunk: Bytes::new(), chunk_at: position, crc: 0 }
    }

    fn damaged(&self, at: u64, reason: String) -> Error {
        corrupt(&self.path, at, Some(self.partition.clone()), reason)
    }
}

/// Opens a log; also its length and its head.
fn open_file(
    vfs: &dyn Vfs,
    path: &Path,
    partition: &TopicPartition,
) -> Result<(Arc<dyn VfsFile>, u64, Head), Error> {
    let damaged = |at: u64, reason: String| corrupt(path, at, Some(partition.clone()), reason);
    let file = match vfs.open(path, OpenMode::Read) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged(0, "the file is missing".into()));
        }
        opened => opened.map_err(|e| io_error("opening", path, e))?,
    };
    let mut head = [0; HEAD_LEN];
    let len = file.len().map_err(|e| io_error("reading", path, e))?;
    if len < HEAD_LEN as u64 {
        return Err(damaged(len, "the file ends within its head".into()));
    }
    read_exact(&*file, path, 0, &mut head)?;
    let head = Head::decode(&head).map_err(|bad| match bad {
        BadHead::Damaged(reason) => damaged(0, reason),
        BadHead::Newer(found) => {
            Error::NewerFormat { path: path.to_path_buf(), found, supported: FORMAT }
        }
    })?;
    Ok((file, len, head))
}

/// Goes through the batches of a segment; ends after the first error.
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    /// Where the next batch begins, in bytes after the head.
    position: u64,
    /// How much to read at once.
    read: usize,
    chunk: Bytes,
    chunk_at: u64,
    /// The checksum of the last batch.
    crc: u32,
}

impl Scan<'_> {
    /// The bytes from the position on.
    fn take(&mut self, length: u64) -> Result<Bytes, Error> {
        let segment = self.segment;
        let left = segment.head.data_len - self.position;
        let at = HEAD_LEN as u64 + self.position;
        if length > left {
            let reason = format!("a batch of {length} bytes, of which {left} are there");
            return Err(segment.damaged(at, reason));
        }
        let skip = (self.position - self.chunk_at) as usize;
        if self.chunk.len() < skip + length as usize {
            let mut chunk = vec![0; left.min(length.max(self.read as u64)) as usize];
            let read = segment.file()?.read_at(at, &mut chunk);
            let read = read.map_err(|e| io_error("reading", &segment.path, e))?;
            if read < chunk.len() {
                return Err(segment.damaged(at + read as u64, "the file ends here".into()));
            }
            self.chunk = Bytes::from(chunk);
            self.chunk_at = self.position;
            return Ok(self.chunk.slice(..length as usize));
        }
        Ok(self.chunk.slice(skip..skip + length as usize))
    }

    fn batch(&mut self) -> Result<Batch, Error> {
        let (segment, at) = (self.segment, HEAD_LEN as u64 + self.position);
        let damaged = |reason: &str| segment.damaged(at, reason.into());
        let header = BatchHeader::decode(&self.take(BATCH_HEADER_LEN as u64)?)
            .ok_or_else(|| damaged("the header of a batch is cut off"))?;
        let whole = self.take(BATCH_HEADER_LEN as u64 + u64::from(header.length))?;
        if layout::batch_crc(segment.seed, &whole) != header.crc {
            return Err(damaged("the checksum of a batch does not match"));
        }
        let batch = Batch::parse_trusted(whole.slice(BATCH_HEADER_LEN..))
            .map_err(|e| segment.damaged(at, e.to_string()))?
            .assigned(header.base, header.append_time);
        if batch.next_offset() != header.next {
            return Err(damaged("the offsets of a batch do not fit its header"));
        }
        self.position += whole.len() as u64;
        self.crc = header.crc;
        Ok(batch)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.segment.head.data_len {
            return None;
        }
        let batch = self.batch();
        if batch.is_err() {
            self.position = self.segment.head.data_len;
        }
        Some(batch)
    }
}
