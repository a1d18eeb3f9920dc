//! Bringing a store up to date from its changelog.
//!
//! [`RestorePlan::decide`] says whether the store's position can be trusted. If so, the tail of the
//! changelog is applied to it. If not, the store is rebuilt from the changelog alone, aside, and
//! swapped in when it is whole: it is never served or merged before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::{Batch, Horizon, Offset, TopicId};

use super::{ChangelogFormat, EntryBatch, Position, StoreEngine};
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
}

/// Replays a changelog into a store.
pub struct Restorer {
    engine: Arc<dyn StoreEngine>,
    format: Arc<dyn ChangelogFormat>,
    changelog: Changelog,
    next_offset: Offset,
    records: u64,
    target: Target,
    key: Vec<u8>,
    value: Vec<u8>,
}

enum Target {
    Tail,
    Rebuild { newest: BTreeMap<Vec<u8>, Vec<u8>> },
}

impl Restorer {
    /// A restorer that follows `plan`.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn new(
        engine: Arc<dyn StoreEngine>,
        format: Arc<dyn ChangelogFormat>,
        plan: &RestorePlan,
        changelog: &Changelog,
        _memory_bytes: usize,
        _spill_dir: PathBuf,
    ) -> Result<Self, StateError> {
        let (next_offset, target) = match plan {
            RestorePlan::UpToDate => (changelog.end, Target::Tail),
            RestorePlan::Tail { from } => (*from, Target::Tail),
            RestorePlan::Rebuild { .. } => {
                (changelog.horizon.log_start, Target::Rebuild { newest: BTreeMap::new() })
            }
        };
        let (key, value) = (Vec::new(), Vec::new());
        let changelog = changelog.clone();
        Ok(Self { engine, format, changelog, next_offset, records: 0, target, key, value })
    }

    /// The first offset that is still wanted.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Replays the records of a batch from [`Restorer::next_offset`] on and below `end`.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn feed(&mut self, batch: &Batch, end: Offset) -> Result<(), StateError> {
        let mut entries: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for record in batch.records() {
            let record = record.map_err(|error| StateError::Corrupt {
                path: "changelog".into(),
                reason: error.to_string(),
            })?;
            if record.offset < self.next_offset || record.offset >= end {
                continue;
            }
            self.records += 1;
            self.key.clear();
            self.value.clear();
            let present = self.format.entry(&record, &mut self.key, &mut self.value)?;
            match &mut self.target {
                Target::Tail => {
                    entries.insert(self.key.clone(), present.then(|| self.value.clone()));
                }
                Target::Rebuild { newest } if present => {
                    newest.insert(self.key.clone(), self.value.clone());
                }
                Target::Rebuild { newest } => {
                    newest.remove(&self.key);
                }
            }
        }
        self.next_offset = self.next_offset.max(batch.next_offset().min(end));
        if !entries.is_empty() {
            let mut changes = EntryBatch::new();
            for (key, value) in &entries {
                changes.put(key, value.as_deref());
            }
            let position = Position {
                cluster_id: self.changelog.cluster_id.clone(),
                topic_id: self.changelog.topic_id,
                next_offset: self.next_offset,
                stream_time: -1,
            };
            self.engine.apply(&mut changes, &position)?;
        }
        Ok(())
    }

    /// Ends the restore; the store is then at `position`.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn finish(self, position: &Position) -> Result<RestoreStats, StateError> {
        match self.target {
            Target::Tail => self.engine.apply(&mut EntryBatch::new(), position)?,
            Target::Rebuild { newest } => {
                let mut load = self.engine.bulk_load()?;
                for (key, value) in &newest {
                    load.put(key, value)?;
                }
                load.finish(position)?;
            }
        }
        Ok(RestoreStats { records: self.records })
    }
}
