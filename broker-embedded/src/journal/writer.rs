//! The journal writer: turns everything queued into one frame, one write, one sync.
//!
//! A step machine: each step does at most one write or one sync. A thread drives it in production,
//! the loop of a simulation otherwise. After a failed sync, or a failed write that may have left
//! anything on disk, the broker stops: only recovery knows what is there.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use broker_api::{Error, Offset, Ticket, TransactorEvent};

use super::entry::Entry;
use super::file::{HEAD_LEN, JournalFile};
use super::frame::{ALIGN, Buffer, FrameHead};
use crate::core::Core;
use crate::disk::io_error;
use crate::mailbox::Mailbox;
use crate::sequencer::partition::Partition;
use crate::sequencer::{Haste, Health, Notify, Queued};
use crate::settings::Durability;

/// Whether a step did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It did: there may be more.
    Worked,
    /// There was nothing to do.
    Idle,
}

/// Overwriting zeros needs no change of the file's length, which makes a sync twice as fast: so
/// many are written ahead while nothing else is to do.
const ZEROS_AHEAD: u64 = 1 << 20;
/// Zeros are worth writing only for frames below this size.
const SMALL_FRAME: usize = 64 << 10;
/// A frame buffer above this is given back.
const KEEP_BUFFER: usize = 16 << 20;

/// The journal's end, where frames are added.
pub(crate) struct Writer {
    pub(crate) file: Arc<JournalFile>,
    /// Where the next frame goes.
    pub(crate) at: u64,
    /// Up to here the file has bytes (zeros, beyond `at`).
    pub(crate) zeroed: u64,
    pub(crate) next_seq: u64,
    /// The last frame that is known to be synced.
    pub(crate) synced_seq: u64,
    /// The last frame is a seal, or there is none.
    pub(crate) sealed: bool,
    frame: Option<Frame>,
    buffer: Buffer,
    /// Entries below are written.
    written_lsn: u64,
    /// Something is written but not synced ([`Durability::Os`] only).
    unsynced: bool,
    /// Of each transactor with commits in there, the last one.
    unsynced_commits: Vec<(Arc<Mailbox<TransactorEvent>>, Ticket)>,
    /// When something was last written, and synced.
    last_work: Duration,
    last_sync: Duration,
    small_frames: bool,
    memory: MemoryTail,
    failed: bool,
}

/// A frame on its way.
struct Frame {
    entries: Vec<Queued>,
    /// For each batch, where in the buffer its bytes begin.
    places: Vec<usize>,
    end_lsn: u64,
    seal: bool,
    written: bool,
    /// There was no space for it and no reserve to give up.
    refused: bool,
}

/// Which batches are in memory and on disk, oldest first: these may be evicted.
#[derive(Default)]
struct MemoryTail {
    batches: VecDeque<(Arc<Partition>, Offset, usize)>,
    bytes: usize,
}

impl Writer {
    /// Goes on at byte `at` of `file`, which has zeros from there up to `zeroed`.
    pub(crate) fn new(
        file: Arc<JournalFile>,
        at: u64,
        zeroed: u64,
        next_seq: u64,
        sealed: bool,
    ) -> Self {
        Self {
            file,
            at,
            zeroed,
            next_seq,
            synced_seq: next_seq - 1,
            sealed,
            frame: None,
            buffer: Buffer::default(),
            written_lsn: 0,
            unsynced: false,
            unsynced_commits: Vec::new(),
            last_work: Duration::ZERO,
            last_sync: Duration::ZERO,
            small_frames: true,
            memory: MemoryTail::default(),
            failed: false,
        }
    }

    /// One step. `seal_now`: do not wait before sealing. The caller wakes `wakes` when it holds no
    /// lock any more.
    pub(crate) fn step(&mut self, core: &Core, seal_now: bool, wakes: &mut Vec<Waker>) -> Step {
        match self.try_step(core, seal_now, wakes) {
            Ok(step) => step,
            Err(error) => {
                self.fail(core, error, wakes);
                Step::Idle
            }
        }
    }

    /// When a step is due even if nothing is queued; `None`: not before something is.
    pub(crate) fn due(&self, core: &Core) -> Option<Duration> {
        let now = core.clock.monotonic();
        let after =
            |since: Duration, wait: Duration| since.saturating_add(wait).saturating_sub(now);
        if self.failed {
            return None;
        }
        if self.frame.is_some() || self.wants_zeros(core) {
            return Some(Duration::ZERO);
        }
        let sync = self.unsynced.then(|| after(self.last_sync, core.settings.sync_every));
        let seal = (!self.sealed).then(|| after(self.last_work, core.settings.seal_after));
        sync.into_iter().chain(seal).min()
    }

    fn try_step(
        &mut self,
        core: &Core,
        seal_now: bool,
        wakes: &mut Vec<Waker>,
    ) -> Result<Step, Error> {
        if self.failed {
            return Ok(Step::Idle);
        }
        if let Some(frame) = &self.frame {
            match (frame.written, core.settings.durability) {
                (false, _) => self.write(core)?,
                (true, Durability::Synced) => {
                    self.sync_file()?;
                    self.synced_seq = self.next_seq;
                    self.publish(core, wakes);
                    self.synced(core, wakes);
                }
                (true, Durability::Os) => {
                    self.publish(core, wakes);
                    if !self.unsynced {
                        self.last_sync = core.clock.monotonic();
                    }
                    self.unsynced = true;
                }
            }
            return Ok(Step::Worked);
        }
        let now = core.clock.monotonic();
        let sync_due =
            self.unsynced && now >= self.last_sync.saturating_add(core.settings.sync_every);
        let idle = core.lock().queue.is_empty();
        if sync_due || (self.unsynced && (idle || self.is_full(core))) {
            self.sync(core, wakes)?;
            return Ok(Step::Worked);
        }
        if idle
            && !self.sealed
            && (seal_now || now >= self.last_work.saturating_add(core.settings.seal_after))
        {
            core.change(wakes, |sequencer, wakes| {
                sequencer.push(Entry::IdleSeal, Notify::Nobody, Haste::Now, wakes);
            });
        } else if idle {
            return self.zeros_ahead(core);
        }
        if self.is_full(core) {
            self.roll(core)?;
        } else if self.take(core) {
            self.write(core)?;
        }
        Ok(Step::Worked)
    }

    /// Takes what is queued and builds a frame of it.
    fn take(&mut self, core: &Core) -> bool {
        let (entries, end_lsn, first_lsn) = {
            let mut sequencer = core.lock();
            let mut bytes = 0;
            let count = sequencer
                .queue
                .iter()
                .take_while(|queued| {
                    let fits = bytes == 0 || bytes + queued.weight <= core.settings.max_frame_bytes;
                    bytes += queued.weight;
                    fits
                })
                .count();
            let first_lsn = sequencer.taken_lsn();
            let entries: Vec<Queued> = sequencer.queue.drain(..count).collect();
            sequencer.urgent = !sequencer.queue.is_empty();
            (entries, first_lsn + count as u64, first_lsn)
        };
        if entries.is_empty() {
            return false;
        }
        let mut places = Vec::new();
        let size = entries.iter().map(|queued| queued.weight).sum();
        let bytes = self.buffer.begin(size);
        for queued in &entries {
            queued.entry.encode(bytes, &mut places);
        }
        let head = FrameHead {
            payload: 0, // taken from the buffer
            seq: self.next_seq,
            durable_seq: self.synced_seq,
            now: core.clock.now(),
            first_lsn,
            entries: entries.len() as u32,
        };
        self.buffer.finish(self.file.id, head);
        let seal = matches!(&entries[..], [only] if matches!(only.entry, Entry::IdleSeal));
        self.small_frames = self.buffer.frame().len() <= SMALL_FRAME;
        self.frame = Some(Frame { entries, places, end_lsn, seal, written: false, refused: false });
        true
    }

    fn write(&mut self, core: &Core) -> Result<(), Error> {
        let Some(frame) = &mut self.frame else { return Ok(()) };
        match self.file.file.write_at(self.at, self.buffer.frame()) {
            Ok(()) => {
                frame.written = true;
                Ok(())
            }
            // The space that was kept aside is given up, and the same frame tried again. Without
            // it, it is tried once more: the reserve may just have been in the making.
            Err(e) if is_full(&e) && (core.release_reserve() || !frame.refused) => {
                frame.refused = true;
                Ok(())
            }
            Err(e) => Err(io_error("writing", &self.file.path, e)),
        }
    }

    fn sync_file(&self) -> Result<(), Error> {
        self.file.file.sync().map_err(|e| io_error("syncing", &self.file.path, e))
    }

    /// Syncs what was acknowledged before.
    fn sync(&mut self, core: &Core, wakes: &mut Vec<Waker>) -> Result<(), Error> {
        self.sync_file()?;
        self.synced_seq = self.next_seq - 1;
        self.unsynced = false;
        self.last_sync = core.clock.monotonic();
        self.synced(core, wakes);
        Ok(())
    }

    /// All that is written survives a power cut: who waits for that learns of it.
    fn synced(&mut self, core: &Core, wakes: &mut Vec<Waker>) {
        core.lock().synced(self.written_lsn, wakes);
        core.journal_synced(self.written_lsn);
        for (mailbox, ticket) in self.unsynced_commits.drain(..) {
            mailbox.sync(ticket, wakes);
        }
    }

    /// The frame is as safe as was promised: readers and writers learn of it.
    fn publish(&mut self, core: &Core, wakes: &mut Vec<Waker>) {
        let Some(frame) = self.frame.take() else { return };
        let (mut places, mut discarded) = (frame.places.iter(), Vec::new());
        let weight: usize = frame.entries.iter().map(|queued| queued.weight).sum();
        for queued in frame.entries {
            for (placed, place) in queued.entry.batches().iter().zip(&mut places) {
                let at = (self.at + self.buffer.place(*place) as u64) as u32; // settings keep files below 4 GiB
                placed.partition.publish(&self.file, &placed.batch, at, wakes);
                self.memory.add(&placed.partition, &placed.batch);
            }
            if let Entry::DeleteRecords { partition, before } = &queued.entry
                && partition.truncate(*before)
            {
                discarded.push(partition.clone());
            }
            queued.notify.durable(wakes);
            self.note_unsynced(queued.notify);
        }
        self.memory.evict(core.settings.memory_tail_bytes);
        self.at += self.buffer.frame().len() as u64;
        self.zeroed = self.zeroed.max(self.at);
        self.next_seq += 1;
        self.sealed = frame.seal;
        self.last_work = core.clock.monotonic();
        self.written_lsn = frame.end_lsn;
        self.buffer.shrink(KEEP_BUFFER);
        let mut sequencer = core.lock();
        sequencer.queued_bytes = sequencer.queued_bytes.saturating_sub(weight);
        wakes.append(&mut sequencer.full);
        drop(sequencer);
        if !discarded.is_empty() {
            core.segments_discarded(discarded);
        }
    }

    fn note_unsynced(&mut self, notify: Notify) {
        let Notify::Commit(mailbox, ticket) = notify else { return };
        let known =
            self.unsynced_commits.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &mailbox));
        match known {
            Some((_, last)) => *last = ticket,
            None => self.unsynced_commits.push((mailbox, ticket)),
        }
    }

    fn is_full(&self, core: &Core) -> bool {
        self.at >= core.settings.journal_file_bytes && self.at > HEAD_LEN
    }

    /// Goes on in a new file. All of the old one is synced.
    fn roll(&mut self, core: &Core) -> Result<(), Error> {
        let first_lsn = core.lock().taken_lsn();
        let create = || {
            let dir = core.journal_dir();
            JournalFile::create(&*core.vfs, &dir, core.random(), first_lsn, self.next_seq)
        };
        self.file = match create() {
            Err(Error::DiskFull { .. }) => {
                core.release_reserve();
                create()?
            }
            file => file?,
        };
        self.at = HEAD_LEN;
        self.zeroed = HEAD_LEN;
        core.journal_rolled(self.file.clone());
        Ok(())
    }

    fn wants_zeros(&self, core: &Core) -> bool {
        let ahead = ZEROS_AHEAD.min(core.settings.journal_file_bytes);
        self.small_frames
            && self.zeroed < core.settings.journal_file_bytes
            && self.zeroed - self.at < ahead / 2
            && matches!(core.lock().health, Health::Open)
    }

    fn zeros_ahead(&mut self, core: &Core) -> Result<Step, Error> {
        if !self.wants_zeros(core) {
            return Ok(Step::Idle);
        }
        let ahead = ZEROS_AHEAD.min(core.settings.journal_file_bytes);
        let len = (self.at + ahead - self.zeroed).next_multiple_of(ALIGN as u64);
        // At an address from which the disk can take them directly.
        let zeros = vec![0; len as usize + ALIGN];
        let start = zeros.as_ptr().align_offset(ALIGN).min(ALIGN);
        match self.file.file.write_at(self.zeroed, &zeros[start..start + len as usize]) {
            Ok(()) => self.zeroed += len,
            Err(e) if is_full(&e) => self.small_frames = false, // not needed, only faster
            Err(e) => return Err(io_error("writing", &self.file.path, e)),
        }
        Ok(Step::Worked)
    }

    fn fail(&mut self, core: &Core, error: Error, wakes: &mut Vec<Waker>) {
        tracing::error!(%error, "the journal cannot be written");
        let error = match error {
            Error::DiskFull { .. } => Error::DiskFull { path: PathBuf::from(&core.dir) },
            other => Error::Failed { reason: other.to_string() },
        };
        self.failed = true;
        let frame = self.frame.take();
        core.change(wakes, |sequencer, wakes| {
            for queued in frame.into_iter().flat_map(|frame| frame.entries) {
                queued.notify.lost(&error, wakes);
            }
            sequencer.stop(error, wakes);
        });
    }
}

fn is_full(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::StorageFull
}

impl MemoryTail {
    fn add(&mut self, partition: &Arc<Partition>, batch: &broker_api::Batch) {
        let bytes = batch.bytes().len() + 128;
        self.bytes += bytes;
        self.batches.push_back((partition.clone(), batch.base_offset(), bytes));
    }

    fn evict(&mut self, limit: usize) {
        while self.bytes > limit
            && let Some((partition, base, bytes)) = self.batches.pop_front()
        {
            partition.evict(base);
            self.bytes -= bytes;
        }
    }
}
