//! Sorted files that RocksDB takes over as they are.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::SstFileWriter;
use streams_core::StateError;
use streams_core::state::{BulkLoad, EntryBatch, Position};

use crate::directory::Database;
use crate::store::{ENTRY, POSITION, Store};

/// The size at which a load begins another file, in bytes of keys and values.
const FILE_BYTES: usize = 32 << 20;

/// A file that is deleted with this value, unless RocksDB has linked it under another name.
pub(crate) struct TableFile {
    path: PathBuf,
}

impl TableFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file: a position, if any, and entries in key order.
    pub(crate) fn write<'a>(
        &self,
        database: &Database,
        position: Option<&[u8]>,
        entries: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), StateError> {
        let options = database.shared.family();
        let mut writer = SstFileWriter::create(&options);
        let write = || {
            writer.open(&self.path)?;
            if let Some(position) = position {
                writer.put(POSITION, position)?;
            }
            let mut key = vec![ENTRY];
            for (user_key, value) in entries {
                key.truncate(1);
                key.extend_from_slice(user_key);
                match value {
                    Some(value) => writer.put(&key, value)?,
                    None => writer.delete(&key)?,
                }
            }
            writer.finish()
        };
        write().map_err(|e| database.error("writing a file for", e))
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        // Gone already if it was moved; otherwise the next opening clears it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Replaces all entries of a store.
pub(crate) struct Load {
    store: Store,
    files: Vec<TableFile>,
    entries: EntryBatch,
    last_key: Option<Vec<u8>>,
}

impl Load {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, files: Vec::new(), entries: EntryBatch::new(), last_key: None }
    }

    fn write_file(&mut self, position: Option<&[u8]>) -> Result<(), StateError> {
        let file = self.store.new_file()?;
        file.write(&self.store.database, position, self.entries.iter())?;
        self.files.push(file);
        self.entries.clear();
        Ok(())
    }
}

impl BulkLoad for Load {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match &mut self.last_key {
            Some(last) if last.as_slice() >= key => {
                return Err(StateError::Io {
                    operation: "bulk loading",
                    path: self.store.database.dir.clone(),
                    reason: "the keys do not rise".into(),
                });
            }
            Some(last) => {
                last.clear();
                last.extend_from_slice(key);
            }
            none => *none = Some(key.to_vec()),
        }
        if self.entries.bytes() >= FILE_BYTES {
            self.write_file(None)?;
        }
        self.entries.put(key, Some(value));
        Ok(())
    }

    fn finish(mut self: Box<Self>, position: &Position) -> Result<(), StateError> {
        if !self.entries.is_empty() {
            self.write_file(None)?;
        }
        self.write_file(Some(&position.encode()))?;
        let files = std::mem::take(&mut self.files);
        self.store.replace(files)
    }
}
