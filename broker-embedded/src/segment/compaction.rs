//! Key compaction: of each key only the newest record stays.
//!
//! It takes two passes over the same batches, a partition from the start of its log on. The
//! [`CompactionPlanner`] finds out which records are superseded and what the new watermarks are;
//! [`Compaction`] then filters the batches. The watermarks must be durable before the filtered
//! batches replace the others.
//!
//! Batches keep their boundaries and records their offsets; a batch that loses all its records is
//! left out. A tombstone (a record without value) stays the first time, so that readers on their
//! way learn of the deletion, and so that the values it deletes are gone from all segments before
//! it goes. A record without a key goes, as in Kafka, which refuses such records in compacted topics;
//! they can only stem from a time when the topic was not compacted.

use broker_api::{Batch, BatchBuilder, Error, Offset, RecordRef, TopicId};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use siphasher::sip128::SipHasher13;

/// What one compaction does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactionSettings {
    /// Tombstones below go: the end of what the last compaction has seen, 0 if there was none.
    pub(crate) drop_tombstones_below: Offset,
    /// How much memory the keys take, about, in bytes. With more keys than fit, the input is read
    /// several times. To this comes one bit for each record.
    pub(crate) memory_bytes: usize,
}

/// An entry of the map, with the space that a hash table leaves free while it grows.
const BYTES_PER_KEY: usize = 64;

/// Whether the planner must see the input again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// Yes, from its start.
    Another,
    /// No.
    Done,
}

/// The first pass: finds out what is superseded. Give it all batches in order, as often as
/// [`CompactionPlanner::end_of_input`] asks for it.
pub(crate) struct CompactionPlanner {
    settings: CompactionSettings,
    hasher: SipHasher13,
    max_keys: usize,
    /// The newest record of each key of this round, by its number in the input.
    newest: HashMap<u128, u64, FixedState>,
    /// The keys of this round have hashes in this range, both ends included.
    round: (u128, u128),
    /// Ranges for later rounds.
    later: Vec<(u128, u128)>,
    /// The number of the next record.
    number: u64,
    plan: Compaction,
}

impl CompactionPlanner {
    /// The hashes of keys are seeded with the topic, so that nobody can prepare keys that collide.
    pub(crate) fn new(topic: TopicId, settings: CompactionSettings) -> Self {
        Self {
            settings,
            hasher: SipHasher13::new_with_keys((topic.0 >> 64) as u64, topic.0 as u64),
            max_keys: (settings.memory_bytes / BYTES_PER_KEY).max(1),
            newest: HashMap::with_hasher(FixedState::default()),
            round: (0, u128::MAX),
            later: Vec::new(),
            number: 0,
            plan: Compaction {
                gone: Bits::default(),
                drop_tombstones_below: settings.drop_tombstones_below,
                compacted_below: 0,
                tombstones_gone_below: 0,
                number: 0,
                builder: BatchBuilder::new(),
            },
        }
    }

    /// Takes the next batch.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`].
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<(), Error> {
        for record in batch.records() {
            let record = record?;
            let number = self.number;
            self.number += 1;
            let Some(key) = record.key else {
                self.plan.gone.set(number);
                continue;
            };
            let hash = self.hasher.hash(key).as_u128();
            if !(self.round.0..=self.round.1).contains(&hash) {
                continue;
            }
            if self.plan.is_old_tombstone(&record) {
                let above = record.offset + 1;
                self.plan.tombstones_gone_below = self.plan.tombstones_gone_below.max(above);
            }
            if let Some(older) = self.newest.insert(hash, number) {
                self.plan.gone.set(older);
                self.plan.compacted_below = self.plan.compacted_below.max(record.offset + 1);
            }
            while self.newest.len() > self.max_keys && self.round.0 < self.round.1 {
                self.halve_round();
            }
        }
        Ok(())
    }

    /// Leaves the upper half of the hashes for later. What was found out about them stays true.
    fn halve_round(&mut self) {
        let (low, high) = self.round;
        let middle = low + (high - low) / 2;
        self.round = (low, middle);
        self.later.push((middle + 1, high));
        self.newest.retain(|hash, _| *hash <= middle);
    }

    /// All batches were given.
    pub(crate) fn end_of_input(&mut self) -> Round {
        self.newest.clear();
        self.number = 0;
        match self.later.pop() {
            Some(range) => {
                self.round = range;
                Round::Another
            }
            None => Round::Done,
        }
    }

    /// The result, after [`Round::Done`].
    pub(crate) fn finish(self) -> Compaction {
        debug_assert!(self.later.is_empty() && self.settings.memory_bytes > 0);
        self.plan
    }
}

/// The second pass: filters the batches that the planner has seen, in the same order.
pub(crate) struct Compaction {
    /// The records that are superseded, by their number.
    gone: Bits,
    drop_tombstones_below: Offset,
    compacted_below: Offset,
    tombstones_gone_below: Offset,
    number: u64,
    builder: BatchBuilder,
}

impl Compaction {
    /// A copy of the state that has read less far than this may miss deletions, if this
    /// compaction's result is all that it can still read. 0: no tombstone goes.
    pub(crate) fn tombstones_gone_below(&self) -> Offset {
        self.tombstones_gone_below
    }

    /// The state as of an offset below this cannot be told from the result. 0: nothing goes.
    pub(crate) fn compacted_below(&self) -> Offset {
        self.compacted_below
    }

    fn is_old_tombstone(&self, record: &RecordRef<'_>) -> bool {
        record.value.is_none() && record.offset < self.drop_tombstones_below
    }

    /// What stays of the next batch; `None` if nothing does.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`].
    pub(crate) fn filter(&mut self, batch: &Batch) -> Result<Option<Batch>, Error> {
        let mut stays = Vec::with_capacity(batch.count());
        for record in batch.records() {
            let gone = self.gone.get(self.number) || self.is_old_tombstone(&record?);
            stays.push(!gone);
            self.number += 1;
        }
        if !stays.contains(&true) {
            return Ok(None);
        }
        if !stays.contains(&false) {
            return Ok(Some(batch.clone()));
        }
        for (record, _) in batch.records().zip(&stays).filter(|(_, stays)| **stays) {
            let record = record?;
            self.builder.push_at(
                delta(batch, record.offset)?,
                record.timestamp,
                record.key,
                record.value,
                &record.headers.to_vec()?,
            )?;
        }
        let kept = self.builder.finish_spanning(delta(batch, batch.next_offset() - 1)?)?;
        Ok(Some(kept.assigned(batch.base_offset(), batch.append_time())))
    }
}

fn delta(batch: &Batch, offset: Offset) -> Result<i32, Error> {
    i32::try_from(offset - batch.base_offset())
        .map_err(|_| Error::InvalidBatch { reason: format!("offset {offset} is out of place") })
}

/// A set of small numbers.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, n: u64) {
        let word = (n / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (n % 64);
    }

    fn get(&self, n: u64) -> bool {
        self.0.get((n / 64) as usize).is_some_and(|word| word & (1 << (n % 64)) != 0)
    }
}
