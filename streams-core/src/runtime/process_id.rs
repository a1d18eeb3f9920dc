//! The name of this copy of the application, kept in its state directory as `process.id`: with it, a
//! restarted process fences what its predecessor may still have under way.
//!
//! A file that holds anything else is damaged, and is replaced with a warning: the fence is lost, but
//! a predecessor that is still running also holds the broker's directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use broker_api::Clock;

use super::StreamsError;

/// No name is longer.
const MOST: usize = 64;

/// The name that the directory has, or gets.
///
/// # Errors
/// [`StreamsError::StateDirectory`].
pub(super) fn of(dir: &Path, clock: &dyn Clock) -> Result<String, StreamsError> {
    let failed =
        |e: io::Error| StreamsError::StateDirectory { path: dir.into(), reason: e.to_string() };
    let file = dir.join("process.id");
    match fs::read(&file) {
        Ok(bytes) => match valid(&bytes) {
            Some(id) => return Ok(id.into()),
            None => tracing::warn!("{} is damaged and is replaced", file.display()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    fs::create_dir_all(dir).map_err(failed)?;
    let id = format!("{:x}-{:x}", clock.now(), std::process::id());
    write(dir, &file, &id).map_err(failed)?;
    Ok(id)
}

fn valid(bytes: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(bytes).ok()?.trim();
    let fine = |c: char| c.is_ascii_hexdigit() || c == '-';
    (!id.is_empty() && id.len() <= MOST && id.chars().all(fine)).then_some(id)
}

/// All or nothing, also at a power cut.
fn write(dir: &Path, file: &Path, id: &str) -> io::Result<()> {
    let new = dir.join("process.id.new");
    let mut to = File::create(&new)?;
    to.write_all(id.as_bytes())?;
    to.sync_all()?;
    fs::rename(&new, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use broker_api::ManualClock;

    use super::*;

    #[test]
    fn a_name_is_kept_and_a_damaged_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("app");
        let of = |now| super::of(&dir, &ManualClock::new(now)).unwrap();
        let first = of(0x10);
        assert!(first.starts_with("10-"), "{first}");
        assert_eq!(of(0x20), first);
        for damaged in [&b""[..], b"\xff\xfe", b"10-\0\0", b"../x", &[b'a'; 65]] {
            fs::write(dir.join("process.id"), damaged).unwrap();
            let replaced = of(0x30);
            assert!(replaced.starts_with("30-"), "{damaged:?}: {replaced}");
            assert_eq!(of(0x40), replaced);
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left behind");
    }
}
