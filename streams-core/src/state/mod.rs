//! What a topology remembers: typed stores in memory over a state engine, backed by changelogs.

mod engine;
#[cfg(any(test, feature = "conformance"))]
pub mod engine_suite;
mod lossy;
mod position;
mod store;

pub use engine::{BulkLoad, EntryBatch, Scan, StateEngine, StoreEngine};
pub use lossy::LossyEngine;
pub use position::Position;
pub use store::{ChangelogFormat, ChangelogWriter, Store};
