//! What all handles of one open broker share: the sequencer, the journal writer, the disk, the
//! clock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use broker_api::{Clock, Error};

use crate::closed::{self, JournalEnd};
use crate::directory;
use crate::housekeeping::Housekeeping;
use crate::housekeeping::segments::Segments;
use crate::journal::file::JournalFile;
use crate::journal::writer::{Step, Writer};
use crate::opening::{self, Opened};
use crate::random::Random;
use crate::reserve::Reserve;
use crate::sequencer::partition::Partition;
use crate::sequencer::{Health, Sequencer};
use crate::settings::Settings;
use crate::vfs::{Vfs, VfsLock};

/// An open broker.
pub(crate) struct Core {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) cluster_id: String,
    pub(crate) segments: Segments,
    sequencer: Mutex<Sequencer>,
    /// Tells the writer's thread that something urgent is queued, or that the broker closes.
    work: Condvar,
    writer: Mutex<Writer>,
    housekeeping: Mutex<Housekeeping>,
    chores: Mutex<Chores>,
    /// Tells the housekeeping's thread that there are chores, or that the broker closes.
    chores_changed: Condvar,
    troubles: Mutex<Vec<Error>>,
    random: Mutex<Random>,
    reserve: Reserve,
    /// No threads: whoever waits for the journal drives it.
    pub(crate) stepped: bool,
    lock: Mutex<Option<Box<dyn VfsLock>>>,
}

/// What the housekeeping has to know.
#[derive(Default)]
struct Chores {
    /// Files that the journal went on in.
    rolled: Vec<Arc<JournalFile>>,
    /// A topic is gone.
    clear: bool,
    /// Partitions with segments that nobody needs any more.
    discarded: Vec<Arc<Partition>>,
    /// The housekeeping waits until this is synced.
    awaited: Option<u64>,
    /// Any of it is new.
    called: bool,
}

impl Core {
    /// Opens the directory and recovers what is in it.
    pub(crate) fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        settings: Settings,
        mut random: Random,
        stepped: bool,
    ) -> Result<Arc<Self>, Error> {
        settings.check()?;
        let lock = directory::lock(&*vfs, dir)?;
        let cluster_id = directory::identify(&*vfs, dir, &mut random)?;
        let segments = Segments::new(vfs.clone(), dir, settings.max_open_segments);
        let Opened { state, writer, files } = opening::open(&vfs, dir, &segments, &mut random)?;
        let mut sequencer = Sequencer::new(state);
        let reserve = Reserve::new(dir, settings.reserve_bytes);
        if !reserve.take(&*vfs, 0, |_| ())? {
            tracing::warn!(dir = %dir.display(), "the disk is full: no space can be kept aside");
            sequencer.health = Health::DiskFull(Error::DiskFull { path: dir.to_path_buf() });
        }
        Ok(Arc::new(Self {
            vfs,
            clock,
            dir: dir.to_path_buf(),
            settings,
            cluster_id,
            segments,
            sequencer: Mutex::new(sequencer),
            work: Condvar::new(),
            writer: Mutex::new(writer),
            housekeeping: Mutex::new(Housekeeping::new(files)),
            chores: Mutex::new(Chores::default()),
            chores_changed: Condvar::new(),
            troubles: Mutex::default(),
            random: Mutex::new(random),
            reserve,
            stepped,
            lock: Mutex::new(Some(lock)),
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Sequencer> {
        self.sequencer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` under the lock; outside of it, wakes whom it concerns and the writer.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Sequencer, &mut Vec<Waker>) -> T) -> T {
        let mut wakes = Vec::new();
        let result = self.change(&mut wakes, change);
        wake(wakes);
        result
    }

    /// As [`Core::with`], for callers that hold another lock: they wake when they have let go of it.
    pub(crate) fn change<T>(
        &self,
        wakes: &mut Vec<Waker>,
        change: impl FnOnce(&mut Sequencer, &mut Vec<Waker>) -> T,
    ) -> T {
        let mut sequencer = self.lock();
        let result = change(&mut sequencer, wakes);
        let wake_writer = sequencer.urgent && std::mem::take(&mut sequencer.writer_sleeps);
        drop(sequencer);
        if wake_writer {
            self.work.notify_one();
        }
        result
    }

    /// One step of the journal writer.
    pub(crate) fn step_journal(&self, seal_now: bool) -> Step {
        let mut wakes = Vec::new();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let step = writer.step(self, seal_now, &mut wakes);
        drop(writer);
        wake(wakes);
        step
    }

    /// Blocks the writer's thread until there is something to write; whether it goes on.
    pub(crate) fn wait_for_work(&self) -> bool {
        let due = self.writer.lock().unwrap_or_else(PoisonError::into_inner).due(self);
        let mut sequencer = self.lock();
        if sequencer.urgent || due.is_some_and(|due| due.is_zero()) {
            return true;
        }
        if matches!(sequencer.health, Health::Stopped(_)) {
            return false;
        }
        sequencer.writer_sleeps = true;
        let mut sequencer = match due {
            Some(due) => {
                let waited = self.work.wait_timeout(sequencer, due);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.work.wait(sequencer).unwrap_or_else(PoisonError::into_inner),
        };
        sequencer.writer_sleeps = false;
        true
    }

    /// Stops the broker for good: whoever waits is told.
    pub(crate) fn fail(&self, error: Error) {
        tracing::error!(%error, "the broker stops");
        let mut wakes = Vec::new();
        self.change(&mut wakes, |sequencer, wakes| sequencer.stop(error, wakes));
        self.work.notify_all();
        wake(wakes);
    }

    /// Why the broker has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<Error> {
        match &self.lock().health {
            Health::Stopped(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Refuses everything from now on; the threads come to an end.
    pub(crate) fn begin_close(&self) {
        let mut sequencer = self.lock();
        if !matches!(sequencer.health, Health::Stopped(_)) {
            sequencer.health = Health::Stopped(Error::Closed);
        }
        drop(sequencer);
        self.work.notify_all();
        self.call_housekeeping(|_| ());
    }

    /// Writes what is queued and the seal, and gives the directory back. Nothing else drives the
    /// journal any more.
    pub(crate) fn finish_close(&self) -> Result<(), Error> {
        while self.step_journal(true) == Step::Worked {}
        let result = self.with(|sequencer, wakes| match sequencer.health.clone() {
            Health::Stopped(error) if error != Error::Closed => Err(error),
            _ => {
                sequencer.stop(Error::Closed, wakes);
                Ok(())
            }
        });
        let result = result.and_then(|()| self.note_closed());
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        result
    }

    /// Notes where the journal ends, unless that was done before.
    fn note_closed(&self) -> Result<(), Error> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_locked = self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !is_locked || !writer.sealed {
            return Ok(());
        }
        let (first_lsn, at, next_seq) = (writer.file.first_lsn, writer.at, writer.next_seq);
        closed::note(&*self.vfs, &self.dir, JournalEnd { first_lsn, at, next_seq })
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.join(directory::JOURNAL)
    }

    pub(crate) fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Gives up the space that was kept aside; `false` if that was done before. From then on only
    /// what is needed to finish or to free space is accepted.
    pub(crate) fn release_reserve(&self) -> bool {
        self.reserve.give_up(&*self.vfs, || {
            let error = Error::DiskFull { path: self.dir.clone() };
            tracing::error!(%error, "the disk is full; the reserve is given up");
            let mut sequencer = self.lock();
            if matches!(sequencer.health, Health::Open) {
                sequencer.health = Health::DiskFull(error);
            }
        })
    }

    /// Keeps the space aside again, and accepts everything, if the disk has it twice: what is being
    /// finished needs room meanwhile, and so does what comes after. Whether that is so.
    pub(crate) fn take_reserve(&self) -> Result<bool, Error> {
        self.reserve.take(&*self.vfs, self.settings.reserve_bytes, |held| {
            let mut sequencer = self.lock();
            if held && matches!(sequencer.health, Health::DiskFull(_)) {
                tracing::info!(dir = %self.dir.display(), "there is space on the disk again");
                sequencer.health = Health::Open;
            }
        })
    }

    fn chores(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call_housekeeping(&self, tell: impl FnOnce(&mut Chores)) {
        let mut chores = self.chores();
        tell(&mut chores);
        chores.called = true;
        drop(chores);
        self.chores_changed.notify_one();
    }

    /// The writer goes on in a new file.
    pub(crate) fn journal_rolled(&self, file: Arc<JournalFile>) {
        self.call_housekeeping(|chores| chores.rolled.push(file));
    }

    /// A topic is gone: its folder can go.
    pub(crate) fn topic_deleted(&self) {
        self.call_housekeeping(|chores| chores.clear = true);
    }

    /// Partitions have segments that nobody needs any more.
    pub(crate) fn segments_discarded(&self, mut partitions: Vec<Arc<Partition>>) {
        self.call_housekeeping(|chores| chores.discarded.append(&mut partitions));
    }

    pub(crate) fn take_discarded(&self) -> Vec<Arc<Partition>> {
        std::mem::take(&mut self.chores().discarded)
    }

    /// Calls the housekeeping when `synced_lsn` reaches this. (It may have got there meanwhile.)
    pub(crate) fn call_when_synced(&self, lsn: u64) {
        self.chores().awaited = Some(lsn);
    }

    /// Entries below `lsn` are synced.
    pub(crate) fn journal_synced(&self, lsn: u64) {
        let awaited = self.chores().awaited.take_if(|awaited| *awaited <= lsn);
        if awaited.is_some() {
            self.call_housekeeping(|_| ());
        }
    }

    /// What keeps the housekeeping from its work now.
    pub(crate) fn troubles(&self) -> Vec<Error> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_troubles(&self, troubles: Vec<Error>) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = troubles;
    }

    pub(crate) fn take_rolled(&self) -> Vec<Arc<JournalFile>> {
        std::mem::take(&mut self.chores().rolled)
    }

    pub(crate) fn take_clear(&self) -> bool {
        std::mem::take(&mut self.chores().clear)
    }

    /// One step of the housekeeping.
    pub(crate) fn step_housekeeping(&self) -> Step {
        self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner).step(self)
    }

    /// Blocks the housekeeping's thread until there may be something to do; whether it goes on.
    pub(crate) fn wait_for_chores(&self) -> bool {
        let due = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner).due(self);
        let mut chores = self.chores();
        if !chores.called {
            chores = match due {
                Some(due) => {
                    let waited = self.chores_changed.wait_timeout(chores, due);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.chores_changed.wait(chores).unwrap_or_else(PoisonError::into_inner),
            };
        }
        chores.called = false;
        drop(chores);
        !matches!(self.lock().health, Health::Stopped(_))
    }
}

/// Wakes them. A waker is code of others: it may do anything but hold up or end a thread of the
/// broker, so no lock may be held here, and a panic ends with it.
fn wake(wakes: Vec<Waker>) {
    for waker in wakes {
        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            tracing::error!("a waker panicked");
        }
    }
}
