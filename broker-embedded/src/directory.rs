//! The broker's directory: its lock, its version, its identity.
//!
//! ```text
//! DIR/LOCK  VERSION  cluster.id  reserve  closed  journal/  checkpoint/  topics/
//! ```

use std::path::Path;

use broker_api::Error;

use crate::disk::{corrupt, io_error, read_file, write_file};
use crate::random::Random;
use crate::vfs::{Vfs, VfsLock};

/// The folder of the journal.
pub(crate) const JOURNAL: &str = "journal";

/// The folder of the checkpoints.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// The folder of the segments, by topic and partition.
pub(crate) const TOPICS: &str = "topics";

/// The format of the directory that this version writes.
const FORMAT: u32 = 2;

/// Creates the directory if it is missing, and locks it for this process.
pub(crate) fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn VfsLock>, Error> {
    vfs.create_dir_all(dir).map_err(|e| io_error("creating", dir, e))?;
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    let holder = format!("process {} ({program})", std::process::id());
    let path = dir.join("LOCK");
    let taken = vfs.lock(&path, &holder).map_err(|e| io_error("locking", &path, e))?;
    taken.map_err(|holder| Error::Locked { path: dir.to_path_buf(), holder })
}

/// Checks the version and reads the identity; a new directory gets both. Returns the cluster id.
pub(crate) fn identify(vfs: &dyn Vfs, dir: &Path, random: &mut Random) -> Result<String, Error> {
    let version = dir.join("VERSION");
    let id = dir.join("cluster.id");
    let exists = |path: &Path| vfs.exists(path).map_err(|e| io_error("reading", path, e));
    if !exists(&version)? && !exists(&dir.join(JOURNAL))? {
        write_line(vfs, &version, &format!("vltava broker {FORMAT}"))?;
    }
    let line = read_line(vfs, &version)?;
    let found = line.strip_prefix("vltava broker ").and_then(|n| n.parse().ok());
    match found {
        Some(FORMAT) => {}
        Some(found) if found < FORMAT => {
            let reason = format!("format {found} was never released, and is not read any more");
            return Err(corrupt(&version, 0, None, reason));
        }
        Some(found) => {
            return Err(Error::NewerFormat { path: dir.into(), found, supported: FORMAT });
        }
        None => return Err(corrupt(&version, 0, None, "this is not a version of ours")),
    }
    if !exists(&id)? && !exists(&dir.join(JOURNAL))? {
        write_line(vfs, &id, &format!("{:016x}{:016x}", random.next(), random.next()))?;
    }
    read_line(vfs, &id)
}

/// Writes a line with its checksum; there is always the old file or the new one.
pub(crate) fn write_line(vfs: &dyn Vfs, path: &Path, line: &str) -> Result<(), Error> {
    let text = format!("{line} {:08x}\n", crc32c::crc32c(line.as_bytes()));
    write_file(vfs, path, text.as_bytes())
}

/// Reads what [`write_line`] has written.
pub(crate) fn read_line(vfs: &dyn Vfs, path: &Path) -> Result<String, Error> {
    let bytes = read_file(vfs, path)?;
    let line = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
    let checked = line.and_then(|line| {
        let (line, crc) = line.rsplit_once(' ')?;
        (crc == format!("{:08x}", crc32c::crc32c(line.as_bytes()))).then(|| line.to_string())
    });
    checked.ok_or_else(|| corrupt(path, 0, None, "its checksum does not fit"))
}
