//! Asynchronous calls of a task: what is in flight, and for which records.
//!
//! A task is a step machine and never waits. An async operator hands its calls to an [`Executor`](crate::executor::Executor),
//! keeps the records that they are for, and forwards what came back when the task looks again:
//!
//! ```text
//!  record -> operator: call -> executor        step: results that are due -> children
//!                |                                        ^
//!                +-- record in flight, in its place       | wakes the thread
//!                                      future ends -------+
//! ```
//! - *Bounded.* An operator runs so many calls at once. While it holds as many records, or more, the task takes
//!   no further one, its queues fill, and the thread pauses the partitions. What the task has taken before may still
//!   become any number of records.
//! - *Order.* Results go on in the order in which the records came, or in that order for each key. A
//!   result whose turn has not come waits in its place.
//! - *Commits.* Nothing is in flight when a generation is sealed: a seal stops admission and waits until
//!   the calls are back. So a record's result, its offset and what it does to stores are one commit;
//!   after a crash the calls of what was not committed are made again.
//! - *Time-outs and errors.* A call that is not back in time, fails or panics is an error of its record,
//!   as if an operator had failed: the processing handler decides. So a seal never waits for ever. The
//!   calls of a generation that is given up are cancelled.
//! - *Context.* While a result goes on, the record it stems from is the present one again: for dead
//!   letters, and for whoever asks where it came from. Stream time is that of the newest record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker_api::Timestamp;

use super::core::Present;
use crate::failure::Place;
use crate::processor::EntryId;

/// Whom a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(u64);

/// What is in flight.
#[derive(Default)]
pub(super) struct Calls {
    /// What calls are for, until all of them are back.
    held: BTreeMap<u64, Holder>,
    next: u64,
    in_flight: usize,
    /// How many operators are full.
    full: usize,
    /// Whether a call has ended since somebody looked.
    pub(super) news: Arc<AtomicBool>,
    /// When the first call is overdue, as of the last look.
    due: Option<Timestamp>,
}

/// What a call is for.
pub(super) struct Holder {
    pub(super) origin: Origin,
    pub(super) touched: bool,
    /// Whether one of its calls has failed and it is left out.
    pub(super) left_out: bool,
    calls: usize,
}

/// What has made a call.
pub(super) enum Origin {
    Record(Present),
    Punctuation(Place),
    /// A result that was held back.
    Entry(EntryId),
    /// What a cache has held back until the seal.
    Seal,
}

impl Calls {
    /// One more call for what was held last, if that is still the same, or for something new.
    pub(super) fn hold(&mut self, known: Option<Held>, origin: impl FnOnce() -> Origin) -> Held {
        self.in_flight += 1;
        if let Some((known, holder)) = known.and_then(|k| Some((k, self.held.get_mut(&k.0)?))) {
            holder.calls += 1;
            return known;
        }
        let number = self.next;
        self.next += 1;
        let holder = Holder { origin: origin(), touched: false, left_out: false, calls: 1 };
        self.held.insert(number, holder);
        Held(number)
    }

    pub(super) fn holder(&mut self, held: Held) -> Option<&mut Holder> {
        self.held.get_mut(&held.0)
    }

    /// A call is back, and dealt with.
    pub(super) fn release(&mut self, held: Held) {
        self.in_flight -= 1;
        if let Some(holder) = self.held.get_mut(&held.0) {
            holder.calls -= 1;
            if holder.calls == 0 {
                self.held.remove(&held.0);
            }
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn is_full(&self) -> bool {
        self.full > 0
    }

    pub(super) fn set_full(&mut self, was: bool, is: bool) {
        self.full = self.full + usize::from(is) - usize::from(was);
    }

    /// Whether it is worth a look.
    pub(super) fn take_news(&mut self, now: Timestamp) -> bool {
        if self.in_flight == 0 {
            return false;
        }
        let overdue = self.due.is_some_and(|due| due <= now);
        if overdue {
            self.due = None; // the operators tell it anew
        }
        self.news.swap(false, Ordering::AcqRel) || overdue
    }

    /// A call is overdue at this time.
    pub(super) fn due_at(&mut self, due: Timestamp) {
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due.filter(|_| self.in_flight > 0)
    }
}
