//! A stream thread: one transactor, one membership, its tasks, and a step.
//!
//! A generation is what happens between two seals; it belongs to the thread, so that all its tasks
//! commit together. Several sealed generations may be on their way to the disk at once, because a
//! broker that allows it keeps them in order. What was sealed but is not synced has not left the
//! process: store files, purges and the hand-over of tasks wait until it survives a power cut,
//! whatever the broker acknowledges before. Stores without a changelog alone give theirs to their engines
//! with each commit that the broker has accepted: nothing else would have it when a task is opened again.

mod assignment;
mod committing;
mod engines;
mod finding;
mod flushing;
mod following;
mod halting;
mod opening;
mod overtaken;
mod processing;
mod replaying;
mod room;
mod running;
mod starting;
mod starting_over;
mod surviving;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Waker;
use std::time::Duration;

use broker_api::{
    Broker, Capabilities, Clock, Fetcher, FetcherConfig, Isolation, MemberToken, Membership,
    TaskId, TopicPartition, Transactor, View,
};

use self::committing::{FlushDone, InFlight, Unsent};
use self::finding::Finder;
use self::flushing::Flushing;
use self::following::Following;
use self::opening::{Opening, Restoring};
use self::running::Running;
pub(super) use self::starting::Input;
use super::global::Gate;
use super::metrics::{Counters, Tally};
use super::shares::Shares;
use super::{Background, Plan, Settings, StreamsError};
use crate::failure::LeftOut;
use crate::state::StateEngine;
use crate::topology::Topology;

/// What the threads of an application share.
#[derive(Clone)]
pub struct ThreadEnv {
    /// What to run.
    pub topology: Arc<Topology>,
    /// On which topics.
    pub plan: Arc<Plan>,
    /// How.
    pub settings: Arc<Settings>,
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Where stores keep their bytes.
    pub engine: Arc<dyn StateEngine>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where stores are flushed.
    pub background: Arc<dyn Background>,
    /// The directory of the application's state.
    pub state_dir: PathBuf,
    pub(in crate::runtime) counters: Arc<Counters>,
    flushing: Arc<Flushing>,
    /// Where the global stores are.
    pub(in crate::runtime) globals: Arc<Gate>,
    /// The open stores, which share the memory for state.
    pub(in crate::runtime) stores: Shares,
    /// The stores that are being restored, which share the memory for that.
    restores: Shares,
}

impl ThreadEnv {
    /// The environment of an application's threads.
    #[allow(clippy::too_many_arguments)] // one for each thing that is injected
    pub fn new(
        topology: Arc<Topology>,
        plan: Arc<Plan>,
        settings: Arc<Settings>,
        broker: Arc<dyn Broker>,
        engine: Arc<dyn StateEngine>,
        clock: Arc<dyn Clock>,
        background: Arc<dyn Background>,
    ) -> Self {
        let state_dir = settings.state_dir.join(&*settings.application_id);
        let globals = Arc::new(Gate::new(topology.has_globals()));
        Self {
            globals,
            topology,
            plan,
            settings,
            broker,
            engine,
            clock,
            background,
            state_dir,
            counters: Arc::default(),
            flushing: Arc::default(),
            stores: Shares::default(),
            restores: Shares::default(),
        }
    }

    /// What the threads have counted.
    pub fn metrics(&self) -> super::Metrics {
        self.counters.snapshot()
    }
}

/// What a step asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do.
    Again,
    /// Nothing to do until the waker is woken, or until this much time has passed.
    Wait(Option<Duration>),
    /// The thread was asked to stop and has.
    Stopped,
}

/// A stream thread as a step machine.
pub struct StreamThread {
    env: ThreadEnv,
    transactional_id: String,
    waker: Waker,
    capabilities: Capabilities,
    token: Option<MemberToken>,
    transactor: Box<dyn Transactor>,
    fetcher: Box<dyn Fetcher>,
    restore_fetcher: Box<dyn Fetcher>,
    finder: Finder,
    following: Following,

    assigned: BTreeSet<TaskId>,
    opening: BTreeMap<TaskId, Opening>,
    restoring: BTreeMap<TaskId, Restoring>,
    running: BTreeMap<TaskId, Running>,
    /// Running tasks that are given up as soon as their last commit is synced and flushed.
    closing: BTreeSet<TaskId>,
    /// Tasks that the membership wants back; acknowledged when all of them are given up.
    revoked: BTreeSet<TaskId>,

    inputs: BTreeMap<TopicPartition, TaskId>,
    paused: BTreeSet<TopicPartition>,
    nothing_fetched: bool,
    /// What each store was last allowed to hold in memory.
    shared_budget: Option<usize>,

    /// When the present generation had something to commit first.
    since: Option<Duration>,
    seal_requested: bool,
    /// What the present generation has counted, and how many records it may process, and entries let
    /// go: fewer after a commit that was too large.
    generation: Tally,
    generation_limit: usize,
    /// Commits that are not durable yet, and those that are, but not synced.
    in_flight: VecDeque<InFlight>,
    unsynced: VecDeque<InFlight>,
    unsent: Option<Unsent>,
    /// When that is tried again because a handler said so.
    retry_at: Option<Duration>,
    /// Since when commits are refused because of a topic; until one with it is accepted.
    refused_since: BTreeMap<String, Duration>,
    /// What is left out when its task has been opened again.
    left_out: Vec<(TaskId, LeftOut)>,
    /// The task that has processed a record, or gone on, last.
    last_processed: Option<TaskId>,
    last_purge: BTreeMap<TopicPartition, Duration>,
    flushes: (Sender<FlushDone>, Receiver<FlushDone>),
    /// Of each store at most one.
    flushes_running: BTreeSet<(TaskId, usize)>,
    stopping: bool,
    suspended: bool,
    /// Nothing is taken in until all calls are back, and the generation is sealed.
    draining: bool,
    /// Dropped last: whoever gets the tasks when this member leaves must be able to open their stores,
    /// which the fields above hold open.
    membership: Option<Box<dyn Membership>>,
}

impl std::fmt::Debug for StreamThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamThread")
            .field("id", &self.transactional_id)
            .field("token", &self.token)
            .field("opening", &self.opening.keys())
            .field("restoring", &self.restoring.keys())
            .field("running", &self.running.keys())
            .field("closing", &self.closing)
            .field("revoked", &self.revoked)
            .field("paused", &self.paused)
            .field("generation", &self.generation.processed)
            .field("in_flight", &self.in_flight.len())
            .field("unsynced", &self.unsynced.len())
            .field("unsent", &self.unsent.is_some())
            .field("flushes_running", &self.flushes_running.len())
            .field("stopping", &self.stopping)
            .finish_non_exhaustive()
    }
}

impl StreamThread {
    /// A thread that joins the application. `waker` is woken when stepping again may do something.
    ///
    /// # Errors
    /// [`StreamsError::Broker`].
    pub fn new(
        env: ThreadEnv,
        process_id: &str,
        number: usize,
        waker: Waker,
    ) -> Result<Self, StreamsError> {
        let transactional_id = format!("{}-{process_id}-{number}", env.settings.application_id);
        let broker = &env.broker;
        let capabilities = broker.capabilities();
        let view = if capabilities.applied_view { View::Applied } else { View::Durable };
        let isolation = Isolation::ReadCommitted;
        let fetcher = broker.fetcher(FetcherConfig { view, isolation }, waker.clone())?;
        // What is restored goes into store files, so it must be durable. (That it is synced, too, is
        // seen to when a task is opened.)
        let restore_config = FetcherConfig { view: View::Durable, isolation };
        let restore_fetcher = broker.fetcher(restore_config, waker.clone())?;
        let transactor = broker.transactor(&transactional_id, waker.clone())?;
        let mut thread = Self {
            transactional_id,
            waker,
            capabilities,
            membership: None,
            token: None,
            transactor,
            fetcher,
            restore_fetcher,
            finder: Finder::new(&env),
            following: Following::default(),
            assigned: BTreeSet::new(),
            opening: BTreeMap::new(),
            restoring: BTreeMap::new(),
            running: BTreeMap::new(),
            closing: BTreeSet::new(),
            revoked: BTreeSet::new(),
            inputs: BTreeMap::new(),
            paused: BTreeSet::new(),
            nothing_fetched: false,
            shared_budget: None,
            since: None,
            seal_requested: false,
            generation: Tally::default(),
            generation_limit: usize::MAX,
            in_flight: VecDeque::new(),
            unsynced: VecDeque::new(),
            unsent: None,
            retry_at: None,
            refused_since: BTreeMap::new(),
            left_out: Vec::new(),
            last_processed: None,
            last_purge: BTreeMap::new(),
            flushes: channel(),
            flushes_running: BTreeSet::new(),
            stopping: false,
            suspended: false,
            draining: false,
            env,
        };
        thread.join()?;
        Ok(thread)
    }

    /// Does a little of whatever is to be done. Never blocks.
    ///
    /// # Errors
    /// [`StreamsError`]: the thread is of no use any more; drop it. Nothing of its present
    /// generation takes effect.
    pub fn step(&mut self) -> Result<Next, StreamsError> {
        let mut busy = self.poll_transactor()?;
        busy |= self.poll_flushes()?;
        busy |= self.poll_membership()?;
        busy |= self.follow_topics()?;
        busy |= self.poll_finder()?;
        busy |= self.open_tasks()?;
        busy |= self.restore()?;
        busy |= self.fetch()?;
        busy |= self.release_calls()?;
        busy |= self.process()?;
        busy |= self.seal_if_due()?;
        busy |= self.flush_idle_tasks()?;
        busy |= self.close_tasks()?;
        if self.stopping && self.is_idle() {
            self.membership = None;
            return Ok(Next::Stopped);
        }
        Ok(if busy { Next::Again } else { Next::Wait(self.deadline()) })
    }

    /// Asks the thread to commit what it has, flush its stores, and stop.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Asks all members of the application to stop: for a thread that has failed, and is gone.
    ///
    /// # Errors
    /// [`StreamsError::Broker`].
    pub(super) fn stop_application(env: &ThreadEnv) -> Result<(), StreamsError> {
        let config = assignment::member_of(env);
        env.broker.membership(config, Waker::noop().clone())?.stop_application();
        Ok(())
    }

    /// Processes nothing while `on`. What was processed is committed, and tasks come and go as ever.
    pub fn pause(&mut self, on: bool) {
        self.suspended = on;
    }

    /// Whether all assigned tasks are running.
    pub fn is_running(&self) -> bool {
        self.token.is_some()
            && self.closing.is_empty()
            && self.opening.is_empty()
            && self.restoring.is_empty()
            && self.assigned.len() == self.running.len()
    }

    /// Whether everything that could be read has been processed and is durable.
    pub fn is_caught_up(&self) -> bool {
        self.is_running()
            && self.since.is_none()
            && self.in_flight.is_empty()
            && self.unsent.is_none()
            && self.follows_all()
            && !self.finder.is_asking()
            && self.has_nothing_to_process()
    }

    /// The tasks that it has, and those that it knows of.
    pub(super) fn tasks(&self) -> (BTreeSet<TaskId>, ThreadEnv) {
        (self.running.keys().copied().collect(), self.env.clone())
    }

    /// The running tasks, for inspection by tests.
    pub fn tasks_mut(&mut self) -> impl Iterator<Item = &mut crate::task::Task> {
        self.running.values_mut().map(|running| &mut running.task)
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.opening.is_empty()
            && self.restoring.is_empty()
            && self.in_flight.is_empty()
            && self.unsynced.is_empty()
            && self.unsent.is_none()
            && self.flushes_running.is_empty()
    }

    /// How many calls of async operators are not dealt with.
    pub fn calls_in_flight(&self) -> usize {
        self.running.values().map(|running| running.task.calls_in_flight()).sum()
    }

    fn has_nothing_to_process(&self) -> bool {
        let mut queues = self.running.values().flat_map(|running| running.task.queues());
        self.nothing_fetched
            && self.paused.is_empty()
            && queues.all(|queue| queue.is_empty())
            && self.calls_in_flight() == 0
            && !self.running.values().any(|running| running.task.is_unended())
    }

    /// The next moment at which something is due by itself.
    fn deadline(&mut self) -> Option<Duration> {
        let now = self.env.clock.monotonic();
        let seal = self.since.map(|since| {
            since.saturating_add(self.env.settings.commit_interval).saturating_sub(now)
        });
        let wall = self.env.clock.now();
        let schedules = self.running.values_mut();
        let punctuation = schedules
            .filter(|_| !self.suspended)
            .filter_map(|running| running.task.core_mut().schedules_mut().next_wall_clock())
            .min()
            .map(|due| Duration::from_millis(u64::try_from(due - wall).unwrap_or(0)));
        let interval = self.env.settings.flush_interval;
        let flush = self.running.values_mut().filter_map(|r| r.next_flush(interval)).min();
        let flush = flush.map(|due| due.saturating_sub(now));
        let calls = self.running.values().filter_map(|r| r.task.core().next_call_due()).min();
        let calls = calls.map(|due| Duration::from_millis(u64::try_from(due - wall).unwrap_or(0)));
        let retry = self.retry_at.map(|at| at.saturating_sub(now));
        let look = self.next_look().map(|due| due.saturating_sub(now));
        let wait = [seal, punctuation, flush, retry, calls, look].into_iter().flatten().min();
        // A wait of nothing would spin: what is due now but cannot be done waits for a waker.
        wait.map(|wait| wait.max(Duration::from_millis(1)))
    }
}
