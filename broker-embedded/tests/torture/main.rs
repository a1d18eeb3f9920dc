//! The broker on a disk that loses power, fails, fills up and rots.
//!
//! A script of random operations runs against the broker and against a plain model of it. Whatever
//! happens, what is found afterwards must be a state that the history went through, across all
//! partitions, and must contain everything that was acknowledged. `VLTAVA_SIM_SEEDS` says how many
//! seeds are tried.

// What fails shall panic: all of this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod faults;
mod model;
mod observe;
mod power_cuts;
mod world;

/// How many seeds to try: `VLTAVA_SIM_SEEDS`, or the default.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let set = std::env::var("VLTAVA_SIM_SEEDS").ok().and_then(|n| n.parse().ok());
    0..set.unwrap_or(default)
}
