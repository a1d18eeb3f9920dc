//! Open files of segments: the most recently used ones, so many and no more.
//!
//! A file that was closed is opened again by its name. Where the name is about to go to another file
//! the segment must be pinned before: see [`super::Segment::pin`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_api::Error;

use crate::vfs::VfsFile;

/// The open files of all segments of a broker.
pub(crate) struct Handles {
    limit: usize,
    open: Mutex<Open>,
}

/// A place for the file of one segment.
pub(super) struct Handle {
    handles: Arc<Handles>,
    id: u64,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    /// Grows with every use.
    clock: u64,
    /// By segment, with its last use.
    files: BTreeMap<u64, (u64, Arc<dyn VfsFile>)>,
    /// Segments by last use.
    used: BTreeMap<u64, u64>,
}

impl Handles {
    /// Keeps at most `limit` files open, and at least one.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), open: Mutex::default() })
    }

    /// A place for one more segment, whose file is open.
    pub(super) fn add(self: &Arc<Self>, file: Arc<dyn VfsFile>) -> Handle {
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        open.put(id, file, self.limit);
        Handle { handles: self.clone(), id }
    }

    /// How many files are open.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().files.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// The file, which `open` opens if it was closed meanwhile.
    pub(super) fn file(
        &self,
        open: impl FnOnce() -> Result<Arc<dyn VfsFile>, Error>,
    ) -> Result<Arc<dyn VfsFile>, Error> {
        if let Some(file) = self.handles.lock().get(self.id) {
            return Ok(file);
        }
        let file = open()?;
        self.handles.lock().put(self.id, file.clone(), self.handles.limit);
        Ok(file)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let file = self.handles.lock().remove(self.id);
        drop(file); // closed outside of the lock
    }
}

impl Open {
    fn get(&mut self, id: u64) -> Option<Arc<dyn VfsFile>> {
        let (used, file) = self.files.get_mut(&id)?;
        self.used.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.used.insert(self.clock, id);
        Some(file.clone())
    }

    fn put(&mut self, id: u64, file: Arc<dyn VfsFile>, limit: usize) {
        self.remove(id);
        while self.files.len() >= limit
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.files.remove(&oldest);
        }
        self.clock += 1;
        self.files.insert(id, (self.clock, file));
        self.used.insert(self.clock, id);
    }

    fn remove(&mut self, id: u64) -> Option<Arc<dyn VfsFile>> {
        let (used, file) = self.files.remove(&id)?;
        self.used.remove(&used);
        Some(file)
    }
}
