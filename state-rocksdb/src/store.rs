//! One store: a column family.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rocksdb::{BoundColumnFamily, Direction, IteratorMode, ReadOptions, WriteBatch};
use streams_core::StateError;
use streams_core::state::{BulkLoad, EntryBatch, Expiry, Position, Scan, StoreEngine};

use crate::directory::Database;
use crate::expired::Expired;
use crate::load::{Load, TableFile};

pub(crate) type Family<'a> = Arc<BoundColumnFamily<'a>>;

/// The key of a store's position.
pub(crate) const POSITION: &[u8] = &[0];

/// What stands before every entry's key.
pub(crate) const ENTRY: u8 = 1;

/// See the crate. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) database: Arc<Database>,
    name: Arc<str>,
    /// The number of its family.
    current: Arc<RwLock<u64>>,
    expired: Arc<Expired>,
    /// Numbers the files that it has made.
    files: Arc<AtomicU64>,
    was_damaged: bool,
}

impl Store {
    /// Opens a store of `database`, whose families are `families`. The newest family that has a
    /// position is the store; others are what interrupted loads left.
    pub(crate) fn open(
        database: &Arc<Database>,
        name: &str,
        families: &[String],
        was_damaged: bool,
    ) -> Result<Self, StateError> {
        let mut numbers: Vec<u64> = (families.iter())
            .filter_map(|family| family.rsplit_once('.'))
            .filter(|(store, _)| *store == name)
            .filter_map(|(_, number)| number.parse().ok())
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut current = None;
        for number in &numbers {
            if current.is_none() && position(database, &family_name(name, *number))?.is_some() {
                current = Some(*number);
            }
        }
        let current = current.or(numbers.first().copied());
        for number in numbers.into_iter().filter(|number| Some(*number) != current) {
            drop_family(database, &family_name(name, number))?;
        }
        let number = match current {
            Some(number) => number,
            None => {
                create_family(database, name, 0)?;
                0
            }
        };
        Ok(Self {
            database: Arc::clone(database),
            name: name.into(),
            current: Arc::new(RwLock::new(number)),
            expired: database.expired.of(name),
            files: Arc::default(),
            was_damaged,
        })
    }

    fn current(&self) -> String {
        let number = *self.current.read().unwrap_or_else(PoisonError::into_inner);
        family_name(&self.name, number)
    }

    /// A file to be filled and ingested.
    pub(crate) fn new_file(&self) -> Result<TableFile, StateError> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.database.ingest_dir()?.join(format!("{}-{number}.sst", self.name));
        Ok(TableFile::new(path))
    }

    /// Takes files, one of which holds a position, into a new family, and makes it the store's.
    pub(crate) fn replace(&self, files: Vec<TableFile>) -> Result<(), StateError> {
        let database = &*self.database;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let (old, next) = (*current, *current + 1);
        let family = family_name(&self.name, next);
        create_family(database, &self.name, next)?;
        if let Err(error) = self.ingest(&family, files) {
            drop_or_leave(database, &family);
            return Err(error);
        }
        *current = next;
        drop_or_leave(database, &family_name(&self.name, old));
        Ok(())
    }

    /// Takes files into a family, all or none.
    fn ingest(&self, family: &str, files: Vec<TableFile>) -> Result<(), StateError> {
        let database = &*self.database;
        let mut options = rocksdb::IngestExternalFileOptions::default();
        options.set_move_files(true);
        let paths = files.iter().map(TableFile::path).collect();
        let family = database.family(family)?;
        database
            .db
            .ingest_external_file_cf_opts(&family, &options, paths)
            .map_err(|e| database.error("ingesting into", e))
    }

    fn apply_small(&self, batch: &EntryBatch, position: &[u8]) -> Result<(), StateError> {
        let database = &*self.database;
        let family = database.family(&self.current())?;
        let mut writes = WriteBatch::default();
        let mut key = vec![ENTRY];
        for (user_key, value) in batch.iter() {
            key.truncate(1);
            key.extend_from_slice(user_key);
            match value {
                Some(value) => writes.put_cf(&family, &key, value),
                None => writes.delete_cf(&family, &key),
            }
        }
        writes.put_cf(&family, POSITION, position);
        database.db.write_without_wal(writes).map_err(|e| database.error("writing", e))
    }

    /// Writes the batch as a file. What is in memory is older, so it is written out before.
    fn apply_large(&self, batch: &mut EntryBatch, position: &[u8]) -> Result<(), StateError> {
        batch.sort();
        let file = self.new_file()?;
        file.write(&self.database, Some(position), batch.iter())?;
        self.flush()?;
        self.ingest(&self.current(), vec![file])
    }
}

impl StoreEngine for Store {
    fn was_damaged(&self) -> bool {
        self.was_damaged
    }

    fn position(&self) -> Result<Option<Position>, StateError> {
        position(&self.database, &self.current())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let database = &*self.database;
        let family = database.family(&self.current())?;
        let mut prefixed = Vec::with_capacity(1 + key.len());
        prefixed.push(ENTRY);
        prefixed.extend_from_slice(key);
        let value = database.db.get_pinned_cf(&family, prefixed);
        let value = value.map_err(|e| database.error("reading", e))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Result<Scan<'a>, StateError> {
        let database = &*self.database;
        let family = database.family(&self.current())?;
        let from = [&[ENTRY], from].concat();
        let to = to.map_or_else(|| vec![ENTRY + 1], |to| [&[ENTRY], to].concat());
        if to <= from {
            return Ok(Box::new(std::iter::empty()));
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mode = IteratorMode::From(&from, Direction::Forward);
        let entries = database.db.iterator_cf_opt(&family, options, mode);
        Ok(Box::new(entries.map(|entry| {
            let (key, value) = entry.map_err(|e| database.error("reading", e))?;
            Ok((Bytes::from(key).slice(1..), Bytes::from(value)))
        })))
    }

    fn apply(&self, batch: &mut EntryBatch, position: &Position) -> Result<(), StateError> {
        let position = position.encode();
        if batch.bytes() > self.database.shared.settings.ingest_above_bytes {
            self.apply_large(batch, &position)
        } else {
            self.apply_small(batch, &position)
        }
    }

    fn expire(&self, expiry: Expiry) {
        self.expired.set(expiry);
    }

    fn flush(&self) -> Result<(), StateError> {
        let family = self.database.family(&self.current())?;
        self.database.db.flush_cf(&family).map_err(|e| self.database.error("flushing", e))
    }

    fn bulk_load(&self) -> Result<Box<dyn BulkLoad>, StateError> {
        Ok(Box::new(Load::new(self.clone())))
    }
}

fn family_name(store: &str, number: u64) -> String {
    format!("{store}.{number}")
}

fn position(database: &Database, family: &str) -> Result<Option<Position>, StateError> {
    let family = database.family(family)?;
    let bytes = database.db.get_cf(&family, POSITION).map_err(|e| database.error("reading", e))?;
    let position = bytes.map(|bytes| Position::decode(&bytes, &database.dir)).transpose();
    if let Err(StateError::Corrupt { .. }) = position {
        database.mark_damaged();
    }
    position
}

fn create_family(database: &Database, store: &str, number: u64) -> Result<(), StateError> {
    let options = database.shared.family_of(database.expired.of(store));
    let created = database.db.create_cf(family_name(store, number), &options);
    created.map_err(|e| database.error("adding a column family to", e))
}

/// Drops a family that is of no use; should that fail, the next opening does it.
fn drop_or_leave(database: &Database, name: &str) {
    if let Err(error) = drop_family(database, name) {
        tracing::warn!(%error, "a column family that is of no use stays until the next start");
    }
}

pub(crate) fn drop_family(database: &Database, name: &str) -> Result<(), StateError> {
    database.db.drop_cf(name).map_err(|e| database.error("dropping a column family of", e))
}
