//! The directory of an application's state, which one [`Streams`](super::Streams) has at a time: two would
//! share a name and fence each other, and both write the same stores.
//!
//! Who has it holds a lock on the file `lock` in it. The lock ends with the process, however that ends;
//! the file stays, and says which process had it last.

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, Write};
use std::path::Path;

use super::StreamsError;

/// A directory that nobody else gets until this is dropped.
#[derive(Debug)]
pub(super) struct HeldDirectory {
    _lock: File,
}

impl HeldDirectory {
    /// Takes a directory, which is made if it is missing.
    ///
    /// # Errors
    /// [`StreamsError::StateDirectoryInUse`], [`StreamsError::StateDirectory`].
    pub(super) fn take(dir: &Path) -> Result<Self, StreamsError> {
        let failed =
            |e: io::Error| StreamsError::StateDirectory { path: dir.into(), reason: e.to_string() };
        fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join("lock");
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let mut lock = options.open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read(&path).map_err(failed)?;
                return Err(StreamsError::StateDirectoryInUse {
                    path: dir.into(),
                    holder: named(&String::from_utf8_lossy(&holder)),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        write(&mut lock, &format!("process {}", std::process::id())).map_err(failed)?;
        Ok(Self { _lock: lock })
    }
}

/// The holder may be between taking the lock and writing its text.
fn named(holder: &str) -> String {
    let holder = if holder.is_empty() { "another process" } else { holder };
    holder.chars().take(100).collect()
}

fn write(lock: &mut File, holder: &str) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(holder.as_bytes())
}
