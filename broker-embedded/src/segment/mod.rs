//! Segments: the long-term home of a partition's records, in files that never change.
//!
//! Records come here when a journal file retires. A segment is written under a temporary name,
//! synced, and only then gets its real name, so it exists as a whole or not at all. `<base>.log`
//! holds the batches, `<base>.idx` tells where to start reading; the index can be lost or damaged
//! without harm, it is made again from the log. Every byte of the log is covered by a checksum that
//! is verified before anything of it is handed out. The byte layout is a table in
//! `docs/formats.md`.
//!
//! [`CompactionPlanner`] and [`Compaction`] decide what of a compacted topic is copied.

mod compaction;
#[cfg(test)]
mod compaction_tests;
mod handles;
mod index;
mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use broker_api::{Error, Offset, TopicId, TopicPartition};

use crate::disk::io_error;
use crate::vfs::Vfs;

pub(crate) use self::{
    compaction::{Compaction, CompactionPlanner, CompactionSettings, Round},
    handles::Handles,
    reader::Segment,
    writer::{SealedSegment, SegmentWriter},
};

/// The directory that holds the segments of one partition.
#[derive(Clone)]
pub(crate) struct SegmentDir {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) path: PathBuf,
    pub(crate) topic: TopicId,
    pub(crate) partition: TopicPartition,
}

impl SegmentDir {
    fn file(&self, base: Offset, extension: &str) -> PathBuf {
        self.path.join(format!("{base:020}.{extension}"))
    }

    /// The base offsets of the segments that are there, in order.
    pub(crate) fn bases(&self) -> Result<Vec<Offset>, Error> {
        let names = self.vfs.list(&self.path).map_err(|e| io_error("listing", &self.path, e))?;
        let base = |name: &String| name.strip_suffix(".log").and_then(|base| base.parse().ok());
        Ok(names.iter().filter_map(base).collect())
    }

    /// Removes a segment, index first: a log without index is complete, an index alone is waste.
    /// Durable when it returns. What is gone already does no harm.
    pub(crate) fn remove(&self, base: Offset) -> Result<(), Error> {
        self.remove_names(&[self.file(base, "idx"), self.file(base, "log")])
    }

    /// Removes what an interrupted writer left behind.
    pub(crate) fn remove_leftovers(&self) -> Result<(), Error> {
        let names = self.vfs.list(&self.path).map_err(|e| io_error("listing", &self.path, e))?;
        let leftovers: Vec<PathBuf> = names
            .iter()
            .filter(|name| name.ends_with(".tmp"))
            .map(|name| self.path.join(name))
            .collect();
        self.remove_names(&leftovers)
    }

    fn remove_names(&self, names: &[PathBuf]) -> Result<(), Error> {
        for name in names {
            match self.vfs.remove(name) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                result => result.map_err(|e| io_error("removing", name, e))?,
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        self.vfs.sync_dir(&self.path).map_err(|e| io_error("syncing", &self.path, e))
    }
}
