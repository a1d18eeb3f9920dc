//! The broker on a disk that loses power, fails, fills up and rots.
//!
//! A script of random operations runs against the broker and against a plain model of it. Whatever
//! happens, what is found afterwards must be a state that the history went through, across all
//! partitions, and must contain everything that was acknowledged. `VLTAVA_SIM_SEEDS` says how many
//! seeds are tried.

// What fails shall panic: all of this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod dice;
mod faults;
mod model;
mod observe;
mod power_cuts;
mod world;
