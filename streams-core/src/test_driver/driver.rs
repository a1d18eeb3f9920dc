//! The driver itself: the tasks of each sub-topology, the logs between them, and their commits.
//!
//! What is written stays in a log for each partition, one record in a batch; a task reads its inputs
//! from there, and a crash opens it again where its commits ended, with stores made from their
//! changelogs. A generation that is given up because a handler has left something out is such a crash, but
//! that what survives in a running application does here, too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use broker_api::partitioner::partition_of;
use broker_api::{Batch, CommittedOffset, TaskId, Timestamp, TopicPartition};

use super::opening::{Opener, Surviving, position};
use super::{TestDriverError, TestDriverSettings};
use crate::error::ProcessError;
use crate::failure::{Halt, LeftOut, Stage};
use crate::processor::PunctuationKind;
use crate::state::{Store, StoreEngine};
use crate::task::{Cause, Globals, SharedTask, Task, TaskStore, record_text};
use crate::topology::Topology;

/// What was written to a partition: one record in each batch, and when it came.
pub(super) type Log = Vec<(u64, Batch)>;

/// See the module above.
pub(super) struct Driver {
    opener: Opener,
    tasks: BTreeMap<TaskId, Task>,
    /// What fills global stores, by topic.
    globals: BTreeMap<Arc<str>, SharedTask>,
    /// The inputs of the tasks, and how many of their records were handed over.
    inputs: BTreeMap<TopicPartition, (TaskId, usize)>,
    logs: BTreeMap<TopicPartition, Log>,
    committed: BTreeMap<TopicPartition, CommittedOffset>,
    /// What was written and not read yet.
    pub(super) outputs: BTreeMap<Arc<str>, VecDeque<(u32, Batch)>>,
    arrivals: u64,
    now: Timestamp,
    /// Of tasks that are processed again: what they leave out.
    left_out: Vec<(TaskId, LeftOut)>,
    /// Records processed since the last commit, entries let go when going on, and the task of the last of
    /// them.
    uncommitted: usize,
    gone_on: usize,
    last: Option<TaskId>,
    pub(super) commits: u64,
    /// After every record there is a commit, until what waits is done.
    careful: bool,
    /// What committed records have left out, by reason.
    dropped: BTreeMap<&'static str, u64>,
    /// The ways of records, if somebody asks for them.
    trace: Option<String>,
    /// The partition whose stores are looked into.
    looking_at: u32,
}

impl Driver {
    pub(super) fn new(
        topology: Topology,
        settings: TestDriverSettings,
    ) -> Result<Self, TestDriverError> {
        let now = settings.start;
        let mut driver = Self {
            opener: Opener::new(topology, settings),
            tasks: BTreeMap::new(),
            globals: BTreeMap::new(),
            inputs: BTreeMap::new(),
            logs: BTreeMap::new(),
            committed: BTreeMap::new(),
            outputs: BTreeMap::new(),
            arrivals: 0,
            now,
            left_out: Vec::new(),
            uncommitted: 0,
            gone_on: 0,
            last: None,
            commits: 0,
            careful: false,
            dropped: BTreeMap::new(),
            trace: None,
            looking_at: 0,
        };
        driver.open(&BTreeMap::new())?;
        Ok(driver)
    }

    /// Opens all tasks again that a running application would, which are as good as new to the others.
    fn start_over(&mut self) -> Result<(), TestDriverError> {
        let surviving = std::mem::take(&mut self.tasks).into_iter();
        self.open(&surviving.map(|(id, task)| (id, Surviving::of(task))).collect())
    }

    /// Opens all tasks where their commits ended.
    fn open(&mut self, surviving: &BTreeMap<TaskId, Surviving>) -> Result<(), TestDriverError> {
        self.tasks.clear();
        self.globals.clear();
        self.inputs.clear();
        (self.uncommitted, self.gone_on) = (0, 0);
        for id in self.opener.global_tasks() {
            let task = self.opener.open(
                id,
                Globals::default(),
                (&BTreeMap::new(), &self.logs),
                None,
                self.now,
            )?;
            let partitions: Vec<_> = task.queues().iter().map(|q| q.partition().clone()).collect();
            let task = SharedTask::new(task);
            for partition in partitions {
                self.globals.insert(partition.topic.clone(), task.clone());
                for (_, batch) in self.logs.get(&partition).into_iter().flatten() {
                    fill(&task, &partition, batch.clone(), self.now)?;
                }
            }
        }
        let globals = Globals::of(self.globals.values());
        for id in self.opener.tasks() {
            let mut task = self.opener.open(
                id,
                globals.clone(),
                (&self.committed, &self.logs),
                surviving.get(&id),
                self.now,
            )?;
            for queue in task.queues() {
                self.inputs.insert(queue.partition().clone(), (id, queue.position() as usize));
            }
            for (_, what) in self.left_out.iter().filter(|(of, _)| *of == id) {
                task.leave_out(what.clone())?;
            }
            self.tasks.insert(id, task);
        }
        Ok(())
    }

    /// Everything that is not committed is lost, and the files of the stores with it; what waits is
    /// processed again.
    pub(super) fn crash(&mut self) -> Result<(), TestDriverError> {
        self.left_out.clear();
        self.fall()?;
        self.work()
    }

    /// All tasks are gone, and opened anew.
    fn fall(&mut self) -> Result<(), TestDriverError> {
        if let Some(trace) = &mut self.trace {
            trace.push_str("crash\n");
        }
        self.open(&BTreeMap::new())
    }

    /// Hands a record to the topology, and works until nothing waits any more. Without a partition,
    /// its key decides.
    pub(super) fn pipe(
        &mut self,
        topic: &str,
        partition: Option<u32>,
        batch: Batch,
    ) -> Result<(), TestDriverError> {
        self.follow(topic);
        let known = || self.inputs.keys().map(|tp| &tp.topic).chain(self.globals.keys());
        let Some(topic) = known().find(|known| ***known == *topic).cloned() else {
            let mut names: Vec<&str> = known().map(|topic| &**topic).collect();
            names.dedup();
            let (topic, known) = (topic.into(), names.join(", "));
            return Err(TestDriverError::UnknownTopic { topic, known });
        };
        let partitions = self.opener.partitions_of(&topic);
        let key = batch.records().next().transpose()?.and_then(|record| record.key);
        let partition = partition.unwrap_or_else(|| match key {
            Some(key) => partition_of(key, partitions),
            None => (self.arrivals % u64::from(partitions)) as u32,
        });
        if partition >= partitions {
            let topic = topic.to_string();
            return Err(broker_api::Error::UnknownPartition { topic, partition, partitions }.into());
        }
        self.append(TopicPartition { topic, partition }, batch)?;
        self.work()
    }

    /// Reads a topic that nobody has named, if a pattern is like it.
    fn follow(&mut self, topic: &str) {
        if self.inputs.keys().any(|tp| *tp.topic == *topic) || self.globals.contains_key(topic) {
            return;
        }
        for (id, queue) in self.opener.follow(topic) {
            self.inputs.insert(queue.partition().clone(), (id, 0));
            if let Some(task) = self.tasks.get_mut(&id) {
                task.add_input(queue);
            }
        }
    }

    fn append(&mut self, to: TopicPartition, batch: Batch) -> Result<(), TestDriverError> {
        let log = self.logs.entry(to.clone()).or_default();
        let batch = batch.assigned(log.len() as i64, self.now);
        log.push((self.arrivals, batch.clone()));
        self.arrivals += 1;
        if let Some(task) = self.globals.get(&to.topic) {
            fill(task, &to, batch, self.now)?;
        }
        Ok(())
    }

    fn work(&mut self) -> Result<(), TestDriverError> {
        loop {
            self.go_on()?;
            let Some((partition, id, batch)) = self.next() else { break };
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let end = batch.next_offset();
            task.core_mut().set_wall_clock(self.now);
            task.core_mut().set_tracing(self.trace.is_some());
            if let Some(queue) = task.queue_mut(&partition) {
                queue.add(vec![batch.clone()], end, true);
            }
            (self.last, self.uncommitted) = (Some(id), self.uncommitted + 1);
            task.give_room(self.opener.settings.seal_bytes.max(1), usize::MAX);
            let processed = task.process(1);
            let asked = task.core_mut().take_commit_request() || task.wants_seal();
            if let Some(trace) = &mut self.trace {
                trace.push_str(&head(&partition, &batch));
                trace.push_str(&task.core_mut().take_trace());
            }
            match processed {
                Ok(_) if !self.opener.settings.caching => self.seal(id)?,
                Ok(_) if self.careful || asked => self.seal_all()?,
                Ok(_) => {}
                Err(halt) => self.halted(id, halt)?,
            }
        }
        self.careful = false;
        Ok(())
    }

    /// Goes on with what one record lets go until nothing is unended, with a commit after each part.
    fn go_on(&mut self) -> Result<(), TestDriverError> {
        let TestDriverSettings { caching, seal_bytes, crash_between_parts, .. } =
            self.opener.settings;
        let unended = |tasks: &BTreeMap<TaskId, Task>| {
            tasks.iter().find(|(_, task)| task.must_go_on()).map(|(id, _)| *id)
        };
        while let Some(id) = unended(&self.tasks) {
            if crash_between_parts && self.tasks.get(&id).is_some_and(Task::is_unended) {
                self.fall()?;
            }
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.core_mut().set_wall_clock(self.now);
            task.core_mut().set_tracing(self.trace.is_some());
            task.give_room(seal_bytes.max(1), if self.careful { 1 } else { usize::MAX });
            let before = task.gone_on();
            let gone_on = task.release().and_then(|_| task.go_on());
            self.gone_on += (task.gone_on() - before) as usize;
            if task.gone_on() > before {
                self.last = Some(id);
            }
            let asked = task.wants_seal() || self.careful;
            let uncommitted = task.has_uncommitted();
            if let Some(trace) = &mut self.trace {
                trace.push_str(&task.core_mut().take_trace());
            }
            match gone_on {
                Ok(()) if uncommitted && !caching => self.seal(id)?,
                Ok(()) if uncommitted && asked => self.seal_all()?,
                Ok(()) => {}
                Err(halt) => self.halted(id, halt)?,
            }
        }
        Ok(())
    }

    /// The oldest record that waits; of several, the one that came first.
    fn next(&mut self) -> Option<(TopicPartition, TaskId, Batch)> {
        let logs = &self.logs;
        let tasks = &self.tasks;
        let waiting = self.inputs.iter_mut().filter_map(|(partition, (id, next))| {
            let (arrival, batch) = logs.get(partition)?.get(*next)?;
            // One that has none comes first, so that this is met.
            let time = tasks.get(id)?.event_time(partition, batch).unwrap_or(Timestamp::MIN);
            Some(((time, *arrival), partition, id, next, batch))
        });
        let (_, partition, id, next, batch) = waiting.min_by_key(|(oldest, ..)| *oldest)?;
        *next += 1;
        Some((partition.clone(), *id, batch.clone()))
    }

    /// Commits everything, and what follows from it.
    pub(super) fn commit(&mut self) -> Result<(), TestDriverError> {
        loop {
            self.work()?;
            if !self.tasks.values_mut().any(Task::has_uncommitted) {
                return Ok(());
            }
            self.seal_all()?;
        }
    }

    fn seal_all(&mut self) -> Result<(), TestDriverError> {
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            let uncommitted = self.tasks.get_mut(&id).is_some_and(Task::has_uncommitted);
            if uncommitted && !self.try_seal(id)? {
                return Ok(()); // all tasks are opened anew
            }
        }
        (self.uncommitted, self.gone_on) = (0, 0);
        Ok(())
    }

    /// Commits what one task has done.
    fn seal(&mut self, id: TaskId) -> Result<(), TestDriverError> {
        if self.try_seal(id)? {
            (self.uncommitted, self.gone_on) = (0, 0);
        }
        Ok(())
    }

    /// Whether it could be sealed; if not, all tasks were opened anew.
    fn try_seal(&mut self, id: TaskId) -> Result<bool, TestDriverError> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(true) };
        match drain(task) {
            Ok(true) => {}
            Ok(false) => {
                let patience = self.opener.settings.call_patience;
                return Err(TestDriverError::CallNotBack { patience });
            }
            Err(halt) => return self.halted(id, halt).map(|()| false),
        }
        let sealed = match task.seal() {
            Ok(sealed) => sealed,
            Err(error) => return self.sealing_failed(id, error).map(|()| false),
        };
        if let Some(trace) = &mut self.trace {
            trace.push_str(&task.core_mut().take_trace()); // what caches had held back
        }
        for (reason, count) in task.core_mut().take_dropped() {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.commits += 1;
        write_stores(task)?;
        self.left_out.retain(|(of, what)| *of != id || !sealed.left_out.contains(&what.place));
        self.committed.extend(sealed.offsets);
        for (to, batch) in sealed.batches {
            for single in singles(&batch)? {
                self.follow(&to.topic);
                self.append(to.clone(), single.clone())?;
                let output = self.outputs.entry(to.topic.clone()).or_default();
                output.push_back((to.partition, single));
            }
        }
        Ok(true)
    }

    fn halted(&mut self, id: TaskId, halt: Halt) -> Result<(), TestDriverError> {
        match halt {
            Halt::Fail { error, .. } => Err(TestDriverError::Process(*error)),
            Halt::AtSeal(error) => self.sealing_failed(id, *error),
            Halt::LeaveOut(what) => {
                self.left_out.push((id, what));
                self.start_over()?;
                // Punctuations by the wall clock that were left out have letters already.
                if self.tasks.values_mut().any(Task::wants_seal) { self.seal_all() } else { Ok(()) }
            }
        }
    }

    /// Which record was the cause shows when each has a commit of its own.
    fn sealing_failed(&mut self, id: TaskId, error: ProcessError) -> Result<(), TestDriverError> {
        if !error.is_of_processing() {
            return Err(TestDriverError::Process(error));
        }
        let cause = match (self.uncommitted, self.gone_on) {
            (0, 0) => Cause::Unknown,
            (1, 0) => Cause::Record,
            (0, 1) => Cause::Entry,
            _ => {
                self.careful = true;
                return self.start_over();
            }
        };
        let id = self.last.filter(|_| cause != Cause::Unknown).unwrap_or(id);
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        let halt = task.settle_sealing(Stage::Processing, error, cause);
        self.halted(id, halt)
    }

    pub(super) fn advance(&mut self, by: Duration) -> Result<(), TestDriverError> {
        let by = Timestamp::try_from(by.as_millis()).unwrap_or(Timestamp::MAX);
        self.now = self.now.saturating_add(by);
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.go_on()?;
            let seal_bytes = self.opener.settings.seal_bytes.max(1);
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.core_mut().set_wall_clock(self.now);
            task.give_room(seal_bytes, usize::MAX);
            match task.punctuate(PunctuationKind::WallClock, self.now) {
                Ok(_) if !self.opener.settings.caching => self.seal(id)?,
                Ok(_) if task.wants_seal() => self.seal_all()?,
                Ok(_) => {}
                Err(halt) => self.halted(id, halt)?,
            }
        }
        self.work()
    }

    /// From now on the ways of records are noted, or not.
    pub(super) fn set_tracing(&mut self, on: bool) {
        self.trace = on.then(|| self.trace.take().unwrap_or_default());
    }

    pub(super) fn take_trace(&mut self) -> String {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The next record of a topic that was not read yet, and its partition.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownOutput`].
    pub(super) fn next_output(
        &mut self,
        topic: &str,
    ) -> Result<Option<(u32, Batch)>, TestDriverError> {
        self.check_output(topic)?;
        Ok(self.outputs.get_mut(topic).and_then(VecDeque::pop_front))
    }

    /// How many records of a topic were not read yet.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownOutput`].
    pub(super) fn waiting(&self, topic: &str) -> Result<usize, TestDriverError> {
        self.check_output(topic)?;
        Ok(self.outputs.get(topic).map_or(0, VecDeque::len))
    }

    /// That a topic may be written.
    fn check_output(&self, topic: &str) -> Result<(), TestDriverError> {
        if self.outputs.contains_key(topic) {
            return Ok(());
        }
        match self.opener.written() {
            Some(known) if !known.iter().any(|known| known == topic) => {
                let (topic, known) = (topic.into(), known.join(", "));
                Err(TestDriverError::UnknownOutput { topic, known })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn store_names(&mut self) -> Vec<String> {
        let names = |task: &mut Task| -> Vec<String> {
            let stores = task.core_mut().stores_mut().iter_mut();
            stores.map(|store| store.name().to_string()).collect()
        };
        let mut all: Vec<String> = self.tasks.values_mut().flat_map(names).collect();
        all.extend(self.globals.values().flat_map(|task| names(&mut task.lock())));
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        all
    }

    /// From now on stores are those of this partition.
    pub(super) fn look_at(&mut self, partition: u32) {
        self.looking_at = partition;
    }

    /// Works on a store.
    pub(super) fn with_store<R>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut dyn Store) -> Result<R, TestDriverError>,
    ) -> Result<R, TestDriverError> {
        let partition = self.looking_at;
        let its = |(id, task): &(&TaskId, &mut Task)| {
            id.partition == partition && task.core().stores().position(name).is_some()
        };
        if let Some(store) = self.tasks.iter_mut().find(its).and_then(|(_, t)| store_of(t, name)) {
            return work(store);
        }
        for task in self.globals.values() {
            if let Some(store) = store_of(&mut task.lock(), name) {
                return work(store);
            }
        }
        let known = self.store_names().join(", ");
        Err(TestDriverError::UnknownStore { store: name.into(), known })
    }

    /// A test has changed a store: that is committed, unless the test wants to do so itself.
    pub(super) fn seal_store(&mut self, name: &str) -> Result<(), TestDriverError> {
        for task in self.globals.values() {
            let mut task = task.lock();
            if store_of(&mut task, name).is_some() {
                task.seal()?;
                return write_stores(&mut task);
            }
        }
        if self.opener.settings.caching {
            return Ok(());
        }
        self.seal_all()?;
        self.work()
    }

    pub(super) fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.dropped.clone();
        let mut add = |task: &Task| {
            for (reason, count) in task.core().dropped() {
                *all.entry(*reason).or_default() += count;
            }
        };
        self.tasks.values().for_each(&mut add);
        self.globals.values().for_each(|task| add(&task.lock()));
        all
    }
}

/// The line of a record that enters.
fn head(partition: &TopicPartition, batch: &Batch) -> String {
    let record = batch.records().next().and_then(Result::ok);
    record.map_or_else(String::new, |record| {
        let text = record_text(record.key, record.value, record.timestamp);
        format!("{partition} offset {}: {text}\n", record.offset)
    })
}

/// Takes in what the calls of async operators gave, also of those that follow from draining caches;
/// `false` if one of them was not back when its executor stopped waiting.
fn drain(task: &mut Task) -> Result<bool, Halt> {
    loop {
        task.prepare_seal().map_err(|error| Halt::AtSeal(Box::new(error)))?;
        if task.calls_in_flight() == 0 {
            return Ok(true);
        }
        if !task.release()? {
            return Ok(false);
        }
    }
}

fn store_of<'a>(task: &'a mut Task, name: &str) -> Option<&'a mut dyn Store> {
    let stores = task.core_mut().stores_mut();
    let index = stores.position(name)?;
    Some(stores.at(index))
}

/// Hands a record to the task of a global store.
fn fill(
    task: &SharedTask,
    partition: &TopicPartition,
    batch: Batch,
    now: Timestamp,
) -> Result<(), TestDriverError> {
    let mut task = task.lock();
    task.core_mut().set_wall_clock(now);
    let end = batch.next_offset();
    if let Some(queue) = task.queue_mut(partition) {
        queue.add(vec![batch], end, true);
    }
    match task.process(1) {
        Err(Halt::Fail { error, .. } | Halt::AtSeal(error)) => {
            return Err(TestDriverError::Process(*error));
        }
        Err(Halt::LeaveOut(_)) | Ok(_) => {}
    }
    task.seal()?;
    write_stores(&mut task)
}

/// What the stores of a sealed task hold goes to their engines.
fn write_stores(task: &mut Task) -> Result<(), TestDriverError> {
    let engines: Vec<_> = task.stores_mut().iter().map(engine_of).collect();
    for (store, engine) in task.core_mut().stores_mut().iter_mut().zip(engines) {
        engine.apply(&mut store.begin_flush()?, &position(store.time()))?;
        if let Some(expiry) = store.expiry() {
            engine.expire(expiry);
        }
        engine.flush()?;
        store.flushed();
    }
    Ok(())
}

fn engine_of(store: &TaskStore) -> Arc<dyn StoreEngine> {
    store.engine.clone()
}

/// Each record of a batch in a batch of its own.
fn singles(batch: &Batch) -> Result<Vec<Batch>, TestDriverError> {
    let mut singles = Vec::new();
    for record in batch.records() {
        let record = record?;
        let mut builder = broker_api::BatchBuilder::new();
        let headers = record.headers.to_vec()?;
        builder.push(record.timestamp, record.key, record.value, &headers)?;
        singles.push(builder.finish()?);
    }
    Ok(singles)
}
