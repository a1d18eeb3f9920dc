//! The operating system's file system.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::direct::Direct;
use super::{OpenMode, Vfs, VfsFile, VfsLock};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

impl Vfs for RealVfs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let writes = mode != OpenMode::Read;
        let file = File::options()
            .read(true)
            .write(writes)
            .create_new(mode == OpenMode::CreateNew)
            .open(path)?;
        Ok(Arc::new(RealFile { file, direct: Direct::new(writes) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // The parent of the relative path `x` is written as nothing.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn free_space(&self, path: &Path) -> io::Result<Option<u64>> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn VfsLock>, String>> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all_at(holder.as_bytes(), 0)?;
                Ok(Ok(Box::new(RealLock(file))))
            }
            Err(TryLockError::WouldBlock) => {
                let text = String::from_utf8_lossy(&fs::read(path)?).trim().to_string();
                // The holder may be between taking the lock and writing its text.
                Ok(Err(if text.is_empty() { "another process".into() } else { text }))
            }
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

struct RealFile {
    file: File,
    direct: Direct,
}

impl VfsFile for RealFile {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(read) = self.direct.read(&self.file, at, buf) {
            return read;
        }
        let mut read = 0;
        while read < buf.len() {
            match self.file.read_at(&mut buf[read..], at + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(written) = self.direct.write(&self.file, at, bytes) {
            return written;
        }
        self.file.write_all_at(bytes, at)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Gives the lock back when it is dropped. Closing the file would not do: a child process that is just
/// being started elsewhere in this process has it open too until it runs its program.
struct RealLock(File);

impl VfsLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the lock of a directory was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_given_back_although_a_child_process_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let file = File::options().write(true).create_new(true).open(&path).unwrap();
        file.try_lock().unwrap();
        let inherited = file.try_clone().unwrap();
        drop(RealLock(file));
        assert!(RealVfs.lock(&path, "the next").unwrap().is_ok());
        drop(inherited);
    }
}
