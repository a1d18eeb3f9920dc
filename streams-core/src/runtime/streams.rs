//! An application: its threads, its states, its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use broker_api::{Broker, Clock};
use futures::channel::oneshot;

use super::background::Worker;
use super::directory::HeldDirectory;
use super::life::{Cell, Shared, drive, drive_global};
use super::thread::ThreadEnv;
use super::{Metrics, Plan, Settings, State, StreamsError, process_id};
use crate::state::StateEngine;
use crate::topology::Topology;

/// A running application. Dropping it without [`Streams::close`] stops its threads too, and waits
/// for them, but not for calls of async operators: these are cancelled, and made again at the next start.
pub struct Streams {
    pub(super) env: ThreadEnv,
    process_id: String,
    threads: Mutex<Vec<Thread>>,
    /// Keeps the global stores, if there are any.
    global: Mutex<Option<Thread>>,
    /// Ends, and has flushed, after the threads.
    _worker: Arc<Worker>,
    /// Lets go of the directory, when nothing is written there any more.
    pub(super) shared: Arc<Shared>,
}

struct Thread {
    cell: Arc<Cell>,
    handle: JoinHandle<()>,
    finished: oneshot::Receiver<()>,
}

impl Thread {
    async fn end(self) {
        // An error means that the thread is gone, which is what is waited for.
        let _ = self.finished.await;
        join(self.handle);
    }
}

fn join(handle: JoinHandle<()>) {
    if handle.join().is_err() {
        tracing::error!("a stream thread ended in a panic of its own");
    }
}

impl Streams {
    /// Creates the internal topics that are missing, and starts the threads.
    ///
    /// # Errors
    /// As [`Streams::create`] and [`Streams::begin`].
    pub async fn start(
        topology: Arc<Topology>,
        broker: Arc<dyn Broker>,
        engine: Arc<dyn StateEngine>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, StreamsError> {
        let streams = Self::create(topology, broker, engine, clock, settings).await?;
        streams.begin()?;
        Ok(streams)
    }

    /// Creates the internal topics that are missing. Nothing runs before [`Streams::begin`].
    ///
    /// # Errors
    /// [`StreamsError`] for settings that cannot be, a topology that reads nothing, topics that are
    /// missing or do not fit, a state directory that cannot be used, or is in use.
    pub async fn create(
        topology: Arc<Topology>,
        broker: Arc<dyn Broker>,
        engine: Arc<dyn StateEngine>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, StreamsError> {
        settings.check()?;
        let dir = settings.state_dir.join(&*settings.application_id);
        let held = HeldDirectory::take(&dir)?;
        let admin = broker.admin();
        let id = &settings.application_id;
        let (topology, mut plan) = Plan::follow(&topology, id, &*admin, None).await?;
        if let Some(topic) = &settings.dead_letter_topic {
            plan.add_topic(admin.topic(topic).await?);
        }
        let failed = |e: std::io::Error| StreamsError::Thread { reason: e.to_string() };
        let name = &settings.application_id;
        let worker = Arc::new(Worker::start(format!("{name}-flush")).map_err(failed)?);
        let listener = settings.state_listener.clone();
        let shared = Arc::new(Shared::new(listener, clock.clone(), held));
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
        let (threads, global) = (Mutex::default(), Mutex::default());
        Ok(Self { env, process_id, threads, global, _worker: worker, shared })
    }

    /// Starts as many threads as the settings say; nothing if they were started before.
    ///
    /// # Errors
    /// [`StreamsError::Thread`].
    pub fn begin(&self) -> Result<(), StreamsError> {
        if self.state() != State::Created {
            return Ok(());
        }
        self.shared.set_state(State::Rebalancing);
        if self.env.topology.has_globals() {
            let (env, shared) = (self.env.clone(), self.shared.clone());
            let cell = self.shared.new_global_cell();
            let its = cell.clone();
            let name = format!("{}-global", env.settings.application_id);
            let thread = self.thread(name, cell, move || drive_global(&env, &shared, &its))?;
            *self.global.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        (0..self.env.settings.threads).try_for_each(|_| self.spawn().map(|_| ()))
    }

    fn spawn(&self) -> Result<usize, StreamsError> {
        let cell = self.shared.new_cell();
        let number = cell.number;
        let (env, shared) = (self.env.clone(), self.shared.clone());
        let (id, its) = (self.process_id.clone(), cell.clone());
        let name = format!("{}-{number}", env.settings.application_id);
        let thread = self.thread(name, cell, move || drive(&env, &shared, &id, &its))?;
        self.threads().push(thread);
        Ok(number)
    }

    fn thread(
        &self,
        name: String,
        cell: Arc<Cell>,
        life: impl FnOnce() + Send + 'static,
    ) -> Result<Thread, StreamsError> {
        let (done, finished) = oneshot::channel();
        let run = move || {
            life();
            // Nobody may wait any more.
            let _ = done.send(());
        };
        match std::thread::Builder::new().name(name).spawn(run) {
            Ok(handle) => Ok(Thread { cell, handle, finished }),
            Err(error) => {
                self.shared.forget(&cell);
                Err(StreamsError::Thread { reason: error.to_string() })
            }
        }
    }

    /// Takes all threads, to end them.
    fn take_threads(&self) -> Vec<Thread> {
        let mut threads = std::mem::take(&mut *self.threads());
        threads.extend(self.global.lock().unwrap_or_else(PoisonError::into_inner).take());
        threads
    }

    fn threads(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one more thread, which takes tasks from the others; its number is the answer, or `None`
    /// if the application is not running.
    ///
    /// # Errors
    /// [`StreamsError::Thread`].
    pub fn add_thread(&self) -> Result<Option<usize>, StreamsError> {
        if !self.state().is_running_or_rebalancing() {
            return Ok(None);
        }
        self.spawn().map(Some)
    }

    /// Stops the thread that was started last: it commits and flushes what it has, and its tasks go
    /// to the others. Its number is the answer, or `None` if there is none.
    pub async fn remove_thread(&self) -> Option<usize> {
        if !self.state().is_running_or_rebalancing() {
            return None;
        }
        let thread = self.threads().pop()?;
        let number = thread.cell.number;
        thread.cell.stop();
        thread.end().await;
        Some(number)
    }

    /// Processes nothing from now on, until [`Streams::resume`]. What was processed is committed, and
    /// tasks are assigned and restored as ever.
    pub fn pause(&self) {
        self.shared.pause(true);
    }

    /// Goes on after [`Streams::pause`].
    pub fn resume(&self) {
        self.shared.pause(false);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.shared.is_paused()
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
            Ok(State::Error) => Err(self.shared.error()),
            _ => Ok(()),
        }
    }

    /// What the application has counted.
    pub fn metrics(&self) -> Metrics {
        self.env.metrics()
    }

    /// Commits what was processed, flushes all stores, and stops. What cannot be committed because its
    /// topic is gone is given up at once; what a full broker has no room for, and calls of async
    /// operators, are waited for.
    ///
    /// # Errors
    /// Why the application failed, if it did; [`StreamsError::NotWritten`] if something was given up,
    /// which is processed again at the next start.
    pub async fn close(self) -> Result<(), StreamsError> {
        self.shared.set_state(State::PendingShutdown);
        self.shared.stop_all();
        let threads = self.take_threads();
        for thread in threads {
            thread.end().await;
        }
        if self.state() == State::Error {
            return Err(self.shared.error());
        }
        self.shared.set_state(State::NotRunning);
        Ok(())
    }

    /// As [`Streams::close`], but what is not committed and flushed after this time is given up. (Code
    /// of the application that does not return is waited for all the same.)
    ///
    /// # Errors
    /// As [`Streams::close`], and [`StreamsError::CloseTimeout`] if something was given up.
    pub async fn close_within(self, limit: Duration) -> Result<(), StreamsError> {
        self.shared.close_within(limit);
        self.close().await
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shared.abandon();
        let threads = self.take_threads();
        threads.into_iter().for_each(|thread| join(thread.handle));
    }
}
