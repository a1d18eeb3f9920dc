//! What drives tasks: stream threads as step machines, commits, restore, the life of an application.
//!
//! ```text
//!  membership --tasks--> open --> restore --> run: fetch -> process -> seal -> submit
//!                                              ^                              |
//!                                              +-- applied: positions --------+
//!                                                  durable: purge, store flush
//! ```
//! A [`StreamThread`] owns one transactor, one membership and its tasks. Its [`StreamThread::step`]
//! never blocks and never waits; in production a thread and a waker drive it ([`Streams`]), in
//! simulations one loop picks steps by seed.

mod background;
mod catching_up;
mod directory;
mod error;
mod global;
mod internal_topics;
mod life;
mod listeners;
mod metrics;
mod parker;
mod process_id;
mod seal_policy;
mod settings;
mod shares;
mod streams;
mod thread;

pub use crate::failure::{log_and_continue, log_and_fail, log_and_retry_or_fail};
pub use background::{Background, Inline};
pub use error::StreamsError;
pub use global::GlobalThread;
pub use internal_topics::Plan;
pub use life::{State, StateListener};
pub use listeners::{
    RestoreEvent, RestoreListener, RestoreStage, Uncaught, UncaughtHandler, stop_client,
};
pub use metrics::Metrics;
pub use seal_policy::{SealCounters, should_seal};
pub use settings::{AutoOffsetReset, Settings};
pub use streams::Streams;
pub use thread::{Next, StreamThread, ThreadEnv};
