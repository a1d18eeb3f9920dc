//! The note of a broker that was closed in good order: where its journal ends.
//!
//! After a crash a journal may end anywhere behind what was acknowledged, so a file that was cut short
//! cannot be told from an unfinished write. With this note it can. It is removed before the journal
//! grows again.

use std::path::{Path, PathBuf};

use broker_api::Error;

use crate::directory::{read_line, write_line};
use crate::disk::{corrupt, io_error};
use crate::vfs::Vfs;

/// Where a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalEnd {
    /// The newest file, by its first entry.
    pub(crate) first_lsn: u64,
    /// The byte behind its last frame.
    pub(crate) at: u64,
    /// The number of the next frame.
    pub(crate) next_seq: u64,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("closed")
}

/// Notes where the journal ends.
pub(crate) fn note(vfs: &dyn Vfs, dir: &Path, end: JournalEnd) -> Result<(), Error> {
    let JournalEnd { first_lsn, at, next_seq } = end;
    write_line(vfs, &path(dir), &format!("vltava closed {first_lsn} {at} {next_seq}"))
}

/// Compares the end of the journal in `file` with the note, if there is one. A note that cannot be read
/// proves nothing.
pub(crate) fn check(
    vfs: &dyn Vfs,
    dir: &Path,
    file: &Path,
    found: JournalEnd,
) -> Result<(), Error> {
    let path = path(dir);
    if !vfs.exists(&path).map_err(|e| io_error("reading", &path, e))? {
        return Ok(());
    }
    let Some(noted) = read_line(vfs, &path).ok().as_deref().and_then(parse) else {
        tracing::warn!(path = %path.display(), "the note of the last closing is damaged; it is removed");
        return Ok(());
    };
    if noted == found {
        return Ok(());
    }
    let reason = format!(
        "the broker was closed in good order when the journal ended in the file of entry {} at byte {}; \
         what lies behind this byte is missing",
        noted.first_lsn, noted.at,
    );
    Err(corrupt(file, found.at, None, reason))
}

/// Removes the note; the journal may grow from then on.
pub(crate) fn remove(vfs: &dyn Vfs, dir: &Path) -> Result<(), Error> {
    let path = path(dir);
    let failed = |e| io_error("removing", &path, e);
    if vfs.exists(&path).map_err(failed)? {
        vfs.remove(&path).map_err(failed)?;
        vfs.sync_dir(dir).map_err(failed)?;
    }
    Ok(())
}

fn parse(line: &str) -> Option<JournalEnd> {
    let mut numbers = line.strip_prefix("vltava closed ")?.split(' ').map(|n| n.parse().ok());
    let mut next = || numbers.next()?;
    let end = JournalEnd { first_lsn: next()?, at: next()?, next_seq: next()? };
    next().is_none().then_some(end)
}
