//! Names and numbers that every part of Vltava uses.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Batch, Error};

/// The place of a record in its partition; the first is 0. Offsets rise, but need not be dense:
/// readers go on at a batch's `next_offset`, never at "last + 1".
pub type Offset = i64;

/// Milliseconds since the Unix epoch.
pub type Timestamp = i64;

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// The identity of a topic, chosen when it is created: a topic that is deleted and created again
/// under the same name has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u128);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for TopicId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        u128::from_str_radix(s, 16)
            .map(TopicId)
            .map_err(|_| Error::InvalidName { name: s.into(), reason: "not a topic id".into() })
    }
}

/// One task of an application: a sub-topology on one partition, written `<subtopology>_<partition>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The number of the sub-topology.
    pub subtopology: u32,
    /// The partition of the sub-topology's source topics.
    pub partition: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}

impl FromStr for TaskId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        s.split_once('_')
            .and_then(|(a, b)| {
                Some(TaskId { subtopology: a.parse().ok()?, partition: b.parse().ok()? })
            })
            .ok_or_else(|| Error::InvalidName {
                name: s.into(),
                reason: "a task id is <subtopology>_<partition>, such as 0_1".into(),
            })
    }
}

/// How a topic gives up old records (Kafka's `cleanup.policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CleanupPolicy {
    /// Whole stretches of old records go, by size or age.
    #[default]
    Delete,
    /// The newest record of every key stays; a null value deletes the key.
    Compact,
    /// Both.
    CompactDelete,
}

/// What `retention.ms` counts back from (our own `vltava.retention.by`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetentionBy {
    /// The clock on the wall, as in Kafka.
    #[default]
    WallClock,
    /// The newest timestamp in the partition. So input of last year can be processed today: what is
    /// derived from it is not old as soon as it is written.
    StreamTime,
}

impl CleanupPolicy {
    /// Whether the newest record per key is kept and older ones may go.
    pub fn compacts(self) -> bool {
        matches!(self, Self::Compact | Self::CompactDelete)
    }

    /// Whether old records go by size or age, whatever their keys.
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::CompactDelete)
    }
}

/// The settings of a topic, under Kafka's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `cleanup.policy`: `delete` (default), `compact` or `compact,delete`.
    pub cleanup_policy: CleanupPolicy,
    /// `retention.bytes`: bytes that a partition keeps under a deleting policy; `None` (written
    /// -1, the default) keeps all.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`: how long a record is kept under a deleting policy, by its timestamp; a file goes
    /// when its youngest record is older. `None` (written -1, the default) keeps all, where Kafka
    /// deletes after 7 days.
    pub retention_ms: Option<u64>,
    /// `vltava.retention.by`: `wall-clock` (default) or `stream-time`, what `retention.ms` counts
    /// back from.
    pub retention_by: RetentionBy,
    /// `min.compaction.lag.ms`: a record younger than this, by its timestamp, is not compacted away,
    /// and replaces no other. Default: 0.
    pub min_compaction_lag_ms: u64,
    /// `max.message.bytes`: the largest batch that is accepted, in bytes. Default: 16 MiB.
    pub max_message_bytes: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            cleanup_policy: CleanupPolicy::Delete,
            retention_bytes: None,
            retention_ms: None,
            retention_by: RetentionBy::WallClock,
            min_compaction_lag_ms: 0,
            max_message_bytes: 16 << 20,
        }
    }
}

impl TopicConfig {
    /// The settings of a compacted topic, such as a changelog.
    pub fn compacted() -> Self {
        Self { cleanup_policy: CleanupPolicy::Compact, ..Self::default() }
    }

    /// Changes the setting that Kafka calls `name`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if there is no such setting or it cannot have this value.
    ///
    /// ```
    /// use broker_api::{CleanupPolicy, TopicConfig};
    /// let mut config = TopicConfig::default();
    /// config.set("cleanup.policy", "compact")?;
    /// assert_eq!(config.cleanup_policy, CleanupPolicy::Compact);
    /// assert!(config.set("cleanup.policy", "never").is_err());
    /// # Ok::<(), broker_api::Error>(())
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let invalid = |expected: &str| Error::InvalidConfig {
            name: name.into(),
            value: value.into(),
            expected: expected.into(),
        };
        match name {
            "cleanup.policy" => {
                let mut words: Vec<&str> = value.split(',').map(str::trim).collect();
                words.sort_unstable();
                self.cleanup_policy = match words[..] {
                    ["delete"] => CleanupPolicy::Delete,
                    ["compact"] => CleanupPolicy::Compact,
                    ["compact", "delete"] => CleanupPolicy::CompactDelete,
                    _ => return Err(invalid("delete, compact or compact,delete")),
                };
            }
            "retention.bytes" => {
                let limit = limit(value);
                self.retention_bytes =
                    limit.ok_or_else(|| invalid("a number of bytes, or -1 for no limit"))?;
            }
            "retention.ms" => {
                let limit = limit(value);
                self.retention_ms =
                    limit.ok_or_else(|| invalid("milliseconds, or -1 for no limit"))?;
            }
            "vltava.retention.by" => {
                self.retention_by = match value {
                    "wall-clock" => RetentionBy::WallClock,
                    "stream-time" => RetentionBy::StreamTime,
                    _ => return Err(invalid("wall-clock or stream-time")),
                };
            }
            "min.compaction.lag.ms" => {
                let lag = limit(value).flatten();
                self.min_compaction_lag_ms = lag.ok_or_else(|| invalid("milliseconds, from 0"))?;
            }
            "max.message.bytes" => {
                self.max_message_bytes = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=64 << 20).contains(n))
                    .ok_or_else(|| invalid("a number of bytes from 1 to 67108864"))?;
            }
            _ => {
                return Err(invalid(
                    "one of the settings cleanup.policy, retention.bytes, retention.ms, \
                     vltava.retention.by, min.compaction.lag.ms, max.message.bytes",
                ));
            }
        }
        Ok(())
    }

    /// Whether a partition of a topic with these settings takes a batch: every broker asks this
    /// before anything is written.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above `max.message.bytes`; [`Error::InvalidRecord`] for a record without
    /// a key where the topic is compacted, as it could never be told what replaces it;
    /// [`Error::InvalidBatch`].
    pub fn check_batch(&self, partition: &TopicPartition, batch: &Batch) -> Result<(), Error> {
        let (size, limit) = (batch.bytes().len() as u64, u64::from(self.max_message_bytes));
        if size > limit {
            let (what, setting) = (format!("a record batch for {partition}"), "max.message.bytes");
            return Err(Error::TooLarge { what, size, limit, setting });
        }
        if !self.cleanup_policy.compacts() {
            return Ok(());
        }
        for record in batch.records() {
            if record?.key.is_none() {
                return Err(Error::InvalidRecord {
                    partition: partition.clone(),
                    reason: "the topic is compacted (cleanup.policy), which needs a key".into(),
                });
            }
        }
        Ok(())
    }

    /// All settings as (name, value), in the words that [`TopicConfig::set`] understands.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let policy = match self.cleanup_policy {
            CleanupPolicy::Delete => "delete",
            CleanupPolicy::Compact => "compact",
            CleanupPolicy::CompactDelete => "compact,delete",
        };
        let by = match self.retention_by {
            RetentionBy::WallClock => "wall-clock",
            RetentionBy::StreamTime => "stream-time",
        };
        let limit = |limit: Option<u64>| limit.map_or("-1".into(), |n| n.to_string());
        vec![
            ("cleanup.policy", policy.into()),
            ("retention.bytes", limit(self.retention_bytes)),
            ("retention.ms", limit(self.retention_ms)),
            ("vltava.retention.by", by.into()),
            ("min.compaction.lag.ms", self.min_compaction_lag_ms.to_string()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
        ]
    }
}

/// A limit, or none (-1); the outer `None`: it is neither.
fn limit(value: &str) -> Option<Option<u64>> {
    match value.parse::<i64>().ok()? {
        -1 => Some(None),
        n => u64::try_from(n).ok().map(Some),
    }
}

/// Checks a topic's name by Kafka's rule: 1 to 249 characters of `a-z A-Z 0-9 . _ -`, not `.` or `..`.
///
/// # Errors
/// [`Error::InvalidName`] with the reason.
pub fn check_topic_name(name: &str) -> Result<(), Error> {
    let fail = |reason: &str| Err(Error::InvalidName { name: name.into(), reason: reason.into() });
    if name.is_empty() || name.len() > 249 {
        return fail("a topic's name has 1 to 249 characters");
    }
    if name == "." || name == ".." {
        return fail("a topic cannot be called . or ..");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return fail("a topic's name consists of a-z, A-Z, 0-9, '.', '_' and '-'");
    }
    Ok(())
}
