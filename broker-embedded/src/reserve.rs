//! Space on the disk that is kept aside: a file of zeros, given up when the disk is full, so that what
//! was begun can be finished and space be freed.
//!
//! One lock guards the file and whether it is there: who needs the space while it is being taken
//! again waits until that has succeeded (and gives it up again) or failed (and finds the space free).

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use broker_api::Error;

use crate::disk::io_error;
use crate::vfs::{OpenMode, Vfs};

/// Bytes that are written at once.
const STRETCH: u64 = 1 << 20;

/// The space kept aside.
pub(crate) struct Reserve {
    dir: PathBuf,
    bytes: u64,
    held: Mutex<bool>,
}

impl Reserve {
    /// So many bytes in the broker's directory; taken by [`Reserve::take`].
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        Self { dir: dir.to_path_buf(), bytes, held: Mutex::new(false) }
    }

    /// Makes sure that the space is kept aside, if the disk has that much and `beside` bytes more;
    /// tells `then` whether it is, before anybody can give it up.
    pub(crate) fn take(
        &self,
        vfs: &dyn Vfs,
        beside: u64,
        then: impl FnOnce(bool),
    ) -> Result<bool, Error> {
        let mut held = self.lock();
        if !*held {
            let made = self.make(vfs, beside);
            if made.is_err() {
                self.clear(vfs);
            }
            *held = match made {
                Err(e) if e.kind() == ErrorKind::StorageFull => false,
                made => made.map_err(|e| io_error("reserving space in", &self.dir, e))?,
            };
        }
        then(*held);
        Ok(*held)
    }

    /// Gives the space up, after `first`; `false` if that was done before.
    pub(crate) fn give_up(&self, vfs: &dyn Vfs, first: impl FnOnce()) -> bool {
        let mut held = self.lock();
        if !std::mem::take(&mut *held) {
            return false;
        }
        first();
        self.clear(vfs)
    }

    fn make(&self, vfs: &dyn Vfs, beside: u64) -> io::Result<bool> {
        let path = self.dir.join("reserve");
        if vfs.exists(&path)? {
            if vfs.open(&path, OpenMode::Read)?.len()? == self.bytes {
                return Ok(true);
            }
            vfs.remove(&path)?;
        }
        let free = vfs.free_space(&self.dir)?;
        if free.is_some_and(|free| free < self.bytes.saturating_add(beside)) {
            return Ok(false);
        }
        // It gets its name when all of it is there: a crash leaves no half of it.
        let new = self.dir.join("reserve.tmp");
        if vfs.exists(&new)? {
            vfs.remove(&new)?;
        }
        let file = vfs.open(&new, OpenMode::CreateNew)?;
        let mut at = 0;
        while at < self.bytes {
            let zeros = vec![0; STRETCH.min(self.bytes - at) as usize];
            file.write_at(at, &zeros)?;
            at += zeros.len() as u64;
        }
        file.sync()?;
        vfs.rename(&new, &path)?;
        vfs.sync_dir(&self.dir)?;
        Ok(true)
    }

    /// Removes the file; whether that worked.
    fn clear(&self, vfs: &dyn Vfs) -> bool {
        let removed = ["reserve.tmp", "reserve"].map(|name| vfs.remove(&self.dir.join(name)));
        removed.iter().any(Result::is_ok) && vfs.sync_dir(&self.dir).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
