//! For what the calls of async operators are made, and that being the present thing again when their
//! results go on: see [`calls`](crate::task::calls).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Waker;

use broker_api::Timestamp;

use super::TaskCore;
use crate::failure::{Halt, Stage};
use crate::task::calls::{Held, Origin};

/// Tells a thread that a call has ended.
pub(crate) struct Bell {
    pub(crate) news: Arc<AtomicBool>,
    pub(crate) waker: Waker,
}

impl TaskCore {
    /// Further calls are made for something else; answers what they were made for.
    #[inline]
    pub(in crate::task) fn hold_nothing(&mut self) -> Option<Held> {
        let held = self.holding.take()?;
        if let Some(holder) = self.calls.holder(held) {
            holder.touched |= self.touched;
        }
        Some(held)
    }

    /// Further calls are made for what they were made for before.
    #[inline]
    pub(in crate::task) fn hold_again(&mut self, before: Option<Held>) {
        self.hold_nothing();
        self.holding = before;
    }

    /// The task has an async operator.
    pub(crate) fn set_asynchronous(&mut self) {
        self.asynchronous = true;
    }

    /// Whether it has.
    pub fn is_asynchronous(&self) -> bool {
        self.asynchronous
    }

    /// One more call is made for what is being processed.
    pub(crate) fn hold_record(&mut self) -> Held {
        let (source, calling, entry) = (&self.source, &self.calling, self.going_on.entry());
        let present = source.as_ref().filter(|_| self.from_record);
        let held = self.calls.hold(self.holding, || match (entry, present, calling) {
            (Some(entry), ..) => Origin::Entry(entry),
            (None, Some(present), _) => Origin::Record(present.clone()),
            (None, None, Some(place)) => Origin::Punctuation(place.clone()),
            (None, None, None) => Origin::Seal,
        });
        self.holding = Some(held);
        held
    }

    /// What a call was made for is the present thing again. `false`: it is left out.
    pub(crate) fn resume_record(&mut self, held: Held) -> bool {
        self.let_go();
        let Some(holder) = self.calls.holder(held) else {
            return false;
        };
        self.touched = holder.touched;
        self.calling = None;
        self.from_record = false;
        match &holder.origin {
            Origin::Record(present) => {
                self.source = Some(present.clone());
                self.from_record = true;
            }
            Origin::Punctuation(place) => self.calling = Some(place.clone()),
            Origin::Entry(entry) => self.going_on.resume_entry(*entry),
            Origin::Seal => {}
        }
        let left_out = holder.left_out;
        self.holding = Some(held);
        !left_out
    }

    /// What is being processed is left out: its calls are of no interest any more.
    pub(in crate::task) fn forget_calls(&mut self) {
        if let Some(holder) = self.holding.and_then(|held| self.calls.holder(held)) {
            holder.left_out = true;
        }
    }

    /// A call has been dealt with. An error of its record is settled on the spot if that has left
    /// nothing behind.
    pub(crate) fn release_record(&mut self, held: Held) {
        if let Some(error) = self.error.take() {
            let place = self.take_place();
            let settled = match place {
                Some(place) => self.settle_at(Stage::Processing, error, place),
                None => Err(Halt::AtSeal(Box::new(error))),
            };
            self.halt = settled.err();
        }
        self.let_go();
        self.calls.release(held);
        self.calling = None;
        self.from_record = false;
    }

    /// Takes why a result could not go on.
    pub(in crate::task) fn take_halt(&mut self) -> Option<Halt> {
        self.halt.take()
    }

    /// What rings when a call has ended.
    pub(crate) fn bell(&self) -> Bell {
        Bell { news: self.calls.news.clone(), waker: self.settings.waker.clone() }
    }

    /// A call is overdue at this time.
    pub(crate) fn call_due_at(&mut self, due: Timestamp) {
        self.calls.due_at(due);
    }

    /// When the next call is overdue.
    pub fn next_call_due(&self) -> Option<Timestamp> {
        self.calls.due()
    }

    /// An async operator can take no more, or can again.
    pub(crate) fn set_full(&mut self, was: bool, is: bool) {
        self.calls.set_full(was, is);
    }

    /// Whether an async operator can take no more.
    pub(in crate::task) fn is_full(&self) -> bool {
        self.calls.is_full()
    }

    /// How many calls are not dealt with.
    pub fn calls_in_flight(&self) -> usize {
        self.calls.in_flight()
    }

    /// Whether calls have ended, or are overdue, since the last look.
    pub(in crate::task) fn take_call_news(&mut self) -> bool {
        let now = self.wall_clock;
        self.calls.take_news(now)
    }
}
