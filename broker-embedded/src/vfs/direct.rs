//! Reading and writing past the page cache.
//!
//! The journal is written once and read from memory; what is read from disk is read in long
//! stretches, mostly once. Copies of it in the page cache cost more processor time than all that
//! the broker does with the data. So large reads, and writes whose place, length and address are
//! multiples of 4 KiB, go to the disk directly. Where that is not possible (another operating
//! system, a file system without it) the caller takes the ordinary way.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::OnceLock;

/// Places, lengths and addresses must be multiples of it.
const ALIGN: usize = 4096;
/// Smaller reads are better off with the page cache.
const LARGE_READ: usize = 64 << 10;

#[cfg(all(target_os = "linux", any(target_arch = "x86", target_arch = "x86_64")))]
const O_DIRECT: Option<i32> = Some(0o40_000);
#[cfg(all(target_os = "linux", any(target_arch = "arm", target_arch = "aarch64")))]
const O_DIRECT: Option<i32> = Some(0o200_000);
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86", target_arch = "x86_64", target_arch = "arm", target_arch = "aarch64")
)))]
const O_DIRECT: Option<i32> = None;

/// A second handle of a file, opened when it is first of use.
pub(super) struct Direct {
    /// What the first handle may do, this one may, and no more and no less: a handle that cannot
    /// write would turn writes into errors instead of leaving them to the ordinary way.
    writes: bool,
    handle: OnceLock<Option<File>>,
}

impl Direct {
    pub(super) fn new(writes: bool) -> Self {
        Self { writes, handle: OnceLock::new() }
    }

    fn handle(&self, file: &File) -> Option<&File> {
        let open = || {
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mut options = File::options();
            options.read(true).write(self.writes).custom_flags(O_DIRECT?).open(own).ok()
        };
        self.handle.get_or_init(open).as_ref()
    }

    /// Reads as [`super::VfsFile::read_at`] does; `None` if it must be done the ordinary way.
    pub(super) fn read(&self, file: &File, at: u64, buf: &mut [u8]) -> Option<io::Result<usize>> {
        if buf.len() < LARGE_READ {
            return None;
        }
        let direct = self.handle(file)?;
        let before = (at % ALIGN as u64) as usize;
        let len = (before + buf.len()).next_multiple_of(ALIGN);
        let read = if len == buf.len() && buf.as_ptr().align_offset(ALIGN) == 0 {
            read_stretch(direct, at, buf)
        } else {
            let mut bounce = vec![0; len + ALIGN];
            let start = bounce.as_ptr().align_offset(ALIGN);
            let bounce = bounce.get_mut(start..start + len)?;
            read_stretch(direct, at - before as u64, bounce).map(|read| {
                let read = read.saturating_sub(before).min(buf.len());
                buf[..read].copy_from_slice(&bounce[before..before + read]);
                read
            })
        };
        possible(read)
    }

    /// Writes as [`super::VfsFile::write_at`] does; `None` if it must be done the ordinary way.
    pub(super) fn write(&self, file: &File, at: u64, bytes: &[u8]) -> Option<io::Result<()>> {
        let aligned = at.is_multiple_of(ALIGN as u64)
            && bytes.len().is_multiple_of(ALIGN)
            && bytes.as_ptr().align_offset(ALIGN) == 0;
        if !self.writes || !aligned || bytes.is_empty() {
            return None;
        }
        possible(self.handle(file)?.write_all_at(bytes, at))
    }
}

/// Reads until the buffer is full or the file ends.
fn read_stretch(file: &File, at: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buf.len() {
        match file.read_at(&mut buf[read..], at + read as u64) {
            // Only the end of the file leaves a part of a block.
            Ok(n) if n == 0 || !n.is_multiple_of(ALIGN) => return Ok(read + n),
            Ok(n) => read += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}

/// What the file system does not support is done the ordinary way.
fn possible<T>(result: io::Result<T>) -> Option<io::Result<T>> {
    match &result {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => None,
        _ => Some(result),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OpenMode, RealVfs, Vfs};
    use super::*;

    #[test]
    fn a_file_opened_for_reading_only_is_never_written_past_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![1; LARGE_READ]).unwrap();
        let file = RealVfs.open(&path, OpenMode::Read).unwrap();
        let mut buf = vec![0; LARGE_READ];
        assert_eq!(file.read_at(0, &mut buf).unwrap(), LARGE_READ);
        let zeros = vec![0; 3 * ALIGN];
        let start = zeros.as_ptr().align_offset(ALIGN);
        assert!(file.write_at(0, &zeros[start..start + ALIGN]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), buf);
    }

    /// Every combination of place and length gives what was written, to the end of the file.
    #[test]
    fn large_reads_and_aligned_writes_agree_with_the_ordinary_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealVfs.open(&path, OpenMode::CreateNew).unwrap();
        let len = 300_000;
        let content: Vec<u8> = (0..len + ALIGN).map(|i| (i * 7 / 3) as u8).collect();
        let start = content.as_ptr().align_offset(ALIGN);
        let content = &content[start..start + len];
        let aligned = len / ALIGN * ALIGN;
        file.write_at(0, &content[..aligned]).unwrap();
        file.write_at(aligned as u64, &content[aligned..]).unwrap();
        file.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        for at in [0, 1, 4_095, 4_096, 100_000, 250_000, len, len + 10_000] {
            for size in [1, LARGE_READ - 1, LARGE_READ, LARGE_READ + 1, 200_000, 400_000] {
                let mut buf = vec![0; size];
                let read = file.read_at(at as u64, &mut buf).unwrap();
                let expected = &content[at.min(len)..(at + size).min(len)];
                assert_eq!(buf[..read], *expected, "{size} bytes at {at}");
            }
        }
    }
}
