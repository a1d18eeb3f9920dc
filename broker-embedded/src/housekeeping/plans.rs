//! What of one partition is to be deleted, moved or compacted. Only the partition is locked while
//! its extents are looked at.

use std::sync::Arc;

use broker_api::{CleanupPolicy, Offset};

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
    let Some(policy) = policy(core, partition) else { return InFile::Nothing };
    let (partition, extents, compact) = (partition.clone(), vec![extent], policy.compacts());
    InFile::Records(Plan { partition, extents, compact, whole: false })
}

/// Compacts the partition if enough of it is not compacted: at least two segments, and half as much
/// as is compacted already. So a partition is at most about twice as large as what must be kept, and
/// every byte is copied a few times only.
pub(super) fn to_compact(core: &Core, partition: &Arc<Partition>) -> Option<Plan> {
    let extents: Vec<Extent> = {
        let log = partition.lock();
        let segments = || log.extents.iter().filter(|extent| extent.segment().is_some());
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
    let compacts = policy(core, partition)?.compacts();
    compacts.then(|| Plan { partition: partition.clone(), extents, compact: true, whole: true })
}

/// What becomes of old records of the partition; `None` if its topic is gone.
fn policy(core: &Core, partition: &Partition) -> Option<CleanupPolicy> {
    let sequencer = core.lock();
    let name = sequencer.state.name_of(partition.topic)?;
    Some(sequencer.state.topic(name).ok()?.config.cleanup_policy)
}

/// The offset below which whole segments, and batches of the journal, can go without the rest being
/// smaller than `limit` bytes.
pub(super) fn surplus(log: &Log, limit: u64) -> Option<Offset> {
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
