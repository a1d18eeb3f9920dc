//! Stretches of a partition on disk, and reading them with every checksum looked at.

use std::sync::Arc;

use broker_api::{Batch, Error, Offset, Timestamp, TopicPartition};
use bytes::Bytes;

use crate::disk::{corrupt, read_exact};
use crate::journal::file::JournalFile;
use crate::segment::Segment;

/// Where a batch is in a journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) base: Offset,
    pub(crate) time: Timestamp,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

/// Offsets from `base` up to `end`, without gaps in the journal, with gaps after compaction.
#[derive(Clone)]
pub(crate) struct Extent {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    /// No record has a higher timestamp; the lowest there is if it has no record.
    pub(crate) max_timestamp: Timestamp,
    pub(crate) place: Place,
}

/// Where an extent is.
#[derive(Clone)]
pub(crate) enum Place {
    /// In a journal file.
    Journal { file: Arc<JournalFile>, batches: Vec<Located> },
    /// In a segment.
    Segment(Arc<Segment>),
}

/// Batches to be read, with all that is needed to do it without a lock.
pub(crate) enum DiskRead {
    Journal {
        file: Arc<JournalFile>,
        /// Each with the offset at which the next one begins.
        batches: Vec<(Located, Offset)>,
    },
    Segment {
        segment: Arc<Segment>,
        from: Offset,
        max_bytes: usize,
    },
}

/// Batches closer together than this are read in one go.
const READ_OVER: u32 = 16 << 10;

impl Extent {
    /// The part of a segment from `base` on.
    pub(crate) fn of_segment(segment: Arc<Segment>, base: Offset) -> Self {
        let (end, max_timestamp) = (segment.next(), segment.max_timestamp());
        Self { base, end, max_timestamp, place: Place::Segment(segment) }
    }

    /// The segment, if it is in one.
    pub(crate) fn segment(&self) -> Option<&Arc<Segment>> {
        match &self.place {
            Place::Segment(segment) => Some(segment),
            Place::Journal { .. } => None,
        }
    }

    /// How many bytes of batches it has on disk.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.place {
            Place::Segment(segment) => segment.len(),
            Place::Journal { batches, .. } => batches.iter().map(|b| u64::from(b.len)).sum(),
        }
    }

    /// Whether it is in this journal file.
    pub(crate) fn is_in(&self, journal: &JournalFile) -> bool {
        matches!(&self.place, Place::Journal { file, .. } if file.first_lsn == journal.first_lsn)
    }

    /// Leaves out batches of the journal that lie below `log_start`.
    pub(crate) fn drop_below(&mut self, log_start: Offset) {
        if let Place::Journal { batches, .. } = &mut self.place {
            let first = batches.partition_point(|batch| batch.base <= log_start).max(1) - 1;
            batches.drain(..first);
            self.base = batches.first().map_or(self.base, |batch| batch.base);
        }
    }

    /// What to read for the batches from `position` on, if there are any below `view_end`.
    pub(crate) fn read(
        &self,
        position: Offset,
        view_end: Offset,
        max_bytes: usize,
    ) -> Option<DiskRead> {
        match &self.place {
            Place::Segment(segment) => {
                Some(DiskRead::Segment { segment: segment.clone(), from: position, max_bytes })
            }
            Place::Journal { file, batches } => {
                let next = |i: usize| batches.get(i + 1).map_or(self.end, |next| next.base);
                let first = batches.partition_point(|batch| batch.base <= position).max(1) - 1;
                let (mut wanted, mut bytes) = (Vec::new(), 0);
                for (i, batch) in batches.iter().enumerate().skip(first) {
                    if next(i) > view_end || (bytes > 0 && bytes >= max_bytes) {
                        break;
                    }
                    if next(i) > position {
                        bytes += batch.len as usize;
                        wanted.push((*batch, next(i)));
                    }
                }
                (!wanted.is_empty())
                    .then(|| DiskRead::Journal { file: file.clone(), batches: wanted })
            }
        }
    }

    /// The first batch in the journal that was appended after `time`.
    pub(crate) fn appended_after(&self, time: Timestamp) -> Option<Offset> {
        match &self.place {
            Place::Journal { batches, .. } => {
                let first = batches.partition_point(|batch| batch.time <= time);
                batches.get(first).map(|batch| batch.base)
            }
            Place::Segment(_) => None,
        }
    }
}

impl DiskRead {
    /// Reads and verifies the batches; also returns where reading goes on.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the batch's place, [`Error::Io`].
    pub(crate) fn read(&self, partition: &TopicPartition) -> Result<(Vec<Batch>, Offset), Error> {
        match self {
            Self::Journal { file, batches } => {
                let next = batches.last().map_or(0, |(_, next)| *next);
                Ok((read_journal(file, batches, partition)?, next))
            }
            Self::Segment { segment, from, max_bytes } => {
                let read = segment.read(*from, *max_bytes)?;
                Ok((read.batches, read.next))
            }
        }
    }
}

fn read_journal(
    file: &JournalFile,
    wanted: &[(Located, Offset)],
    partition: &TopicPartition,
) -> Result<Vec<Batch>, Error> {
    let mut batches = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while let Some(((first, _), _)) = rest.split_first() {
        let near = |pair: &[(Located, Offset)]| {
            let (a, b) = (pair[0].0, pair[1].0);
            b.at >= a.at && b.at - a.at <= a.len.saturating_add(READ_OVER)
        };
        let count = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (run, others) = rest.split_at(count);
        rest = others;
        let last = run[count - 1].0;
        let mut bytes = vec![0; (last.at - first.at) as usize + last.len as usize];
        read_exact(&*file.file, &file.path, u64::from(first.at), &mut bytes)?;
        let bytes = Bytes::from(bytes);
        for (located, next) in run {
            let from = (located.at - first.at) as usize;
            let bad = |reason: String| {
                corrupt(&file.path, u64::from(located.at), Some(partition.clone()), reason)
            };
            let batch = Batch::parse(bytes.slice(from..from + located.len as usize))
                .map_err(|e| bad(e.to_string()))?
                .assigned(located.base, located.time);
            if batch.next_offset() != *next {
                return Err(bad(format!("a batch up to {next} expected")));
            }
            batches.push(batch);
        }
    }
    Ok(batches)
}
