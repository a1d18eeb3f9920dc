//! The simulated disk: as unreliable as a disk may be, the same for the same seed.
//!
//! It knows of every byte and every directory entry whether it is durable. [`SimVfs::crash`] drops
//! everything that is open and leaves what a power cut may leave:
//! - every unsynced sector as one of the versions it had since the last sync, independently of the
//!   others (so writes come out of order and torn), every length likewise;
//! - any subset of the unsynced directory changes; a rename happens as a whole or not at all.
//!
//! It fails on demand: an error at a chosen operation, a failed sync, a power cut at a chosen
//! change, a full disk, a flipped bit. Clones share the disk; [`SimVfs::fork`] copies it.

mod dir;
mod disk;
mod faults;
mod file;
mod random;
mod survival;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::dir::{NodeId, SimDir};
use self::disk::{Disk, Node};
use self::faults::{Fate, Kind};
use self::file::SimFile;
#[cfg(test)]
pub(crate) use self::random::Dice;
use super::{OpenMode, Vfs, VfsFile, VfsLock};

/// A simulated disk.
#[derive(Clone, Debug)]
pub struct SimVfs {
    disk: Arc<Mutex<Disk>>,
}

impl SimVfs {
    /// An empty disk with sectors of 512 bytes. The seed decides what crashes leave.
    pub fn new(seed: u64) -> Self {
        Self::with_sector(seed, 512)
    }

    /// An empty disk that writes sectors of so many bytes as a whole (at least 1).
    pub fn with_sector(seed: u64, sector: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk::new(seed, sector.max(1)))) }
    }

    /// A copy of the disk as it is, unsynced changes included, with nothing open and no faults
    /// planned. From now on the two have nothing to do with each other.
    pub fn fork(&self, seed: u64) -> Self {
        let mut disk = self.disk().clone();
        disk.end_processes();
        disk.dice = random::Dice::new(seed);
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Power goes and comes back: see the module. Handles and locks from before are dead, planned
    /// faults are forgotten, the capacity stays.
    pub fn crash(&self) {
        self.disk().crash();
    }

    /// The process dies, the machine lives: handles and locks are dead, no byte is lost.
    pub fn kill(&self) {
        self.disk().end_processes();
    }

    /// How many operations of any kind there were.
    pub fn operations(&self) -> u64 {
        self.disk().faults.operations
    }

    /// How many operations changed or synced something.
    pub fn changes(&self) -> u64 {
        self.disk().faults.changes
    }

    /// How many syncs there were, of files and of directories.
    pub fn syncs(&self) -> u64 {
        self.disk().faults.syncs
    }

    /// The operation number `n` (see [`SimVfs::operations`]) fails. A write may have written a
    /// part; a sync fails as with [`SimVfs::fail_sync`].
    pub fn fail_operation(&self, n: u64, kind: ErrorKind) {
        self.disk().faults.failing_operations.insert(n, kind);
    }

    /// The sync number `n` (see [`SimVfs::syncs`]) fails: of a file's unsynced data some may have
    /// reached the disk; the rest is gone, at once or with the next crash, whatever later syncs say.
    pub fn fail_sync(&self, n: u64) {
        self.disk().faults.failing_syncs.insert(n);
    }

    /// The power goes at the change number `n` (see [`SimVfs::changes`]), before or after it took
    /// effect. That operation and all later ones fail until [`SimVfs::crash`].
    pub fn cut_power_at(&self, n: u64) {
        self.disk().faults.cut_at = Some(n);
    }

    /// Whether a planned power cut has happened.
    pub fn power_is_cut(&self) -> bool {
        self.disk().faults.power_is_cut
    }

    /// The disk holds so many bytes (`None`: no limit), counted in whole sectors. What needs more
    /// gets [`ErrorKind::StorageFull`].
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// How many bytes are taken, in whole sectors; holes take none.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// All files with their lengths, by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.disk().files()
    }

    /// Flips the bits `mask` in byte `at` of a file, on the medium and in the cache.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::UnexpectedEof`] if the file is shorter.
    pub fn flip(&self, path: &Path, at: u64, mask: u8) -> io::Result<()> {
        let mut disk = self.disk();
        let node = disk.find(path)?;
        let flipped = disk.file(node)?.flip(at, mask);
        if flipped { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs for SimVfs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let fate = disk.begin(Kind::Change)?.happens()?;
        disk.create(path, Node::Dir(SimDir::default()))?;
        fate.answer()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.begin(Kind::Read)?.answer()?;
        let node = disk.find(path)?;
        Ok(disk.dir(node)?.entries().map(|(name, _)| name.clone()).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut disk = self.disk();
        let node = if mode == OpenMode::CreateNew {
            let fate = disk.begin(Kind::Change)?.happens()?;
            let node = disk.create(path, Node::File(SimFile::default()))?;
            fate.answer()?;
            node
        } else {
            disk.begin(Kind::Read)?.answer()?;
            let node = disk.find(path)?;
            disk.file(node)?;
            node
        };
        disk.opened(node);
        Ok(Arc::new(SimHandle {
            vfs: self.clone(),
            node,
            generation: disk.generation,
            writes: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let fate = disk.begin(Kind::Change)?.happens()?;
        disk.rename(from, to)?;
        fate.answer()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let fate = disk.begin(Kind::Change)?.happens()?;
        disk.remove(path)?;
        fate.answer()
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let fate = disk.begin(Kind::Change)?.happens()?;
        disk.remove_dir_all(path)?;
        fate.answer()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let fate = disk.begin(Kind::Sync)?.happens()?;
        let node = disk.find(path)?;
        disk.sync_dir(node)?;
        fate.answer()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut disk = self.disk();
        disk.begin(Kind::Read)?.answer()?;
        Ok(disk.find(path).is_ok())
    }

    fn free_space(&self, _: &Path) -> io::Result<Option<u64>> {
        let mut disk = self.disk();
        disk.begin(Kind::Read)?.answer()?;
        let used = disk.used();
        Ok(disk.capacity.map(|capacity| capacity.saturating_sub(used)))
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn VfsLock>, String>> {
        let mut disk = self.disk();
        let fate = disk.begin(Kind::Change)?.happens()?;
        let node = match disk.find(path) {
            Ok(node) => node,
            Err(_) => disk.create(path, Node::File(SimFile::default()))?,
        };
        if let Err(present) = disk.lock(node, holder) {
            return Ok(Err(present));
        }
        let (set, wrote, sector) = (disk.seq(), disk.seq(), disk.sector);
        let file = disk.file(node)?;
        file.set_len(set, 0, sector);
        file.write(wrote, 0, holder.as_bytes(), sector);
        fate.answer()?;
        let generation = disk.generation;
        Ok(Ok(Box::new(SimLock { vfs: self.clone(), node, generation })))
    }
}

struct SimHandle {
    vfs: SimVfs,
    node: NodeId,
    generation: u64,
    writes: bool,
}

impl SimHandle {
    fn begin(&self, kind: Kind) -> io::Result<(MutexGuard<'_, Disk>, Fate)> {
        let mut disk = self.vfs.disk();
        if disk.generation != self.generation {
            return Err(io::Error::other("this handle was opened before a crash"));
        }
        if kind == Kind::Change && !self.writes {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let fate = disk.begin(kind)?;
        Ok((disk, fate))
    }
}

impl VfsFile for SimHandle {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (mut disk, fate) = self.begin(Kind::Read)?;
        fate.answer()?;
        let rest = disk.file(self.node)?.bytes().get(at as usize..).unwrap_or_default();
        let read = rest.len().min(buf.len());
        buf[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, fate) = self.begin(Kind::Change)?;
        let (seq, sector) = (disk.seq(), disk.sector);
        let mut len = disk.room(self.node, at, bytes.len() as u64)?;
        let full = len < bytes.len() as u64;
        if matches!(fate, Fate::Failed(_)) {
            len = disk.dice.below(len + 1);
        }
        disk.file(self.node)?.write(seq, at, &bytes[..len as usize], sector);
        fate.answer()?;
        if full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        let (mut disk, fate) = self.begin(Kind::Read)?;
        fate.answer()?;
        Ok(disk.file(self.node)?.bytes().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut disk, fate) = self.begin(Kind::Change)?;
        let fate = fate.happens()?;
        let (seq, sector) = (disk.seq(), disk.sector);
        disk.file(self.node)?.set_len(seq, len, sector);
        fate.answer()
    }

    fn sync(&self) -> io::Result<()> {
        let (mut disk, fate) = self.begin(Kind::Sync)?;
        if matches!(fate, Fate::Failed(_)) {
            disk.fail_sync(self.node)?;
        } else {
            disk.file(self.node)?.sync();
        }
        fate.answer()
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        let mut disk = self.vfs.disk();
        if disk.generation == self.generation {
            disk.closed(self.node);
        }
    }
}

struct SimLock {
    vfs: SimVfs,
    node: NodeId,
    generation: u64,
}

impl VfsLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.vfs.disk();
        if disk.generation == self.generation {
            disk.unlock(self.node);
        }
    }
}
