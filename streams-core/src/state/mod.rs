//! What a topology remembers: typed stores in memory over a state engine, backed by changelogs.

mod buffer;
mod change_buffer;
mod completeness;
mod engine;
#[cfg(any(test, feature = "conformance"))]
pub mod engine_suite;
mod entry_codec;
mod expiry;
#[cfg(test)]
mod fuzz_tests;
mod key_value;
mod kind;
mod lossy;
mod ordered;
mod point_cache;
mod position;
mod prefixed;
mod recency;
mod restore;
mod sorted;
mod store;
mod versioned;
mod windowed;
mod windowed_keys;

pub use buffer::{BufferStore, Buffered, Due};
pub use change_buffer::{ChangeBuffer, Taken, Waiting};
pub use engine::{BulkLoad, EntryBatch, Scan, StateEngine, StoreEngine};
pub use entry_codec::{KeyValueFormat, TopicFormat};
pub use expiry::Expiry;
pub use key_value::{DEFAULT_BUDGET, Forward, KeyValueStore, StoreOptions, Updated};
pub use kind::StoreKind;
pub use lossy::LossyEngine;
pub use position::Position;
pub use restore::{Changelog, RestorePlan, RestoreStats, Restorer};
pub use sorted::SortedStore;
pub use store::{ChangelogFormat, ChangelogWriter, RawEntry, Store, StoreCache};
pub use versioned::{Put, Version, VersionedOptions, VersionedStore};
pub use windowed::{
    Fixed, Found, Session, SessionStore, WindowKind, WindowStore, WindowedOptions, WindowedStore,
};
