//! A reader that checks, at every fetch, what every fetch promises.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};

use super::check::Check;
use crate::{Batch, Error, Fetched, Fetcher, FetcherConfig, Offset, Start, TopicPartition};

/// What is known of an assigned partition.
#[derive(Default)]
struct Seen {
    /// Where the last fetch said to go on; unknown before the first.
    position: Option<Offset>,
    at_end: bool,
    /// The lowest offset that may be delivered.
    from: Offset,
    records: Vec<(Offset, String)>,
    batches: Vec<Batch>,
}

pub(super) struct Reader<'c, 'h> {
    check: &'c Check<'h>,
    pub(super) fetcher: Box<dyn Fetcher>,
    seen: BTreeMap<TopicPartition, Seen>,
}

impl<'c, 'h> Reader<'c, 'h> {
    pub(super) fn new(check: &'c Check<'h>, config: FetcherConfig, waker: Waker) -> Self {
        let fetcher = check.broker().fetcher(config, waker).expect("fetcher");
        Self { check, fetcher, seen: BTreeMap::new() }
    }

    /// Reads these partitions from here on; what was read before is forgotten.
    pub(super) fn assign(&mut self, partitions: &[TopicPartition], start: Start) {
        let assigned: Vec<_> = partitions.iter().map(|tp| (tp.clone(), start)).collect();
        self.fetcher.assign(&assigned).expect("assign");
        for tp in partitions {
            let from = if let Start::At(offset) = start { offset } else { 0 };
            self.seen.insert(tp.clone(), Seen { from, ..Seen::default() });
        }
    }

    /// One fetch, checked.
    pub(super) fn poll(&mut self, max_bytes: usize) -> Poll<Result<Vec<Fetched>, Error>> {
        let polled = self.fetcher.poll(max_bytes);
        if let Poll::Ready(Ok(fetched)) = &polled {
            assert!(!fetched.is_empty(), "a fetch without anything must be pending");
            fetched.iter().for_each(|f| self.take(f));
        }
        polled
    }

    fn take(&mut self, fetched: &Fetched) {
        let tp = &fetched.partition;
        let seen = self.seen.get_mut(tp).expect("a partition that is not assigned was read");
        let from = seen.position.unwrap_or(seen.from.max(fetched.log_start));
        let mut end_of_last = 0;
        for batch in &fetched.batches {
            assert!(batch.base_offset() >= end_of_last, "{tp}: batches out of order");
            end_of_last = batch.next_offset();
            if end_of_last > from {
                seen.batches.push(batch.clone());
            }
            for record in batch.records() {
                let record = record.expect("record");
                let in_batch = batch.base_offset()..batch.next_offset();
                assert!(in_batch.contains(&record.offset), "{tp}: a record outside its batch");
                if record.offset >= from {
                    let value = record.value.map(String::from_utf8_lossy).unwrap_or_default();
                    seen.records.push((record.offset, value.into_owned()));
                }
            }
        }
        let rising = seen.records.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(rising, "{tp}: records out of order");
        let Fetched { position, stable_end, log_start, at_end, .. } = *fetched;
        assert!(position >= end_of_last, "{tp}: the position lies before the end of a batch");
        assert!(position >= from, "{tp}: the position went back from {from} to {position}");
        assert!(position <= stable_end, "{tp}: position {position}, stable end {stable_end}");
        assert!(log_start <= position, "{tp}: position {position}, log start {log_start}");
        assert!(at_end <= (position >= stable_end), "{tp}: at the end, but not there");
        let news = seen.position != Some(position) || (at_end && !seen.at_end);
        assert!(news || !fetched.batches.is_empty(), "{tp}: reported without any news");
        seen.position = Some(position);
        seen.at_end = at_end;
    }

    /// The next fetch that has something.
    pub(super) fn fetch(&mut self, max_bytes: usize) -> Result<Vec<Fetched>, Error> {
        let check = self.check;
        check.until("a fetch", || match self.poll(max_bytes) {
            Poll::Ready(fetched) => Some(fetched),
            Poll::Pending => None,
        })
    }

    /// Reads on until every partition has been at its end since it was assigned.
    pub(super) fn read_to_end(&mut self) {
        while !self.seen.values().all(|seen| seen.at_end) {
            self.fetch(1 << 20).expect("fetch");
        }
    }

    /// Reads on until `partition` has given `count` records.
    pub(super) fn read_records(&mut self, partition: &TopicPartition, count: usize) {
        while self.seen[partition].records.len() < count {
            self.fetch(1 << 20).expect("fetch");
        }
    }

    /// What was read of `partition` since it was assigned: (offset, value).
    pub(super) fn values(&self, partition: &TopicPartition) -> Vec<(Offset, String)> {
        self.seen[partition].records.clone()
    }

    /// The batches that were read of `partition` since it was assigned.
    pub(super) fn batches(&self, partition: &TopicPartition) -> Vec<Batch> {
        self.seen[partition].batches.clone()
    }

    /// Where reading goes on, as the last fetch said.
    pub(super) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.seen[partition].position
    }
}
