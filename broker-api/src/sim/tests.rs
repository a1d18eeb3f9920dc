//! The simulated broker keeps the contract, and each of its faults happens.

#[cfg(feature = "conformance")]
mod contract;
mod faults;
