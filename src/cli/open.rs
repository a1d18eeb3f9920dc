//! Opening the broker: the only place of the command line that names the embedded one.

use std::path::Path;

use broker_embedded::{EmbeddedBroker, Settings};

use super::Failure;

/// Opens a broker that is there: a mistyped directory must not become an empty broker.
pub(crate) fn open(dir: &Path) -> Result<EmbeddedBroker, Failure> {
    if !dir.join("VERSION").exists() {
        return Err(Failure::NoBroker(dir.to_path_buf()));
    }
    open_or_create(dir)
}

/// Opens a broker, making an empty one in a new directory.
pub(crate) fn open_or_create(dir: &Path) -> Result<EmbeddedBroker, Failure> {
    Ok(EmbeddedBroker::open(dir, Settings::default())?)
}
