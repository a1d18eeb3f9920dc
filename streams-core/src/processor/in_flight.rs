//! What an async operator has in flight: records that wait for their calls, calls that run, results
//! whose turn has not come.
//!
//! Records are numbered as they come. Those of one *turn* go on in this order. There may be many more
//! than calls run at once, as one input record can become any number: what is done to one of them costs
//! at most the logarithm of how many there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_api::Timestamp;
use futures::future::AbortHandle;

use crate::error::ProcessError;
use crate::record::Headers;
use crate::task::Held;

/// A record in flight, but for its key and value.
pub(super) struct Waits {
    pub(super) held: Held,
    pub(super) timestamp: Timestamp,
    pub(super) headers: Headers,
    /// Records of the same turn go on one after the other.
    pub(super) turn: u64,
}

/// What became of a record.
pub(super) type Outcome<K2, V2> = Result<(K2, V2), ProcessError>;

enum State<K, V, K2, V2> {
    Waiting(K, V),
    Running(#[allow(dead_code)] Cancel, Timestamp), // kept for its end
    Done(Outcome<K2, V2>),
}

struct Entry<K, V, K2, V2> {
    waits: Waits,
    state: State<K, V, K2, V2>,
}

/// Cancels a call when it is dropped.
pub(super) struct Cancel(pub(super) AbortHandle);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the module.
pub(super) struct InFlight<K, V, K2, V2> {
    entries: BTreeMap<u64, Entry<K, V, K2, V2>>,
    /// The number of the next record.
    next: u64,
    /// From this number on, calls have not begun.
    waiting: u64,
    /// When the calls that run are overdue, and their numbers.
    running: BTreeSet<(Timestamp, u64)>,
    /// The numbers of each turn.
    turns: BTreeMap<u64, VecDeque<u64>>,
    /// Results whose turn has come.
    ready: BTreeSet<u64>,
}

impl<K, V, K2, V2> InFlight<K, V, K2, V2> {
    pub(super) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            next: 0,
            waiting: 0,
            running: BTreeSet::new(),
            turns: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }

    /// How many records are in flight.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many calls run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// One more record.
    pub(super) fn push(&mut self, waits: Waits, key: K, value: V) {
        self.turns.entry(waits.turn).or_default().push_back(self.next);
        self.entries.insert(self.next, Entry { waits, state: State::Waiting(key, value) });
        self.next += 1;
    }

    /// The record whose call should begin next.
    pub(super) fn first_waiting(&self) -> Option<u64> {
        (self.waiting < self.next).then_some(self.waiting)
    }

    /// Its call begins.
    pub(super) fn begin(&mut self, cancel: Cancel, due: Timestamp) -> Option<(K, V)> {
        let number = self.first_waiting()?;
        let entry = self.entries.get_mut(&number)?;
        self.waiting += 1;
        self.running.insert((due, number));
        match std::mem::replace(&mut entry.state, State::Running(cancel, due)) {
            State::Waiting(key, value) => Some((key, value)),
            State::Running(..) | State::Done(_) => None,
        }
    }

    /// A call has ended, unless it had before.
    pub(super) fn end(&mut self, number: u64, outcome: impl FnOnce() -> Outcome<K2, V2>) {
        let Some(Entry { waits, state }) = self.entries.get_mut(&number) else { return };
        let State::Running(_, due) = state else { return };
        self.running.remove(&(*due, number));
        *state = State::Done(outcome());
        let turn = self.turns.get(&waits.turn);
        if turn.is_some_and(|turn| turn.front() == Some(&number)) {
            self.ready.insert(number);
        }
    }

    /// The call that is overdue first, and when.
    pub(super) fn first_due(&self) -> Option<(Timestamp, u64)> {
        self.running.first().copied()
    }

    /// Takes out the first record whose result may go on.
    pub(super) fn release(&mut self) -> Option<(Waits, Outcome<K2, V2>)> {
        let Entry { waits, state } = self.entries.remove(&self.ready.pop_first()?)?;
        if let Some(turn) = self.turns.get_mut(&waits.turn) {
            turn.pop_front();
            if let Some(next) = turn.front() {
                let next_state = self.entries.get(next).map(|next| &next.state);
                if matches!(next_state, Some(State::Done(_))) {
                    self.ready.insert(*next);
                }
            } else {
                self.turns.remove(&waits.turn);
            }
        }
        match state {
            State::Done(outcome) => Some((waits, outcome)),
            State::Waiting(..) | State::Running(..) => None,
        }
    }
}
