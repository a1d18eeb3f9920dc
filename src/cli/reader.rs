//! Reading partitions, for the commands that print or fold records.

use std::collections::BTreeMap;
use std::task::Poll;

use broker_api::{
    Broker, Error, Fetched, Fetcher, FetcherConfig, Isolation, Offset, RecordRef, Start, Timestamp,
    TopicPartition, View,
};

use super::stop::waker;

/// About how many bytes one fetch brings into memory.
const FETCH_BYTES: usize = 1 << 20;

/// Reads partitions of which it knows how far they have been read.
pub(crate) struct Reader {
    fetcher: Box<dyn Fetcher>,
    partitions: BTreeMap<TopicPartition, Progress>,
}

#[derive(Default)]
struct Progress {
    position: Offset,
    at_end: bool,
}

impl Reader {
    pub(crate) fn new(
        broker: &dyn Broker,
        isolation: Isolation,
        starts: &[(TopicPartition, Start)],
    ) -> Result<Self, Error> {
        let config = FetcherConfig { view: View::Durable, isolation };
        let mut fetcher = broker.fetcher(config, waker())?;
        fetcher.assign(starts)?;
        let partitions = starts.iter().map(|(tp, start)| {
            let position = if let Start::At(offset) = start { *offset } else { 0 };
            (tp.clone(), Progress { position, at_end: false })
        });
        Ok(Self { fetcher, partitions: partitions.collect() })
    }

    /// Hands the records of one fetch to `each`, with the time at which they were appended. Gives
    /// `false` if there was nothing to fetch: this thread will be unparked when there is.
    pub(crate) fn fetch<E: From<Error>>(
        &mut self,
        mut each: impl FnMut(&TopicPartition, Timestamp, RecordRef<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Poll::Ready(fetched) = self.fetcher.poll(FETCH_BYTES) else { return Ok(false) };
        for Fetched { partition, batches, position, log_start, at_end, .. } in fetched? {
            let progress = self.partitions.entry(partition.clone()).or_default();
            // A batch may begin before the place where reading begins.
            let from = progress.position.max(log_start);
            for batch in &batches {
                for record in batch.records() {
                    let record = record?;
                    if record.offset >= from {
                        each(&partition, batch.append_time(), record)?;
                    }
                }
            }
            *progress = Progress { position, at_end };
        }
        Ok(true)
    }

    /// Whether every partition was at its end when it was last heard of.
    pub(crate) fn at_end(&self) -> bool {
        self.partitions.values().all(|progress| progress.at_end)
    }

    /// Stops reading the partitions that have come to their limit; `false` when none is left.
    pub(crate) fn below(&mut self, limits: &BTreeMap<TopicPartition, Offset>) -> bool {
        let reached: Vec<_> = self
            .partitions
            .iter()
            .filter(|(tp, progress)| limits.get(*tp).is_none_or(|n| progress.position >= *n))
            .map(|(tp, _)| tp.clone())
            .collect();
        self.fetcher.unassign(&reached);
        self.partitions.retain(|tp, _| !reached.contains(tp));
        !self.partitions.is_empty()
    }
}
