//! Finding a partition's segments again when the broker is opened.
//!
//! The journal says up to which offset the records are in segments; which segments these are, the
//! directory says. A crash may leave segments that a compaction has replaced (they overlap newer
//! ones), or that the journal does not know yet (they end above what it says): both are removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_api::{Error, Offset, TopicId, TopicPartition};

use crate::directory::TOPICS;
use crate::disk::{corrupt, io_error};
use crate::segment::{Handles, Segment, SegmentDir};
use crate::sequencer::extent::Extent;
use crate::sequencer::partition::Partition;
use crate::sequencer::state::State;
use crate::vfs::Vfs;

/// The segments of all partitions.
pub(crate) struct Segments {
    vfs: Arc<dyn Vfs>,
    handles: Arc<Handles>,
    /// The folder of all topics.
    topics: PathBuf,
}

impl Segments {
    /// In the broker's directory; no more than `max_open` files are open at a time.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: &Path, max_open: usize) -> Self {
        Self { vfs, handles: Handles::new(max_open), topics: dir.join(TOPICS) }
    }

    /// Where the segments of a partition are.
    pub(crate) fn dir_of(&self, partition: &Partition) -> SegmentDir {
        let (topic, name) = (partition.topic, partition.name.clone());
        let path = self.topics.join(topic.to_string()).join(name.partition.to_string());
        let (vfs, handles) = (self.vfs.clone(), self.handles.clone());
        SegmentDir { vfs, handles, path, topic, partition: name }
    }

    /// Gives all partitions their segments and removes what is left over.
    pub(crate) fn attach(&self, state: &State) -> Result<(), Error> {
        for id in self.topics()? {
            if state.name_of(id).is_none() {
                self.remove_topic(id)?;
            }
        }
        for (_, partition) in state.partitions() {
            let dir = self.dir_of(partition);
            let (log_start, end) = {
                let log = partition.lock();
                (log.horizon.log_start, log.segments_end)
            };
            if self.vfs.exists(&dir.path).map_err(|e| io_error("opening", &dir.path, e))? {
                let extents = chain(&dir, &partition.name, log_start, end)?;
                let mut log = partition.lock();
                extents.into_iter().rev().for_each(|extent| log.extents.push_front(extent));
            } else if log_start < end {
                return Err(missing(&dir, &partition.name, log_start));
            }
        }
        Ok(())
    }

    /// The topics that have a folder.
    pub(crate) fn topics(&self) -> Result<Vec<TopicId>, Error> {
        let names = self.vfs.list(&self.topics);
        let names = names.map_err(|e| io_error("listing", &self.topics, e))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Removes the folder of a topic.
    pub(crate) fn remove_topic(&self, id: TopicId) -> Result<(), Error> {
        let path = self.topics.join(id.to_string());
        let removed = self.vfs.remove_dir_all(&path).and_then(|()| self.vfs.sync_dir(&self.topics));
        removed.map_err(|e| io_error("removing", &path, e))
    }
}

/// The segments from `log_start` up to `end`, without gaps: of those that overlap, the newest.
fn chain(
    dir: &SegmentDir,
    partition: &TopicPartition,
    log_start: Offset,
    end: Offset,
) -> Result<Vec<Extent>, Error> {
    dir.remove_leftovers()?;
    let bases = dir.bases()?;
    let found: Vec<Segment> =
        bases.iter().map(|base| Segment::open(dir, *base)).collect::<Result<_, Error>>()?;
    let (mut rest, useless): (Vec<Segment>, Vec<Segment>) =
        found.into_iter().partition(|segment| segment.next() <= end);
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = log_start;
    while at < end {
        let covers = |segment: &Segment| segment.base() <= at && at < segment.next();
        let covering = rest.iter().enumerate().filter(|(_, segment)| covers(segment));
        let newest = covering.max_by_key(|(_, segment)| segment.generation()).map(|(i, _)| i);
        let Some(newest) = newest else { return Err(missing(dir, partition, at)) };
        let segment = rest.swap_remove(newest);
        let from = extents.last().map_or(segment.base(), |before| before.end);
        at = segment.next();
        extents.push(Extent::of_segment(Arc::new(segment), from));
    }
    rest.iter().chain(&useless).try_for_each(|segment| dir.remove(segment.base()))?;
    Ok(extents)
}

fn missing(dir: &SegmentDir, partition: &TopicPartition, at: Offset) -> Error {
    let reason = format!("the segment with offset {at} is missing");
    corrupt(&dir.path, 0, Some(partition.clone()), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentWriter;
    use crate::vfs::SimVfs;

    /// Segments (base, end, generation) without records, and what is found from `log_start` to 30.
    fn found(segments: &[(Offset, Offset, u64)], log_start: Offset) -> Vec<(Offset, Offset)> {
        let vfs = SimVfs::new(1);
        let partition = TopicPartition::new("t", 0);
        let (path, topic, handles) = ("/topics/0".into(), TopicId(1), Handles::new(1));
        let vfs = Arc::new(vfs);
        let dir = SegmentDir { vfs, handles, path, topic, partition: partition.clone() };
        dir.vfs.create_dir_all(&dir.path).unwrap();
        for (base, end, generation) in segments {
            let writer = SegmentWriter::create(&dir, *base, *generation).unwrap();
            writer.seal(*end).unwrap().publish().unwrap();
        }
        let extents = chain(&dir, &partition, log_start, 30).unwrap();
        let kept: Vec<_> = extents.iter().map(|e| e.segment().unwrap().base()).collect();
        assert_eq!(dir.bases().unwrap(), kept, "the others are removed");
        extents.iter().map(|extent| (extent.base, extent.end)).collect()
    }

    #[test]
    fn segments_that_a_compaction_had_replaced_do_not_come_back() {
        // 10 and 20 are old; the compaction had given all new segments their names.
        let segments = [(0, 15, 9), (10, 20, 3), (15, 30, 9), (20, 30, 3)];
        assert_eq!(found(&segments, 0), [(0, 15), (15, 30)]);
        assert_eq!(found(&segments, 15), [(15, 30)]);
        assert_eq!(found(&segments, 17), [(15, 30)]);
    }

    #[test]
    fn a_compaction_that_was_interrupted_leaves_its_beginning_and_the_old_rest() {
        assert_eq!(
            found(&[(0, 15, 9), (10, 20, 3), (20, 30, 3)], 0),
            [(0, 15), (15, 20), (20, 30)]
        );
    }

    #[test]
    fn segments_that_the_journal_does_not_know_are_removed() {
        assert_eq!(found(&[(0, 30, 3), (30, 40, 5)], 0), [(0, 30)]);
        assert_eq!(found(&[(0, 10, 3), (10, 30, 4)], 10), [(10, 30)]);
    }
}
