//! The journal: one sequential, checksummed history of everything that the broker ever decided.
//!
//! | part | what it holds |
//! |---|---|
//! | [`entry`] | one decision: a commit, a topic created, … |
//! | [`frame`] | entries that reach the disk together |
//! | [`file`] | a file of frames |
//! | [`writer`] | the step machine that writes and syncs frames |
//! | [`recovery`] | reading it back: cut a torn tail, refuse damage |
//!
//! The byte layout is in `docs/formats.md`.

pub(crate) mod entry;
pub(crate) mod file;
pub(crate) mod frame;
#[cfg(test)]
mod fuzz_tests;
pub(crate) mod recovery;
pub(crate) mod writer;
