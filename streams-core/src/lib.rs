//! The processor topology, its tasks and state, and the runtime that drives them.

pub mod error;
mod executor;
pub mod failure;
pub mod processor;
pub mod record;
pub mod runtime;
pub mod serde;
pub mod state;
pub mod task;
pub mod test_driver;
pub mod topology;
mod windowed;

pub use error::{BuildError, ProcessError, SerdeError, StateError};
pub use executor::{Executor, RunToEnd, TokioExecutor};
pub use record::{Change, Data, Headers, Record};
pub use serde::{HasSerde, Serde};
pub use topology::{Topology, TopologyBuilder};
pub use windowed::{Window, Windowed};
