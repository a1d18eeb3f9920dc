//! Tasks: one partition of a sub-topology, with its nodes, stores and outputs.

mod core;
mod outputs;
mod schedules;
mod stores;

pub use self::core::{TaskCore, TaskSettings};
pub use outputs::Outputs;
pub use schedules::Schedules;
pub use stores::Stores;
