//! Writing records of a partition into new segments: out of a retired journal file, or out of
//! several segments into compacted ones.
//!
//! It is done in two steps, between which the journal must become durable: what compaction leaves
//! out is announced before the first segment that lacks it gets its name. Segments get their names
//! in offset order, so that a crash in between leaves no gap, and that a value is gone before the
//! tombstone that deleted it. Tombstones go only when an earlier compaction has got through to its
//! end: then their values are in no segment any more, whichever of them a restart finds.

use std::sync::Arc;

use broker_api::{Batch, Error, Offset, TopicPartition};

use super::segments;
use crate::core::Core;
use crate::disk::io_error;
use crate::journal::entry::Entry;
use crate::segment::{
    Compaction, CompactionPlanner, CompactionSettings, Round, SealedSegment, SegmentDir,
    SegmentWriter,
};
use crate::sequencer::extent::{DiskRead, Extent, Place};
use crate::sequencer::partition::Partition;
use crate::sequencer::{Haste, Notify};

/// Bytes that are read at once.
const STRETCH: usize = 4 << 20;

/// Segments that are written and wait for their names.
pub(crate) struct Move {
    partition: Arc<Partition>,
    sealed: Vec<SealedSegment>,
    end: Offset,
    from_journal: bool,
    /// What must be durable before.
    lsn: u64,
}

/// What is to be written.
pub(crate) struct Plan {
    pub(crate) partition: Arc<Partition>,
    /// Stretches that follow each other.
    pub(crate) extents: Vec<Extent>,
    /// Leave out what newer records of the same key replace.
    pub(crate) compact: bool,
    /// The extents are all of the partition up to their end: tombstones that a compaction has seen
    /// before go as well.
    pub(crate) whole: bool,
}

impl Plan {
    /// Writes the new segments and announces what they leave out.
    pub(crate) fn begin(self, core: &Core) -> Result<Option<Move>, Error> {
        let (Some(first), Some(last)) = (self.extents.first(), self.extents.last()) else {
            return Ok(None);
        };
        let (base, end) = (first.base, last.end);
        let dir = segments::dir_of(&core.vfs, &core.dir, &self.partition);
        core.vfs.create_dir_all(&dir.path).map_err(|e| io_error("creating", &dir.path, e))?;
        let name = &self.partition.name;
        let mut lsn = 0;
        let sealed = if self.compact {
            let mut compaction = self.plan_compaction(core)?;
            lsn = self.announce(core, &compaction);
            let kept = source(&self.extents, name)
                .map(|batch| compaction.filter(&batch?))
                .filter_map(Result::transpose);
            self.write(core, &dir, base, end, kept)?
        } else {
            self.write(core, &dir, base, end, source(&self.extents, name))?
        };
        let from_journal = !self.whole;
        Ok(Some(Move { partition: self.partition, sealed, end, from_journal, lsn }))
    }

    /// Writes batches into as many segments as they fill, from `base` to `end`.
    fn write(
        &self,
        core: &Core,
        dir: &SegmentDir,
        mut base: Offset,
        end: Offset,
        batches: impl Iterator<Item = Result<Batch, Error>>,
    ) -> Result<Vec<SealedSegment>, Error> {
        let mut sealed = Vec::new();
        let generation = core.lock().state.next_lsn;
        let mut writer = SegmentWriter::create(dir, base, generation)?;
        for batch in batches {
            let batch = batch?;
            let cut = batch.base_offset();
            if writer.len() >= core.settings.segment_bytes && self.may_cut(base, cut) {
                let next = SegmentWriter::create(dir, cut, generation)?;
                sealed.push(std::mem::replace(&mut writer, next).seal(cut)?);
                base = cut;
            }
            writer.append(&batch)?;
        }
        sealed.push(writer.seal(end)?);
        Ok(sealed)
    }

    /// A segment must not end before the one whose name it takes: a crash before the next one has
    /// its name would leave a gap.
    fn may_cut(&self, base: Offset, cut: Offset) -> bool {
        let replaced = self.extents.iter().filter_map(Extent::segment);
        replaced.filter(|old| old.base() == base).all(|old| old.next() <= cut)
    }

    fn plan_compaction(&self, core: &Core) -> Result<Compaction, Error> {
        let cleaned = self.partition.lock().cleaned;
        let settings = CompactionSettings {
            drop_tombstones_below: if self.whole { cleaned } else { 0 },
            memory_bytes: core.settings.compaction_memory_bytes,
        };
        let mut planner = CompactionPlanner::new(self.partition.topic, settings);
        loop {
            for batch in source(&self.extents, &self.partition.name) {
                planner.add(&batch?)?;
            }
            if planner.end_of_input() == Round::Done {
                return Ok(planner.finish());
            }
        }
    }

    fn announce(&self, core: &Core, compaction: &Compaction) -> u64 {
        let entry = Entry::CompactionHorizon {
            partition: self.partition.clone(),
            tombstones_gone_below: compaction.tombstones_gone_below(),
            compacted_below: compaction.compacted_below(),
            cleaned: 0,
        };
        core.with(|sequencer, wakes| {
            sequencer.push_if_alive(entry, Notify::Nobody, Haste::Now, wakes)
        })
    }
}

impl Move {
    /// Whether the segments may get their names.
    pub(crate) fn is_ready(&self, core: &Core) -> bool {
        core.lock().durable_lsn >= self.lsn
    }

    /// Gives the segments their names and puts them in the place of what they were written from.
    pub(crate) fn finish(self, core: &Core) -> Result<(), Error> {
        if self.partition.lock().deleted {
            return Ok(());
        }
        let segments = self
            .sealed
            .into_iter()
            .map(|sealed| sealed.publish().map(Arc::new))
            .collect::<Result<Vec<_>, Error>>()?;
        self.partition.adopt(segments);
        let entry = if self.from_journal {
            Entry::ExtentMoved { partition: self.partition, end: self.end }
        } else {
            Entry::CompactionHorizon {
                partition: self.partition,
                tombstones_gone_below: 0,
                compacted_below: 0,
                cleaned: self.end,
            }
        };
        core.with(|sequencer, wakes| {
            sequencer.push_if_alive(entry, Notify::Nobody, Haste::Now, wakes)
        });
        Ok(())
    }
}

/// All batches of the extents, in order.
fn source<'a>(
    extents: &'a [Extent],
    name: &'a TopicPartition,
) -> Box<dyn Iterator<Item = Result<Batch, Error>> + 'a> {
    Box::new(extents.iter().flat_map(move |extent| extent_source(extent, name)))
}

fn extent_source<'a>(
    extent: &'a Extent,
    name: &'a TopicPartition,
) -> Box<dyn Iterator<Item = Result<Batch, Error>> + 'a> {
    match &extent.place {
        Place::Segment(segment) => Box::new(segment.batches().filter(|batch| {
            batch.as_ref().map_or(true, |batch| batch.next_offset() > extent.base)
        })),
        Place::Journal { .. } => {
            let mut at = extent.base;
            let stretches = std::iter::from_fn(move || {
                let read = extent.read(at, extent.end, STRETCH)?;
                let DiskRead::Journal { batches, .. } = &read else { return None };
                at = batches.last().map_or(extent.end, |(_, next)| *next);
                Some(read.read(name))
            });
            Box::new(stretches.flat_map(|stretch| match stretch {
                Ok((batches, _)) => batches.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }))
        }
    }
}
