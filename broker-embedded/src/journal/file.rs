//! A file of the journal: a head of 4 KiB, then frames.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_api::Error;

use super::frame::ALIGN;
use crate::codec::Put;
use crate::disk::{corrupt, io_error, read_exact};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// The format that this version writes.
pub(crate) const FORMAT: u32 = 1;
/// The length of the head, and so the place of the first frame.
pub(crate) const HEAD_LEN: u64 = ALIGN as u64;

const MAGIC: &[u8; 4] = b"VJNL";
const AT_CRC: usize = ALIGN - 4;

/// An open journal file.
pub(crate) struct JournalFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The number of its first entry; gives the file its name.
    pub(crate) first_lsn: u64,
    /// The number of its first frame.
    pub(crate) first_seq: u64,
    /// Chosen at random: no two files have the same.
    pub(crate) id: u64,
    /// The file itself.
    pub(crate) file: Arc<dyn VfsFile>,
}

impl std::fmt::Debug for JournalFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// The name of the file whose first entry is `first_lsn`; names sort like their numbers.
pub(crate) fn name(first_lsn: u64) -> String {
    format!("{first_lsn:020}.log")
}

/// The number in a file's name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

fn encode_head(id: u64, first_lsn: u64, first_seq: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(ALIGN);
    head.extend_from_slice(MAGIC);
    head.u32(FORMAT);
    head.u32(FORMAT); // the oldest version that can read it
    head.u32(0);
    head.u64(0); // features that a reader must know
    head.u64(id);
    head.u64(first_lsn);
    head.u64(first_seq);
    head.resize(AT_CRC, 0);
    let crc = crc32c::crc32c(&head);
    head.u32(crc);
    head
}

impl JournalFile {
    /// Creates the file in the directory `dir`. It gets its name when its head is durable: a file
    /// with this name and a bad head is damaged.
    pub(crate) fn create(
        vfs: &dyn Vfs,
        dir: &Path,
        id: u64,
        first_lsn: u64,
        first_seq: u64,
    ) -> Result<Arc<Self>, Error> {
        let path = dir.join(name(first_lsn));
        let new = dir.join("new.tmp");
        let make = || {
            if vfs.exists(&new)? {
                vfs.remove(&new)?;
            }
            let file = vfs.open(&new, OpenMode::CreateNew)?;
            file.write_at(0, &encode_head(id, first_lsn, first_seq))?;
            file.sync()?;
            vfs.rename(&new, &path)?;
            vfs.sync_dir(dir)?;
            Ok(file)
        };
        let file = make().map_err(|e| io_error("creating", &path, e))?;
        Ok(Arc::new(Self { path, first_lsn, first_seq, id, file }))
    }

    /// Stands for a file that is named somewhere and not there.
    pub(crate) fn missing(dir: &Path, first_lsn: u64) -> Arc<Self> {
        let path = dir.join(name(first_lsn));
        Arc::new(Self { path, first_lsn, first_seq: 0, id: 0, file: Arc::new(Missing) })
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.first_seq == 0 // frames count from 1
    }

    /// Opens the file and checks its head.
    pub(crate) fn open(vfs: &dyn Vfs, dir: &Path, first_lsn: u64) -> Result<Arc<Self>, Error> {
        let path = dir.join(name(first_lsn));
        let file =
            vfs.open(&path, OpenMode::ReadWrite).map_err(|e| io_error("opening", &path, e))?;
        let mut head = vec![0; ALIGN];
        read_exact(&*file, &path, 0, &mut head)?;
        let u32_at = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| head[at + i]));
        let u64_at = |at: usize| (u64::from(u32_at(at)) << 32) | u64::from(u32_at(at + 4));
        if &head[..4] != MAGIC || u32_at(AT_CRC) != crc32c::crc32c(&head[..AT_CRC]) {
            return Err(corrupt(&path, 0, None, "the head of this journal file does not verify"));
        }
        if u32_at(8) > FORMAT || u64_at(16) != 0 {
            return Err(Error::NewerFormat { path, found: u32_at(4), supported: FORMAT });
        }
        if u64_at(32) != first_lsn {
            return Err(corrupt(&path, 32, None, "this journal file bears another's name"));
        }
        Ok(Arc::new(Self { path, first_lsn, first_seq: u64_at(40), id: u64_at(24), file }))
    }
}

/// A file that is not there.
struct Missing;

impl Missing {
    fn error<T>() -> io::Result<T> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl VfsFile for Missing {
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Self::error()
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Self::error()
    }

    fn len(&self) -> io::Result<u64> {
        Self::error()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Self::error()
    }

    fn sync(&self) -> io::Result<()> {
        Self::error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let head = encode_head(0x0102_0304_0506_0708, 42, 7);
        assert_eq!(head.len(), ALIGN);
        #[rustfmt::skip]
        let start: [u8; 48] = [
            b'V', b'J', b'N', b'L', 0, 0, 0, 1,
            0, 0, 0, 1, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
            1, 2, 3, 4, 5, 6, 7, 8,
            0, 0, 0, 0, 0, 0, 0, 42,
            0, 0, 0, 0, 0, 0, 0, 7,
        ];
        assert_eq!(head[..48], start);
        assert!(head[48..AT_CRC].iter().all(|b| *b == 0));
    }

    #[test]
    fn names_hold_their_number() {
        assert_eq!(parse_name(&name(42)), Some(42));
        assert_eq!(parse_name("new.tmp"), None);
        assert_eq!(parse_name("42.log"), None);
    }
}
