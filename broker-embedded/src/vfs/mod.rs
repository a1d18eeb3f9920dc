//! The seam between the broker and the disk.
//!
//! The broker touches files through [`Vfs`] alone: in production [`RealVfs`], in simulations
//! [`SimVfs`], a disk that loses power, fills up, fails and flips bits by seed.
//!
//! What survives a power cut is what the traits promise and no more:
//! - the bytes and the length of a file, after [`VfsFile::sync`] returned;
//! - the entries of a directory (created, renamed, removed files), after [`Vfs::sync_dir`] of that
//!   directory returned; syncing a file says nothing about its name;
//! - directories, after [`Vfs::create_dir_all`] returned.
//!
//! After a failed sync nothing is known: the pages may have been dropped, or be readable and never
//! reach the disk. Only writing them again helps.

mod direct;
mod real;
mod sim;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealVfs;
#[cfg(test)]
pub(crate) use sim::Dice;
pub use sim::SimVfs;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; it must not exist yet.
    CreateNew,
}

/// A file system. Errors are those of the operating system.
pub trait Vfs: Send + Sync {
    /// Creates one directory; its parent must exist and it must not. Not durable by itself.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and what is missing above it. Durable when it returns.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = {
            let mut missing = Vec::new();
            for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
                if self.exists(dir)? {
                    break;
                }
                missing.push(dir);
            }
            missing
        };
        // The deepest directory that exists may itself have been created just before a crash.
        // Above it nothing can be unsynced, because below we sync before going deeper.
        let existing = missing.last().map_or(Some(path), |dir| dir.parent());
        if let Some(parent) = existing.and_then(Path::parent) {
            match self.sync_dir(parent) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {} // not ours to sync
                result => result?,
            }
        }
        for dir in missing.into_iter().rev() {
            self.create_dir(dir)?;
            if let Some(parent) = dir.parent() {
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;

    /// Gives a file another name in the same directory, replacing what had that name. After a
    /// crash the rename has happened or has not; durable after [`Vfs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Open handles go on working. Durable after [`Vfs::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all below. A crash may leave any part of it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a directory durable (not the contents of its files).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether there is a file or directory at this path.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// How many more bytes can be written to the file system that `path` is on; `None` if that
    /// cannot be told. Others may take them at any moment.
    fn free_space(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Takes the lock file `path` for `holder`, a text about this process for whoever comes
    /// second. If it is taken: the text of who has it. The lock ends with the process.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn VfsLock>, String>>;
}

/// An open file. Offsets and lengths are bytes.
pub trait VfsFile: Send + Sync {
    /// Reads into `buf` from byte `at`; fewer bytes than asked for mean that the file ends there.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at byte `at`, extending the file (with zeros where there is a hole).
    /// After an error any part of them may be written.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// The length of the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with zeros (which reserves no space).
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes bytes and length durable (`fdatasync`). After an error nothing is known of what was
    /// not durable before, and calling it again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// A lock that is held until it is dropped.
pub trait VfsLock: Send + Sync {}
