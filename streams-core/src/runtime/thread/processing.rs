//! Fetching and processing.

use std::task::Poll;
use std::time::Duration;

use broker_api::Clock;

use super::super::metrics::add;
use super::{StreamThread, StreamsError};
use crate::failure::Halt;
use crate::processor::PunctuationKind;
use crate::task::Task;

/// How many records a task processes at most before other tasks, and the disk, get a turn.
const TURN_RECORDS: usize = 1_000;

/// How long its turn is at most, but for the records that are processed between two looks at the clock.
const TURN: Duration = Duration::from_millis(10);

/// How many those are at most, once records have been quick in this turn.
const BETWEEN_LOOKS: usize = 64;

/// How many bytes one poll asks for.
const FETCH_BYTES: usize = 1 << 20;

impl StreamThread {
    pub(super) fn fetch(&mut self) -> Result<bool, StreamsError> {
        let goes_on = self.go_on_at_ends()?;
        self.nothing_fetched = self.running.values().all(|running| running.overtaken.is_empty());
        if self.inputs.is_empty() {
            return Ok(goes_on);
        }
        let Poll::Ready(fetched) = self.fetcher.poll(FETCH_BYTES) else {
            return Ok(goes_on);
        };
        let limit = self.env.settings.input_buffer_bytes;
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return self.pass_over(error).map(|()| true),
        };
        for part in fetched {
            let task = self.inputs.get(&part.partition).and_then(|id| self.running.get_mut(id));
            let Some(queue) = task.and_then(|r| r.task.queue_mut(&part.partition)) else {
                continue;
            };
            if !part.batches.is_empty() {
                self.nothing_fetched = false;
            }
            queue.add(part.batches, part.position, part.at_end);
            if queue.bytes() > limit && self.paused.insert(part.partition.clone()) {
                self.fetcher.pause(&[part.partition]);
            }
        }
        Ok(true)
    }

    pub(super) fn process(&mut self) -> Result<bool, StreamsError> {
        if self.unsent.is_some() || self.generation.causes() >= self.generation_limit {
            return Ok(false); // the broker is full, or the commit would be
        }
        if self.finder.is_asking() {
            return Ok(false); // what comes next depends on the answer
        }
        if self.suspended || self.draining || !self.env.globals.is_open(&self.waker) {
            return Ok(false);
        }
        self.share_room();
        if self.running.values_mut().any(|running| running.task.wants_seal()) {
            self.seal_requested = true;
            return Ok(false);
        }
        self.share_memory();
        let now = self.env.clock.now();
        let mut busy = self.process_some(now, true)?;
        if !busy {
            busy = self.process_some(now, false)?;
        }
        // Also when nothing was processed: a batch may have been done with only now.
        let resumed = self.resume_inputs();
        let punctuated = self.punctuate(now)?;
        // Not only if a record was processed: others may have done something before one failed, and what
        // a task was opened to leave out is to be committed, too.
        if self.since.is_none() && self.running.values_mut().any(|r| r.task.has_uncommitted()) {
            self.since = Some(self.env.clock.monotonic());
        }
        Ok(busy || punctuated || resumed)
    }

    /// Forwards the results of calls that have ended.
    pub(super) fn release_calls(&mut self) -> Result<bool, StreamsError> {
        let now = self.env.clock.now();
        let mut any = false;
        let mut halted = None;
        for (id, running) in &mut self.running {
            if running.task.calls_in_flight() > 0 {
                running.task.core_mut().set_wall_clock(now);
                match running.task.release() {
                    Ok(released) => any |= released,
                    Err(halt) => {
                        halted = Some((*id, halt));
                        break;
                    }
                }
            }
        }
        match halted {
            Some((task, halt)) => self.halted(task, halt).map(|()| true),
            None => Ok(any),
        }
    }

    /// A slice of each task, the most downstream first. Answers whether records were processed, or
    /// entries let go, or a task has failed.
    fn process_some(&mut self, now: i64, internal: bool) -> Result<bool, StreamsError> {
        let budget = self.store_budget();
        let mut all = 0;
        let most = self.generation_limit - self.generation.causes();
        let mut room = self.room();
        let mut halted = None;
        for (id, running) in self.running.iter_mut().rev() {
            if running.internal != internal
                || self.closing.contains(id)
                || running.memory_full(budget)
            {
                continue;
            }
            running.task.core_mut().set_wall_clock(now);
            let before = (running.task.processed(), running.task.gone_on());
            let left = most.saturating_sub(all);
            let clock = &*self.env.clock;
            let result = room.used_by(&mut running.task, left, |task| take_turn(task, left, clock));
            let done = (running.task.processed() - before.0) as usize;
            let gone_on = (running.task.gone_on() - before.1) as usize;
            if running.task.core_mut().take_commit_request() {
                self.seal_requested = true;
            }
            if done + gone_on > 0 {
                self.last_processed = Some(*id);
                all += done + gone_on;
                self.generation.gone_on += gone_on;
                self.generation.processed += done;
                add(&self.env.counters.processed, done as u64);
                if !internal {
                    self.generation.consumed += done;
                    add(&self.env.counters.consumed, done as u64);
                }
            }
            if let Err(halt) = result {
                halted = Some((*id, halt));
                break;
            }
        }
        match halted {
            Some((task, halt)) => self.halted(task, halt).map(|()| true),
            None => Ok(all > 0),
        }
    }

    /// Answers whether there were any to resume.
    fn resume_inputs(&mut self) -> bool {
        let paused = self.paused.len();
        if paused == 0 {
            return false;
        }
        let (running, inputs) = (&mut self.running, &self.inputs);
        let limit = self.env.settings.input_buffer_bytes / 2;
        let fetcher = &mut self.fetcher;
        self.paused.retain(|partition| {
            let task = inputs.get(partition).and_then(|id| running.get_mut(id));
            let bytes = task.and_then(|r| r.task.queue_mut(partition)).map_or(0, |q| q.bytes());
            if bytes <= limit {
                fetcher.resume(std::slice::from_ref(partition));
            }
            bytes > limit
        });
        self.paused.len() < paused
    }

    fn punctuate(&mut self, now: i64) -> Result<bool, StreamsError> {
        let mut any = false;
        let mut room = self.room();
        let mut halted = None;
        for (id, running) in &mut self.running {
            if self.closing.contains(id) || running.task.core_mut().schedules_mut().is_empty() {
                continue;
            }
            running.task.core_mut().set_wall_clock(now);
            let kind = PunctuationKind::WallClock;
            match room.used_by(&mut running.task, 0, |task| task.punctuate(kind, now)) {
                Ok(called) => any |= called,
                Err(halt) => {
                    halted = Some((*id, halt));
                    break;
                }
            }
        }
        match halted {
            Some((task, halt)) => self.halted(task, halt).map(|()| true),
            None => Ok(any),
        }
    }

    /// How many bytes each store may hold in memory: all stores of the process share evenly.
    pub(super) fn store_budget(&self) -> usize {
        self.env.stores.each(self.env.settings.state_memory_bytes)
    }

    /// Gives the stores their shares of the memory, when these have changed: also when another
    /// thread has got or lost stores.
    pub(super) fn share_memory(&mut self) {
        let budget = self.store_budget();
        if self.shared_budget.replace(budget) == Some(budget) {
            return;
        }
        for running in self.running.values_mut() {
            for store in running.task.core_mut().stores_mut().iter_mut() {
                store.set_budget(budget);
            }
        }
    }
}

/// Lets a task process records until its turn is over, or it can do no more. So commits, punctuations and
/// the end of an application are in time also where a record takes long.
fn take_turn(task: &mut Task, most: usize, clock: &dyn Clock) -> Result<(), Halt> {
    let most = most.min(TURN_RECORDS);
    let began = clock.monotonic();
    let (mut done, mut next) = (0, 1);
    while done < most {
        let wanted = next.min(most - done);
        let processed = task.process(wanted)?;
        done += processed;
        if processed < wanted || clock.monotonic().saturating_sub(began) > TURN {
            break;
        }
        next = BETWEEN_LOOKS.min(next * 2);
    }
    Ok(())
}
