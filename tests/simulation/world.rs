//! One run: a host, an application on it, a producer, a reader, and a loop that picks steps.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_api::sim::Dice;
use broker_api::{
    BatchBuilder, Broker, Clock, ManualClock, NewTopic, Producer, ProducerEvent, Ticket,
    TopicConfig, TopicPartition,
};
use streams_core::Topology;
use streams_core::failure::log_and_continue;
use streams_core::runtime::{Metrics, Next, Plan, Settings, ThreadEnv};
use streams_core::state::LossyEngine;

use crate::Failure;
use crate::history::History;
use crate::host::{End, Host};
use crate::oracle::{self, Acknowledged, Oracle};
use crate::subject::{INPUT, Make, NAME, OUTPUT, Subject, TABLE};
use crate::threads::{Jobs, Thread};

/// Longer than any broker's journal waits before it writes, or syncs.
const JOURNAL_WAITS: Duration = Duration::from_secs(2);

/// How far back the times of records go, in milliseconds.
const DISORDER: u64 = 50;

/// Puts something between the application and its broker.
pub(crate) type Wrap = fn(Arc<dyn Broker>, &mut Dice) -> Arc<dyn Broker>;

pub(crate) struct World {
    dice: Dice,
    clock: Arc<ManualClock>,
    host: Box<dyn Host>,
    wrap: Wrap,
    engine: LossyEngine,
    jobs: Arc<Jobs>,
    topology: Arc<Topology>,
    settings: Arc<Settings>,
    history: History,
    subject: Box<dyn Subject>,
    partitions: u32,
    oracle: Oracle,
    lines: Lines,
    app: Option<App>,
    /// The thread of the global stores takes one of so many turns.
    global_pace: u64,
    /// How far time will leap.
    leap: Option<Duration>,
    /// How often something may be killed, and was.
    ends_left: u32,
    ends: u64,
    /// The last end may have taken back what was acknowledged.
    may_have_lost: bool,
}

struct App {
    env: ThreadEnv,
    threads: Vec<Thread>,
}

/// Who writes the input.
struct Lines {
    producer: Option<Box<dyn Producer>>,
    left: u64,
    /// It takes one of so many turns: what is killed early should find input to come, and what is killed
    /// late too.
    pace: u64,
    written: u64,
    open: BTreeMap<Ticket, (TopicPartition, Vec<Option<String>>)>,
    acknowledged: Vec<Acknowledged>,
}

const STATE: &str = "state";

impl World {
    pub(crate) fn new(
        seed: u64,
        make: Make<'_>,
        wrap: Wrap,
        host: impl FnOnce(Arc<ManualClock>, &mut Dice) -> Box<dyn Host>,
    ) -> Result<Self, Failure> {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let clock = Arc::new(ManualClock::new(1_000_000));
        let mut host = host(clock.clone(), &mut dice);
        let partitions = dice.within(1..4) as u32;
        let subject = make(&mut dice);
        let jobs = Arc::<Jobs>::default();
        let millis = |ms: u64| Duration::from_millis(ms);
        let settings = Settings {
            threads: dice.within(1..3) as usize,
            commit_interval: millis(dice.pick(&[0, 5, 50])),
            state_memory_bytes: dice.pick(&[100, 2 << 10, 1 << 20]),
            flush_interval: millis(dice.pick(&[0, 30, 300])),
            input_buffer_bytes: dice.pick(&[1, 1 << 20]),
            seal_bytes: if subject.may_be_divided() { dice.pick(&[100, 1 << 20]) } else { 1 << 20 },
            purge_interval: millis(dice.pick(&[0, 50])),
            processing_handler: log_and_continue(),
            dead_letter_topic: Some(OUTPUT.into()),
            executor: Some(jobs.clone()),
            ..Settings::new(NAME, STATE)
        };
        let topology = Arc::new(subject.topology());
        let has_globals = topology.has_globals();
        let given: &[&str] = if has_globals { &[INPUT, OUTPUT, TABLE] } else { &[INPUT, OUTPUT] };
        for &topic in given {
            let new = NewTopic { name: topic.into(), partitions, config: TopicConfig::default() };
            let admin = host.broker().admin();
            wait(&mut *host, admin.create_topic(new))??;
        }
        // Makes the internal topics, for the reader.
        let admin = host.broker().admin();
        wait(&mut *host, Plan::make(&topology, NAME, &*admin))??;
        let internal = topology.internal_topics().keys();
        let internal: Vec<String> = internal.map(|topic| format!("{NAME}-{topic}")).collect();
        let topics = given.iter().copied().chain(internal.iter().map(String::as_str));
        let topics: Vec<&str> = topics.collect();
        let logged = topology.stores().values().filter(|store| store.changelog.is_some());
        let changelogs = logged.map(|store| oracle::changelog(&store.name)).collect();
        let mut world = Self {
            clock,
            wrap,
            engine: LossyEngine::new(),
            jobs,
            topology,
            settings: Arc::new(settings),
            history: History::new(&topics, changelogs, partitions),
            leap: subject.leap(),
            subject,
            partitions,
            oracle: Oracle::default(),
            lines: Lines {
                producer: None,
                left: dice.within(5..40),
                pace: dice.pick(&[1, 3, 8]),
                written: 0,
                open: BTreeMap::new(),
                acknowledged: Vec::new(),
            },
            app: None,
            global_pace: if has_globals { dice.pick(&[1, 10, 100]) } else { 1 },
            ends_left: dice.within(0..6) as u32,
            ends: 0,
            may_have_lost: false,
            dice,
            host,
        };
        world.open()?;
        Ok(world)
    }

    /// Runs until all lines are written and processed.
    pub(crate) fn run(mut self) -> Result<Summary, Failure> {
        let mut summary = Summary::default();
        for _ in 0..self.dice.within(200..3_000) {
            if let Err(failure) = self.step() {
                self.survive(failure)?;
            }
        }
        self.host.calm_down();
        while let Err(failure) = self.finish() {
            self.survive(failure)?;
        }
        if let Some(app) = &self.app {
            summary.restored = app.env.metrics().restored;
        }
        (summary.lines, summary.ends) = (self.lines.written, self.ends);
        Ok(summary)
    }

    /// A failure is to be expected when the disk is about to fail.
    fn survive(&mut self, failure: Failure) -> Result<(), Failure> {
        if !matches!(failure, Failure::Broke(_)) || !self.host.is_doomed() {
            return Err(failure);
        }
        let end = self.dice.pick(&[End::Kill, End::PowerCut]);
        self.restart(end)
    }

    fn step(&mut self) -> Result<(), Failure> {
        match self.dice.within(0..100) {
            0..30 => self.step_host().map(|_| ()),
            30..75 => self.step_thread(),
            75..83 if self.dice.one_in(self.lines.pace) => self.write(),
            75..83 => Ok(()),
            83..88 => {
                self.jobs.run_one(&mut self.dice);
                Ok(())
            }
            88..97 => {
                let by = self.dice.pick(&[0, 1, 5, 30]);
                let leap = self.leap.take_if(|_| self.dice.one_in(50));
                self.clock.advance(leap.unwrap_or(Duration::from_millis(by)));
                Ok(())
            }
            97 => self.change_threads(),
            _ if self.ends_left == 0 || !self.dice.one_in(4) => Ok(()),
            _ => {
                self.ends_left -= 1;
                if self.dice.one_in(2) && self.host.plan_fault(&mut self.dice) {
                    return Ok(());
                }
                let end = self.dice.pick(&[End::Kill, End::PowerCut]);
                self.restart(end)
            }
        }
    }

    fn step_host(&mut self) -> Result<bool, Failure> {
        let more = self.host.step();
        self.look()?;
        Ok(more)
    }

    fn look(&mut self) -> Result<(), Failure> {
        self.host.read_freely(true);
        let looked = self.history.look();
        self.host.read_freely(false);
        looked?;
        self.lines.poll();
        Ok(())
    }

    // ---- the application

    fn open(&mut self) -> Result<(), Failure> {
        let broker = self.host.broker();
        self.host.read_freely(true);
        let opened = self.history.open(&broker, self.may_have_lost);
        self.host.read_freely(false);
        opened?;
        if std::mem::take(&mut self.may_have_lost) {
            let end = |a: &Acknowledged| self.history.end(&a.of.topic, a.of.partition);
            self.lines.acknowledged.retain(|a| a.base_offset < end(a));
            self.oracle.times.clear();
        }
        let between = (self.wrap)(broker, &mut self.dice);
        self.lines.producer = Some(between.producer(Waker::noop().clone())?);
        let admin = between.admin();
        let plan = wait(&mut *self.host, Plan::make(&self.topology, NAME, &*admin))??;
        let env = ThreadEnv::new(
            self.topology.clone(),
            Arc::new(plan),
            self.settings.clone(),
            between,
            Arc::new(self.engine.clone()),
            self.clock.clone(),
            self.jobs.clone(),
        );
        self.subject.opened(&self.history, self.partitions);
        let global = self.topology.has_globals().then(|| Thread::global(&env)).transpose()?;
        self.app = Some(App { env, threads: global.into_iter().collect() });
        for number in 0..self.settings.threads {
            self.add_thread(number)?;
        }
        self.look()
    }

    fn add_thread(&mut self, number: usize) -> Result<(), Failure> {
        let Some(app) = &mut self.app else { return Ok(()) };
        app.threads.push(Thread::stream(&app.env, number)?);
        Ok(())
    }

    /// Adds a thread, asks one to stop, or lets one die.
    fn change_threads(&mut self) -> Result<(), Failure> {
        let Some(app) = &mut self.app else { return Ok(()) };
        let all = app.threads.iter().enumerate();
        let streams: Vec<_> = all.filter_map(|(at, t)| Some((at, t.number()?))).collect();
        if streams.is_empty() || (streams.len() < 3 && self.dice.one_in(2)) {
            let number = (0..).find(|n| streams.iter().all(|(_, known)| known != n));
            return self.add_thread(number.unwrap_or(0));
        }
        let (chosen, _) = streams[self.dice.index(streams.len())];
        if self.dice.one_in(3) {
            app.threads.remove(chosen);
        } else {
            app.threads[chosen].stop();
        }
        Ok(())
    }

    fn step_thread(&mut self) -> Result<(), Failure> {
        let Some(app) = self.app.as_ref().filter(|app| !app.threads.is_empty()) else {
            return Ok(());
        };
        let chosen = self.dice.index(app.threads.len());
        let is_global = app.threads[chosen].number().is_none();
        if is_global && self.global_pace > 1 && !self.dice.one_in(self.global_pace) {
            return Ok(());
        }
        self.step_thread_at(chosen).map(|_| ())
    }

    fn threads(&self) -> usize {
        self.app.as_ref().map_or(0, |app| app.threads.len())
    }

    /// A step of a thread, if it is awake; whether it was. One that has stopped is gone.
    fn step_thread_at(&mut self, at: usize) -> Result<bool, Failure> {
        let now = self.clock.monotonic();
        let Some(app) = &mut self.app else { return Ok(false) };
        let thread = &mut app.threads[at];
        if !thread.is_awake(now) {
            return Ok(false);
        }
        if thread.step(now)? == Next::Stopped {
            app.threads.remove(at);
        }
        // A thread that waits for the admin drives the journal itself: what became durable meanwhile
        // may soon be deleted again.
        self.look()?;
        Ok(true)
    }

    // ---- the input

    fn write(&mut self) -> Result<(), Failure> {
        let Some(producer) = &mut self.lines.producer else { return Ok(()) };
        if self.lines.left == 0 {
            return Ok(());
        }
        let dice = &mut self.dice;
        let partition = dice.within(0..u64::from(self.partitions)) as u32;
        let topic = match self.topology.has_globals() && dice.one_in(2) {
            true => TABLE,
            false => INPUT,
        };
        let mut batch = BatchBuilder::new();
        let mut lines = Vec::new();
        for _ in 0..dice.within(1..6) {
            self.lines.written += 1;
            let name = format!("{partition}.{}", self.lines.written);
            let (key, value) = match topic {
                TABLE => self.subject.change(&name, dice),
                _ => self.subject.record(&name, dice),
            };
            let time = self.clock.now() - dice.within(0..DISORDER) as i64;
            batch.push(time, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[])?;
            lines.push(value);
        }
        let to = TopicPartition::new(topic, partition);
        match producer.append(&to, batch.finish()?) {
            Ok(ticket) => {
                self.lines.left -= 1;
                self.lines.open.insert(ticket, (to, lines));
            }
            Err(refused) if refused.error == broker_api::Error::Full => {}
            Err(refused) => return Err(refused.error.into()),
        }
        self.lines.poll();
        Ok(())
    }

    // ---- ends

    /// The process ends, whatever it was doing, and another one begins.
    fn restart(&mut self, end: End) -> Result<(), Failure> {
        for attempt in 0.. {
            self.ends += 1;
            self.drop_all()?;
            let dice = &mut self.dice;
            // A process without a log of its own loses what it did not flush, however it ends.
            self.engine.crash(|unflushed| dice.within(0..unflushed as u64 + 1) as usize);
            if dice.one_in(8) {
                self.engine = LossyEngine::new(); // somebody has deleted the state directory
            }
            self.may_have_lost |= self.host.may_lose(end);
            self.host.restart(end, dice)?;
            match self.open().and_then(|()| self.check()) {
                Err(Failure::Broke(_)) if self.host.is_doomed() && attempt < 5 => {}
                other => return other,
            }
        }
        Ok(())
    }

    fn drop_all(&mut self) -> Result<(), Failure> {
        if let Some(app) = self.app.take()
            && self.host.keeps_changelogs()
        {
            let Metrics { rebuilt, overtaken, .. } = app.env.metrics();
            if rebuilt > overtaken {
                return Err(Failure::violation("a store was wiped".into()));
            }
        }
        self.history.close();
        self.lines.producer = None;
        self.lines.open.clear();
        self.jobs.clear();
        Ok(())
    }

    /// After a restart, and when all is at rest: everything durable agrees.
    fn check(&mut self) -> Result<(), Failure> {
        self.look()?;
        let admin = self.host.broker().admin();
        let offsets = wait(&mut *self.host, admin.group_offsets(NAME))??;
        self.look()?;
        let with_changelog = self.host.keeps_changelogs();
        self.oracle.acknowledged(&self.history, &self.lines.acknowledged)?;
        for (tp, committed) in &offsets {
            self.oracle.times(&self.history, tp, committed)?;
        }
        self.subject.committed(&self.history, &offsets, self.partitions, with_changelog)?;
        self.check_stores(false)
    }

    fn check_stores(&mut self, exactly: bool) -> Result<(), Failure> {
        let dir = Path::new(STATE).join(NAME);
        if self.host.keeps_changelogs() {
            let (log, files) = ((&self.history, &*self.topology), (&self.engine, &*dir));
            let keeps = self.subject.keeps();
            self.oracle.stores(log, files, self.partitions, (keeps, exactly))?;
        }
        Ok(())
    }

    /// Writes what is left, waits until all is processed, stops in good order.
    fn finish(&mut self) -> Result<(), Failure> {
        let is_over = |thread: &Thread| thread.is_stopping() || thread.number().is_none();
        if self.app.as_ref().is_some_and(|app| app.threads.iter().all(is_over)) {
            self.settle(true)?;
            self.add_thread(7)?;
        }
        while self.lines.left > 0 {
            self.write()?;
            self.step_host()?;
        }
        self.settle(false)?;
        self.check()?;
        for tp in 0..self.partitions {
            let end = self.history.end(INPUT, tp);
            let of = TopicPartition::new(INPUT, tp);
            let admin = self.host.broker().admin();
            let offsets = wait(&mut *self.host, admin.group_offsets(NAME))??;
            let at = offsets.iter().find(|(tp, _)| *tp == of).map_or(0, |(_, c)| c.offset);
            let records = self.history.records(INPUT, tp);
            if records.last().is_some_and(|last| at <= last.offset) {
                return Err(Failure::violation(format!("{of} was read up to {at} of {end}")));
            }
        }
        let Some(app) = &mut self.app else { return Ok(()) };
        app.threads.iter_mut().for_each(Thread::stop);
        self.settle(true)?;
        self.check()?;
        self.subject.finished(&self.history, self.partitions)?;
        self.check_stores(true)
    }

    /// Steps everything until nothing is left to do. `stopping`: until those have stopped that were
    /// asked to.
    fn settle(&mut self, stopping: bool) -> Result<(), Failure> {
        for _ in 0..20_000 {
            let mut busy = self.step_host()? | self.jobs.run_one(&mut self.dice);
            let mut at = 0;
            while at < self.threads() {
                let threads = self.threads();
                busy |= self.step_thread_at(at)?;
                at += usize::from(self.threads() == threads);
            }
            if busy {
                continue;
            }
            let now = self.clock.monotonic();
            let Some(app) = &mut self.app else { return Ok(()) };
            let done = if stopping {
                !app.threads.iter().any(Thread::is_stopping)
            } else {
                app.threads.iter().all(Thread::is_caught_up)
            };
            if done && self.lines.open.is_empty() {
                return Ok(());
            }
            // Nobody is awake: only time can help.
            let due = match app.threads.iter().filter_map(Thread::due).min() {
                Some(due) => due,
                // All threads have ended, and the journal writes what waits when it is time.
                None if app.threads.is_empty() => now + JOURNAL_WAITS,
                None => {
                    let what = format!("nobody is awake, and there is work: {:#?}", app.threads);
                    return Err(Failure::violation(what));
                }
            };
            self.clock.advance(due.saturating_sub(now).max(Duration::from_millis(1)));
        }
        let threads = self.app.iter().flat_map(|app| &app.threads).collect::<Vec<_>>();
        Err(Failure::violation(format!("it does not come to rest: {threads:#?}")))
    }
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) lines: u64,
    pub(crate) ends: u64,
    pub(crate) restored: u64,
}

impl Lines {
    fn poll(&mut self) {
        let Some(producer) = &mut self.producer else { return };
        while let Poll::Ready(event) = producer.poll() {
            match event {
                ProducerEvent::Appended { ticket, base_offset } => {
                    if let Some((of, values)) = self.open.remove(&ticket) {
                        self.acknowledged.push(Acknowledged { of, base_offset, values });
                    }
                }
                ProducerEvent::Failed { ticket, .. } => {
                    self.open.remove(&ticket);
                }
            }
        }
    }
}

/// Steps the host until a call of its admin is answered.
fn wait<T>(host: &mut dyn Host, answer: impl Future<Output = T>) -> Result<T, Failure> {
    let mut answer = pin!(answer);
    for _ in 0..10_000 {
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => return Ok(answer),
            Poll::Pending => host.step(),
        };
    }
    Err(Failure::violation("the admin does not answer".into()))
}
