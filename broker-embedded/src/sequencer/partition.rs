//! One partition: where each of its batches is, and who waits for more.
//!
//! A partition is a list of *extents* (stretches of offsets in a journal file or a segment) and a
//! *tail* of its newest batches in memory. All that is applied but not yet written is in the tail;
//! of the rest as much as memory allows. Readers hold the partition itself: they do not pass
//! through the sequencer, and the disk is read outside of any lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use broker_api::{Batch, Error, Horizon, Offset, Timestamp, TopicId, TopicPartition, View};

use super::extent::{DiskRead, Extent, Located, Place};
use crate::journal::file::JournalFile;
use crate::segment::Segment;

/// One partition of a topic.
pub(crate) struct Partition {
    /// The topic's identity.
    pub(crate) topic: TopicId,
    /// Its name and number.
    pub(crate) name: TopicPartition,
    log: Mutex<Log>,
}

/// What a partition holds; private to this file but for the housekeeping's eyes.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) horizon: Horizon,
    /// The start that applied readers see: that of the horizon, or above it where a deletion is
    /// not durable yet.
    pub(crate) start: Offset,
    /// The end that applied readers see.
    pub(crate) end: Offset,
    /// The end that durable readers see.
    pub(crate) durable_end: Offset,
    /// Records below are in segments, of those that are still there.
    pub(crate) segments_end: Offset,
    /// The end of what the last compaction of the whole partition has seen.
    pub(crate) cleaned: Offset,
    /// In offset order, without gaps between them.
    pub(crate) extents: VecDeque<Extent>,
    /// Batches up to `end`, without gaps.
    pub(crate) tail: VecDeque<Batch>,
    pub(crate) subscribers: Vec<Arc<Subscriber>>,
    pub(crate) deleted: bool,
    /// Segments that nobody needs any more.
    pub(crate) garbage: Vec<Arc<Segment>>,
}

/// A reader that may wait for more.
pub(crate) struct Subscriber {
    pub(crate) view: View,
    /// Set when the reader has seen all and wants to be woken; taken by whoever wakes it.
    pub(crate) armed: AtomicBool,
    pub(crate) waker: Waker,
}

/// Where a partition begins and ends at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) log_start: Offset,
    /// The end of what the asking view sees.
    pub(crate) view_end: Offset,
    pub(crate) end: Offset,
    pub(crate) deleted: bool,
}

/// What there is at a position.
pub(crate) enum Found {
    /// Batches from memory.
    Batches(Vec<Batch>),
    /// Batches to be read from disk.
    OnDisk(DiskRead),
    /// No batch up to the end of the view.
    Nothing,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl Partition {
    pub(crate) fn new(topic: TopicId, name: TopicPartition, log: Log) -> Arc<Self> {
        Arc::new(Self { topic, name, log: Mutex::new(log) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        #[cfg(test)]
        super::watched::locking();
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a batch that has its place in the order but is not written yet.
    pub(crate) fn append(&self, batch: &Batch, wakes: &mut Vec<Waker>) {
        let mut log = self.lock();
        log.end = batch.next_offset();
        log.tail.push_back(batch.clone());
        log.wake(View::Applied, wakes);
    }

    /// Appends a batch that recovery found in the journal; its bytes stay on disk.
    pub(crate) fn append_recovered(&self, file: &Arc<JournalFile>, batch: &Batch, at: u32) {
        let mut log = self.lock();
        log.end = batch.next_offset();
        log.durable_end = log.end;
        log.locate(file, batch, at);
    }

    /// The batch is durable, at byte `at` of `file`.
    pub(crate) fn publish(
        &self,
        file: &Arc<JournalFile>,
        batch: &Batch,
        at: u32,
        wakes: &mut Vec<Waker>,
    ) {
        let mut log = self.lock();
        log.durable_end = batch.next_offset();
        log.locate(file, batch, at);
        log.wake(View::Durable, wakes);
    }

    /// Forgets a batch that is on disk and the oldest in memory. Purged batches are gone already.
    pub(crate) fn evict(&self, base: Offset) {
        let mut log = self.lock();
        while log.tail.front().is_some_and(|batch| batch.base_offset() <= base) {
            log.tail.pop_front();
        }
    }

    /// Hides the records below `before` from applied readers. For others they are there until
    /// the deletion is durable: a crash may unmake it.
    pub(crate) fn hide(&self, before: Offset) {
        let mut log = self.lock();
        log.start = log.start.max(before);
    }

    /// Deletes the records below `before`: the deletion is durable. Returns whether nobody needs
    /// some segments any more.
    pub(crate) fn truncate(&self, before: Offset) -> bool {
        let mut log = self.lock();
        log.start = log.start.max(before);
        if before <= log.horizon.log_start {
            return false;
        }
        log.horizon.log_start = before;
        while log.tail.front().is_some_and(|batch| batch.next_offset() <= before) {
            log.tail.pop_front();
        }
        log.discard_below(before);
        !log.garbage.is_empty()
    }

    /// The records below `end` are in segments: what the journal has of them is not needed. (The
    /// segments take their place before this is decided, or are found when the broker is opened.)
    pub(crate) fn moved(&self, end: Offset) {
        let mut log = self.lock();
        log.segments_end = log.segments_end.max(end);
        log.extents.retain(|extent| extent.end > end || matches!(extent.place, Place::Segment(_)));
    }

    /// Segments, which follow each other, take the place of all extents in their range.
    pub(crate) fn adopt(&self, segments: Vec<Arc<Segment>>) {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return };
        let (base, end) = (first.base(), last.next());
        let mut log = self.lock();
        let (replaced, kept): (Vec<Extent>, Vec<Extent>) = std::mem::take(&mut log.extents)
            .into_iter()
            .partition(|extent| extent.end > base && extent.end <= end);
        let at = kept.partition_point(|extent| extent.end <= base);
        log.extents = kept.into();
        for (i, segment) in segments.iter().enumerate() {
            log.extents.insert(at + i, Extent::of_segment(segment.clone(), segment.base()));
        }
        for extent in replaced {
            log.discard(extent);
        }
        let log_start = log.horizon.log_start;
        log.discard_below(log_start);
        // What has the name of a new one is replaced by it already.
        log.garbage.retain(|old| !segments.iter().any(|new| new.base() == old.base()));
    }

    /// Nothing will come any more: all readers are woken.
    pub(crate) fn wake_all(&self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.lock().subscribers.iter().map(|s| s.waker.clone()));
    }

    /// The topic is gone: readers are told.
    pub(crate) fn delete(&self, wakes: &mut Vec<Waker>) {
        let mut log = self.lock();
        log.deleted = true;
        log.wake(View::Applied, wakes);
        log.wake(View::Durable, wakes);
    }

    pub(crate) fn bounds(&self, view: View) -> Bounds {
        self.lock().bounds(view)
    }

    pub(crate) fn horizon(&self) -> Horizon {
        self.lock().horizon
    }

    /// Batches from `position` on, of about `max_bytes` but at least one. A position that depends
    /// on the bounds is told by the very bounds that are returned: they may change at any moment.
    pub(crate) fn find(
        &self,
        position: impl Fn(&Bounds) -> Offset,
        view: View,
        max_bytes: usize,
    ) -> (Bounds, Found) {
        let log = self.lock();
        let bounds = log.bounds(view);
        let position = position(&bounds);
        let below = position < bounds.log_start || position >= bounds.view_end;
        let found = if below || bounds.deleted {
            Found::Nothing
        } else if log.tail.front().is_some_and(|batch| batch.base_offset() <= position) {
            log.find_in_tail(position, bounds.view_end, max_bytes)
        } else {
            log.find_in_extents(position, bounds.view_end, max_bytes)
        };
        (bounds, found)
    }

    /// The base offset of the first durable batch that was appended after `time`; the durable end
    /// if there is none.
    ///
    /// # Errors
    /// Those of reading a segment.
    pub(crate) fn appended_after(&self, time: Timestamp) -> Result<Offset, Error> {
        // All at one moment: what lies in the journal now may move to a segment while the present
        // segments are read.
        let (log_start, in_journal, segments) = {
            let log = self.lock();
            let segments: Vec<Arc<Segment>> =
                log.extents.iter().filter_map(Extent::segment).cloned().collect();
            let in_journal = log.extents.iter().find_map(|extent| extent.appended_after(time));
            (log.horizon.log_start, in_journal.unwrap_or(log.durable_end), segments)
        };
        for segment in segments {
            if let Some(offset) = segment.appended_after(time)? {
                return Ok(offset.max(log_start));
            }
        }
        Ok(in_journal.max(log_start))
    }

    pub(crate) fn subscribe(&self, subscriber: Arc<Subscriber>) {
        self.lock().subscribers.push(subscriber);
    }

    pub(crate) fn unsubscribe(&self, subscriber: &Arc<Subscriber>) {
        self.lock().subscribers.retain(|other| !Arc::ptr_eq(other, subscriber));
    }
}

impl Log {
    pub(crate) fn bounds(&self, view: View) -> Bounds {
        let (log_start, view_end) = match view {
            View::Applied => (self.start, self.end),
            View::Durable => (self.horizon.log_start, self.durable_end),
        };
        Bounds { log_start, view_end, end: self.end, deleted: self.deleted }
    }

    fn discard_below(&mut self, before: Offset) {
        while self.extents.front().is_some_and(|extent| extent.end <= before) {
            self.extents.pop_front().into_iter().for_each(|extent| self.discard(extent));
        }
    }

    fn discard(&mut self, extent: Extent) {
        if let Place::Segment(segment) = extent.place {
            self.garbage.push(segment);
        }
    }

    fn wake(&self, view: View, wakes: &mut Vec<Waker>) {
        for subscriber in self.subscribers.iter().filter(|s| s.view == view) {
            if subscriber.armed.swap(false, Ordering::AcqRel) {
                wakes.push(subscriber.waker.clone());
            }
        }
    }

    fn locate(&mut self, file: &Arc<JournalFile>, batch: &Batch, at: u32) {
        let located = Located {
            base: batch.base_offset(),
            time: batch.append_time(),
            at,
            len: batch.bytes().len() as u32,
        };
        if let Some(Extent { end, max_timestamp, place, .. }) = self.extents.back_mut()
            && let Place::Journal { file: last, batches } = place
            && Arc::ptr_eq(last, file)
        {
            batches.push(located);
            *end = batch.next_offset();
            *max_timestamp = batch.max_timestamp().max(*max_timestamp);
            return;
        }
        self.extents.push_back(Extent {
            base: batch.base_offset(),
            end: batch.next_offset(),
            max_timestamp: batch.max_timestamp(),
            place: Place::Journal { file: file.clone(), batches: vec![located] },
        });
    }

    fn find_in_tail(&self, position: Offset, view_end: Offset, max_bytes: usize) -> Found {
        let first = self.tail.partition_point(|batch| batch.next_offset() <= position);
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for batch in self.tail.range(first..) {
            if batch.next_offset() > view_end || (bytes > 0 && bytes >= max_bytes) {
                break;
            }
            bytes += batch.bytes().len();
            batches.push(batch.clone());
        }
        if batches.is_empty() { Found::Nothing } else { Found::Batches(batches) }
    }

    fn find_in_extents(&self, position: Offset, view_end: Offset, max_bytes: usize) -> Found {
        let first = self.extents.partition_point(|extent| extent.end <= position);
        let read = self
            .extents
            .range(first..)
            .find_map(|extent| extent.read(position.max(extent.base), view_end, max_bytes));
        match read {
            Some(read) => Found::OnDisk(read),
            // Compaction may have left nothing in the extents; go on in memory.
            None => match self.tail.front() {
                Some(batch) => self.find_in_tail(batch.base_offset(), view_end, max_bytes),
                None => Found::Nothing,
            },
        }
    }
}
