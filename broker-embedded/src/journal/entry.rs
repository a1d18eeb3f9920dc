//! An entry of the journal: one decision of the sequencer, with its results. Replaying entries in
//! order gives the same state again, whatever the clock and the random numbers say.

use std::sync::Arc;

use broker_api::{
    Batch, CleanupPolicy, CommittedOffset, Offset, RetentionBy, Timestamp, TopicConfig, TopicId,
};

use crate::admin::MAX_PARTITIONS;
use crate::codec::{Malformed, Put, Take};
use crate::sequencer::partition::Partition;

/// One decision.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A batch of a plain producer.
    Append { now: Timestamp, batch: Placed },
    /// A transaction.
    Commit {
        now: Timestamp,
        producer: Arc<str>,
        epoch: u32,
        group: Option<Offsets>,
        batches: Vec<Placed>,
    },
    /// A group of members gave out a member number or an epoch (both only rise), or its last member
    /// left.
    Group { now: Timestamp, group: Arc<str>, member: u64, epoch: u64 },
    /// A transactional id got a new epoch.
    Producer { now: Timestamp, id: Arc<str>, epoch: u32 },
    /// A transactional id was not used for long and is forgotten.
    ProducerExpired { id: Arc<str> },
    /// A group was not used for long and is forgotten, with its offsets.
    GroupExpired { group: Arc<str> },
    /// A topic exists from now on.
    TopicCreate { id: TopicId, name: Arc<str>, partitions: u32, config: TopicConfig },
    /// A topic has other settings from now on.
    TopicConfigure { id: TopicId, config: TopicConfig },
    /// A topic is gone.
    TopicDelete { id: TopicId },
    /// The records of a partition below an offset are gone.
    DeleteRecords { partition: Arc<Partition>, before: Offset },
    /// The records of a partition below an offset are in segments, no longer in the journal.
    ExtentMoved { partition: Arc<Partition>, end: Offset },
    /// Compaction is about to leave records out.
    CompactionHorizon {
        partition: Arc<Partition>,
        tombstones_gone_below: Offset,
        compacted_below: Offset,
        /// The end of what a compaction of the whole partition has seen.
        cleaned: Offset,
    },
    /// Nothing came for a while: all before was durable when this was written.
    IdleSeal,
}

/// A batch and the partition in which it has its place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) partition: Arc<Partition>,
    pub(crate) batch: Batch,
}

/// Consumed offsets of a group.
#[derive(Clone, Debug)]
pub(crate) struct Offsets {
    pub(crate) group: Arc<str>,
    pub(crate) offsets: Vec<(Arc<Partition>, CommittedOffset)>,
}

/// Finds partitions that entries name by id and number.
pub(crate) trait Resolve {
    fn partition(&self, topic: TopicId, partition: u32) -> Option<Arc<Partition>>;
}

const APPEND: u8 = 1;
const COMMIT: u8 = 2;
const GROUP: u8 = 4;
const PRODUCER: u8 = 5;
const TOPIC_CREATE: u8 = 6;
const TOPIC_CONFIGURE: u8 = 7;
const TOPIC_DELETE: u8 = 8;
const DELETE_RECORDS: u8 = 9;
const EXTENT_MOVED: u8 = 10;
const COMPACTION_HORIZON: u8 = 11;
const IDLE_SEAL: u8 = 12;
const PRODUCER_EXPIRED: u8 = 13;
const GROUP_EXPIRED: u8 = 14;

impl Entry {
    /// The batches in the entry, in order.
    pub(crate) fn batches(&self) -> &[Placed] {
        match self {
            Self::Append { batch, .. } => std::slice::from_ref(batch),
            Self::Commit { batches, .. } => batches,
            _ => &[],
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        let batches: usize = self.batches().iter().map(|placed| placed.batch.bytes().len()).sum();
        let offsets = match self {
            Self::Commit { group: Some(group), .. } => {
                group.offsets.iter().map(|(_, o)| 64 + o.metadata.len()).sum()
            }
            _ => 0,
        };
        256 + batches + 64 * self.batches().len() + offsets
    }

    /// Appends the entry to `out` and, for each of its batches, where in `out` its bytes begin.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, places: &mut Vec<usize>) {
        match self {
            Self::Append { now, batch } => {
                out.u8(APPEND);
                out.i64(*now);
                batch.encode(out, places);
            }
            Self::Commit { now, producer, epoch, group, batches } => {
                out.u8(COMMIT);
                out.i64(*now);
                out.str(producer);
                out.u32(*epoch);
                match group {
                    None => out.u8(0),
                    Some(group) => {
                        out.u8(1);
                        group.encode(out);
                    }
                }
                out.u32(batches.len() as u32);
                for batch in batches {
                    batch.encode(out, places);
                }
            }
            Self::Group { now, group, member, epoch } => {
                out.u8(GROUP);
                out.i64(*now);
                out.str(group);
                out.u64(*member);
                out.u64(*epoch);
            }
            Self::Producer { now, id, epoch } => {
                out.u8(PRODUCER);
                out.i64(*now);
                out.str(id);
                out.u32(*epoch);
            }
            Self::ProducerExpired { id } => {
                out.u8(PRODUCER_EXPIRED);
                out.str(id);
            }
            Self::GroupExpired { group } => {
                out.u8(GROUP_EXPIRED);
                out.str(group);
            }
            Self::TopicCreate { id, name, partitions, config } => {
                out.u8(TOPIC_CREATE);
                out.u128(id.0);
                out.str(name);
                out.u32(*partitions);
                put_config(config, out);
            }
            Self::TopicConfigure { id, config } => {
                out.u8(TOPIC_CONFIGURE);
                out.u128(id.0);
                put_config(config, out);
            }
            Self::TopicDelete { id } => {
                out.u8(TOPIC_DELETE);
                out.u128(id.0);
            }
            Self::DeleteRecords { partition, before } => {
                out.u8(DELETE_RECORDS);
                put_partition(partition, out);
                out.i64(*before);
            }
            Self::ExtentMoved { partition, end } => {
                out.u8(EXTENT_MOVED);
                put_partition(partition, out);
                out.i64(*end);
            }
            Self::CompactionHorizon {
                partition,
                tombstones_gone_below,
                compacted_below,
                cleaned,
            } => {
                out.u8(COMPACTION_HORIZON);
                put_partition(partition, out);
                out.i64(*tombstones_gone_below);
                out.i64(*compacted_below);
                out.i64(*cleaned);
            }
            Self::IdleSeal => out.u8(IDLE_SEAL),
        }
    }

    /// Decodes the entry at the front of `bytes`, and for each of its batches, where it begins.
    pub(crate) fn decode(
        bytes: &mut Take,
        known: &dyn Resolve,
        places: &mut Vec<usize>,
    ) -> Result<Self, Malformed> {
        Ok(match bytes.u8()? {
            APPEND => {
                let now = bytes.i64()?;
                Self::Append { now, batch: Placed::decode(bytes, known, now, places)? }
            }
            COMMIT => {
                let now = bytes.i64()?;
                let producer = bytes.str()?.into();
                let epoch = bytes.u32()?;
                let group = match bytes.u8()? {
                    0 => None,
                    1 => Some(Offsets::decode(bytes, known)?),
                    n => return Err(Malformed(format!("group flag {n}"))),
                };
                let batches = (0..bytes.u32()?)
                    .map(|_| Placed::decode(bytes, known, now, places))
                    .collect::<Result<_, _>>()?;
                Self::Commit { now, producer, epoch, group, batches }
            }
            GROUP => Self::Group {
                now: bytes.i64()?,
                group: bytes.str()?.into(),
                member: bytes.u64()?,
                epoch: bytes.u64()?,
            },
            PRODUCER => {
                Self::Producer { now: bytes.i64()?, id: bytes.str()?.into(), epoch: bytes.u32()? }
            }
            PRODUCER_EXPIRED => Self::ProducerExpired { id: bytes.str()?.into() },
            GROUP_EXPIRED => Self::GroupExpired { group: bytes.str()?.into() },
            TOPIC_CREATE => Self::TopicCreate {
                id: TopicId(bytes.u128()?),
                name: bytes.str()?.into(),
                partitions: take_partitions(bytes)?,
                config: take_config(bytes)?,
            },
            TOPIC_CONFIGURE => {
                Self::TopicConfigure { id: TopicId(bytes.u128()?), config: take_config(bytes)? }
            }
            TOPIC_DELETE => Self::TopicDelete { id: TopicId(bytes.u128()?) },
            DELETE_RECORDS => Self::DeleteRecords {
                partition: take_partition(bytes, known)?,
                before: bytes.i64()?,
            },
            EXTENT_MOVED => {
                Self::ExtentMoved { partition: take_partition(bytes, known)?, end: bytes.i64()? }
            }
            COMPACTION_HORIZON => Self::CompactionHorizon {
                partition: take_partition(bytes, known)?,
                tombstones_gone_below: bytes.i64()?,
                compacted_below: bytes.i64()?,
                cleaned: bytes.i64()?,
            },
            IDLE_SEAL => Self::IdleSeal,
            kind => return Err(Malformed(format!("entry of kind {kind}"))),
        })
    }
}

impl Placed {
    fn encode(&self, out: &mut Vec<u8>, places: &mut Vec<usize>) {
        put_partition(&self.partition, out);
        out.i64(self.batch.base_offset());
        places.push(out.len() + 4);
        out.bytes(self.batch.bytes());
    }

    fn decode(
        bytes: &mut Take,
        known: &dyn Resolve,
        now: Timestamp,
        places: &mut Vec<usize>,
    ) -> Result<Self, Malformed> {
        let partition = take_partition(bytes, known)?;
        let base = bytes.i64()?;
        places.push(bytes.position() + 4);
        let batch = Batch::parse_trusted(bytes.bytes()?).map_err(|e| Malformed(e.to_string()))?;
        if base.checked_add(batch.next_offset()).is_none() {
            return Err(Malformed(format!("base offset {base}")));
        }
        Ok(Self { partition, batch: batch.assigned(base, now) })
    }
}

impl Offsets {
    fn encode(&self, out: &mut Vec<u8>) {
        out.str(&self.group);
        out.u32(self.offsets.len() as u32);
        for (partition, committed) in &self.offsets {
            put_partition(partition, out);
            out.i64(committed.offset);
            out.str(&committed.metadata);
        }
    }

    fn decode(bytes: &mut Take, known: &dyn Resolve) -> Result<Self, Malformed> {
        let group = bytes.str()?.into();
        let offsets = (0..bytes.u32()?)
            .map(|_| {
                let partition = take_partition(bytes, known)?;
                let (offset, metadata) = (bytes.i64()?, bytes.str()?);
                Ok((partition, CommittedOffset { offset, metadata }))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { group, offsets })
    }
}

fn put_partition(partition: &Partition, out: &mut Vec<u8>) {
    out.u128(partition.topic.0);
    out.u32(partition.name.partition);
}

fn take_partition(bytes: &mut Take, known: &dyn Resolve) -> Result<Arc<Partition>, Malformed> {
    let (topic, partition) = (TopicId(bytes.u128()?), bytes.u32()?);
    known
        .partition(topic, partition)
        .ok_or_else(|| Malformed(format!("unknown partition {partition} of topic {topic}")))
}

/// How many partitions a topic has. All of them are made at once: nobody could create one with more.
fn take_partitions(bytes: &mut Take) -> Result<u32, Malformed> {
    match bytes.u32()? {
        partitions if partitions <= MAX_PARTITIONS => Ok(partitions),
        partitions => Err(Malformed(format!("a topic with {partitions} partitions"))),
    }
}

/// Beside the cleanup policy: retention goes by stream time.
const BY_STREAM_TIME: u8 = 16;

/// Appends a topic's settings.
pub(crate) fn put_config(config: &TopicConfig, out: &mut Vec<u8>) {
    let policy = match config.cleanup_policy {
        CleanupPolicy::Delete => 0,
        CleanupPolicy::Compact => 1,
        CleanupPolicy::CompactDelete => 2,
    };
    out.u8(match config.retention_by {
        RetentionBy::WallClock => policy,
        RetentionBy::StreamTime => policy | BY_STREAM_TIME,
    });
    out.u64(config.retention_bytes.unwrap_or(u64::MAX));
    out.u64(config.retention_ms.unwrap_or(u64::MAX));
    out.u64(config.min_compaction_lag_ms);
    out.u32(config.max_message_bytes);
}

/// Takes a topic's settings.
pub(crate) fn take_config(bytes: &mut Take) -> Result<TopicConfig, Malformed> {
    let policy = bytes.u8()?;
    let retention_by = match policy & BY_STREAM_TIME {
        0 => RetentionBy::WallClock,
        _ => RetentionBy::StreamTime,
    };
    let cleanup_policy = match policy & !BY_STREAM_TIME {
        0 => CleanupPolicy::Delete,
        1 => CleanupPolicy::Compact,
        2 => CleanupPolicy::CompactDelete,
        n => return Err(Malformed(format!("cleanup policy {n}"))),
    };
    let mut limit = || Ok::<_, Malformed>(Some(bytes.u64()?).filter(|n| *n != u64::MAX));
    Ok(TopicConfig {
        cleanup_policy,
        retention_bytes: limit()?,
        retention_ms: limit()?,
        retention_by,
        min_compaction_lag_ms: bytes.u64()?,
        max_message_bytes: bytes.u32()?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sequencer::partition::Log;
    use broker_api::BatchBuilder;

    struct Known(Arc<Partition>);

    impl Resolve for Known {
        fn partition(&self, topic: TopicId, partition: u32) -> Option<Arc<Partition>> {
            (topic == self.0.topic && partition == 2).then(|| self.0.clone())
        }
    }

    fn partition() -> Arc<Partition> {
        let name = broker_api::TopicPartition::new("t", 2);
        Partition::new(TopicId(0x11), name, Log::default())
    }

    fn placed(base: Offset) -> Placed {
        let mut builder = BatchBuilder::new();
        builder.push(7, Some(b"k"), None, &[]).unwrap();
        let batch = builder.finish().unwrap().assigned(base, 1_000);
        Placed { partition: partition(), batch }
    }

    /// The fields of a partition, as documented.
    fn named() -> Vec<u8> {
        [&0x11u128.to_be_bytes()[..], &2u32.to_be_bytes()].concat()
    }

    fn batch(base: i64) -> Vec<u8> {
        let bytes = placed(base).batch.bytes().clone();
        let len = (bytes.len() as u32).to_be_bytes();
        [&named()[..], &base.to_be_bytes(), &len, &bytes].concat()
    }

    pub(in crate::journal) fn examples() -> Vec<(Entry, Vec<u8>)> {
        let committed = CommittedOffset { offset: 4, metadata: "m".into() };
        let offsets = vec![(partition(), committed)];
        let commit = Entry::Commit {
            now: 1_000,
            producer: "p".into(),
            epoch: 8,
            group: Some(Offsets { group: "g".into(), offsets }),
            batches: vec![placed(5), placed(6)],
        };
        let id = TopicId(0x11);
        let config = TopicConfig {
            cleanup_policy: CleanupPolicy::CompactDelete,
            retention_bytes: Some(9),
            retention_ms: Some(8),
            retention_by: RetentionBy::StreamTime,
            min_compaction_lag_ms: 7,
            max_message_bytes: 10,
        };
        #[rustfmt::skip]
        let settings = [
            &[18][..], &9u64.to_be_bytes(), &8u64.to_be_bytes(), &7u64.to_be_bytes(), &10u32.to_be_bytes(),
        ].concat();
        let now = 1_000i64.to_be_bytes();
        #[rustfmt::skip]
        let commit_bytes = [
            &[2][..], &now, &[0, 0, 0, 1], b"p", &8u32.to_be_bytes(),
            &[1], &[0, 0, 0, 1], b"g", &[0, 0, 0, 1], &named(), &4i64.to_be_bytes(), &[0, 0, 0, 1], b"m",
            &[0, 0, 0, 2], &batch(5), &batch(6),
        ].concat();
        let plain = Entry::Commit {
            now: 1_000,
            producer: "p".into(),
            epoch: 8,
            group: None,
            batches: Vec::new(),
        };
        let plain_bytes =
            [&[2][..], &now, &[0, 0, 0, 1], b"p", &8u32.to_be_bytes(), &[0; 5]].concat();
        let horizon = Entry::CompactionHorizon {
            partition: partition(),
            tombstones_gone_below: 1,
            compacted_below: 2,
            cleaned: 3,
        };
        let offset = |n: i64| n.to_be_bytes();
        vec![
            (Entry::Append { now: 1_000, batch: placed(5) }, [&[1][..], &now, &batch(5)].concat()),
            (commit, commit_bytes),
            (plain, plain_bytes),
            (
                Entry::Group { now: 1_000, group: "g".into(), member: 6, epoch: 7 },
                [&[4][..], &now, &[0, 0, 0, 1], b"g", &6u64.to_be_bytes(), &7u64.to_be_bytes()]
                    .concat(),
            ),
            (
                Entry::Producer { now: 1_000, id: "p".into(), epoch: 8 },
                [&[5][..], &now, &[0, 0, 0, 1], b"p", &8u32.to_be_bytes()].concat(),
            ),
            (Entry::ProducerExpired { id: "p".into() }, [&[13, 0, 0, 0, 1][..], b"p"].concat()),
            (Entry::GroupExpired { group: "g".into() }, [&[14, 0, 0, 0, 1][..], b"g"].concat()),
            (
                Entry::TopicCreate { id, name: "t".into(), partitions: 3, config: config.clone() },
                [&[6][..], &id.0.to_be_bytes(), &[0, 0, 0, 1], b"t", &[0, 0, 0, 3], &settings]
                    .concat(),
            ),
            (
                Entry::TopicConfigure { id, config },
                [&[7][..], &id.0.to_be_bytes(), &settings].concat(),
            ),
            (Entry::TopicDelete { id }, [&[8][..], &id.0.to_be_bytes()].concat()),
            (
                Entry::DeleteRecords { partition: partition(), before: 5 },
                [&[9][..], &named(), &offset(5)].concat(),
            ),
            (
                Entry::ExtentMoved { partition: partition(), end: 5 },
                [&[10][..], &named(), &offset(5)].concat(),
            ),
            (horizon, [&[11][..], &named(), &offset(1), &offset(2), &offset(3)].concat()),
            (Entry::IdleSeal, vec![12]),
        ]
    }

    #[test]
    fn golden_bytes() {
        for (entry, bytes) in examples() {
            let (mut out, mut places) = (Vec::new(), Vec::new());
            entry.encode(&mut out, &mut places);
            assert_eq!(out, bytes, "{entry:?}");
            for (placed, place) in entry.batches().iter().zip(places) {
                let batch = placed.batch.bytes();
                assert_eq!(out[place..place + batch.len()], batch[..]);
            }
        }
    }

    #[test]
    fn entries_come_back_and_cut_ones_are_refused() {
        let known = Known(partition());
        for (entry, bytes) in examples() {
            let mut fields = Take::new(bytes.clone().into());
            let decoded = Entry::decode(&mut fields, &known, &mut Vec::new()).unwrap();
            assert!(fields.is_done());
            assert_eq!(format!("{decoded:?}"), format!("{entry:?}"));
            for len in 0..bytes.len() {
                let mut cut = Take::new(bytes[..len].to_vec().into());
                assert!(Entry::decode(&mut cut, &known, &mut Vec::new()).is_err(), "{entry:?}");
            }
        }
    }
}
