//! Opening the directory of a task, or setting it aside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{ColumnFamilyDescriptor, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind};
use streams_core::StateError;
use streams_core::state::StoreEngine;

use crate::Db;
use crate::expired::ExpiredByStore;
use crate::options::Shared;
use crate::store::{self, Store};

/// Says, as a file in the directory, that damage was found while running.
const MARK: &str = "DAMAGED";

/// How many directories that were set aside are kept.
const KEPT_ASIDE: u32 = 3;

/// Where files are written before RocksDB takes them.
const INGEST: &str = "ingest";

/// The open database of a task.
pub(crate) struct Database {
    pub(crate) db: Db,
    pub(crate) dir: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) expired: ExpiredByStore,
}

/// Why a directory could not be opened.
pub(crate) enum Refused {
    /// Its contents are of no use.
    Damaged(String),
    Error(StateError),
}

impl From<StateError> for Refused {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Corrupt { reason, .. } => Self::Damaged(reason),
            error => Self::Error(error),
        }
    }
}

/// See [`StateEngine::open`](streams_core::state::StateEngine::open).
pub(crate) fn open(
    shared: &Arc<Shared>,
    dir: &Path,
    names: &[&str],
) -> Result<Vec<Arc<dyn StoreEngine>>, StateError> {
    match try_open(shared, dir, names, false) {
        Ok(stores) => return Ok(stores),
        Err(Refused::Error(error)) => return Err(error),
        Err(Refused::Damaged(reason)) => {
            let aside = set_aside(dir).map_err(|e| io_error("setting aside", dir, &e))?;
            tracing::warn!(
                "the state in {} is damaged: {reason}; it was set aside as {} and is rebuilt from \
                 its changelogs",
                dir.display(),
                aside.display(),
            );
        }
    }
    try_open(shared, dir, names, true).map_err(|refused| match refused {
        Refused::Error(error) => error,
        Refused::Damaged(reason) => StateError::Corrupt { path: dir.to_owned(), reason },
    })
}

/// `was_damaged`: what lay here before was set aside.
fn try_open(
    shared: &Arc<Shared>,
    dir: &Path,
    names: &[&str],
    was_damaged: bool,
) -> Result<Vec<Arc<dyn StoreEngine>>, Refused> {
    let (database, families) = open_database(shared, dir)?;
    for family in families.iter().filter(|family| !belongs(family, names)) {
        tracing::info!(
            "a store that the topology has no more is dropped: {family} of {}",
            dir.display()
        );
        store::drop_family(&database, family)?;
    }
    let open = |name: &&str| {
        let store = Store::open(&database, name, &families, was_damaged)?;
        Ok(Arc::new(store) as Arc<dyn StoreEngine>)
    };
    names.iter().map(open).collect::<Result<_, StateError>>().map_err(Refused::from)
}

/// The database and the names of its families.
pub(crate) fn open_database(
    shared: &Arc<Shared>,
    dir: &Path,
) -> Result<(Arc<Database>, Vec<String>), Refused> {
    if dir.is_file() {
        return Err(Refused::Damaged("it is a file, not a directory".into()));
    }
    fs::create_dir_all(dir).map_err(|e| io_error("creating", dir, &e))?;
    if dir.join(MARK).exists() {
        return Err(Refused::Damaged("damage was found when it was last used".into()));
    }
    // What an interrupted load or ingestion left behind.
    match fs::remove_dir_all(dir.join(INGEST)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("clearing", dir, &error).into());
        }
        _ => {}
    }
    let options = shared.database();
    let refuse = |error: rocksdb::Error| {
        if is_damage(&error) || is_missing(&error) {
            Refused::Damaged(error.into_string())
        } else {
            Refused::Error(refused("opening", dir, error))
        }
    };
    let families = if dir.join("CURRENT").exists() {
        Db::list_cf(&options, dir).map_err(refuse)?
    } else if has_tables(dir).map_err(|e| io_error("reading", dir, &e))? {
        return Err(Refused::Damaged("the file CURRENT is missing".into()));
    } else {
        Vec::new()
    };
    let expired = ExpiredByStore::default();
    let descriptors = families.iter().map(|family| {
        let options = shared.family_of(expired.of(store_of(family)));
        ColumnFamilyDescriptor::new(family, options)
    });
    let db = Db::open_cf_descriptors(&options, dir, descriptors).map_err(refuse)?;
    let (dir, shared) = (dir.to_owned(), Arc::clone(shared));
    Ok((Arc::new(Database { db, dir, shared, expired }), families))
}

/// Whether a column family is of one of these stores, or RocksDB's own.
fn belongs(family: &str, names: &[&str]) -> bool {
    family == DEFAULT_COLUMN_FAMILY_NAME || names.contains(&store_of(family))
}

/// The store to which a column family belongs.
fn store_of(family: &str) -> &str {
    family.rsplit_once('.').map_or(family, |(store, _)| store)
}

fn has_tables(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        if entry?.path().extension().is_some_and(|extension| extension == "sst") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Renames a directory out of the way.
fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let parent = dir.parent().unwrap_or(Path::new(""));
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}.damaged-");
    let parent_to_read = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let mut taken: Vec<u32> = Vec::new();
    for entry in fs::read_dir(parent_to_read)? {
        let name = entry?.file_name();
        taken.extend(
            name.to_string_lossy().strip_prefix(&prefix).and_then(|n| n.parse::<u32>().ok()),
        );
    }
    let number = taken.iter().max().map_or(1, |last| last.saturating_add(1));
    let aside = parent.join(format!("{prefix}{number}"));
    fs::rename(dir, &aside)?;
    for old in taken.into_iter().filter(|old| old + KEPT_ASIDE <= number) {
        let old = parent.join(format!("{prefix}{old}"));
        if old.is_file() { fs::remove_file(old)? } else { fs::remove_dir_all(old)? }
    }
    Ok(aside)
}

impl Database {
    /// An error of RocksDB while running. Damage is marked for the next opening.
    pub(crate) fn error(&self, operation: &'static str, error: rocksdb::Error) -> StateError {
        if !is_damage(&error) {
            return refused(operation, &self.dir, error);
        }
        self.mark_damaged();
        StateError::Corrupt { path: self.dir.clone(), reason: error.into_string() }
    }

    /// Has the directory set aside at the next opening.
    pub(crate) fn mark_damaged(&self) {
        let mark = self.dir.join(MARK);
        if let Err(error) = fs::File::create(&mark).and_then(|file| file.sync_all()) {
            tracing::error!("cannot mark the damaged state with {}: {error}", mark.display());
        }
    }

    /// An error of the operating system.
    pub(crate) fn io_error(&self, operation: &'static str, error: &io::Error) -> StateError {
        io_error(operation, &self.dir, error)
    }

    /// A column family by its full name.
    pub(crate) fn family(&self, name: &str) -> Result<store::Family<'_>, StateError> {
        self.db.cf_handle(name).ok_or_else(|| StateError::Io {
            operation: "finding a column family of",
            path: self.dir.clone(),
            reason: format!("there is no '{name}'"),
        })
    }

    /// The directory for files to be ingested, made if missing.
    pub(crate) fn ingest_dir(&self) -> Result<PathBuf, StateError> {
        let dir = self.dir.join(INGEST);
        fs::create_dir_all(&dir).map_err(|e| self.io_error("creating a directory for", &e))?;
        Ok(dir)
    }
}

/// Whether an error means that the files are not what was written. What the operating system refuses
/// (too many open files, no space, a lock that is held, a disk that does not answer) says nothing
/// about them: state must not be set aside for that.
fn is_damage(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Corruption
}

/// Whether an error, at opening, means that a file is missing.
fn is_missing(error: &rocksdb::Error) -> bool {
    let message: &str = error.as_ref();
    error.kind() == ErrorKind::IOError && message.contains("No such file")
}

fn refused(operation: &'static str, dir: &Path, error: rocksdb::Error) -> StateError {
    StateError::Io { operation, path: dir.to_owned(), reason: error.into_string() }
}

fn io_error(operation: &'static str, dir: &Path, error: &io::Error) -> StateError {
    StateError::Io { operation, path: dir.to_owned(), reason: error.to_string() }
}
