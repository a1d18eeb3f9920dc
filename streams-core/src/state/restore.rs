//! Bringing a store up to date from its changelog.
//!
//! [`RestorePlan::decide`] says whether the store's position can be trusted. If so, the tail of the
//! changelog is applied to it. If not, the store is rebuilt from the changelog alone, aside, and
//! swapped in when it is whole: it is never served or merged before.

mod newest;
mod runs;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use broker_api::{Batch, Error, Horizon, Offset, Timestamp, TopicId};

use newest::{MOST_MEMORY, Newest};
use runs::Runs;

use super::{ChangelogFormat, EntryBatch, Expiry, Position, StoreEngine, StoreKind};
use crate::error::StateError;

/// The changelog partition of a store, as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changelog {
    /// The identity of the broker's data.
    pub cluster_id: String,
    /// The identity of the topic.
    pub topic_id: TopicId,
    /// What the partition has forgotten.
    pub horizon: Horizon,
    /// Its end: the store is up to date when it has come here.
    pub end: Offset,
    /// What the store is.
    pub kind: StoreKind,
}

/// What has to be done to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestorePlan {
    /// Nothing.
    UpToDate,
    /// Apply what was logged from here on.
    Tail {
        /// The first offset that is not in the store.
        from: Offset,
    },
    /// Start from nothing.
    Rebuild {
        /// Why what is there cannot be trusted.
        reason: &'static str,
    },
}

impl RestorePlan {
    /// Compares a store's position with its changelog.
    pub fn decide(position: Option<&Position>, changelog: &Changelog) -> Self {
        let Some(position) = position else {
            return if changelog.end <= changelog.horizon.log_start {
                Self::UpToDate // both are empty
            } else {
                Self::Rebuild { reason: "it is empty" }
            };
        };
        let from = position.next_offset;
        if position.cluster_id != changelog.cluster_id {
            return Self::Rebuild { reason: "it belongs to another broker" };
        }
        if position.topic_id != changelog.topic_id {
            return Self::Rebuild { reason: "its changelog was deleted and made anew" };
        }
        if position.kind.is_some_and(|kind| kind != changelog.kind) {
            return Self::Rebuild { reason: "it was laid out for another kind of store" };
        }
        if from > changelog.end {
            return Self::Rebuild { reason: "it has more than its changelog" };
        }
        if from < changelog.horizon.log_start {
            return Self::Rebuild { reason: "its changelog starts after it" };
        }
        if from < changelog.horizon.tombstones_gone_below {
            return Self::Rebuild { reason: "deletions after it were compacted away" };
        }
        if from == changelog.end { Self::UpToDate } else { Self::Tail { from } }
    }
}

/// What a restore has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreStats {
    /// Changelog records that were replayed.
    pub records: u64,
    /// How often memory was full and a sorted run was written to disk.
    pub spills: u64,
}

/// A tail is applied in parts of about this size, so that what was replayed before an interruption
/// need not be replayed again.
const TAIL_BYTES: usize = 16 << 20;

/// Replays a changelog into a store.
///
/// Both ways keep the newest value of every key, up to a bound of memory. A tail is then
/// [full](Restorer::is_full), and its part wants to be [applied](Restorer::apply_part). A rebuild
/// becomes sorted runs on disk and at the end a bulk load of their merge; dropping the restorer
/// before leaves the store as it was.
///
/// A part moves the store's position, and so says that no deletion before was missed. Whoever has
/// read it must make sure of that first: compaction must not have removed deletions
/// from where the part began, *after* it was read.
pub struct Restorer {
    engine: Arc<dyn StoreEngine>,
    format: Arc<dyn ChangelogFormat>,
    /// Of the batches of a tail; `next_offset` is that of the restorer.
    position: Position,
    newest: Newest,
    target: Target,
    /// What is left out.
    expired: Option<Expiry>,
    /// Where that tells the times of keys: the newest that the store has.
    newest_time: Option<Timestamp>,
    memory_bytes: usize,
    stats: RestoreStats,
    /// The records of a batch, as entries.
    records: EntryBatch,
}

enum Target {
    Tail,
    Rebuild(Runs),
}

impl Restorer {
    /// A restorer that follows `plan`. It holds about `memory_bytes` of keys and values, and what
    /// does not fit in `spill_dir`, which is made if needed and removed in the end.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn new(
        engine: Arc<dyn StoreEngine>,
        format: Arc<dyn ChangelogFormat>,
        plan: &RestorePlan,
        changelog: &Changelog,
        memory_bytes: usize,
        spill_dir: PathBuf,
    ) -> Result<Self, StateError> {
        let (next_offset, target) = match plan {
            RestorePlan::UpToDate => (changelog.end, Target::Tail),
            RestorePlan::Tail { from } => (*from, Target::Tail),
            RestorePlan::Rebuild { .. } => {
                (changelog.horizon.log_start, Target::Rebuild(Runs::new(spill_dir)))
            }
        };
        let position = Position {
            cluster_id: changelog.cluster_id.clone(),
            topic_id: changelog.topic_id,
            next_offset,
            others: Vec::new(),
            stream_time: -1,
            kind: Some(changelog.kind),
        };
        let mut restorer = Self {
            engine,
            format,
            position,
            newest: Newest::default(),
            target,
            expired: None,
            newest_time: None,
            memory_bytes: 0,
            stats: RestoreStats::default(),
            records: EntryBatch::new(),
        };
        restorer.set_memory(memory_bytes);
        Ok(restorer)
    }

    /// How much memory it may use from now on.
    pub fn set_memory(&mut self, bytes: usize) {
        self.memory_bytes = match self.target {
            Target::Tail => (bytes / 2).min(TAIL_BYTES), // a batch is a second copy
            Target::Rebuild(_) => bytes.min(MOST_MEMORY),
        };
    }

    /// Leaves out what has expired by the commit that the store is restored to. The position then says
    /// the newest time of any key.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn leave_out(&mut self, expired: Expiry) -> Result<(), StateError> {
        self.expired = Some(expired);
        self.newest_time = match self.target {
            Target::Rebuild(_) => Some(-1),
            Target::Tail => {
                self.engine.position()?.map(|p| p.stream_time).filter(|time| *time >= 0)
            }
        };
        Ok(())
    }

    /// Whether what was fed of a tail should be applied before more is.
    pub fn is_full(&self) -> bool {
        matches!(self.target, Target::Tail) && self.newest.memory() > self.memory_bytes
    }

    /// Applies what was fed of a tail; the store is then at [`Restorer::next_offset`]. To be called
    /// only when it is known that no deletion was missed. A rebuild has no parts: nothing happens.
    ///
    /// # Errors
    /// [`StateError`]; then the restorer must be dropped.
    pub fn apply_part(&mut self) -> Result<(), StateError> {
        if matches!(self.target, Target::Tail) {
            self.engine.apply(&mut self.newest.to_batch(), &self.position)?;
            self.newest.clear();
        }
        Ok(())
    }

    /// The first offset that is still wanted.
    pub fn next_offset(&self) -> Offset {
        self.position.next_offset
    }

    /// Replays the records of a batch from [`Restorer::next_offset`] on and below `end`.
    ///
    /// # Errors
    /// [`StateError`]; then the restorer must be dropped.
    pub fn feed(&mut self, batch: &Batch, end: Offset) -> Result<(), StateError> {
        for record in batch.records() {
            let unreadable =
                |error: Error| StateError::ChangelogRecord { reason: error.to_string() };
            let record = record.map_err(unreadable)?;
            if record.offset < self.position.next_offset {
                continue;
            }
            if record.offset >= end {
                break;
            }
            self.format.entries(&record, &mut self.records)?;
            self.stats.records += 1;
        }
        match self.expired {
            None => self.newest.put_all(self.records.iter()),
            Some(expired) => {
                let times = self.records.iter().map(|(key, _)| (expired.expires_by)(key));
                self.newest_time =
                    self.newest_time.map(|newest| times.fold(newest, Timestamp::max));
                self.position.stream_time = self.newest_time.unwrap_or(-1);
                self.newest.put_all(self.records.iter().filter(|(key, _)| !expired.is_over(key)));
            }
        }
        self.records.clear();
        let next_offset = batch.next_offset().min(end);
        self.position.next_offset = self.position.next_offset.max(next_offset);
        if let Target::Rebuild(runs) = &mut self.target
            && self.newest.memory() > self.memory_bytes
        {
            runs.add(self.newest.sorted())?;
            self.stats.spills += 1;
            self.newest.clear();
        }
        Ok(())
    }

    /// Ends the restore; the store is then at `position`.
    ///
    /// # Errors
    /// [`StateError`]; then the store is as it was, or at an earlier offset of the tail.
    pub fn finish(mut self, position: &Position) -> Result<RestoreStats, StateError> {
        let stream_time = self.newest_time.unwrap_or(position.stream_time);
        let position = &Position { stream_time, ..position.clone() };
        match &mut self.target {
            Target::Tail => self.engine.apply(&mut self.newest.to_batch(), position)?,
            Target::Rebuild(runs) => {
                let mut load = self.engine.bulk_load()?;
                if runs.is_empty() {
                    for (key, value) in self.newest.sorted() {
                        if let Some(value) = value {
                            load.put(key, value)?;
                        }
                    }
                } else {
                    if !self.newest.is_empty() {
                        runs.add(self.newest.sorted())?;
                        self.newest = Newest::default();
                    }
                    runs.merge(|key, value| load.put(key, value))?;
                }
                load.finish(position)?;
            }
        }
        Ok(self.stats)
    }
}
