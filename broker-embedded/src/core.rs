//! What all handles of one open broker share: the sequencer, the journal writer, the disk, the
//! clock.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use broker_api::{Clock, Error};

use crate::directory;
use crate::journal::file::{self, JournalFile};
use crate::journal::recovery;
use crate::journal::writer::{Step, Writer};
use crate::random::Random;
use crate::sequencer::state::State;
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
    sequencer: Mutex<Sequencer>,
    /// Tells the writer's thread that something urgent is queued, or that the broker closes.
    work: Condvar,
    writer: Mutex<Writer>,
    random: Mutex<Random>,
    reserve: AtomicBool,
    /// No threads: whoever waits for the journal drives it.
    pub(crate) stepped: bool,
    lock: Mutex<Option<Box<dyn VfsLock>>>,
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
        let journal = dir.join(directory::JOURNAL);
        let (state, writer) = recover(&*vfs, &journal, &mut random)?;
        let reserve = directory::make_reserve(&*vfs, dir, settings.reserve_bytes)?;
        let mut sequencer = Sequencer::new(state);
        if !reserve {
            sequencer.health = Health::DiskFull(Error::DiskFull { path: dir.to_path_buf() });
        }
        Ok(Arc::new(Self {
            vfs,
            clock,
            dir: dir.to_path_buf(),
            settings,
            cluster_id,
            sequencer: Mutex::new(sequencer),
            work: Condvar::new(),
            writer: Mutex::new(writer),
            random: Mutex::new(random),
            reserve: AtomicBool::new(reserve),
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
        let mut sequencer = self.lock();
        let result = change(&mut sequencer, &mut wakes);
        let wake_writer = sequencer.urgent && std::mem::take(&mut sequencer.writer_sleeps);
        drop(sequencer);
        if wake_writer {
            self.work.notify_one();
        }
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// One step of the journal writer.
    pub(crate) fn step_journal(&self, seal_now: bool) -> Step {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).step(self, seal_now)
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

    /// Refuses everything from now on; the threads come to an end.
    pub(crate) fn begin_close(&self) {
        let mut sequencer = self.lock();
        if !matches!(sequencer.health, Health::Stopped(_)) {
            sequencer.health = Health::Stopped(Error::Closed);
        }
        drop(sequencer);
        self.work.notify_all();
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
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        result
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
        if !self.reserve.swap(false, Ordering::AcqRel) {
            return false;
        }
        let error = Error::DiskFull { path: self.dir.clone() };
        tracing::error!(%error, "the disk is full; the reserve is given up");
        let mut sequencer = self.lock();
        if matches!(sequencer.health, Health::Open) {
            sequencer.health = Health::DiskFull(error);
        }
        drop(sequencer);
        directory::remove_reserve(&*self.vfs, &self.dir)
    }

    /// The writer goes on in a new file.
    pub(crate) fn journal_rolled(&self, file: &Arc<JournalFile>) {
        tracing::debug!(file = %file.path.display(), "the journal goes on");
    }
}

/// Reads the journal; an empty one is begun.
fn recover(vfs: &dyn Vfs, dir: &Path, random: &mut Random) -> Result<(State, Writer), Error> {
    let io = |e| crate::disk::io_error("opening", dir, e);
    vfs.create_dir_all(dir).map_err(io)?;
    // A file that was just created may be here without its name being durable.
    vfs.sync_dir(dir).map_err(io)?;
    let mut names = vfs.list(dir).map_err(io)?;
    names.sort_unstable();
    let numbers: Vec<u64> = names.iter().filter_map(|name| file::parse_name(name)).collect();
    let mut state = State::default();
    let files = numbers
        .iter()
        .map(|first_lsn| JournalFile::open(vfs, dir, *first_lsn))
        .collect::<Result<Vec<_>, _>>()?;
    let Some((newest, retired)) = files.split_last() else {
        let file = JournalFile::create(vfs, dir, random.next(), 0, 1)?;
        return Ok((state, Writer::new(file, file::HEAD_LEN, file::HEAD_LEN, 1, true)));
    };
    for (i, file) in retired.iter().enumerate() {
        recovery::replay_retired(file, file.start(), files[i + 1].first_seq, &mut state)?;
    }
    let end = recovery::replay_newest(newest, newest.start(), &mut state)?;
    let writer = recovery::repair(newest.clone(), &end)?;
    Ok((state, writer))
}
