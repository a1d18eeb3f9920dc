//! The state engine on RocksDB.
//!
//! Each task has one RocksDB in its directory, and each store of the task one column family, called
//! `<store>.<n>`: a bulk load fills the next `n` and drops the old one. The store's position lies in
//! its family under the key `0x00`, the entries under `0x01` and their key, so that both always
//! become visible and durable together. There is no write-ahead log: the changelog is one.
//!
//! Block cache and write buffers are shared by all that one [`RocksDb`] opens.
//!
//! Damaged files are found by their checksums. At opening the whole directory is then set aside as
//! `<directory>.damaged-<n>` (the last three are kept) and an empty one takes its place, with a
//! warning. While running the store gives [`StateError::Corrupt`], and the next opening sets it aside.

mod directory;
mod expired;
mod load;
mod options;
mod store;

use std::path::Path;
use std::sync::Arc;

use streams_core::StateError;
use streams_core::state::{StateEngine, StoreEngine};

pub use options::Settings;
use options::Shared;

type Db = rocksdb::DBWithThreadMode<rocksdb::MultiThreaded>;

/// Opens the stores of tasks in RocksDB. See the crate.
pub struct RocksDb {
    shared: Arc<Shared>,
}

impl RocksDb {
    /// An engine with these settings.
    pub fn new(settings: Settings) -> Self {
        Self { shared: Arc::new(Shared::new(settings)) }
    }
}

impl Default for RocksDb {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl StateEngine for RocksDb {
    fn open(&self, dir: &Path, names: &[&str]) -> Result<Vec<Arc<dyn StoreEngine>>, StateError> {
        directory::open(&self.shared, dir, names)
    }
}

#[cfg(test)]
mod tests;
