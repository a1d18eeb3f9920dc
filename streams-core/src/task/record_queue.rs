//! The input of a task from one partition: batches that were fetched and not yet processed.

use std::collections::VecDeque;

use broker_api::batch::Cursor;
use broker_api::{Batch, Error, Offset, RecordRef, Timestamp, TopicPartition};

/// Batches of one partition, read record by record.
pub struct RecordQueue {
    partition: TopicPartition,
    source: usize,
    batches: VecDeque<Batch>,
    cursor: Cursor,
    bytes: usize,
    position: Offset,
    fetched_to: Offset,
    at_end: bool,
    time: Timestamp,
    /// What was found for the next record, once somebody has asked: its event time, or that none can be
    /// found.
    head: Option<Option<Timestamp>>,
}

/// What is known of a record's time when its turn comes.
#[derive(Clone, Copy, Debug)]
pub struct HeadTime {
    /// Its event time, if it was found before.
    pub known: Option<Timestamp>,
    /// The highest of its partition so far; -1: none yet.
    pub partition: Timestamp,
}

impl RecordQueue {
    /// The input of `partition` from `position` on, for source number `source` of the task.
    pub fn new(
        partition: TopicPartition,
        source: usize,
        position: Offset,
        time: Timestamp,
    ) -> Self {
        Self {
            partition,
            source,
            batches: VecDeque::new(),
            cursor: Cursor::default(),
            bytes: 0,
            position,
            fetched_to: position,
            at_end: false,
            time,
            head: None,
        }
    }

    /// The partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The source that takes its records.
    pub fn source(&self) -> usize {
        self.source
    }

    /// The first offset that is not processed.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Where the next fetch goes on.
    pub fn fetched_to(&self) -> Offset {
        self.fetched_to
    }

    /// The highest timestamp processed; -1: none yet.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether the broker has nothing that is not here.
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// Adds what was fetched: batches, where the next fetch goes on, whether that is the end.
    pub fn add(&mut self, batches: Vec<Batch>, fetched_to: Offset, at_end: bool) {
        for batch in batches {
            if batch.next_offset() > self.position && batch.count() > 0 {
                self.bytes += batch.bytes().len();
                self.batches.push_back(batch);
            }
        }
        self.fetched_to = self.fetched_to.max(fetched_to);
        self.at_end = at_end;
        self.pass_invisible();
    }

    /// The event time of the next record, found by `time_of` (which is also given the highest of the
    /// partition so far). A record for which it finds none comes first, so that this is met.
    pub fn head_time(
        &mut self,
        time_of: impl Fn(&RecordRef<'_>, &Batch, Timestamp) -> Option<Timestamp>,
    ) -> Option<Timestamp> {
        if let Some(head) = self.head {
            return Some(head.unwrap_or(Timestamp::MIN));
        }
        loop {
            let batch = self.batches.front()?;
            let mut peek = self.cursor;
            match batch.next_record(&mut peek) {
                Some(Ok(record)) if record.offset >= self.position => {
                    let head = *self.head.insert(time_of(&record, batch, self.time));
                    return Some(head.unwrap_or(Timestamp::MIN));
                }
                Some(Ok(_)) => self.cursor = peek, // before the position asked for
                // A malformed record is met when it is taken.
                Some(Err(_)) => return Some(Timestamp::MIN),
                None => self.finish_batch(),
            }
        }
    }

    /// Hands the next record and its batch to `take`, which answers its event time; `None` if there is
    /// none.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`].
    pub fn next(
        &mut self,
        take: impl FnOnce(&TopicPartition, usize, &RecordRef<'_>, &Batch, HeadTime) -> Timestamp,
    ) -> Option<Result<(), Error>> {
        loop {
            let batch = self.batches.front()?;
            match batch.next_record(&mut self.cursor) {
                Some(Ok(record)) if record.offset >= self.position => {
                    self.position = record.offset + 1;
                    let head = HeadTime { known: self.head.take().flatten(), partition: self.time };
                    let time = take(&self.partition, self.source, &record, batch, head);
                    self.time = self.time.max(time);
                    return Some(Ok(()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(Err(error)),
                None => self.finish_batch(),
            }
        }
    }

    fn finish_batch(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.bytes().len();
            self.position = self.position.max(batch.next_offset());
        }
        self.cursor = Cursor::default();
        self.pass_invisible();
    }

    /// Offsets without records (after compaction, or transaction markers) count as processed.
    fn pass_invisible(&mut self) {
        if self.batches.is_empty() {
            self.position = self.position.max(self.fetched_to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_api::BatchBuilder;

    fn batch(base: Offset, timestamps: &[Timestamp]) -> Batch {
        let mut builder = BatchBuilder::new();
        for ts in timestamps {
            builder.push(*ts, None, Some(b"v"), &[]).unwrap();
        }
        builder.finish().unwrap().assigned(base, 0)
    }

    fn drain(queue: &mut RecordQueue) -> Vec<Offset> {
        let mut offsets = Vec::new();
        let mut take = |_: &_, _, record: &RecordRef<'_>, _: &_, _| {
            offsets.push(record.offset);
            record.timestamp
        };
        while let Some(taken) = queue.next(&mut take) {
            taken.unwrap();
        }
        offsets
    }

    #[test]
    fn starts_in_the_middle_of_a_batch_and_passes_gaps() {
        let mut queue = RecordQueue::new(TopicPartition::new("t", 0), 0, 12, -1);
        queue.add(vec![batch(10, &[1, 2, 3, 4]), batch(20, &[9, 5])], 25, true);
        assert_eq!(queue.head_time(|record, _, _| Some(record.timestamp)), Some(3));
        assert_eq!(drain(&mut queue), [12, 13, 20, 21]);
        assert_eq!((queue.position(), queue.time(), queue.bytes()), (25, 9, 0));
    }

    #[test]
    fn a_duplicate_batch_is_not_processed_twice() {
        let mut queue = RecordQueue::new(TopicPartition::new("t", 0), 0, 0, -1);
        queue.add(vec![batch(0, &[1, 2])], 2, true);
        assert_eq!(drain(&mut queue), [0, 1]);
        queue.add(vec![batch(0, &[1, 2]), batch(2, &[3])], 3, true);
        assert_eq!(drain(&mut queue), [2]);
    }
}
