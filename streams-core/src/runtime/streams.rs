//! An application: its threads, its states, its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::thread::JoinHandle;

use broker_api::{Broker, Clock};
use futures::channel::oneshot;
use tokio::sync::watch;

use super::background::Worker;
use super::parker::Parker;
use super::thread::{Next, StreamThread, ThreadEnv};
use super::{Metrics, Plan, Settings, StreamsError, process_id};
use crate::processor::take_blamed;
use crate::state::StateEngine;
use crate::task::panic_message;
use crate::topology::Topology;

/// The life of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Made, not started.
    Created,
    /// Tasks are being assigned, opened or restored.
    Rebalancing,
    /// All tasks are running.
    Running,
    /// Asked to close.
    PendingShutdown,
    /// Closed.
    NotRunning,
    /// A thread has failed; the others are closing.
    PendingError,
    /// Ended by a failure.
    Error,
}

/// A running application. Dropping it without [`Streams::close`] stops its threads too, and waits
/// for them.
pub struct Streams {
    shared: Arc<Shared>,
    env: ThreadEnv,
    threads: Vec<JoinHandle<()>>,
    finished: Vec<oneshot::Receiver<()>>,
    /// Ends, and has flushed, after the threads.
    _worker: Arc<Worker>,
}

struct Shared {
    stop: AtomicBool,
    /// Of each thread: whether all its tasks are running.
    running: Mutex<Vec<bool>>,
    /// The last question of [`Streams::caught_up`].
    asked: AtomicU64,
    /// Of each thread: the question at which it had nothing left to do.
    caught_up: Vec<AtomicU64>,
    alive: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
    error: Mutex<Option<StreamsError>>,
    state: watch::Sender<State>,
    progress: watch::Sender<u64>,
}

impl Streams {
    /// Creates the internal topics that are missing and starts the threads.
    ///
    /// # Errors
    /// [`StreamsError`] for settings that cannot be, topics that are missing or do not fit, a state
    /// directory that cannot be used.
    pub async fn start(
        topology: Arc<Topology>,
        broker: Arc<dyn Broker>,
        engine: Arc<dyn StateEngine>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, StreamsError> {
        settings.check()?;
        let admin = broker.admin();
        let mut plan = Plan::make(&topology, &settings.application_id, &*admin).await?;
        if let Some(topic) = &settings.dead_letter_topic {
            plan.add_topic(admin.topic(topic).await?);
        }
        let failed = |e: std::io::Error| StreamsError::Thread { reason: e.to_string() };
        let name = &settings.application_id;
        let worker = Arc::new(Worker::start(format!("{name}-flush")).map_err(failed)?);
        let threads = settings.threads;
        let env = ThreadEnv::new(
            topology,
            Arc::new(plan),
            Arc::new(settings),
            broker,
            engine,
            clock,
            worker.clone(),
        );
        let process_id = process_id::of(&env.state_dir, &*env.clock)?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            running: Mutex::new(vec![false; threads]),
            asked: AtomicU64::new(0),
            caught_up: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            alive: AtomicUsize::new(threads),
            wakers: Mutex::default(),
            error: Mutex::default(),
            state: watch::Sender::new(State::Rebalancing),
            progress: watch::Sender::new(0),
        });
        let mut streams =
            Self { shared, env, threads: Vec::new(), finished: Vec::new(), _worker: worker };
        for number in 0..threads {
            let (done, finished) = oneshot::channel();
            streams.finished.push(finished);
            let (env, shared) = (streams.env.clone(), streams.shared.clone());
            let id = process_id.clone();
            let name = format!("{}-{number}", env.settings.application_id);
            let run = move || {
                drive(&env, &shared, &id, number);
                drop(env);
                // Nobody may wait any more.
                let _ = done.send(());
            };
            let thread = std::thread::Builder::new().name(name).spawn(run).map_err(failed)?;
            streams.threads.push(thread);
        }
        Ok(streams)
    }

    /// The present state.
    pub fn state(&self) -> State {
        *self.shared.state.borrow()
    }

    /// Waits until all tasks are running.
    ///
    /// # Errors
    /// Why the application failed instead.
    pub async fn running(&self) -> Result<(), StreamsError> {
        self.wait(|state| state == State::Running).await
    }

    /// Waits until the application has ended by itself, which it does only by failing.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn ended(&self) -> Result<(), StreamsError> {
        self.wait(|state| state == State::NotRunning).await
    }

    async fn wait(&self, until: impl Fn(State) -> bool) -> Result<(), StreamsError> {
        let mut states = self.shared.state.subscribe();
        // The sender lives as long as `self`.
        let reached = states.wait_for(|state| until(*state) || *state == State::Error).await;
        match reached.map(|state| *state) {
            Ok(State::Error) => Err(self.error()),
            _ => Ok(()),
        }
    }

    /// Waits until everything that was in the input when it was called, and all that follows from
    /// it, is processed and durable.
    ///
    /// # Errors
    /// Why the application failed instead.
    pub async fn caught_up(&self) -> Result<(), StreamsError> {
        let mut progress = self.shared.progress.subscribe();
        loop {
            // A thread that had nothing left may get more from another one. So the answers of all
            // count only if nothing was processed or committed while they were given.
            let before = self.metrics();
            let question = self.shared.ask();
            let answered = || {
                self.state() == State::Error
                    || self.shared.caught_up.iter().all(|t| t.load(Ordering::Acquire) == question)
            };
            // The sender lives as long as `self`.
            let _ = progress.wait_for(|_| answered()).await;
            let after = self.metrics();
            if self.state() == State::Error {
                return Err(self.error());
            }
            if (before.processed, before.commits) == (after.processed, after.commits) {
                return Ok(());
            }
        }
    }

    fn error(&self) -> StreamsError {
        let error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.clone().unwrap_or(StreamsError::Broker(broker_api::Error::Closed))
    }

    /// What the application has counted.
    pub fn metrics(&self) -> Metrics {
        self.env.metrics()
    }

    /// Commits what was processed, flushes all stores, and stops.
    ///
    /// # Errors
    /// Why the application failed, if it did.
    pub async fn close(mut self) -> Result<(), StreamsError> {
        self.shared.set_state(State::PendingShutdown);
        self.shared.stop_all();
        for finished in std::mem::take(&mut self.finished) {
            // An error means that the thread is gone, which is what is waited for.
            let _ = finished.await;
        }
        self.join();
        if self.state() == State::Error {
            return Err(self.error());
        }
        self.shared.set_state(State::NotRunning);
        Ok(())
    }

    fn join(&mut self) {
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a stream thread ended in a panic of its own");
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shared.stop_all();
        self.join();
    }
}

impl Shared {
    /// States go forward only, apart from the change between rebalancing and running.
    fn set_state(&self, to: State) {
        self.state.send_if_modified(|state| {
            let back = matches!((*state, to), (State::Running, State::Rebalancing));
            let changes = *state != to && (back || to > *state);
            if changes {
                tracing::info!(from = ?*state, ?to, "application state");
                *state = to;
            }
            changes
        });
    }

    fn stop_all(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Asks all threads whether they are caught up; each answers when it has nothing to do.
    fn ask(&self) -> u64 {
        let question = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_all();
        question
    }

    fn wake_all(&self) {
        for waker in self.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            waker.wake_by_ref();
        }
    }

    fn fail(&self, error: StreamsError) {
        tracing::error!(%error, "a stream thread has failed");
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.set_state(State::PendingError);
        self.stop_all();
    }

    /// `question`: the last one that was asked before the thread's step began.
    fn report(&self, number: usize, thread: &StreamThread, question: u64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running[number] = thread.is_running();
        let all = running.iter().all(|running| *running);
        // Under the lock: a thread that saw less must not have the last word.
        self.set_state(if all { State::Running } else { State::Rebalancing });
        drop(running);
        if thread.is_caught_up()
            && self.caught_up[number].swap(question, Ordering::AcqRel) != question
        {
            self.progress.send_modify(|n| *n += 1);
        }
    }
}

/// The life of a stream thread.
fn drive(env: &ThreadEnv, shared: &Shared, process_id: &str, number: usize) {
    let parker = Parker::new();
    shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(parker.waker());
    let run = || -> Result<(), StreamsError> {
        let mut thread = StreamThread::new(env.clone(), process_id, number, parker.waker())?;
        let mut said_running = false;
        loop {
            if shared.stop.load(Ordering::Acquire) {
                thread.stop();
            }
            let question = shared.asked.load(Ordering::Acquire);
            match thread.step()? {
                Next::Again => {
                    if said_running != thread.is_running() {
                        said_running = thread.is_running();
                        shared.report(number, &thread, question);
                    }
                }
                Next::Wait(limit) => {
                    shared.report(number, &thread, question);
                    parker.park(limit);
                }
                Next::Stopped => return Ok(()),
            }
        }
    };
    // Whatever a panic (of the application's code, or of ours) left half done is dropped with the
    // thread.
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let (record, node) = (None, take_blamed());
        Err(StreamsError::Panic { record, node, message: panic_message(&*panic) })
    });
    if let Err(error) = result {
        shared.fail(error);
    }
    if shared.alive.fetch_sub(1, Ordering::AcqRel) == 1
        && *shared.state.borrow() == State::PendingError
    {
        shared.set_state(State::Error);
        shared.progress.send_modify(|n| *n += 1);
    }
}
