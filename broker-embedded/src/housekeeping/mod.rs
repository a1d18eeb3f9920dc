//! What is done in the background: checkpoints, retention, expiry, copying what a retired journal file
//! still holds to segments, compaction, and removing what nobody needs any more.
//!
//! A step machine, driven by a thread in production. It changes the broker through entries of the
//! journal, like everybody else, and it never holds up a commit: it reads and writes files without
//! any lock that writers or readers need. It goes through the partitions one after another; the
//! sequencer's lock is held for the list of them only.
//!
//! What fails is reported and tried again later; a partition that is damaged, or a kind of work that
//! is not possible now, does not keep it from the rest.

mod expiry;
mod moving;
mod plans;
pub(crate) mod segments;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use broker_api::Error;

use crate::checkpoint::{self, Files};
use crate::core::Core;
use crate::directory::CHECKPOINT;
use crate::disk::{corrupt, io_error};
use crate::journal::entry::Entry;
use crate::journal::file::JournalFile;
use crate::journal::recovery;
use crate::journal::writer::Step;
use crate::segment::Segment;
use crate::sequencer::partition::Partition;
use crate::sequencer::{Haste, Health, Notify};
use moving::{Move, Plan};
use plans::{InFile, Retention};
use trouble::{Subject, Troubles};

/// How long to wait before looking again for space on a full disk.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(1);
/// How long to wait before looking again whether the journal is durable, or a reader is through.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often to look for what has grown old (Kafka's `log.retention.check.interval.ms`).
const LOOK_AROUND: Duration = Duration::from_secs(5 * 60);

type Chore = fn(&mut Housekeeping, &Core) -> Result<Step, Error>;
const CLEARING: Subject = Subject::Chore("clearing away");
const CHORES: [(Subject, Chore); 7] = [
    (Subject::Chore("looking for space"), Housekeeping::find_space),
    (Subject::Chore("the checkpoint"), Housekeeping::checkpoint),
    (Subject::Chore("retention"), Housekeeping::retain),
    (Subject::Chore("expiry"), Housekeeping::expire),
    (Subject::Chore("moving records to segments"), Housekeeping::retire),
    (Subject::Chore("compaction"), Housekeeping::compact),
    (CLEARING, Housekeeping::clear),
];

/// The chores and how far they are.
pub(crate) struct Housekeeping {
    /// The journal's files, oldest first; the last is being written.
    files: VecDeque<Arc<JournalFile>>,
    /// The broker has just been opened: all partitions are to be looked at.
    fresh: bool,
    /// The file at whose beginning there is a checkpoint.
    checkpointed: Option<u64>,
    /// When the broker was opened.
    opened: Duration,
    /// When all partitions were last to be looked at: time goes by without anybody calling.
    looked_around: Duration,
    /// There may be ids and groups that nobody has used for long.
    to_expire: bool,
    /// Partitions to look at that do not keep all.
    to_retain: VecDeque<(Arc<Partition>, Retention)>,
    retiring: Option<Retiring>,
    /// Files with records of partitions that are in trouble.
    stuck: BTreeSet<u64>,
    /// Partitions to look at for compaction.
    to_compact: VecDeque<Arc<Partition>>,
    /// Segments that wait for their names.
    moving: Option<Move>,
    /// When the last records that were moved are known to be where they are.
    moved_lsn: u64,
    /// The generation of the newest segments.
    generation: u64,
    /// There may be folders of topics that are gone.
    clear: bool,
    garbage: VecDeque<Garbage>,
    looked_for_space: Duration,
    troubles: Troubles,
}

/// A journal file on its way out.
struct Retiring {
    file: Arc<JournalFile>,
    /// Partitions that may have records in it.
    todo: VecDeque<Arc<Partition>>,
    /// It holds nothing any more, once this is on the disk.
    empty_at: Option<u64>,
}

/// A segment to remove once an entry is on the disk and no reader has it.
struct Garbage {
    lsn: u64,
    partition: Arc<Partition>,
    segment: Arc<Segment>,
}

impl Housekeeping {
    pub(crate) fn new(files: Vec<Arc<JournalFile>>) -> Self {
        Self {
            files: files.into(),
            fresh: true,
            checkpointed: None,
            opened: Duration::ZERO,
            looked_around: Duration::ZERO,
            to_expire: false,
            to_retain: VecDeque::new(),
            retiring: None,
            stuck: BTreeSet::new(),
            to_compact: VecDeque::new(),
            moving: None,
            moved_lsn: 0,
            generation: 0,
            clear: false,
            garbage: VecDeque::new(),
            looked_for_space: Duration::ZERO,
            troubles: Troubles::default(),
        }
    }

    /// One step: at most one file, or one partition.
    pub(crate) fn step(&mut self, core: &Core) -> Step {
        self.listen(core);
        if matches!(core.lock().health, Health::Stopped(_)) {
            return Step::Idle;
        }
        if self.troubles.wake(core.clock.monotonic()) {
            // Somebody may have seen to it: again from the oldest file on.
            self.stuck.clear();
            self.retiring = None;
            self.to_compact = partitions(core);
        }
        if self.moving.is_some() {
            return self.finish_move(core);
        }
        for (subject, chore) in CHORES {
            if self.troubles.rests(subject) {
                continue;
            }
            match chore(self, core) {
                Ok(Step::Idle) => {}
                Ok(Step::Worked) => return Step::Worked,
                Err(error) => {
                    self.trouble(core, subject, error);
                    return Step::Worked;
                }
            }
        }
        self.troubles.all_tried();
        core.set_troubles(self.troubles.errors());
        Step::Idle
    }

    /// When to look again though nothing has called; `None`: not before.
    pub(crate) fn due(&self, core: &Core) -> Option<Duration> {
        let (full, on_disk) = {
            let sequencer = core.lock();
            (matches!(sequencer.health, Health::DiskFull(_)), sequencer.synced_lsn)
        };
        let empties = self.retiring.as_ref().and_then(|retiring| retiring.empty_at);
        let waits = self.moving.is_some()
            || empties.is_some_and(|lsn| lsn > on_disk)
            || (self.clear || !self.garbage.is_empty()) && !self.troubles.rests(CLEARING);
        let again = waits.then_some(LOOK_AGAIN);
        let space = full.then_some(LOOK_FOR_SPACE);
        let now = core.clock.monotonic();
        let around = (self.looked_around + LOOK_AROUND).saturating_sub(now);
        let timers = again.into_iter().chain(space).chain(self.troubles.due(now));
        timers.chain([around]).min()
    }

    /// Takes in what has happened since the last step.
    fn listen(&mut self, core: &Core) {
        let now = core.clock.monotonic();
        let fresh = std::mem::take(&mut self.fresh);
        if fresh {
            self.opened = now;
        }
        let rolled = core.take_rolled();
        if !rolled.is_empty() || fresh || now >= self.looked_around + LOOK_AROUND {
            self.files.extend(rolled);
            self.looked_around = now;
            self.to_expire = true;
            self.to_retain = with_retention(core);
            self.to_compact = partitions(core);
        }
        self.clear |= core.take_clear();
        for partition in core.take_discarded() {
            let lsn = core.lock().taken_lsn();
            self.take_garbage(&partition, lsn);
        }
    }

    fn take_garbage(&mut self, partition: &Arc<Partition>, lsn: u64) {
        for segment in std::mem::take(&mut partition.lock().garbage) {
            self.garbage.push_back(Garbage { lsn, partition: partition.clone(), segment });
        }
    }

    fn trouble(&mut self, core: &Core, subject: Subject, error: Error) {
        tracing::error!(%error, "housekeeping is held up with {subject}; it will be tried again");
        self.troubles.add(subject, error, core.clock.monotonic());
        core.set_troubles(self.troubles.errors());
    }

    /// On a full disk: keeps space aside again when there is some, and goes on as usual.
    fn find_space(&mut self, core: &Core) -> Result<Step, Error> {
        let now = core.clock.monotonic();
        let full = matches!(core.lock().health, Health::DiskFull(_));
        if !full || now < self.looked_for_space + LOOK_FOR_SPACE {
            return Ok(Step::Idle);
        }
        self.looked_for_space = now;
        Ok(if core.take_reserve()? { Step::Worked } else { Step::Idle })
    }

    /// Writes the checkpoint at the beginning of the file that is being written, from the newest good
    /// one on. Damaged ones are removed, or they would count as one of the two that are kept.
    fn checkpoint(&mut self, core: &Core) -> Result<Step, Error> {
        let (Some(active), true) = (self.files.back(), self.files.len() > 1) else {
            return Ok(Step::Idle);
        };
        let active = active.first_lsn;
        if self.checkpointed == Some(active) {
            return Ok(Step::Idle);
        }
        let (vfs, dir) = (&*core.vfs, core.dir.join(CHECKPOINT));
        let mut files: Files = self.files.iter().map(|f| (f.first_lsn, f.clone())).collect();
        let found = checkpoint::newest(vfs, &dir, &core.journal_dir(), &mut files)?;
        let mut state = match found.state {
            Some(state) => state,
            None if self.files[0].first_lsn == 0 => Default::default(),
            None => {
                let missing = || corrupt(&dir, 0, None, "no checkpoint is left");
                return Err(found.damaged.into_iter().next().map_or_else(missing, |(_, e)| e));
            }
        };
        checkpoint::remove_damaged(vfs, &dir, found.damaged)?;
        if state.next_lsn < active {
            let from = self.files.partition_point(|file| file.first_lsn < state.next_lsn);
            for i in from..self.files.len() - 1 {
                recovery::replay_retired(&self.files[i], self.files[i + 1].first_seq, &mut state)?;
            }
            checkpoint::write(vfs, &dir, &state)?;
        }
        self.checkpointed = Some(active);
        Ok(Step::Worked)
    }

    /// Deletes what a partition has above its `retention.bytes`, or older than its `retention.ms`.
    fn retain(&mut self, core: &Core) -> Result<Step, Error> {
        let now = core.clock.now();
        while let Some((partition, retention)) = self.to_retain.pop_front() {
            let Some(before) = retention.below(&partition.lock(), now) else { continue };
            if !partition.lock().deleted {
                let entry = Entry::DeleteRecords { partition: partition.clone(), before };
                decide(core, entry, &partition);
                return Ok(Step::Worked);
            }
        }
        Ok(Step::Idle)
    }

    /// Forgets transactional ids and groups that nobody has used for long, some at a time.
    fn expire(&mut self, core: &Core) -> Result<Step, Error> {
        if !self.to_expire || core.clock.monotonic() < self.opened + expiry::GRACE {
            return Ok(Step::Idle);
        }
        let step = expiry::expire(core);
        self.to_expire = step == Step::Worked; // there may be more
        Ok(step)
    }

    /// Empties the oldest retired file if there are too many, and removes it.
    fn retire(&mut self, core: &Core) -> Result<Step, Error> {
        let Some(mut retiring) = self.retiring.take().or_else(|| self.next_to_retire(core)) else {
            return Ok(Step::Idle);
        };
        while let Some(partition) = retiring.todo.pop_front() {
            match plans::to_move(core, &partition, &retiring.file) {
                InFile::Nothing => {}
                InFile::Records(plan) if !self.troubles.rests(subject(&partition)) => {
                    self.begin_move(core, plan, Some(&retiring.file))?;
                    self.retiring = Some(retiring);
                    return Ok(Step::Worked);
                }
                InFile::Records(_) | InFile::Blocked => {
                    self.stuck.insert(retiring.file.first_lsn);
                }
            }
        }
        if self.stuck.contains(&retiring.file.first_lsn) {
            return Ok(Step::Worked); // goes on with the next file
        }
        let (on_disk, decided) = {
            let sequencer = core.lock();
            (sequencer.synced_lsn, sequencer.taken_lsn().max(sequencer.topics_lsn))
        };
        let empty_at = *retiring.empty_at.get_or_insert(decided.max(self.moved_lsn));
        let file = retiring.file.clone();
        self.retiring = Some(retiring);
        if on_disk < empty_at || !self.is_replayed(core, &file)? {
            return Ok(Step::Idle);
        }
        let journal = core.journal_dir();
        match core.vfs.remove(&file.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {} // the last attempt got so far
            removed => removed.map_err(|e| io_error("removing", &file.path, e))?,
        }
        core.vfs.sync_dir(&journal).map_err(|e| io_error("syncing", &journal, e))?;
        self.files.retain(|other| other.first_lsn != file.first_lsn);
        self.retiring = None;
        Ok(Step::Worked)
    }

    fn next_to_retire(&self, core: &Core) -> Option<Retiring> {
        let kept = core.settings.retired_journal_files + 1;
        let surplus = self.files.len().saturating_sub(kept);
        let mut candidates = self.files.iter().take(surplus);
        let file = candidates.find(|file| !self.stuck.contains(&file.first_lsn))?.clone();
        Some(Retiring { file, todo: partitions(core), empty_at: None })
    }

    /// Whether no checkpoint needs the file for what comes after it.
    fn is_replayed(&self, core: &Core, file: &JournalFile) -> Result<bool, Error> {
        let after = self.files.iter().find(|other| other.first_lsn > file.first_lsn);
        let checkpoints = checkpoint::list(&*core.vfs, &core.dir.join(CHECKPOINT))?;
        let [oldest, _] = checkpoints[..] else { return Ok(false) };
        Ok(after.is_some_and(|after| oldest >= after.first_lsn))
    }

    /// Compacts a partition that has gathered enough that is not compacted.
    fn compact(&mut self, core: &Core) -> Result<Step, Error> {
        while let Some(partition) = self.to_compact.pop_front() {
            if self.troubles.rests(subject(&partition)) {
                continue;
            }
            if let Some(plan) = plans::to_compact(core, &partition) {
                self.begin_move(core, plan, None)?;
                return Ok(Step::Worked);
            }
        }
        Ok(Step::Idle)
    }

    /// Writes the new segments. No space is the trouble of all, everything else the partition's.
    fn begin_move(
        &mut self,
        core: &Core,
        plan: Plan,
        from: Option<&JournalFile>,
    ) -> Result<(), Error> {
        let partition = plan.partition.clone();
        self.generation = self.next_generation(core, &partition);
        match plan.begin(core, self.generation) {
            Ok(moving) => self.moving = moving,
            Err(error) => {
                self.stuck.extend(from.map(|file| file.first_lsn));
                self.give_up_move(core, &partition, error)?;
            }
        }
        Ok(())
    }

    fn finish_move(&mut self, core: &Core) -> Step {
        let Some(moving) = self.moving.take() else { return Step::Idle };
        if !moving.is_ready(core) {
            core.call_when_synced(moving.lsn());
            self.moving = Some(moving);
            return Step::Idle;
        }
        let partition = moving.partition().clone();
        match moving.finish(core) {
            Ok(lsn) => {
                self.moved_lsn = lsn;
                self.take_garbage(&partition, lsn);
                self.clear |= partition.lock().deleted; // its folder may have been made again
                self.to_compact.push_back(partition);
            }
            Err(error) => {
                self.stuck.extend(self.retiring.as_ref().map(|retiring| retiring.file.first_lsn));
                if let Err(error) = self.give_up_move(core, &partition, error) {
                    self.trouble(core, subject(&partition), error);
                }
            }
        }
        Step::Worked
    }

    /// Removes what was half written. A full disk is an error for the caller.
    fn give_up_move(
        &mut self,
        core: &Core,
        partition: &Arc<Partition>,
        error: Error,
    ) -> Result<(), Error> {
        self.clear |= partition.lock().deleted;
        if let Err(error) = core.segments.dir_of(partition).remove_leftovers() {
            tracing::warn!(%error, "half-written segments are left over until the next opening");
        }
        if matches!(error, Error::DiskFull { .. }) {
            return Err(error);
        }
        if !partition.lock().deleted {
            self.trouble(core, subject(partition), error);
        }
        Ok(())
    }

    /// Higher than that of any segment that the partition has or may find after a crash: above all
    /// that were given out since the broker was opened, and above those that it found then. What is
    /// applied only is no measure, a crash may unmake it.
    fn next_generation(&self, core: &Core, partition: &Partition) -> u64 {
        let log = partition.lock();
        let segments = log.extents.iter().filter_map(|extent| extent.segment());
        let newest = segments.map(|segment| segment.generation()).max().unwrap_or(0);
        drop(log);
        (newest.max(self.generation) + 1).max(core.lock().synced_lsn)
    }

    /// Removes segments and folders that nobody needs.
    fn clear(&mut self, core: &Core) -> Result<Step, Error> {
        if self.clear && self.clear_topics(core)? == Step::Worked {
            return Ok(Step::Worked);
        }
        let on_disk = core.lock().synced_lsn;
        let free = |waste: &Garbage| waste.lsn <= on_disk && Arc::strong_count(&waste.segment) == 1;
        let Some(at) = self.garbage.iter().position(free) else { return Ok(Step::Idle) };
        let Garbage { partition, segment, .. } = &self.garbage[at];
        let base = segment.base();
        // A newer segment may have its name.
        let replaced = |partition: &Partition| {
            let log = partition.lock();
            log.deleted || log.extents.iter().any(|e| e.segment().is_some_and(|s| s.base() == base))
        };
        if !replaced(partition) {
            core.segments.dir_of(partition).remove(base)?;
        }
        self.garbage.remove(at);
        Ok(Step::Worked)
    }

    fn clear_topics(&mut self, core: &Core) -> Result<Step, Error> {
        let folders = core.segments.topics()?;
        let gone: Vec<_> = {
            let sequencer = core.lock();
            if sequencer.topics_lsn > sequencer.synced_lsn {
                return Ok(Step::Idle); // looks again when the deletion is on the disk
            }
            folders.into_iter().filter(|id| sequencer.state.name_of(*id).is_none()).collect()
        };
        gone.into_iter().try_for_each(|id| core.segments.remove_topic(id))?;
        self.clear = false;
        Ok(Step::Worked)
    }
}

/// Gives an entry about a partition its place. Returns what `synced_lsn` reaches when it is there for
/// good: never, if the broker has stopped; it is already, if the topic is gone, and nothing is to be
/// said of it any more.
fn decide(core: &Core, entry: Entry, partition: &Partition) -> u64 {
    core.with(|sequencer, wakes| match sequencer.health {
        Health::Stopped(_) => u64::MAX,
        _ if sequencer.state.name_of(partition.topic).is_none() => 0,
        _ => sequencer.push(entry, Notify::Nobody, Haste::Now, wakes),
    })
}

fn subject(partition: &Partition) -> Subject {
    Subject::Partition(partition.topic, partition.name.partition)
}

fn partitions(core: &Core) -> VecDeque<Arc<Partition>> {
    core.lock().state.partitions().map(|(_, partition)| partition.clone()).collect()
}

/// The partitions that do not keep all.
fn with_retention(core: &Core) -> VecDeque<(Arc<Partition>, Retention)> {
    let sequencer = core.lock();
    let limited = sequencer
        .state
        .partitions()
        .filter_map(|(topic, partition)| Some((partition.clone(), Retention::of(&topic.config)?)));
    limited.collect()
}
