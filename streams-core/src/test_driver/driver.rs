//! The driver itself: one task for each sub-topology, and the records between them.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_api::{Batch, Offset, TaskId, Timestamp, TopicId, TopicPartition};

use super::{TestDriverError, TestDriverSettings};
use crate::error::BuildError;
use crate::processor::PunctuationKind;
use crate::state::{LossyEngine, Position, StateEngine, Store, StoreEngine};
use crate::task::{
    Globals, OutputTopic, RecordQueue, SharedTask, Task, TaskSettings, TaskStore, WrittenTopics,
};
use crate::topology::{NodeKind, Pattern, SubTopology, Topology};

/// All partitions have this number.
const PARTITION: u32 = 0;

/// See the module above.
pub(super) struct Driver {
    /// Of each sub-topology that has one.
    tasks: Vec<Task>,
    /// What fills global stores, by topic.
    globals: BTreeMap<Arc<str>, Global>,
    /// Sources that read topics by a pattern: the task, and the number of the source in it.
    patterns: Vec<(Pattern, usize, usize)>,
    /// Records of topics that the topology reads, one in a batch.
    waiting: BTreeMap<Arc<str>, Waiting>,
    /// What was written and not read yet.
    pub(super) outputs: BTreeMap<Arc<str>, VecDeque<Batch>>,
    arrivals: u64,
    now: Timestamp,
}

/// What fills a global store.
struct Global {
    task: SharedTask,
    next_offset: Offset,
}

/// The input of a topic.
struct Waiting {
    task: usize,
    next_offset: Offset,
    records: VecDeque<(u64, Batch)>,
}

impl Driver {
    pub(super) fn new(
        topology: Topology,
        settings: TestDriverSettings,
    ) -> Result<Self, TestDriverError> {
        let names = TopicNames { topology: &topology, application: &settings.application_id };
        let mut waiting = BTreeMap::new();
        let mut tasks = Vec::new();
        let mut patterns = Vec::new();
        let mut globals = BTreeMap::new();
        let id = |number: usize| TaskId { subtopology: number as u32, partition: PARTITION };
        let parts = || topology.subtopologies().iter().enumerate();
        for (number, part) in parts().filter(|(_, part)| part.is_global) {
            let none = Globals::default();
            let task = task(&topology, part, id(number), &settings, &names, none)?;
            let task = SharedTask::new(task);
            for topic in &part.sources {
                globals.insert(names.full(topic), Global { task: task.clone(), next_offset: 0 });
            }
        }
        let shared = Globals::of(globals.values().map(|global| &global.task));
        for (number, part) in parts().filter(|(_, part)| !part.is_global) {
            let task = task(&topology, part, id(number), &settings, &names, shared.clone())?;
            let nodes = part.nodes.iter().map(|&node| &topology.nodes()[node]);
            let sources = nodes.filter(|node| matches!(node.kind, NodeKind::Source { .. }));
            for (source, node) in sources.enumerate() {
                patterns.extend(node.pattern.clone().map(|pattern| (pattern, tasks.len(), source)));
            }
            for topic in &part.sources {
                let input = Waiting { task: tasks.len(), next_offset: 0, records: VecDeque::new() };
                waiting.insert(names.full(topic), input);
            }
            tasks.push(task);
        }
        let outputs = BTreeMap::new();
        Ok(Self { tasks, globals, patterns, waiting, outputs, arrivals: 0, now: settings.start })
    }

    /// Hands a record to the topology, and works until nothing waits any more.
    pub(super) fn pipe(&mut self, topic: &str, batch: Batch) -> Result<(), TestDriverError> {
        self.follow(topic);
        if !self.enqueue(topic, batch)? {
            let known = self.waiting.keys().chain(self.globals.keys());
            let known: Vec<&str> = known.map(|topic| &**topic).collect();
            return Err(TestDriverError::UnknownTopic {
                topic: topic.into(),
                known: known.join(", "),
            });
        }
        self.work()
    }

    /// Reads a topic that nobody has named, if a pattern is like it.
    fn follow(&mut self, topic: &str) {
        if self.waiting.contains_key(topic) || self.globals.contains_key(topic) {
            return;
        }
        let mut patterns = self.patterns.iter();
        if let Some((_, task, source)) = patterns.find(|(pattern, ..)| pattern.matches(topic)) {
            let mut queue = RecordQueue::new(TopicPartition::new(topic, PARTITION), *source, 0, -1);
            queue.add(Vec::new(), 0, true);
            self.tasks[*task].add_input(queue);
            let input = Waiting { task: *task, next_offset: 0, records: VecDeque::new() };
            self.waiting.insert(topic.into(), input);
        }
    }

    /// Keeps a record until its turn comes; one of a global store's topic is processed at once. Answers
    /// whether the topology reads the topic.
    fn enqueue(&mut self, topic: &str, batch: Batch) -> Result<bool, TestDriverError> {
        if let Some(global) = self.globals.get_mut(topic) {
            let batch = batch.assigned(global.next_offset, self.now);
            global.next_offset = batch.next_offset();
            let mut task = global.task.lock();
            task.core_mut().set_wall_clock(self.now);
            if let Some(queue) = task.queue_mut(&TopicPartition::new(topic, PARTITION)) {
                queue.add(vec![batch], global.next_offset, true);
            }
            task.process(1)?;
            flush(&mut task)?;
            return Ok(true);
        }
        let Some(input) = self.waiting.get_mut(topic) else {
            return Ok(false);
        };
        let batch = batch.assigned(input.next_offset, self.now);
        input.next_offset = batch.next_offset();
        input.records.push_back((self.arrivals, batch));
        self.arrivals += 1;
        Ok(true)
    }

    fn work(&mut self) -> Result<(), TestDriverError> {
        while let Some((topic, task, batch)) = self.next() {
            let end = batch.next_offset();
            let running = &mut self.tasks[task];
            running.core_mut().set_wall_clock(self.now);
            if let Some(queue) = running.queue_mut(&TopicPartition::new(topic, PARTITION)) {
                queue.add(vec![batch], end, true);
            }
            running.process(1)?;
            self.seal(task)?;
        }
        Ok(())
    }

    /// The oldest record that waits; of several, the one that came first.
    fn next(&mut self) -> Option<(Arc<str>, usize, Batch)> {
        let oldest = |(_, input): &(&Arc<str>, &mut Waiting)| {
            input.records.front().map(|(arrival, batch)| (batch.max_timestamp(), *arrival))
        };
        let waiting = self.waiting.iter_mut().filter(|(_, input)| !input.records.is_empty());
        let (topic, input) = waiting.min_by_key(oldest)?;
        let (_, batch) = input.records.pop_front()?;
        Some((topic.clone(), input.task, batch))
    }

    /// Flushes a task's caches, and takes what it has written.
    fn seal(&mut self, task: usize) -> Result<(), TestDriverError> {
        for (to, batch) in flush(&mut self.tasks[task])? {
            for single in singles(&batch)? {
                self.enqueue(&to.topic, single.clone())?;
                self.outputs.entry(to.topic.clone()).or_default().push_back(single);
            }
        }
        Ok(())
    }

    /// Flushes the task that has a store.
    pub(super) fn seal_store(&mut self, store: &str) -> Result<(), TestDriverError> {
        if let Some(task) = self.tasks.iter().position(|task| has(task, store)) {
            return self.seal(task);
        }
        match self.global_of(store) {
            Some(task) => flush(&mut task.lock()).map(|_| ()),
            None => Err(self.unknown(store)),
        }
    }

    pub(super) fn advance(&mut self, by: Duration) -> Result<(), TestDriverError> {
        let by = Timestamp::try_from(by.as_millis()).unwrap_or(Timestamp::MAX);
        self.now = self.now.saturating_add(by);
        for task in 0..self.tasks.len() {
            self.tasks[task].core_mut().set_wall_clock(self.now);
            self.tasks[task].punctuate(PunctuationKind::WallClock, self.now)?;
            self.seal(task)?;
        }
        self.work()
    }

    pub(super) fn store_names(&mut self) -> Vec<String> {
        let names = |task: &mut Task| -> Vec<String> {
            let stores = task.core_mut().stores_mut().iter_mut();
            stores.map(|store| store.name().to_string()).collect()
        };
        let mut all: Vec<String> = self.tasks.iter_mut().flat_map(names).collect();
        all.extend(self.globals.values().flat_map(|global| names(&mut global.task.lock())));
        all
    }

    fn unknown(&mut self, store: &str) -> TestDriverError {
        let known = self.store_names().join(", ");
        TestDriverError::UnknownStore { store: store.into(), known }
    }

    fn global_of(&self, store: &str) -> Option<SharedTask> {
        let tasks = self.globals.values().map(|global| &global.task);
        tasks.into_iter().find(|task| has(&task.lock(), store)).cloned()
    }

    /// Works on a store.
    pub(super) fn with_store<R>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut dyn Store) -> Result<R, TestDriverError>,
    ) -> Result<R, TestDriverError> {
        if let Some(task) = self.tasks.iter_mut().find(|task| has(task, name)) {
            return work(store_of(task, name));
        }
        match self.global_of(name) {
            Some(task) => work(store_of(&mut task.lock(), name)),
            None => Err(self.unknown(name)),
        }
    }

    pub(super) fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        let mut add = |task: &Task| {
            for (reason, count) in task.core().dropped() {
                *all.entry(*reason).or_default() += count;
            }
        };
        self.tasks.iter().for_each(&mut add);
        self.globals.values().for_each(|global| add(&global.task.lock()));
        all
    }
}

fn has(task: &Task, store: &str) -> bool {
    task.core().stores().position(store).is_some()
}

/// The store of this name, which the task has.
fn store_of<'a>(task: &'a mut Task, name: &str) -> &'a mut dyn Store {
    let stores = task.core_mut().stores_mut();
    let index = stores.position(name).unwrap_or_default();
    stores.at(index)
}

/// Flushes a task's caches and stores; answers what it has written.
fn flush(task: &mut Task) -> Result<Vec<(TopicPartition, Batch)>, TestDriverError> {
    loop {
        task.prepare_seal()?;
        if task.calls_in_flight() == 0 {
            break;
        }
        task.release()?;
    }
    let sealed = task.seal()?;
    let engines: Vec<_> = task.stores_mut().iter().map(engine_of).collect();
    for (store, engine) in task.core_mut().stores_mut().iter_mut().zip(engines) {
        engine.apply(&mut store.begin_flush()?, &position(store.time()))?;
        if let Some(expiry) = store.expiry() {
            engine.expire(expiry);
        }
        engine.flush()?;
        store.flushed();
    }
    Ok(sealed.batches)
}

fn engine_of(store: &TaskStore) -> Arc<dyn StoreEngine> {
    store.engine.clone()
}

/// Where a store stands. Nothing is ever restored, so it says nothing but the time.
fn position(stream_time: Timestamp) -> Position {
    Position {
        cluster_id: "test".into(),
        topic_id: TopicId(0),
        next_offset: 0,
        others: Vec::new(),
        stream_time,
    }
}

/// The names of topics as the application has them.
struct TopicNames<'a> {
    topology: &'a Topology,
    application: &'a str,
}

impl TopicNames<'_> {
    fn full(&self, topic: &str) -> Arc<str> {
        if self.topology.internal_topics().contains_key(topic) {
            format!("{}-{topic}", self.application).into()
        } else {
            topic.into()
        }
    }
}

fn task(
    topology: &Topology,
    part: &SubTopology,
    id: TaskId,
    settings: &TestDriverSettings,
    names: &TopicNames<'_>,
    globals: Globals,
) -> Result<Task, TestDriverError> {
    let stores: Vec<&str> = part.stores.iter().map(String::as_str).collect();
    let engines = LossyEngine::new().open(Path::new(&id.to_string()), &stores)?;
    let task_settings = TaskSettings {
        application_id: settings.application_id.as_str().into(),
        handlers: settings.handlers.clone(),
        topics: Arc::new(|topic| Some(OutputTopic::unlimited(topic.into(), 1))),
        globals,
        ..TaskSettings::default()
    };
    let resolve = |topic: &str| -> Result<OutputTopic, BuildError> {
        Ok(OutputTopic::unlimited(names.full(topic), 1))
    };
    let mut built = topology.build_task(id, task_settings, engines.clone(), &resolve)?;
    built.core.start(settings.start);

    let mut task_stores = Vec::new();
    for (name, engine) in part.stores.iter().zip(engines) {
        let logged = topology.stores().get(name).is_some_and(|store| store.changelog.is_some());
        let changelog = logged.then(|| {
            let topic: Arc<str> = format!("{}-{name}-changelog", settings.application_id).into();
            let output = built.core.outputs_mut().add(OutputTopic::unlimited(topic.clone(), 1));
            (output, TopicPartition { topic, partition: PARTITION })
        });
        task_stores.push(TaskStore { changelog, follows: None, engine, position: position(-1) });
    }
    let mut queues = Vec::new();
    for (number, source) in built.sources.iter().enumerate() {
        for topic in &source.topics {
            let partition = TopicPartition { topic: names.full(topic), partition: PARTITION };
            let mut queue = RecordQueue::new(partition, number, 0, -1);
            queue.add(Vec::new(), 0, true); // nothing else is to be waited for
            queues.push(queue);
        }
    }
    Ok(Task::new(built, queues, task_stores, WrittenTopics::default()))
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
