//! Settings, and what they become for RocksDB.

use std::sync::Arc;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options, WriteBufferManager};

use crate::expired::{Expired, Filters};

/// Settings of a [`RocksDb`](crate::RocksDb), shared by all tasks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Memory for blocks that were read, in bytes. Default: 64 MiB.
    pub block_cache_bytes: usize,
    /// Memory for what is not in files yet, in bytes. Default: 64 MiB.
    pub write_buffer_bytes: usize,
    /// Files that a task keeps open. Default: 512.
    pub open_files: u32,
    /// A batch larger than this is written to a file of its own at once, in bytes. Default: 4 MiB.
    pub ingest_above_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            open_files: 512,
            ingest_above_bytes: 4 << 20,
        }
    }
}

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    cache: Cache,
    buffers: WriteBufferManager,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            cache: Cache::new_lru_cache(settings.block_cache_bytes),
            buffers: WriteBufferManager::new_write_buffer_manager(
                settings.write_buffer_bytes,
                false,
            ),
        }
    }

    /// Options of a task's database.
    pub(crate) fn database(&self) -> Options {
        let mut options = self.family();
        options.create_if_missing(true);
        options.set_write_buffer_manager(&self.buffers);
        options.set_max_open_files(i32::try_from(self.settings.open_files).unwrap_or(i32::MAX));
        options.set_paranoid_checks(true);
        // RocksDB's own log: warnings, in two small files.
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_stats_dump_period_sec(0);
        options
    }

    /// Options of a store's column family.
    pub(crate) fn family_of(&self, expired: Arc<Expired>) -> Options {
        let mut options = self.family();
        options.set_compaction_filter_factory(Filters(expired));
        options
    }

    /// Options of a file that is made for a column family.
    pub(crate) fn family(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        // Within the cache, so that its size bounds them too.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size((self.settings.write_buffer_bytes / 4).max(64 << 10));
        options
    }
}
