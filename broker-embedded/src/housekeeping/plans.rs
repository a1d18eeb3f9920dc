//! What of one partition is to be deleted, moved or compacted. Only the partition is locked while
//! its extents are looked at.

use std::sync::Arc;

use broker_api::{Offset, RetentionBy, Timestamp, TopicConfig};

use super::moving::Plan;
use crate::core::Core;
use crate::journal::file::JournalFile;
use crate::sequencer::extent::{Extent, Place};
use crate::sequencer::partition::{Log, Partition};

/// What a partition has in a journal file.
pub(super) enum InFile {
    Nothing,
    /// Records, but older ones in an older file must be moved before.
    Blocked,
    Records(Plan),
}

/// Moves what the partition has in a journal file.
pub(super) fn to_move(core: &Core, partition: &Arc<Partition>, file: &JournalFile) -> InFile {
    let extent = {
        let log = partition.lock();
        let mut in_journal = log.extents.iter().filter(|extent| extent.segment().is_none());
        let Some(first) = in_journal.next() else { return InFile::Nothing };
        if !first.is_in(file) {
            let blocked = in_journal.any(|extent| extent.is_in(file));
            return if blocked { InFile::Blocked } else { InFile::Nothing };
        }
        let mut extent = first.clone();
        extent.drop_below(log.horizon.log_start);
        extent
    };
    // The records of a topic that is gone need no other place.
    let Some(config) = config(core, partition) else { return InFile::Nothing };
    let compact = config.cleanup_policy.compacts() && ripe(core, &config)(&extent);
    let (partition, extents) = (partition.clone(), vec![extent]);
    InFile::Records(Plan { partition, extents, compact, whole: false })
}

/// Compacts the partition if enough of it is not compacted: at least two segments, and half as much
/// as is compacted already. So a partition is at most about twice as large as what must be kept, and
/// every byte is copied a few times only. From the first segment on that has a record younger than
/// the topic's `min.compaction.lag.ms`, nothing is compacted: what is left out, and what stands for it,
/// are both old enough.
pub(super) fn to_compact(core: &Core, partition: &Arc<Partition>) -> Option<Plan> {
    let config = config(core, partition)?;
    if !config.cleanup_policy.compacts() {
        return None;
    }
    let ripe = ripe(core, &config);
    let extents: Vec<Extent> = {
        let log = partition.lock();
        let in_segments = log.extents.iter().filter(|extent| extent.segment().is_some());
        let segments = || in_segments.clone().take_while(|extent| ripe(extent));
        let (mut clean, mut dirty, mut count) = (0, 0, 0);
        for extent in segments() {
            if extent.end <= log.cleaned {
                clean += extent.bytes();
            } else {
                dirty += extent.bytes();
                count += 1;
            }
        }
        if count < 2 || dirty < clean / 2 {
            return None;
        }
        segments().cloned().collect()
    };
    Some(Plan { partition: partition.clone(), extents, compact: true, whole: true })
}

/// The settings of the partition's topic; `None` if it is gone.
fn config(core: &Core, partition: &Partition) -> Option<TopicConfig> {
    let sequencer = core.lock();
    let name = sequencer.state.name_of(partition.topic)?;
    Some(sequencer.state.topic(name).ok()?.config.clone())
}

/// Whether all records of an extent are old enough to be compacted. Without a lag even those are
/// whose timestamps lie in the future, as in Kafka.
fn ripe(core: &Core, config: &TopicConfig) -> impl Fn(&Extent) -> bool {
    let (now, lag) = (core.clock.now(), config.min_compaction_lag_ms);
    move |extent| lag == 0 || extent.max_timestamp <= before(now, lag)
}

/// So many milliseconds before `now`.
fn before(now: Timestamp, ms: u64) -> Timestamp {
    now.saturating_sub(Timestamp::try_from(ms).unwrap_or(Timestamp::MAX))
}

/// How much a partition keeps.
#[derive(Clone, Copy)]
pub(super) struct Retention {
    /// Its topic's `retention.bytes`.
    bytes: Option<u64>,
    /// Its topic's `retention.ms`.
    ms: Option<u64>,
    /// Its topic's `vltava.retention.by`.
    by: RetentionBy,
}

impl Retention {
    /// `None` if the topic keeps all.
    pub(super) fn of(config: &TopicConfig) -> Option<Self> {
        let (bytes, ms) = (config.retention_bytes, config.retention_ms);
        let limited = config.cleanup_policy.deletes() && (bytes.is_some() || ms.is_some());
        limited.then_some(Self { bytes, ms, by: config.retention_by })
    }

    /// The offset below which records can go.
    pub(super) fn below(self, log: &Log, now: Timestamp) -> Option<Offset> {
        let surplus = self.bytes.and_then(|limit| surplus(log, limit));
        let now = match self.by {
            RetentionBy::WallClock => now,
            RetentionBy::StreamTime => newest(log),
        };
        let outdated = self.ms.and_then(|ms| outdated(log, before(now, ms)));
        surplus.max(outdated)
    }
}

/// The stream time of a partition: no record has a higher timestamp.
fn newest(log: &Log) -> Timestamp {
    log.extents.iter().map(|extent| extent.max_timestamp).max().unwrap_or(Timestamp::MIN)
}

/// The offset below which segments, and what the partition has in whole journal files, can go because
/// all records there are older than `oldest`. The first that has a younger one keeps the rest.
fn outdated(log: &Log, oldest: Timestamp) -> Option<Offset> {
    let outdated = log.extents.iter().take_while(|extent| extent.max_timestamp < oldest);
    outdated.last().map(|extent| extent.end).filter(|end| *end > log.horizon.log_start)
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
