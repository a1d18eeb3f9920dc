//! The traits that a broker implements and the values that they exchange.
//!
//! # Promises
//! The conformance suite (`broker_api::conformance`, with the feature of that name) checks them on
//! every implementation:
//! - Records of a partition come in offset order. Offsets may have gaps; a fetch position passes
//!   whatever takes an offset without being a record.
//! - A [`Commit`] takes effect as a whole or not at all: batches, consumed offsets and all.
//! - [`Transactor::submit`] and [`Producer::append`] never block; tickets resolve in the order in
//!   which they were given out, each exactly once, and nothing is retried inside.
//! - What is *durable* survives the death of the process. What is *synced* survives a power cut too:
//!   [`Transactor::synced`] and [`Admin::sync`] tell. A broker that acknowledges only what is synced
//!   makes no difference between the two; after a power cut, one that does has a prefix of its
//!   history, with everything that was synced in it.
//! - [`Fetched::at_end`] was true at some moment of the call that returned it.

use std::sync::Arc;
use std::task::{Poll, Waker};

use async_trait::async_trait;

use crate::batch::Batch;
use crate::error::Error;
use crate::types::{Offset, TaskId, Timestamp, TopicConfig, TopicId, TopicPartition};

/// A broker. Cheap to share behind an [`Arc`].
pub trait Broker: Send + Sync + 'static {
    /// What this broker can do beyond the common contract.
    fn capabilities(&self) -> Capabilities;

    /// A reader. `waker` is woken when polling may give more.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::InvalidConfig`] for a view that this broker does not have.
    fn fetcher(&self, config: FetcherConfig, waker: Waker) -> Result<Box<dyn Fetcher>, Error>;

    /// A transactional writer. Earlier transactors with the same `id` are fenced from now on: their
    /// accepted commits keep their place in the order, later ones are refused. What
    /// [`Admin::group_offsets`] answers after this call is not changed by them any more.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Failed`], and what refuses a write.
    fn transactor(&self, id: &str, waker: Waker) -> Result<Box<dyn Transactor>, Error>;

    /// A plain writer.
    ///
    /// # Errors
    /// [`Error::Closed`].
    fn producer(&self, waker: Waker) -> Result<Box<dyn Producer>, Error>;

    /// Joins the members that share the tasks of an application.
    ///
    /// # Errors
    /// [`Error::OtherTopology`] if its present members run other tasks (apart from those of the
    /// sub-topologies that both follow), [`Error::Closed`].
    fn membership(
        &self,
        config: MembershipConfig,
        waker: Waker,
    ) -> Result<Box<dyn Membership>, Error>;

    /// Topics, settings, offsets.
    fn admin(&self) -> Arc<dyn Admin>;
}

/// What a broker can do beyond the common contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Fetchers may read what is applied but not yet durable ([`View::Applied`]): what is derived
    /// from it can only become durable after it.
    pub applied_view: bool,
    /// How many commits a transactor may have in flight.
    pub commits_in_flight: usize,
    /// The largest commit, in bytes of its batches.
    pub max_commit_bytes: usize,
    /// The longest text of a committed offset, in bytes (Kafka's `offset.metadata.max.bytes`).
    pub max_offset_metadata_bytes: usize,
}

/// How far a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// What is acknowledged: as safe as the broker's durability mode promises.
    #[default]
    Durable,
    /// Also what has been accepted and ordered but not synced. Only for readers whose every effect
    /// goes back into the same broker. Needs [`Capabilities::applied_view`].
    Applied,
}

/// Which transactions a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Committed ones only.
    #[default]
    ReadCommitted,
    /// Also open and aborted ones. A broker whose commits are single atomic entries has none, and
    /// shows the same as with `ReadCommitted`.
    ReadUncommitted,
}

/// Settings of a [`Fetcher`].
#[derive(Clone, Copy, Debug, Default)]
pub struct FetcherConfig {
    /// How far it sees.
    pub view: View,
    /// Which transactions it sees.
    pub isolation: Isolation,
}

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that the log still has.
    Earliest,
    /// At the end: only what comes from now on. No batch from before is brought.
    Latest,
    /// At this offset; [`Error::OffsetOutOfRange`] from polls if it lies outside the log.
    At(Offset),
}

/// What a fetch found in one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The partition.
    pub partition: TopicPartition,
    /// Batches in offset order. What begins before the position asked for may come with them: skip
    /// the records below that position, and those below `log_start`, which are deleted.
    pub batches: Vec<Batch>,
    /// Where the next fetch goes on. It may lie beyond the last batch's records.
    pub position: Offset,
    /// The end of what this reader may see now.
    pub stable_end: Offset,
    /// The first offset that the log still has.
    pub log_start: Offset,
    /// Whether `position` had reached the end of what this reader may see at some moment of the
    /// call.
    pub at_end: bool,
}

/// A reader of partitions that are assigned by hand.
pub trait Fetcher: Send {
    /// Starts reading these partitions, or moves those already assigned; what is paused stays so.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`]; then nothing is changed.
    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), Error>;

    /// Stops reading these partitions.
    fn unassign(&mut self, partitions: &[TopicPartition]);

    /// Leaves these partitions out of polls, keeping their positions.
    fn pause(&mut self, partitions: &[TopicPartition]);

    /// Takes paused partitions up again.
    fn resume(&mut self, partitions: &[TopicPartition]);

    /// Batches of about `max_bytes` in all (at least one batch if there is any), fairly over the
    /// partitions. A partition also appears, without batches, when its `at_end` has become true or
    /// its position moved, in any case once after [`Fetcher::assign`]. Pending: nothing to report;
    /// the waker will be woken.
    ///
    /// # Errors
    /// An error of a partition comes back, perhaps between batches of others, until the partition
    /// is assigned anew, unassigned or paused: [`Error::OffsetOutOfRange`] (the partition stays where it was),
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::UnknownTopic`] if it was deleted. When the broker has
    /// stopped, its error ([`Error::Closed`], [`Error::Failed`]) comes in place of pending: whoever
    /// waited is woken.
    fn poll(&mut self, max_bytes: usize) -> Poll<Result<Vec<Fetched>, Error>>;
}

/// Names one submission; a handle gives out rising numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How far a consumer group has read a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// Free text that is kept with it (stream times, for instance).
    pub metadata: String,
}

/// Proof of membership; a commit that carries an outdated one is refused. The token of the last
/// [`MembershipEvent::Assigned`] that a member has polled stays valid until the member acknowledges a
/// revocation, is lost or leaves, whatever happens to other members meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberToken {
    /// The member.
    pub member: u64,
    /// Its assignment's number.
    pub epoch: u64,
}

/// The consumed offsets of a commit, and in whose name it is made.
#[derive(Clone, Debug)]
pub struct GroupCommit {
    /// The consumer group: the application.
    pub group: Arc<str>,
    /// Proof that the committer owns the tasks, which is asked for without offsets too; `None` for a
    /// group without members.
    pub token: Option<MemberToken>,
    /// How far each partition has been read.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// A transaction: all of it takes effect, or nothing. Empty commits are legal.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Batches to append, in this order. Their base offsets are ignored and assigned anew.
    pub batches: Vec<(TopicPartition, Batch)>,
    /// Consumed offsets that take effect with them.
    pub group: Option<GroupCommit>,
}

/// A submission that was refused: nothing of it happened.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct SubmitError<T> {
    /// Why. [`Error::Full`] is the only one worth trying again.
    pub error: Error,
    /// What was submitted, given back.
    pub submitted: Box<T>,
}

/// What happened to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactorEvent {
    /// The commit has its place in the order, and applied readers see it.
    Applied {
        /// Which commit.
        ticket: Ticket,
        /// The base offset of each of its batches, in their order.
        base_offsets: Vec<Offset>,
    },
    /// The commit is as safe as the broker's durability mode promises before it acknowledges: at
    /// least, it survives the death of the process. Files outside of the broker wait for
    /// [`Transactor::synced`].
    Durable {
        /// Which commit.
        ticket: Ticket,
    },
    /// It is not known whether the commit took effect: make a new transactor, read the group's
    /// offsets, and go on from there.
    Doubt {
        /// Which commit.
        ticket: Ticket,
    },
    /// A newer transactor with the same id has taken over; this one is of no use any more. Comes
    /// after the outcomes of all commits that took effect.
    Fenced,
    /// The broker has failed; this one is of no use any more.
    Failed(Error),
}

/// A transactional writer.
pub trait Transactor: Send {
    /// Hands over a commit. Never blocks.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::StaleMember`], [`Error::TooLarge`],
    /// [`Error::InvalidRecord`], [`Error::Full`], [`Error::UnknownTopic`],
    /// [`Error::UnknownPartition`], [`Error::DiskFull`], [`Error::Failed`]: nothing of it happened.
    fn submit(&mut self, commit: Commit) -> Result<Ticket, SubmitError<Commit>>;

    /// The next event. Each ticket gets `Applied` and then `Durable`, or `Doubt` in place of either.
    fn poll(&mut self) -> Poll<TransactorEvent>;

    /// The last commit that is synced: it survives a power cut, and so does everything, of whatever
    /// writer, that has its place before it. Never ahead of what is durable. After a
    /// look at it, the waker is woken when it rises. What must not be ahead of the log (a store's files, the deletion of consumed input)
    /// waits for this.
    fn synced(&self) -> Option<Ticket>;

    /// Asks to delete the records of a partition below `before`, some time. Without answer; what
    /// is not durable by then is deleted only together with its deletion.
    fn purge(&mut self, partition: &TopicPartition, before: Offset);
}

/// What happened to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProducerEvent {
    /// The batch is durable.
    Appended {
        /// Which append.
        ticket: Ticket,
        /// The offset of its first record.
        base_offset: Offset,
    },
    /// The append is lost, or (after [`Error::Failed`]) may be.
    Failed {
        /// Which append.
        ticket: Ticket,
        /// Why.
        error: Error,
    },
}

/// A plain writer.
pub trait Producer: Send {
    /// Appends a batch to a partition. Never blocks.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::InvalidRecord`] (no key in a compacted topic), [`Error::Full`],
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::DiskFull`],
    /// [`Error::Failed`]: nothing of it happened.
    fn append(
        &mut self,
        partition: &TopicPartition,
        batch: Batch,
    ) -> Result<Ticket, SubmitError<Batch>>;

    /// The next event.
    fn poll(&mut self) -> Poll<ProducerEvent>;
}

/// How a member joins its application.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// The application.
    pub application: Arc<str>,
    /// All tasks that the application has, as far as the member knows.
    pub tasks: Vec<TaskId>,
    /// The sub-topologies whose tasks depend on topics that come and go while the application runs:
    /// members need not know of the same tasks of these. The application has all tasks of which a
    /// present member knows.
    pub following: Vec<u32>,
    /// Tasks whose state this member has at hand; preferred where the balance allows.
    pub warm: Vec<TaskId>,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// From now on the member owns just these tasks.
    Assigned {
        /// Goes into its commits from now on.
        token: MemberToken,
        /// Tasks to run.
        active: Vec<TaskId>,
        /// Tasks whose state to keep warm.
        standby: Vec<TaskId>,
    },
    /// Seal and give up these tasks, then [`Membership::ack`]; the token stays valid until then.
    Revoke {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// The member was taken for dead and owns nothing; its commits are refused. Join anew.
    Lost,
    /// A member has asked all that were there to stop.
    Stop,
    /// A topic was created or deleted. Only for members that follow topics, and not every broker
    /// notices: without it, have a look at the topics from time to time.
    TopicsChanged,
}

/// A place among the members that share an application's tasks. Dropping it leaves.
pub trait Membership: Send {
    /// The next event.
    fn poll(&mut self) -> Poll<MembershipEvent>;

    /// The revoked tasks are given up: their last commits are submitted.
    fn ack(&mut self, tasks: &[TaskId]);

    /// The member knows of these tasks from now on. Those that no member knows of any more are taken
    /// back from their owners, and new ones are given out; what else members have does not change.
    fn set_tasks(&mut self, tasks: &[TaskId]);

    /// Asks all present members of the application to stop, this one too. It is up to them to do so;
    /// who joins later is not concerned.
    fn stop_application(&mut self);

    /// How far each task is from the end of its inputs or changelogs, in records.
    fn progress(&mut self, lags: &[(TaskId, u64)]);
}

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; at least 1.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: Arc<str>,
    /// Its identity.
    pub id: TopicId,
    /// How many partitions.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
}

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that the log still has.
    Earliest,
    /// The end of what a durable, committed reader sees.
    Stable,
    /// The end of the log, as an applied reader sees it.
    Latest,
    /// The base offset of the first batch that the broker appended after this time (not at it);
    /// the stable end if there is none.
    AppendedAfter(Timestamp),
}

/// What a partition has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    /// The first offset that the log still has.
    pub log_start: Offset,
    /// Compaction has removed tombstones below: a copy of the state that has read less far than
    /// this may have missed deletions.
    pub tombstones_gone_below: Offset,
    /// Compaction has removed overwritten records below: the state as of an offset below cannot be
    /// told any more.
    pub compacted_below: Offset,
}

/// Topics, settings, offsets. Answers only what is durable, unless stated; changes are synced when
/// the call returns.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Creates a topic. [`Error::InvalidName`], [`Error::InvalidConfig`] without partitions,
    /// [`Error::TopicExists`].
    async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, Error>;

    /// Deletes a topic and its records.
    async fn delete_topic(&self, name: &str) -> Result<(), Error>;

    /// All topics, by name.
    async fn topics(&self) -> Result<Vec<TopicDescription>, Error>;

    /// One topic; [`Error::UnknownTopic`] if there is none.
    async fn topic(&self, name: &str) -> Result<TopicDescription, Error>;

    /// Replaces a topic's settings.
    async fn configure_topic(&self, name: &str, config: TopicConfig) -> Result<(), Error>;

    /// Offsets of partitions, in the order asked.
    async fn offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<Offset>, Error>;

    /// The consumer groups that have committed offsets, by name; commits in flight included.
    async fn groups(&self) -> Result<Vec<String>, Error>;

    /// What a consumer group has committed, by partition, commits in flight included: empty for an
    /// unknown group.
    async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, Error>;

    /// Deletes the records of a partition below `before`; returns the new start of the log, which
    /// never goes back. [`Error::OffsetOutOfRange`] if `before` lies above the end.
    async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, Error>;

    /// Returns when everything that was accepted before the call is synced: it survives a power cut.
    async fn sync(&self) -> Result<(), Error>;

    /// What a partition has forgotten.
    async fn horizon(&self, partition: &TopicPartition) -> Result<Horizon, Error>;

    /// The identity of the broker's data.
    async fn cluster_id(&self) -> Result<String, Error>;
}
