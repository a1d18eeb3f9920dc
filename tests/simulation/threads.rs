//! The threads of an application, as the loop steps them, and what works for them in the background.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use broker_api::sim::Dice;
use futures::future::BoxFuture;
use streams_core::Executor;
use streams_core::runtime::{
    Background, GlobalThread, Next, StreamThread, StreamsError, ThreadEnv,
};

/// A thread that was started and has not ended.
pub(crate) struct Thread {
    machine: Machine,
    flag: Arc<Flag>,
    again: bool,
    due: Option<Duration>,
    stopping: bool,
}

/// What it is.
enum Machine {
    /// The stream thread of this number.
    Stream(usize, Box<StreamThread>),
    /// Keeps the global stores.
    Global(Box<GlobalThread>),
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Thread {
    pub(crate) fn stream(env: &ThreadEnv, number: usize) -> Result<Self, StreamsError> {
        Self::new(|waker| {
            Ok(Machine::Stream(number, StreamThread::new(env.clone(), "p", number, waker)?.into()))
        })
    }

    pub(crate) fn global(env: &ThreadEnv) -> Result<Self, StreamsError> {
        Self::new(|waker| Ok(Machine::Global(GlobalThread::new(env.clone(), waker)?.into())))
    }

    fn new(
        make: impl FnOnce(Waker) -> Result<Machine, StreamsError>,
    ) -> Result<Self, StreamsError> {
        let flag = Arc::<Flag>::default();
        let machine = make(flag.clone().into())?;
        Ok(Self { machine, flag, again: true, due: None, stopping: false })
    }

    /// The number of a stream thread.
    pub(crate) fn number(&self) -> Option<usize> {
        match &self.machine {
            Machine::Stream(number, _) => Some(*number),
            Machine::Global(_) => None,
        }
    }

    pub(crate) fn stop(&mut self) {
        match &mut self.machine {
            Machine::Stream(_, machine) => machine.stop(),
            Machine::Global(machine) => machine.stop(),
        }
        (self.stopping, self.again) = (true, true);
    }

    /// Whether it was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(crate) fn is_caught_up(&self) -> bool {
        match &self.machine {
            Machine::Stream(_, machine) => machine.is_caught_up(),
            Machine::Global(machine) => machine.is_caught_up(),
        }
    }

    /// When it wants to be stepped even if nobody wakes it.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    pub(crate) fn is_awake(&self, now: Duration) -> bool {
        self.again || self.flag.0.load(Ordering::Acquire) || self.due.is_some_and(|due| due <= now)
    }

    pub(crate) fn step(&mut self, now: Duration) -> Result<Next, StreamsError> {
        self.flag.0.store(false, Ordering::Release);
        let next = match &mut self.machine {
            Machine::Stream(_, machine) => machine.step()?,
            Machine::Global(machine) => machine.step()?,
        };
        self.again = next == Next::Again;
        self.due = match next {
            Next::Wait(Some(limit)) => Some(now + limit),
            _ => None,
        };
        Ok(next)
    }
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.machine {
            Machine::Stream(_, machine) => machine.fmt(f),
            Machine::Global(machine) => {
                write!(f, "the global stores, after {} records", machine.processed())
            }
        }
    }
}

/// Store flushes, and calls of async operators, that wait for their turn.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<VecDeque<Box<dyn FnOnce() + Send>>>);

impl Background for Jobs {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
    }
}

impl Executor for Jobs {
    fn spawn(&self, mut call: BoxFuture<'static, ()>) {
        self.run(Box::new(move || {
            let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_ready(), "a call that waits for something else");
        }));
    }
}

impl Jobs {
    pub(crate) fn run_one(&self, dice: &mut Dice) -> bool {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = if jobs.is_empty() { 0 } else { dice.index(jobs.len()) };
        let job = jobs.remove(place);
        drop(jobs);
        job.map(|job| job()).is_some()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
