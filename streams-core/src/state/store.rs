//! What a task asks of its stores, whatever their kind.

use std::any::Any;

use broker_api::{RecordRef, Timestamp};

use super::{EntryBatch, Expiry};
use crate::error::StateError;

/// A store of a task. Its entries are *uncommitted* (changed since the last seal), *committed*
/// (sealed, not in the engine yet) or *clean* (as in the engine).
pub trait Store: Any + Send {
    /// Its name.
    fn name(&self) -> &str;

    /// Its entries.
    fn cache(&self) -> &dyn StoreCache;

    /// Its entries, to be changed.
    fn cache_mut(&mut self) -> &mut dyn StoreCache;

    /// Its Rust type, for messages.
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    /// Operators have been told of all changes: caches are drained, and what that lets go has come to its
    /// end. Nothing is under way for which a store keeps what has expired. To be called right before a
    /// seal, where it is so.
    fn all_told(&mut self) {}

    /// As [`StoreCache::seal`].
    ///
    /// # Errors
    /// [`StateError::Serde`]: the generation must be aborted.
    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        self.cache_mut().seal(changelog)
    }

    /// As [`StoreCache::begin_flush`].
    ///
    /// # Errors
    /// [`StateError::Serde`].
    fn begin_flush(&mut self) -> Result<EntryBatch, StateError> {
        self.cache_mut().begin_flush()
    }

    /// As [`StoreCache::flushed`].
    fn flushed(&mut self) {
        self.cache_mut().flushed();
    }

    /// As [`StoreCache::has_uncommitted`].
    fn has_uncommitted(&self) -> bool {
        self.cache().has_uncommitted()
    }

    /// As [`StoreCache::unsealed_bytes`].
    fn unsealed_bytes(&self) -> usize {
        self.cache().unsealed_bytes()
    }

    /// As [`StoreCache::dirty_bytes`].
    fn dirty_bytes(&self) -> usize {
        self.cache().dirty_bytes()
    }

    /// As [`StoreCache::cached_bytes`].
    fn cached_bytes(&self) -> usize {
        self.cache().cached_bytes()
    }

    /// As [`StoreCache::set_budget`].
    fn set_budget(&mut self, bytes: usize) {
        self.cache_mut().set_budget(bytes);
    }

    /// The newest event time that the store was given, if it remembers one; otherwise -1. It is
    /// committed with the offsets of its task.
    fn time(&self) -> Timestamp {
        -1
    }

    /// Moves that time forward, to what it was at a commit.
    fn advance_time(&mut self, _to: Timestamp) {}

    /// Further times that it remembers, and that are committed: each of them only ever rises.
    fn further_times(&self) -> &[Timestamp] {
        &[]
    }

    /// Sets them to what they were at a commit.
    fn resume_further_times(&mut self, _times: &[Timestamp]) {}

    /// What of its entries no read can see any more, as of the last seal; `None`: nothing ever
    /// expires. Once that seal is synced, the engine is told.
    fn expiry(&self) -> Option<Expiry> {
        None
    }

    /// As [`StoreCache::dump`].
    ///
    /// # Errors
    /// [`StateError`].
    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError> {
        self.cache_mut().dump()
    }
}

/// The entries of a store in memory, over its engine, in the steps of a commit.
pub trait StoreCache {
    /// Uncommitted entries become committed, each encoded once into `changelog`, in order of their
    /// last update. Everything to be forwarded has been taken before.
    ///
    /// # Errors
    /// [`StateError::Serde`]: the generation must be aborted.
    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError>;

    /// All committed entries, encoded for the engine. To be called right after [`StoreCache::seal`],
    /// and not again before [`StoreCache::flushed`]. Until then they are still answered from memory.
    ///
    /// # Errors
    /// [`StateError::Serde`].
    fn begin_flush(&mut self) -> Result<EntryBatch, StateError>;

    /// The batch of the last [`StoreCache::begin_flush`] is in the engine: entries unchanged since
    /// then become clean.
    fn flushed(&mut self);

    /// Whether entries were changed since the last seal.
    fn has_uncommitted(&self) -> bool;

    /// About how many bytes the next seal will write: changelog records, and updates that are
    /// forwarded then.
    fn unsealed_bytes(&self) -> usize;

    /// Bytes held in memory for entries that are not clean.
    fn dirty_bytes(&self) -> usize;

    /// Bytes held in memory for all entries.
    fn cached_bytes(&self) -> usize;

    /// How many bytes may be held in memory; clean entries beyond it are forgotten.
    fn set_budget(&mut self, bytes: usize);

    /// All present entries as the text of keys and values would need their serdes, so as encoded
    /// bytes: (key, value, timestamp), ordered by key bytes; uncommitted ones included.
    ///
    /// # Errors
    /// [`StateError`].
    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError>;
}

/// An encoded entry: key, value and timestamp.
pub type RawEntry = (Vec<u8>, Vec<u8>, Timestamp);

/// Takes the changelog records of a seal.
pub trait ChangelogWriter {
    /// A record; a value of `None` deletes the key.
    ///
    /// # Errors
    /// [`StateError`] if the record is larger than a batch may be.
    fn put(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError>;
}

/// How a changelog record becomes entries of the engine. One for each kind of store.
pub trait ChangelogFormat: Send + Sync + 'static {
    /// What has expired by a committed time of the store ([`Store::time`]), and need not be
    /// restored; `None`: nothing, as far as this time tells.
    fn expiry(&self, _time: Timestamp) -> Option<Expiry> {
        None
    }

    /// Adds the entries that a changelog record puts or deletes.
    ///
    /// # Errors
    /// [`StateError::ChangelogRecord`] if the record cannot belong to such a store.
    fn entries(&self, record: &RecordRef<'_>, out: &mut EntryBatch) -> Result<(), StateError>;
}
