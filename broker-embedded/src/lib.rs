//! A durable, transactional broker on a local directory.

pub mod vfs;
