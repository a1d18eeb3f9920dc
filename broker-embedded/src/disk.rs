//! What several parts need when they touch files: errors that name the file, whole reads.

use std::io;
use std::path::{Path, PathBuf};

use broker_api::{Error, TopicPartition};

use crate::vfs::{OpenMode, Vfs, VfsFile};

/// The operating system refused something.
pub(crate) fn io_error(operation: &'static str, path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::StorageFull => Error::DiskFull { path: path.to_path_buf() },
        _ => Error::Io { operation, path: path.to_path_buf(), message: e.to_string() },
    }
}

/// Something on disk is not what was written.
pub(crate) fn corrupt(
    file: &Path,
    at: u64,
    partition: Option<TopicPartition>,
    reason: impl Into<String>,
) -> Error {
    Error::Corrupt { file: PathBuf::from(file), at, partition, reason: reason.into() }
}

/// Fills `buf` from byte `at`; a file that ends before is damaged.
pub(crate) fn read_exact(
    file: &dyn VfsFile,
    path: &Path,
    at: u64,
    buf: &mut [u8],
) -> Result<(), Error> {
    let read = file.read_at(at, buf).map_err(|e| io_error("reading", path, e))?;
    if read < buf.len() {
        let reason = format!("{} bytes expected, the file ends after {read}", buf.len());
        return Err(corrupt(path, at, None, reason));
    }
    Ok(())
}

/// The whole of a small file.
pub(crate) fn read_file(vfs: &dyn Vfs, path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let file = vfs.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    };
    read().map_err(|e| io_error("reading", path, e))
}

/// Writes a small file so that after a crash it is there as a whole or not at all. Durable when it
/// returns.
pub(crate) fn write_file(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let write = || {
        if vfs.exists(&temporary)? {
            vfs.remove(&temporary)?;
        }
        let file = vfs.open(&temporary, OpenMode::CreateNew)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        vfs.rename(&temporary, path)?;
        vfs.sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    write().map_err(|e| io_error("writing", path, e))
}
