//! The contract that every broker of Vltava keeps.
//!
//! A *broker* keeps topics: named groups of partitions, each an ordered log of records. Stream
//! applications know brokers through the traits of this crate alone, so that the same application
//! runs on a local directory ([`broker-embedded`]), on a cluster, or on [`sim`], the broker that
//! misbehaves on purpose.
//!
//! | part | what it holds |
//! |---|---|
//! | [`types`] | names and numbers: topics, partitions, offsets, tasks |
//! | [`batch`] | the unit that moves: record batches in Kafka's v2 layout |
//! | [`broker`] | the traits: [`Broker`], [`Fetcher`], [`Transactor`], [`Producer`], [`Membership`], [`Admin`] |
//! | [`error`] | what can go wrong, and what to do about it |
//! | [`clock`] | time, injected |
//! | [`client`] | for people: an async producer, transactions, and a consumer that is a `Stream` |
//! | [`sim`] | the in-memory broker that uses every freedom the contract leaves |
//! | `conformance` | the suite that every broker is run through (feature `conformance`) |
//! | [`partitioner`] | which partition a key belongs to (Kafka's murmur2) |
//!
//! The traits are *polled*: a call never blocks and never awaits; the [`std::task::Waker`] given
//! when a handle is made is woken when polling again may give more. This suits step machines
//! (stream threads, simulations).
//!
//! [`broker-embedded`]: https://docs.rs/vltava-broker-embedded

pub mod batch;
pub mod broker;
pub mod client;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod partitioner;
pub mod sim;
pub mod types;

pub use batch::{Batch, BatchBuilder, Header, RecordRef};
pub use broker::{
    Admin, Broker, Capabilities, Commit, CommittedOffset, Fetched, Fetcher, FetcherConfig,
    GroupCommit, Horizon, Isolation, MemberToken, Membership, MembershipConfig, MembershipEvent,
    NewTopic, OffsetSpec, Producer, ProducerEvent, Start, SubmitError, Ticket, TopicDescription,
    Transactor, TransactorEvent, View,
};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::Error;
pub use types::{
    CleanupPolicy, Offset, RetentionBy, TaskId, Timestamp, TopicConfig, TopicId, TopicPartition,
};
