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

use super::decide;
use crate::core::Core;
use crate::disk::io_error;
use crate::journal::entry::Entry;
use crate::segment::{
    Compaction, CompactionPlanner, CompactionSettings, Round, SealedSegment, Segment, SegmentDir,
    SegmentWriter,
};
use crate::sequencer::extent::{DiskRead, Extent, Place};
use crate::sequencer::partition::Partition;

/// Bytes that are read at once.
const STRETCH: usize = 4 << 20;

/// Segments that are written and wait for their names.
pub(crate) struct Move {
    partition: Arc<Partition>,
    /// What the segments were written from.
    extents: Vec<Extent>,
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
    ///
    /// # Errors
    /// [`Error::DiskFull`] before anything is written, if there is no room for them beside what the
    /// reserve may need; those of reading and writing.
    pub(crate) fn begin(self, core: &Core, generation: u64) -> Result<Option<Move>, Error> {
        let (Some(first), Some(last)) = (self.extents.first(), self.extents.last()) else {
            return Ok(None);
        };
        let (base, end) = (first.base, last.end);
        let dir = core.segments.dir_of(&self.partition);
        self.check_room(core)?;
        core.vfs.create_dir_all(&dir.path).map_err(|e| io_error("creating", &dir.path, e))?;
        let name = &self.partition.name;
        let mut lsn = 0;
        let sealed = if self.compact {
            let mut compaction = self.plan_compaction(core)?;
            lsn = self.announce(core, &compaction);
            let kept = source(&self.extents, name)
                .map(|batch| compaction.filter(&batch?))
                .filter_map(Result::transpose);
            self.write(core, &dir, generation, (base, end), kept)?
        } else {
            self.write(core, &dir, generation, (base, end), source(&self.extents, name))?
        };
        let from_journal = !self.whole;
        Ok(Some(Move {
            partition: self.partition,
            extents: self.extents,
            sealed,
            end,
            from_journal,
            lsn,
        }))
    }

    /// What is written here must not take the space that a commit needs.
    fn check_room(&self, core: &Core) -> Result<(), Error> {
        let needed: u64 = self.extents.iter().map(Extent::bytes).sum();
        let free = core.vfs.free_space(&core.dir);
        let free = free.map_err(|e| io_error("asking for the free space of", &core.dir, e))?;
        match free {
            Some(free) if free < needed.saturating_add(core.settings.reserve_bytes) => {
                Err(Error::DiskFull { path: core.dir.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Writes batches into as many segments as they fill, from `base` to `end`.
    fn write(
        &self,
        core: &Core,
        dir: &SegmentDir,
        generation: u64,
        (mut base, end): (Offset, Offset),
        batches: impl Iterator<Item = Result<Batch, Error>>,
    ) -> Result<Vec<SealedSegment>, Error> {
        let mut sealed = Vec::new();
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
        decide(core, entry, &self.partition)
    }
}

impl Move {
    /// Whether the segments may get their names.
    pub(crate) fn is_ready(&self, core: &Core) -> bool {
        core.lock().synced_lsn >= self.lsn
    }

    /// What must be synced before.
    pub(crate) fn lsn(&self) -> u64 {
        self.lsn
    }

    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Gives the segments their names and puts them in the place of what they were written from.
    /// Returns what `synced_lsn` reaches when that is known for good.
    pub(crate) fn finish(self, core: &Core) -> Result<u64, Error> {
        if self.partition.lock().deleted {
            return Ok(0);
        }
        // Readers may be on their way to segments whose names go to others.
        let taken =
            |segment: &&Arc<Segment>| self.sealed.iter().any(|s| s.base() == segment.base());
        let mut replaced = self.extents.iter().filter_map(Extent::segment).filter(taken);
        replaced.try_for_each(|segment| segment.pin())?;
        let segments = self
            .sealed
            .into_iter()
            .map(|sealed| sealed.publish().map(Arc::new))
            .collect::<Result<Vec<_>, Error>>()?;
        self.partition.adopt(segments);
        let entry = if self.from_journal {
            Entry::ExtentMoved { partition: self.partition.clone(), end: self.end }
        } else {
            Entry::CompactionHorizon {
                partition: self.partition.clone(),
                tombstones_gone_below: 0,
                compacted_below: 0,
                cleaned: self.end,
            }
        };
        Ok(decide(core, entry, &self.partition))
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
