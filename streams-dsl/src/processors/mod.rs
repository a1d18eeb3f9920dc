//! What the operators do with each record.

mod aggregate;
mod change;
mod closing;
mod foreign_key;
#[cfg(test)]
mod fuzz_tests;
mod global_join;
mod idle_clock;
mod letting_go;
mod nulls;
mod rest;
mod self_join;
mod session_aggregate;
mod sliding_aggregate;
mod stateless;
mod stream_join;
mod stream_table_join;
mod subscription;
mod suppress;
mod table_filter;
mod table_join;
mod table_map_values;
mod table_select;
mod table_source;
mod table_transform;
mod updates;
mod window_aggregate;
mod window_updates;

pub(crate) use aggregate::Aggregate;
pub(crate) use change::changes;
pub(crate) use foreign_key::{
    AnswerSubscribers, AnswerSubscription, EncodedKey, ForeignKey, KeepSubscription, Outstanding,
    Resolve, RowHash, Subscribe, Subscribers,
};
pub(crate) use global_join::{GlobalJoin, TableJoinFn};
pub(crate) use idle_clock::IdleClock;
pub(crate) use nulls::Nulls;
pub(crate) use self_join::SelfJoin;
pub(crate) use session_aggregate::{Merge, SessionAggregate};
pub(crate) use sliding_aggregate::SlidingAggregate;
pub(crate) use stateless::stateless;
pub(crate) use stream_join::{
    Join, JoinFn, JoinSide, JoinWithKept, KeepForJoin, LeftSide, RightSide, SideSerde,
};
pub(crate) use stream_table_join::{Grace, JoinWithTable};
pub(crate) use subscription::{Response, Subscription, responses, subscribers, subscriptions};
pub(crate) use suppress::{Idle, Limits, Place, Suppress, SuppressConfig};
pub(crate) use table_filter::TableFilter;
pub(crate) use table_join::{KeepJoined, TableJoin};
pub(crate) use table_map_values::TableMapValues;
pub(crate) use table_select::TableSelect;
pub(crate) use table_source::TableSource;
pub(crate) use table_transform::{TableTransform, Transformed};
pub(crate) use updates::{TableStore, Updates};
pub(crate) use window_aggregate::{AlignedWindows, WindowAggregate};
pub(crate) use window_updates::{Forwards, WindowUpdates};
