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
use crate::task::{OutputTopic, RecordQueue, Task, TaskSettings, TaskStore, WrittenTopics};
use crate::topology::{SubTopology, Topology};

/// All partitions have this number.
const PARTITION: u32 = 0;

/// See the module above.
pub(super) struct Driver {
    tasks: Vec<Task>,
    /// Records of topics that the topology reads, one in a batch.
    waiting: BTreeMap<Arc<str>, Waiting>,
    /// What was written and not read yet.
    pub(super) outputs: BTreeMap<Arc<str>, VecDeque<Batch>>,
    arrivals: u64,
    now: Timestamp,
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
        for (number, part) in topology.subtopologies().iter().enumerate() {
            let id = TaskId { subtopology: number as u32, partition: PARTITION };
            tasks.push(task(&topology, part, id, &settings, &names)?);
            for topic in &part.sources {
                let input = Waiting { task: number, next_offset: 0, records: VecDeque::new() };
                waiting.insert(names.full(topic), input);
            }
        }
        let outputs = BTreeMap::new();
        Ok(Self { tasks, waiting, outputs, arrivals: 0, now: settings.start })
    }

    /// Hands a record to the topology, and works until nothing waits any more.
    pub(super) fn pipe(&mut self, topic: &str, batch: Batch) -> Result<(), TestDriverError> {
        if !self.enqueue(topic, batch) {
            let known: Vec<&str> = self.waiting.keys().map(|topic| &**topic).collect();
            return Err(TestDriverError::UnknownTopic {
                topic: topic.into(),
                known: known.join(", "),
            });
        }
        self.work()
    }

    fn enqueue(&mut self, topic: &str, batch: Batch) -> bool {
        let Some(input) = self.waiting.get_mut(topic) else {
            return false;
        };
        let batch = batch.assigned(input.next_offset, self.now);
        input.next_offset = batch.next_offset();
        input.records.push_back((self.arrivals, batch));
        self.arrivals += 1;
        true
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
    pub(super) fn seal(&mut self, task: usize) -> Result<(), TestDriverError> {
        let sealed = self.tasks[task].seal()?;
        for (to, batch) in sealed.batches {
            for single in singles(&batch)? {
                self.enqueue(&to.topic, single.clone());
                self.outputs.entry(to.topic.clone()).or_default().push_back(single);
            }
        }
        let engines: Vec<_> = self.tasks[task].stores_mut().iter().map(engine_of).collect();
        let stores = self.tasks[task].core_mut().stores_mut();
        for (store, engine) in stores.iter_mut().zip(engines) {
            engine.apply(&mut store.begin_flush()?, &position(store.time()))?;
            if let Some(expiry) = store.expiry() {
                engine.expire(expiry);
            }
            engine.flush()?;
            store.flushed();
        }
        Ok(())
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
        let stores = self.tasks.iter_mut().flat_map(|t| t.core_mut().stores_mut().iter_mut());
        stores.map(|store| store.name().to_string()).collect()
    }

    /// The task that has a store.
    pub(super) fn task_of(&mut self, store: &str) -> Result<usize, TestDriverError> {
        let has = |task: &Task| task.core().stores().position(store).is_some();
        self.tasks.iter().position(has).ok_or_else(|| TestDriverError::UnknownStore {
            store: store.into(),
            known: self.store_names().join(", "),
        })
    }

    pub(super) fn store(&mut self, name: &str) -> Result<&mut dyn Store, TestDriverError> {
        let task = self.task_of(name)?;
        let stores = self.tasks[task].core_mut().stores_mut();
        let index = stores.position(name).unwrap_or_default();
        Ok(stores.at(index))
    }

    pub(super) fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for task in &self.tasks {
            for (reason, count) in task.core().dropped() {
                *all.entry(*reason).or_default() += count;
            }
        }
        all
    }
}

fn engine_of(store: &TaskStore) -> Arc<dyn StoreEngine> {
    store.engine.clone()
}

/// Where a store stands. Nothing is ever restored, so it says nothing but the time.
fn position(stream_time: Timestamp) -> Position {
    Position { cluster_id: "test".into(), topic_id: TopicId(0), next_offset: 0, stream_time }
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
) -> Result<Task, TestDriverError> {
    let stores: Vec<&str> = part.stores.iter().map(String::as_str).collect();
    let engines = LossyEngine::new().open(Path::new(&id.to_string()), &stores)?;
    let task_settings = TaskSettings {
        application_id: settings.application_id.as_str().into(),
        handlers: settings.handlers.clone(),
        topics: Arc::new(|topic| Some(OutputTopic::unlimited(topic.into(), 1))),
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
        task_stores.push(TaskStore { changelog, engine, position: position(-1) });
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
