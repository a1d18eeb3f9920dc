//! The life of an application: the states of its threads, and the one that follows from them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use broker_api::{Clock, TaskId};
use tokio::sync::watch;

use super::directory::HeldDirectory;
use super::parker::Parker;
use super::thread::{Next, StreamThread, ThreadEnv};
use super::{GlobalThread, StreamsError, Uncaught};
use crate::processor::take_blamed;
use crate::task::panic_message;

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

impl State {
    /// Whether there are threads that work.
    pub fn is_running_or_rebalancing(self) -> bool {
        matches!(self, Self::Rebalancing | Self::Running)
    }
}

/// Is told of each change of an application's state: the new one, then the old one. Called one change
/// at a time, by the thread that makes it: it must not block.
pub type StateListener = Arc<dyn Fn(State, State) + Send + Sync>;

/// What the threads of an application and its owner share.
pub(super) struct Shared {
    /// Of the threads that are alive.
    cells: Mutex<Vec<Arc<Cell>>>,
    paused: AtomicBool,
    /// Nobody waits for calls in flight any more.
    abandoned: AtomicBool,
    clock: Arc<dyn Clock>,
    /// When those that have not closed give up, and after how long that is.
    close_by: Mutex<Option<(Duration, Duration)>>,
    /// The last question of [`super::Streams::caught_up`].
    asked: AtomicU64,
    error: Mutex<Option<StreamsError>>,
    /// The directory of the state, until the application has failed or is dropped.
    held: Mutex<Option<HeldDirectory>>,
    listener: Option<StateListener>,
    /// Keeps the changes of the state in order for the listener.
    announcing: Mutex<()>,
    pub(super) state: watch::Sender<State>,
    pub(super) progress: watch::Sender<u64>,
    /// When somebody wants to look again at what nobody tells of, and that it is time.
    look_at: Mutex<Option<Duration>>,
    pub(super) looks: watch::Sender<()>,
}

/// What is known of a thread.
pub(super) struct Cell {
    pub(super) number: usize,
    stop: AtomicBool,
    /// Whether all its tasks are running.
    running: AtomicBool,
    /// The question at which it had nothing left to do.
    caught_up: AtomicU64,
    /// The tasks that a stream thread had then, and those that it knew of.
    tasks: Mutex<Option<(BTreeSet<TaskId>, ThreadEnv)>>,
    waker: Mutex<Option<Waker>>,
}

impl Cell {
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }
}

impl Shared {
    pub(super) fn new(
        listener: Option<StateListener>,
        clock: Arc<dyn Clock>,
        held: HeldDirectory,
    ) -> Self {
        Self {
            cells: Mutex::default(),
            paused: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            clock,
            close_by: Mutex::default(),
            asked: AtomicU64::new(0),
            error: Mutex::default(),
            held: Mutex::new(Some(held)),
            listener,
            announcing: Mutex::default(),
            state: watch::Sender::new(State::Created),
            progress: watch::Sender::new(0),
            look_at: Mutex::default(),
            looks: watch::Sender::new(()),
        }
    }

    /// A place for one more thread, with the lowest number that is free.
    pub(super) fn new_cell(&self) -> Arc<Cell> {
        let mut cells = lock(&self.cells);
        let taken = |number: &usize| cells.iter().any(|cell| cell.number == *number);
        let number = (0..).find(|number| !taken(number)).unwrap_or_default();
        Self::add_cell(&mut cells, number)
    }

    /// A place for the thread that keeps the global stores.
    pub(super) fn new_global_cell(&self) -> Arc<Cell> {
        Self::add_cell(&mut lock(&self.cells), GLOBAL)
    }

    fn add_cell(cells: &mut Vec<Arc<Cell>>, number: usize) -> Arc<Cell> {
        let cell = Arc::new(Cell {
            number,
            stop: AtomicBool::new(false),
            running: AtomicBool::new(false),
            caught_up: AtomicU64::new(0),
            tasks: Mutex::default(),
            waker: Mutex::default(),
        });
        cells.push(cell.clone());
        cell
    }

    /// The thread is gone.
    pub(super) fn forget(&self, cell: &Arc<Cell>) {
        let mut cells = lock(&self.cells);
        cells.retain(|other| !Arc::ptr_eq(other, cell));
        let last = cells.is_empty();
        drop(cells);
        if last && *self.state.borrow() == State::PendingError {
            *lock(&self.held) = None;
            self.set_state(State::Error);
        }
        self.progress.send_modify(|n| *n += 1);
        self.looks.send_replace(());
    }

    pub(super) fn error(&self) -> StreamsError {
        lock(&self.error).clone().unwrap_or(StreamsError::Broker(broker_api::Error::Closed))
    }

    /// States go forward only, apart from the change between rebalancing and running.
    pub(super) fn set_state(&self, to: State) {
        self.announce(|| to);
    }

    /// Goes to the state that is found when it is this change's turn. The listener is told with no
    /// other lock held, so that it may ask something of the application.
    fn announce(&self, find: impl FnOnce() -> State) {
        let announcing = lock(&self.announcing);
        let to = find();
        let mut from = to;
        self.state.send_if_modified(|state| {
            let back = matches!((*state, to), (State::Running, State::Rebalancing));
            let changes = *state != to && (back || to > *state);
            if changes {
                tracing::info!(from = ?*state, ?to, "application state");
                from = std::mem::replace(state, to);
            }
            changes
        });
        if let Some(listener) = self.listener.as_ref().filter(|_| from != to) {
            listener(to, from);
        }
        drop(announcing);
    }

    pub(super) fn stop_all(&self) {
        lock(&self.cells).iter().for_each(|cell| cell.stop());
    }

    /// As [`Shared::stop_all`], but threads with calls in flight give up what they have not committed: the
    /// calls may be made on the very thread that waits for them.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.stop_all();
    }

    /// Threads that have not stopped after this time give up what they have not committed.
    pub(super) fn close_within(&self, limit: Duration) {
        let at = self.clock.monotonic().saturating_add(limit);
        *lock(&self.close_by) = Some((at, limit));
    }

    /// How long a thread may still take to stop; `None`: as long as it needs.
    fn time_to_close(&self) -> Result<Option<Duration>, StreamsError> {
        let Some((at, limit)) = *lock(&self.close_by) else { return Ok(None) };
        match at.saturating_sub(self.clock.monotonic()) {
            Duration::ZERO => Err(StreamsError::CloseTimeout { limit }),
            left => Ok(Some(left)),
        }
    }

    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.wake_all();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Asks all threads whether they are caught up; each answers when it has nothing to do.
    pub(super) fn ask(&self) -> u64 {
        let question = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_all();
        question
    }

    /// Whether all threads have answered a question.
    pub(super) fn have_answered(&self, question: u64) -> bool {
        let answered = |cell: &Arc<Cell>| cell.caught_up.load(Ordering::Acquire) >= question;
        lock(&self.cells).iter().all(answered)
    }

    /// Whether there are stream threads.
    pub(super) fn has_threads(&self) -> bool {
        lock(&self.cells).iter().any(|cell| cell.number != GLOBAL)
    }

    /// The tasks of all threads when they answered last, and what one of them knew of.
    pub(super) fn tasks(&self) -> (BTreeSet<TaskId>, Option<ThreadEnv>) {
        let (mut all, mut known) = (BTreeSet::new(), None);
        for (tasks, env) in lock(&self.cells).iter().filter_map(|cell| lock(&cell.tasks).clone()) {
            all.extend(tasks);
            known = Some(env);
        }
        (all, known)
    }

    /// Waits for [`LOOK_AGAIN`], for which a thread wakes up, or until the tasks of one have changed.
    pub(super) async fn a_while(&self, looks: &mut watch::Receiver<()>) {
        lock(&self.look_at).get_or_insert_with(|| self.clock.monotonic() + LOOK_AGAIN);
        self.wake_all();
        if self.has_threads() {
            // The sender lives as long as `self`.
            let _ = looks.changed().await;
        }
    }

    /// How long a thread may sleep at most because of [`Shared::a_while`].
    fn until_look(&self) -> Option<Duration> {
        let mut look_at = lock(&self.look_at);
        let left = (*look_at)?.saturating_sub(self.clock.monotonic());
        if left > Duration::ZERO {
            return Some(left);
        }
        *look_at = None;
        self.looks.send_replace(());
        None
    }

    fn wake_all(&self) {
        lock(&self.cells).iter().for_each(|cell| cell.wake());
    }

    fn fail(&self, error: StreamsError) {
        lock(&self.error).get_or_insert(error);
        self.set_state(State::PendingError);
        self.stop_all();
    }

    /// `question`: the last one that was asked before the thread's step began.
    fn report(&self, cell: &Cell, thread: &impl Machine, question: u64) {
        self.set_running(cell, thread.is_running());
        if thread.is_caught_up() && cell.caught_up.load(Ordering::Acquire) != question {
            *lock(&cell.tasks) = thread.tasks();
            cell.caught_up.store(question, Ordering::Release);
            self.progress.send_modify(|n| *n += 1);
        }
        // What somebody takes for the task of another instance may have come to this one.
        if lock(&self.look_at).is_some() {
            let ids = |tasks: Option<(BTreeSet<TaskId>, ThreadEnv)>| tasks.map(|(ids, _)| ids);
            let known = lock(&cell.tasks).clone();
            if ids(known) != ids(thread.tasks()) {
                self.looks.send_replace(());
            }
        }
    }

    fn set_running(&self, cell: &Cell, running: bool) {
        if cell.running.swap(running, Ordering::AcqRel) != running {
            self.looks.send_replace(());
        }
        // Looked at one after the other: a thread that saw less must not have the last word.
        self.announce(|| {
            let all = lock(&self.cells).iter().all(|cell| cell.running.load(Ordering::Acquire));
            if all { State::Running } else { State::Rebalancing }
        });
    }
}

/// The number of the thread that keeps the global stores.
const GLOBAL: usize = usize::MAX;

/// How often it is looked at what other instances have committed, while somebody waits for that.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The longest time before a thread that failed is replaced again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The life of a stream thread, and of those that replace it.
pub(super) fn drive(env: &ThreadEnv, shared: &Shared, process_id: &str, cell: &Arc<Cell>) {
    let parker = Parker::new();
    *lock(&cell.waker) = Some(parker.waker());
    let mut pause = Duration::ZERO;
    loop {
        let commits = env.metrics().commits;
        let result = run(shared, cell, &parker, || {
            StreamThread::new(env.clone(), process_id, cell.number, parker.waker())
        });
        let Err(error) = result else { break };
        let stopping = cell.stop.load(Ordering::Acquire);
        let goes_on = shared.state.borrow().is_running_or_rebalancing();
        if stopping && goes_on && matches!(error, StreamsError::NotWritten { .. }) {
            tracing::warn!(thread = cell.number, %error, "a stream thread was removed; others have its tasks now");
            break;
        }
        tracing::error!(thread = cell.number, %error, "a stream thread has failed");
        let handler = &env.settings.uncaught_handler;
        let asked = match error {
            StreamsError::Stopped | StreamsError::CloseTimeout { .. } => Uncaught::StopClient,
            _ => catch_unwind(AssertUnwindSafe(|| handler(&error))).unwrap_or(Uncaught::StopClient),
        };
        if asked == Uncaught::StopApplication
            && let Err(failure) = StreamThread::stop_application(env)
        {
            tracing::error!(%failure, "the other instances cannot be asked to stop");
        }
        if asked != Uncaught::ReplaceThread || stopping {
            shared.fail(error);
            break;
        }
        shared.set_running(cell, false);
        if env.metrics().commits > commits {
            pause = Duration::ZERO; // it had come on
        } else {
            parker.park(Some(pause));
            pause = (pause * 2).clamp(Duration::from_millis(100), LONGEST_PAUSE);
        }
    }
    shared.forget(cell);
}

/// The life of the thread that keeps the global stores. It is not replaced: those who read the stores
/// hold on to what it has opened.
pub(super) fn drive_global(env: &ThreadEnv, shared: &Shared, cell: &Arc<Cell>) {
    let parker = Parker::new();
    *lock(&cell.waker) = Some(parker.waker());
    let make = || GlobalThread::new(env.clone(), parker.waker());
    if let Err(error) = run(shared, cell, &parker, make) {
        tracing::error!(%error, "the thread of the global stores has failed");
        shared.fail(error);
    }
    shared.forget(cell);
}

/// What a thread steps.
trait Machine {
    fn step(&mut self) -> Result<Next, StreamsError>;
    fn stop(&mut self);
    fn pause(&mut self, paused: bool);
    fn is_running(&self) -> bool;
    fn is_caught_up(&self) -> bool;
    fn tasks(&self) -> Option<(BTreeSet<TaskId>, ThreadEnv)>;
    fn waits_for_calls(&self) -> bool;
}

impl Machine for StreamThread {
    fn step(&mut self) -> Result<Next, StreamsError> {
        self.step()
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn pause(&mut self, paused: bool) {
        self.pause(paused);
    }

    fn is_running(&self) -> bool {
        self.is_running()
    }

    fn is_caught_up(&self) -> bool {
        self.is_caught_up()
    }

    fn tasks(&self) -> Option<(BTreeSet<TaskId>, ThreadEnv)> {
        Some(self.tasks())
    }

    fn waits_for_calls(&self) -> bool {
        self.calls_in_flight() > 0
    }
}

impl Machine for GlobalThread {
    fn step(&mut self) -> Result<Next, StreamsError> {
        self.step()
    }

    fn stop(&mut self) {
        self.stop();
    }

    /// Global stores are kept up to date as ever.
    fn pause(&mut self, _: bool) {}

    fn is_running(&self) -> bool {
        self.is_running()
    }

    fn is_caught_up(&self) -> bool {
        self.is_caught_up()
    }

    fn tasks(&self) -> Option<(BTreeSet<TaskId>, ThreadEnv)> {
        None
    }

    fn waits_for_calls(&self) -> bool {
        false
    }
}

/// Steps a thread to its end. Whatever a panic (of the application's code, or of ours) leaves half done
/// is dropped with the thread.
fn run<M: Machine>(
    shared: &Shared,
    cell: &Cell,
    parker: &Parker,
    make: impl FnOnce() -> Result<M, StreamsError>,
) -> Result<(), StreamsError> {
    let steps = || step_to_the_end(shared, cell, parker, make()?);
    catch_unwind(AssertUnwindSafe(steps)).unwrap_or_else(|panic| {
        let (record, node) = (None, take_blamed());
        Err(StreamsError::Panic { record, node, message: panic_message(&*panic) })
    })
}

fn step_to_the_end(
    shared: &Shared,
    cell: &Cell,
    parker: &Parker,
    mut thread: impl Machine,
) -> Result<(), StreamsError> {
    let mut said_running = false;
    loop {
        let mut left = None;
        if cell.stop.load(Ordering::Acquire) {
            left = shared.time_to_close()?;
            if shared.abandoned.load(Ordering::Acquire) && thread.waits_for_calls() {
                return Ok(());
            }
            thread.stop();
        }
        thread.pause(shared.is_paused());
        let question = shared.asked.load(Ordering::Acquire);
        match thread.step()? {
            Next::Again => {
                if said_running != thread.is_running() {
                    said_running = thread.is_running();
                    shared.report(cell, &thread, question);
                }
            }
            Next::Wait(limit) => {
                shared.report(cell, &thread, question);
                let look = shared.until_look();
                parker.park([limit, left, look].into_iter().flatten().min());
            }
            Next::Stopped => return Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
