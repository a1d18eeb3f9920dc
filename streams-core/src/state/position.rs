//! How far in its changelog a store has come.

use broker_api::{Offset, Timestamp, TopicId};

/// Stands beside the entries of a store and says what they are: the fold of one changelog
/// partition up to an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The broker whose changelog it is.
    pub cluster_id: String,
    /// The changelog topic.
    pub topic_id: TopicId,
    /// The first record of the changelog that is not in the store.
    pub next_offset: Offset,
    /// The committed stream time of the store; guards physical expiry only.
    pub stream_time: Timestamp,
}
