//! Tasks: one partition of a sub-topology, with its inputs, nodes, stores and outputs.

mod bookmarks;
pub mod calls;
mod core;
mod globals;
mod going_on;
mod machine;
mod metadata;
mod outputs;
mod record_queue;
mod schedules;
mod settling;
mod stores;
mod trace;

pub use self::calls::Held;
pub(crate) use self::core::{Bell, no_topic};
pub use self::core::{TaskCore, TaskSettings, TopicLookup};
pub use globals::{GlobalStore, Globals, SharedTask};
pub(crate) use machine::panic_message;
pub use machine::{Cause, Sealed, SealedChangelog, Task, TaskStore};
pub use metadata::{OffsetMetadata, OwnTimes, WrittenTopics};
pub use outputs::{OutputTopic, Outputs};
pub use record_queue::{HeadTime, RecordQueue};
pub use schedules::{Schedules, WallClockNote, WallClocks};
pub use stores::Stores;
pub(crate) use trace::record_text;
