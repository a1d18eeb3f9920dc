//! One partition.

use std::collections::BTreeMap;

use crate::{
    Batch, BatchBuilder, Error, FetcherConfig, Horizon, Isolation, Offset, Timestamp, View,
};

/// The records of a partition and its watermarks: `log_start <= synced <= durable <= end`.
#[derive(Clone, Default)]
pub(super) struct Log {
    /// In offset order; every one ends above `log_start`.
    pub(super) batches: Vec<Batch>,
    pub(super) horizon: Horizon,
    pub(super) end: Offset,
    pub(super) durable: Offset,
    pub(super) synced: Offset,
    /// Where someone else's open transaction begins, and the step that ends it.
    pub(super) hold: Option<(Offset, u64)>,
    /// Up to where it is to be deleted as soon as that is synced.
    pub(super) purge: Offset,
}

impl Log {
    pub(super) fn append(&mut self, batch: Batch, now: Timestamp) -> Offset {
        let base = self.end;
        let batch = batch.assigned(base, now);
        self.end = batch.next_offset();
        self.batches.push(batch);
        base
    }

    /// The end of what such a reader sees.
    pub(super) fn visible(&self, config: FetcherConfig) -> Offset {
        let end = match config.view {
            View::Applied => self.end,
            View::Durable => self.durable,
        };
        match (config.isolation, self.hold) {
            (Isolation::ReadCommitted, Some((held, _))) => end.min(held),
            _ => end,
        }
    }

    /// The end of what durable, committed readers see.
    pub(super) fn stable(&self) -> Offset {
        self.visible(FetcherConfig::default())
    }

    /// The place of the first batch that reaches beyond `position`.
    pub(super) fn find(&self, position: Offset) -> usize {
        self.batches.partition_point(|batch| batch.next_offset() <= position)
    }

    pub(super) fn delete_below(&mut self, before: Offset) {
        self.horizon.log_start = self.horizon.log_start.max(before.min(self.synced));
        let gone = self.find(self.horizon.log_start);
        self.batches.drain(..gone);
    }

    /// Carries out the deletion that was asked for when all of it is synced. True if it moved.
    pub(super) fn purge(&mut self) -> bool {
        let due = self.purge > self.horizon.log_start && self.purge <= self.synced;
        if due {
            self.delete_below(self.purge);
        }
        due
    }

    /// What is left after a crash.
    pub(super) fn cut_to_synced(&mut self) {
        self.batches.retain(|batch| batch.next_offset() <= self.synced);
        self.end = self.synced;
        self.durable = self.synced;
        self.hold = None;
        self.purge = 0;
    }

    pub(super) fn appended_after(&self, time: Timestamp) -> Offset {
        self.batches
            .iter()
            .take_while(|batch| batch.next_offset() <= self.stable())
            .find(|batch| batch.append_time() > time)
            .map_or(self.stable(), |batch| batch.base_offset().max(self.horizon.log_start))
    }

    /// Keeps the newest record of each key below the stable end, as far as that is synced, and no
    /// tombstones. Batches keep their offsets, so what is gone leaves gaps.
    pub(super) fn compact(&mut self) -> Result<(), Error> {
        let below = self.stable().min(self.synced);
        let compacted = self.find(below);
        let mut newest = BTreeMap::<Vec<u8>, Offset>::new();
        for batch in &self.batches[..compacted] {
            for record in batch.records() {
                let record = record?;
                newest.insert(record.key.unwrap_or_default().to_vec(), record.offset);
            }
        }
        for batch in &mut self.batches[..compacted] {
            let mut kept = BatchBuilder::new();
            for record in batch.records() {
                let record = record?;
                let is_newest = record.key.and_then(|key| newest.get(key)) == Some(&record.offset);
                if is_newest && record.value.is_some() {
                    let delta = (record.offset - batch.base_offset()) as i32;
                    let headers = record.headers.to_vec()?;
                    kept.push_at(delta, record.timestamp, record.key, record.value, &headers)?;
                }
            }
            let span = (batch.next_offset() - batch.base_offset() - 1) as i32;
            *batch = kept.finish_spanning(span)?.assigned(batch.base_offset(), batch.append_time());
        }
        self.batches.retain(|batch| batch.count() > 0 || batch.next_offset() > below);
        self.horizon.tombstones_gone_below = below;
        self.horizon.compacted_below = below;
        Ok(())
    }
}
