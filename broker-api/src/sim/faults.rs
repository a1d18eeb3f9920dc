//! What can go wrong.

use std::sync::Arc;

use crate::TopicPartition;

/// What goes wrong by chance, and how often. All within the contract: a correct user of a broker
/// survives all of it. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A write waits up to this many further steps until it is applied.
    pub apply_delay: u32,
    /// What is applied waits up to this many further steps until it is durable.
    pub durable_delay: u32,
    /// What is durable waits up to this many further steps until it is synced: a broker that
    /// acknowledges before it syncs. What is not synced is lost in a crash.
    pub sync_delay: u32,
    /// A fetch is pending for up to this many steps although there is data.
    pub fetch_delay: u32,
    /// A call of the admin interface takes up to this many steps.
    pub admin_delay: u32,
    /// Of 1,000 batches, how many leave offsets out before or after them; and of 1,000 steps, in
    /// how many an invisible transaction of someone else takes some offsets.
    pub gaps: u32,
    /// Of 1,000 fetches of a partition, how many bring the batch before the position once more.
    pub redelivery: u32,
    /// Of 1,000 fetches of a partition, how many stop early.
    pub short_fetches: u32,
    /// Of 1,000 steps of a transactor with commits in flight, in how many their outcome is lost:
    /// every one of them is [in doubt](crate::TransactorEvent::Doubt), some have taken effect.
    pub doubt: u32,
    /// Of 1,000 plain appends, how many fail, half of them after they have taken effect: the next
    /// attempt makes a duplicate.
    pub failed_appends: u32,
    /// Of 1,000 submissions, how many are refused with [`crate::Error::Full`].
    pub full: u32,
    /// Of 1,000 steps of a member, in how many it is taken for dead.
    pub lost_members: u32,
    /// Of 1,000 steps, in how many someone else's transaction begins to hold back what committed
    /// readers see of some partition, for up to 20 steps.
    pub slow_stable_end: u32,
    /// Of 1,000 steps, in how many some compacted partition is compacted up to its durable end.
    pub compaction: u32,
}

impl Faults {
    /// Everything, each often enough to happen and rarely enough to get on.
    pub fn all() -> Self {
        Self {
            apply_delay: 3,
            durable_delay: 5,
            sync_delay: 5,
            fetch_delay: 3,
            admin_delay: 3,
            gaps: 100,
            redelivery: 100,
            short_fetches: 200,
            doubt: 10,
            failed_appends: 20,
            full: 50,
            lost_members: 2,
            slow_stable_end: 20,
            compaction: 20,
        }
    }

    /// Delays, gaps and the like, which cost time but no handle: no doubt, no failed append, no
    /// lost member.
    pub fn harmless() -> Self {
        Self { doubt: 0, failed_appends: 0, lost_members: 0, ..Self::all() }
    }
}

/// A fault on demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Offsets of a partition that belong to no record, in the order after all accepted writes.
    Gap {
        /// Where.
        partition: TopicPartition,
        /// How many offsets.
        length: u32,
    },
    /// Someone else's open transaction: committed readers see nothing beyond the present end.
    Hold {
        /// Where.
        partition: TopicPartition,
        /// For how many steps.
        steps: u32,
    },
    /// The outcome of a transactor's commits in flight is lost.
    Doubt {
        /// The transactional id.
        id: String,
        /// Whether those that are not applied yet take effect all the same.
        taken: bool,
    },
    /// The next appends of all producers fail.
    FailAppends {
        /// How many.
        count: u32,
        /// Whether they take effect all the same.
        taken: bool,
    },
    /// All members of an application are taken for dead.
    LoseMembers {
        /// The application.
        application: Arc<str>,
    },
    /// A partition of a compacted topic is compacted up to its durable end.
    Compact {
        /// Where.
        partition: TopicPartition,
    },
}
