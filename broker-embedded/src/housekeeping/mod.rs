//! What is done in the background: checkpoints, retention, copying what a retired journal file
//! still holds to segments, compaction, and removing what nobody needs any more.
//!
//! A step machine, driven by a thread in production. It changes the broker through entries of the
//! journal, like everybody else, and it never holds up a commit: it reads and writes files without
//! any lock that writers or readers need.

mod moving;
pub(crate) mod segments;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker_api::{Error, Offset};

use crate::checkpoint::{self, Files};
use crate::core::Core;
use crate::directory::{self, CHECKPOINT};
use crate::disk::io_error;
use crate::journal::entry::Entry;
use crate::journal::file::JournalFile;
use crate::journal::recovery;
use crate::journal::writer::Step;
use crate::segment::SegmentDir;
use crate::sequencer::extent::{Extent, Place};
use crate::sequencer::partition::{Log, Partition};
use crate::sequencer::state::{State, Topic};
use crate::sequencer::{Haste, Health, Need, Notify};
use moving::{Move, Plan};

/// How long to wait before looking again for space on a full disk.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(1);
/// How long to wait before looking again whether the journal is durable.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The chores and how far they are.
pub(crate) struct Housekeeping {
    /// The journal's files, oldest first; the last is being written.
    files: VecDeque<Arc<JournalFile>>,
    /// Segments that wait for their names.
    moving: Option<Move>,
    /// The oldest file holds nothing any more, once this is durable.
    empty_at: Option<u64>,
    /// Retention was looked at since the last file came.
    retained: bool,
    /// There may be something to compact, or to clear away.
    compact: bool,
    clear: bool,
    /// Segments to remove once an entry is durable.
    garbage: Vec<(u64, Arc<Partition>, Offset)>,
    looked_for_space: Duration,
    failed: bool,
}

impl Housekeeping {
    pub(crate) fn new(files: Vec<Arc<JournalFile>>) -> Self {
        Self {
            files: files.into(),
            moving: None,
            empty_at: None,
            retained: false,
            compact: true,
            clear: true,
            garbage: Vec::new(),
            looked_for_space: Duration::ZERO,
            failed: false,
        }
    }

    /// One step: at most one file, or one partition.
    pub(crate) fn step(&mut self, core: &Core) -> Step {
        for file in core.take_rolled() {
            self.files.push_back(file);
            (self.retained, self.clear) = (false, true);
        }
        self.clear |= core.take_clear();
        if self.failed || matches!(core.lock().health, Health::Stopped(_)) {
            return Step::Idle;
        }
        match self.try_step(core) {
            Ok(step) => step,
            Err(Error::DiskFull { .. }) => {
                self.moving = None;
                if core.release_reserve() { Step::Worked } else { Step::Idle }
            }
            Err(error) => {
                tracing::error!(%error, "housekeeping stops; the journal will not be shortened");
                self.failed = true;
                Step::Idle
            }
        }
    }

    /// When to look again though nothing has called; `None`: not before.
    pub(crate) fn due(&self, core: &Core) -> Option<Duration> {
        if self.failed {
            return None;
        }
        if matches!(core.lock().health, Health::DiskFull(_)) {
            return Some(LOOK_FOR_SPACE);
        }
        let waits = self.moving.is_some() || self.empty_at.is_some();
        let waits = waits || self.clear || !self.garbage.is_empty();
        waits.then_some(LOOK_AGAIN)
    }

    fn try_step(&mut self, core: &Core) -> Result<Step, Error> {
        if let Some(moving) = self.moving.take() {
            if !moving.is_ready(core) {
                self.moving = Some(moving);
                return Ok(Step::Idle);
            }
            moving.finish(core)?;
            self.compact = true;
            self.clear = true;
            return Ok(Step::Worked);
        }
        let chores = [Self::find_space, Self::checkpoint, Self::retire, Self::compact, Self::clear];
        for chore in chores {
            if chore(self, core)? == Step::Worked {
                return Ok(Step::Worked);
            }
        }
        Ok(Step::Idle)
    }

    /// On a full disk: keeps space aside again when there is some, and goes on as usual.
    fn find_space(&mut self, core: &Core) -> Result<Step, Error> {
        let now = core.clock.monotonic();
        let full = matches!(core.lock().health, Health::DiskFull(_));
        if !full || now < self.looked_for_space + LOOK_FOR_SPACE {
            return Ok(Step::Idle);
        }
        self.looked_for_space = now;
        if !directory::make_reserve(&*core.vfs, &core.dir, core.settings.reserve_bytes)? {
            return Ok(Step::Idle);
        }
        core.reserve_is_back();
        Ok(Step::Worked)
    }

    /// Writes the checkpoint at the beginning of the file that is being written.
    fn checkpoint(&mut self, core: &Core) -> Result<Step, Error> {
        let (Some(active), true) = (self.files.back(), self.files.len() > 1) else {
            return Ok(Step::Idle);
        };
        let dir = core.dir.join(CHECKPOINT);
        let last = checkpoint::list(&*core.vfs, &dir)?.last().copied();
        if last == Some(active.first_lsn) {
            return Ok(Step::Idle);
        }
        let mut files: Files = self.files.iter().map(|f| (f.first_lsn, f.clone())).collect();
        let mut state = match last {
            Some(lsn) => checkpoint::read(&*core.vfs, &dir, lsn, &core.journal_dir(), &mut files)?,
            None => State::default(),
        };
        let from = self.files.partition_point(|file| file.first_lsn < state.next_lsn);
        for i in from..self.files.len() - 1 {
            recovery::replay_retired(&self.files[i], self.files[i + 1].first_seq, &mut state)?;
        }
        checkpoint::write(&*core.vfs, &dir, &state)?;
        Ok(Step::Worked)
    }

    /// Empties the oldest retired file if there are too many, and removes it.
    fn retire(&mut self, core: &Core) -> Result<Step, Error> {
        if self.files.len() <= core.settings.retired_journal_files + 1 {
            return Ok(Step::Idle);
        }
        if !self.retained {
            self.retained = true;
            retain(core);
            return Ok(Step::Worked);
        }
        let oldest = self.files[0].clone();
        if let Some(plan) = plan_move(core, &oldest) {
            self.empty_at = None;
            self.moving = plan.begin(core)?;
            return Ok(Step::Worked);
        }
        let (durable, next) = {
            let sequencer = core.lock();
            (sequencer.durable_lsn, sequencer.state.next_lsn)
        };
        let empty_at = *self.empty_at.get_or_insert(next);
        let dir = core.dir.join(CHECKPOINT);
        let checkpoints = checkpoint::list(&*core.vfs, &dir)?;
        let replayed = checkpoints.len() == 2 && checkpoints[0] >= self.files[1].first_lsn;
        if durable < empty_at || !replayed {
            return Ok(Step::Idle);
        }
        let journal = core.journal_dir();
        let removed = core.vfs.remove(&oldest.path).and_then(|()| core.vfs.sync_dir(&journal));
        removed.map_err(|e| io_error("removing", &oldest.path, e))?;
        self.files.pop_front();
        self.empty_at = None;
        Ok(Step::Worked)
    }

    /// Compacts a partition that has gathered enough that is not compacted.
    fn compact(&mut self, core: &Core) -> Result<Step, Error> {
        if !self.compact {
            return Ok(Step::Idle);
        }
        let Some(plan) = plan_compaction(core) else {
            self.compact = false;
            return Ok(Step::Idle);
        };
        self.moving = plan.begin(core)?;
        Ok(Step::Worked)
    }

    /// Removes segments and folders that nobody needs.
    fn clear(&mut self, core: &Core) -> Result<Step, Error> {
        if self.clear && self.collect_garbage(core)? == Step::Worked {
            return Ok(Step::Worked);
        }
        let durable = core.lock().durable_lsn;
        let Some(at) = self.garbage.iter().position(|(lsn, ..)| *lsn <= durable) else {
            return Ok(Step::Idle);
        };
        let (_, partition, base) = self.garbage.swap_remove(at);
        let dir: SegmentDir = segments::dir_of(&core.vfs, &core.dir, &partition);
        let in_use = |log: &Log| {
            log.extents.iter().any(|e| e.segment().is_some_and(|segment| segment.base() == base))
        };
        // A newer segment may have its name.
        if !partition.lock().deleted && !in_use(&partition.lock()) {
            dir.remove(base)?;
        }
        Ok(Step::Worked)
    }

    fn collect_garbage(&mut self, core: &Core) -> Result<Step, Error> {
        let sequencer = core.lock();
        let lsn = sequencer.state.next_lsn;
        for (_, partition) in sequencer.state.partitions() {
            for segment in partition.lock().garbage.drain(..) {
                self.garbage.push((lsn, partition.clone(), segment.base()));
            }
        }
        let topics_durable = sequencer.topics_lsn <= sequencer.durable_lsn;
        drop(sequencer);
        if !topics_durable {
            return Ok(Step::Idle); // looks again when the deletion is durable
        }
        self.clear = false;
        for id in segments::folders(&*core.vfs, &core.dir)? {
            if core.lock().state.name_of(id).is_none() {
                segments::remove_topic(&*core.vfs, &core.dir, id)?;
            }
        }
        Ok(Step::Worked)
    }
}

/// Deletes what partitions have above their `retention.bytes`.
fn retain(core: &Core) {
    core.with(|sequencer, wakes| {
        if sequencer.admit(Need::Reserve).is_err() {
            return;
        }
        let above = |(topic, partition): (&Topic, &Arc<Partition>)| {
            let limit = topic.config.retention_bytes?;
            let deletes = topic.config.cleanup_policy.deletes();
            let before = surplus(&partition.lock(), limit).filter(|_| deletes)?;
            Some((partition.clone(), before))
        };
        let found: Vec<_> = sequencer.state.partitions().filter_map(above).collect();
        for (partition, before) in found {
            let entry = Entry::DeleteRecords { partition, before };
            sequencer.push(entry, Notify::Nobody, Haste::Now, wakes);
        }
    });
}

/// The offset below which whole segments, and batches of the journal, can go without the rest being
/// smaller than `limit` bytes.
fn surplus(log: &Log, limit: u64) -> Option<Offset> {
    let total: u64 = log.extents.iter().map(Extent::bytes).sum();
    let mut surplus = total.checked_sub(limit)?;
    let mut before = None;
    for extent in &log.extents {
        if extent.bytes() <= surplus {
            surplus -= extent.bytes();
            before = Some(extent.end);
            continue;
        }
        if let Place::Journal { batches, .. } = &extent.place {
            for pair in batches.windows(2) {
                let Some(left) = surplus.checked_sub(u64::from(pair[0].len)) else { break };
                surplus = left;
                before = Some(pair[1].base);
            }
        }
        break;
    }
    before.filter(|before| *before > log.horizon.log_start)
}

/// The next partition that has records in a journal file.
fn plan_move(core: &Core, file: &JournalFile) -> Option<Plan> {
    let sequencer = core.lock();
    sequencer.state.partitions().find_map(|(topic, partition)| {
        let log = partition.lock();
        let mut extent = log.extents.iter().find(|extent| extent.is_in(file))?.clone();
        extent.drop_below(log.horizon.log_start);
        Some(Plan {
            partition: partition.clone(),
            extents: vec![extent],
            compact: topic.config.cleanup_policy.compacts(),
            whole: false,
        })
    })
}

/// The next partition of which enough is not compacted: at least two segments, and half as much as
/// is compacted already. So a partition is at most about twice as large as what must be kept, and
/// every byte is copied a few times only.
fn plan_compaction(core: &Core) -> Option<Plan> {
    let sequencer = core.lock();
    sequencer.state.partitions().find_map(|(topic, partition)| {
        if !topic.config.cleanup_policy.compacts() {
            return None;
        }
        let log = partition.lock();
        let segments: Vec<&Extent> =
            log.extents.iter().filter(|extent| extent.segment().is_some()).collect();
        let (clean, dirty): (Vec<&Extent>, Vec<&Extent>) =
            segments.iter().partition(|extent| extent.end <= log.cleaned);
        let bytes = |extents: &[&Extent]| extents.iter().map(|extent| extent.bytes()).sum::<u64>();
        let enough = dirty.len() >= 2 && bytes(&dirty) >= bytes(&clean) / 2;
        enough.then(|| Plan {
            partition: partition.clone(),
            extents: segments.into_iter().cloned().collect(),
            compact: true,
            whole: true,
        })
    })
}
