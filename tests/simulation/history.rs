//! What a durable reader has seen: everything that ever became durable, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Poll, Waker};

use broker_api::{
    Broker, Fetched, Fetcher, FetcherConfig, Isolation, Offset, Start, Timestamp, TopicPartition,
    View,
};

use crate::Failure;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Seen {
    pub(crate) fn key_text(&self) -> String {
        String::from_utf8_lossy(&self.key).into_owned()
    }

    pub(crate) fn text(&self) -> Option<String> {
        self.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// All that was seen, and the reader that goes on looking.
pub(crate) struct History {
    partitions: BTreeMap<TopicPartition, (Vec<Seen>, Offset)>,
    compacted: Vec<String>,
    reader: Option<Box<dyn Fetcher>>,
}

impl History {
    /// Of topics with so many partitions; those that are `compacted` may lose records that have
    /// successors.
    pub(crate) fn new(topics: &[&str], compacted: Vec<String>, count: u32) -> Self {
        let compacted_too = compacted.iter().map(String::as_str);
        let partitions = topics.iter().copied().chain(compacted_too).flat_map(|topic| {
            (0..count).map(move |p| (TopicPartition::new(topic, p), Default::default()))
        });
        Self { partitions: partitions.collect(), compacted, reader: None }
    }

    pub(crate) fn records(&self, topic: &str, partition: u32) -> &[Seen] {
        let key = TopicPartition::new(topic, partition);
        self.partitions.get(&key).map_or(&[], |(seen, _)| seen)
    }

    /// The end of what is durable, as last looked at.
    pub(crate) fn end(&self, topic: &str, partition: u32) -> Offset {
        self.partitions.get(&TopicPartition::new(topic, partition)).map_or(0, |(_, end)| *end)
    }

    /// The broker is gone.
    pub(crate) fn close(&mut self) {
        self.reader = None;
    }

    /// Looks at a broker that was just opened: all that was ever seen must still be there, but for
    /// the newest if it `may_lose` what was not synced.
    pub(crate) fn open(&mut self, broker: &Arc<dyn Broker>, may_lose: bool) -> Result<(), Failure> {
        let config = FetcherConfig { view: View::Durable, isolation: Isolation::ReadUncommitted };
        let mut reader = broker.fetcher(config, Waker::noop().clone())?;
        let starts: Vec<_> =
            self.partitions.keys().map(|tp| (tp.clone(), Start::Earliest)).collect();
        reader.assign(&starts)?;
        let mut found: BTreeMap<TopicPartition, (Vec<Seen>, Offset, Offset)> = BTreeMap::new();
        while let Poll::Ready(fetched) = reader.poll(1 << 20) {
            for part in fetched? {
                let (seen, end, start) = found.entry(part.partition.clone()).or_default();
                take(&part, seen, part.log_start.max(*end))?;
                (*end, *start) = (part.position, part.log_start);
            }
        }
        self.reader = Some(reader);
        for (tp, (seen, end)) in &mut self.partitions {
            let Some((now, now_end, start)) = found.remove(tp) else {
                return Err(Failure::violation(format!("{tp} is not reported")));
            };
            if now_end < *end && may_lose {
                seen.truncate(seen.partition_point(|record| record.offset < now_end));
                *end = now_end;
            }
            if now_end < *end {
                let what = format!("{tp} ends at {now_end}, was read up to {end} before");
                return Err(Failure::violation(what));
            }
            let known = now.partition_point(|record| record.offset < *end);
            let same = if self.compacted.iter().any(|topic| *tp.topic == **topic) {
                now[..known].iter().all(|record| seen.contains(record))
            } else {
                let from = seen.partition_point(|record| record.offset < start);
                now[..known] == seen[from..]
            };
            if !same {
                return Err(Failure::violation(format!("{tp} is not what it was")));
            }
            seen.extend_from_slice(&now[known..]);
            *end = now_end;
        }
        Ok(())
    }

    /// Looks at what has become durable since.
    pub(crate) fn look(&mut self) -> Result<(), Failure> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        while let Poll::Ready(fetched) = reader.poll(1 << 20) {
            for part in fetched? {
                if let Some((seen, end)) = self.partitions.get_mut(&part.partition) {
                    take(&part, seen, *end)?;
                    *end = part.position;
                }
            }
        }
        Ok(())
    }
}

/// Appends the records of a fetch from `position` on.
fn take(part: &Fetched, seen: &mut Vec<Seen>, position: Offset) -> Result<(), Failure> {
    for batch in &part.batches {
        for record in batch.records() {
            let record = record?;
            if record.offset < position {
                continue;
            }
            if seen.last().is_some_and(|last| last.offset >= record.offset) {
                return Err(Failure::violation(format!("{} comes out of order", part.partition)));
            }
            seen.push(Seen {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.unwrap_or_default().to_vec(),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
    }
    Ok(())
}
