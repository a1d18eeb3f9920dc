//! A durable, transactional broker on a local directory: the contract of [`broker_api`] without a
//! server.
//!
//! Everything that the broker decides goes through one sequencer into one journal; a transaction is
//! one entry of it. What is *applied* has its place in the order, what is *durable* was synced.
//! After a crash the broker is a prefix of its history, over all partitions.
//!
//! | part | what it holds |
//! |---|---|
//! | [`EmbeddedBroker`] | the broker with its threads |
//! | [`SimulatedBroker`] | the same, driven step by step, on any disk and clock |
//! | [`Settings`] | sizes, durability |
//! | [`vfs`] | the seam to the disk |
//!
//! The layout of its files is described in `docs/formats.md`.

pub mod vfs;

mod admin;
mod broker;
mod checkpoint;
mod closed;
mod codec;
mod core;
mod directory;
mod disk;
mod fetcher;
mod housekeeping;
mod journal;
mod mailbox;
mod membership;
mod opening;
mod producer;
#[cfg(test)]
mod races;
mod random;
mod reserve;
mod segment;
mod sequencer;
mod settings;
mod transactor;

pub use admin::MAX_PARTITIONS;
pub use broker::{EmbeddedBroker, SimulatedBroker};
pub use journal::writer::Step;
pub use settings::{Durability, Settings};
