//! Entries that time has made useless go when RocksDB compacts the files they are in.
//!
//! A compaction reads and writes every entry anyway, and it follows new entries, so that room is made
//! at the pace at which it is used: with one entry in twenty live in the end, the files are a
//! fifteenth of what they are without, for half the CPU time, since what has gone is not copied again
//! (`expiry_cost` in the tests). The other ways cost more. To delete entries they must be found by
//! time, which takes a second entry for each: two and a half times the CPU time, and more than three
//! times the files. Files for each span of time, which could be dropped as a whole, make every look for
//! the windows of a key one in several places. What RocksDB has no reason to compact, it does after
//! 30 days.
//!
//! Entries vanish without regard to what scans are under way: those hold the files they read.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use streams_core::state::Expiry;

use crate::store::ENTRY;

/// What has expired in a store, for all of its column families.
#[derive(Default)]
pub(crate) struct Expired(RwLock<Option<Expiry>>);

impl Expired {
    pub(crate) fn set(&self, expiry: Expiry) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(expiry);
    }
}

/// The stores of a database, by name.
#[derive(Default)]
pub(crate) struct ExpiredByStore(Mutex<BTreeMap<String, Arc<Expired>>>);

impl ExpiredByStore {
    pub(crate) fn of(&self, store: &str) -> Arc<Expired> {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.entry(store.to_owned()).or_default().clone()
    }
}

/// Makes a filter for each compaction.
pub(crate) struct Filters(pub(crate) Arc<Expired>);

impl CompactionFilterFactory for Filters {
    type Filter = Filter;

    fn create(&mut self, _: CompactionFilterContext) -> Filter {
        Filter(*self.0.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn name(&self) -> &CStr {
        c"vltava.expired"
    }
}

/// Removes what has expired when the compaction begins.
pub(crate) struct Filter(Option<Expiry>);

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], _value: &[u8]) -> CompactionDecision {
        match (self.0, key.split_first()) {
            (Some(expiry), Some((&ENTRY, key))) if expiry.is_over(key) => {
                CompactionDecision::Remove
            }
            _ => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        c"vltava.expired"
    }
}
