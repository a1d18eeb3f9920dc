//! Opening a task of the topology under test: what it has consumed, and what its changelogs hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use broker_api::{CommittedOffset, TaskId, Timestamp, TopicId, TopicPartition};

use super::driver::Log;
use super::{TestDriverError, TestDriverSettings};
use crate::error::BuildError;
use crate::executor::RunToEnd;
use crate::state::{EntryBatch, LossyEngine, Position, StateEngine, StoreEngine};
use crate::task::{
    Globals, OffsetMetadata, OutputTopic, OwnTimes, RecordQueue, Task, TaskSettings, TaskStore,
    WallClocks, WrittenTopics,
};
use crate::topology::{NodeKind, SubTopology, Topology};

/// Opens tasks.
pub(super) struct Opener {
    topology: Topology,
    pub(super) settings: TestDriverSettings,
    application: Arc<str>,
    /// Where the calls of all tasks run, also after a crash.
    executor: Arc<RunToEnd>,
    /// Topics that no source names, but a pattern is like them.
    followed: Vec<Arc<str>>,
}

impl Opener {
    pub(super) fn new(topology: Topology, settings: TestDriverSettings) -> Self {
        let application = settings.application_id.as_str().into();
        let executor = Arc::new(RunToEnd::new(settings.call_patience));
        Self { topology, settings, application, executor, followed: Vec::new() }
    }

    /// Reads a topic that nobody has named, if a pattern is like it: the new inputs of tasks.
    pub(super) fn follow(&mut self, topic: &str) -> Vec<(TaskId, RecordQueue)> {
        if !self.topology.has_patterns() || self.is_own(topic) {
            return Vec::new();
        }
        let parts = self.topology.subtopologies().iter().enumerate();
        let found = parts.filter_map(|(n, part)| Some((n as u32, self.source_like(part, topic)?)));
        let Some((subtopology, source)) = found.collect::<Vec<_>>().first().copied() else {
            return Vec::new();
        };
        let topic: Arc<str> = topic.into();
        self.followed.push(topic.clone());
        let inputs = (0..self.partitions_of(&topic)).map(|partition| {
            let input = TopicPartition { topic: topic.clone(), partition };
            let mut queue = RecordQueue::new(input, source, 0, -1);
            queue.add(Vec::new(), 0, true);
            (TaskId { subtopology, partition }, queue)
        });
        inputs.collect()
    }

    /// Whether a topic is one of the application's internal topics.
    fn is_own(&self, topic: &str) -> bool {
        let changelog = |store: &String| format!("{}-{store}-changelog", self.application);
        self.topology.internal_topics().keys().any(|own| *self.full(own) == *topic)
            || self.topology.stores().keys().any(|store| changelog(store) == topic)
    }

    /// The number of the source of a sub-topology whose pattern is like a topic.
    fn source_like(&self, part: &SubTopology, topic: &str) -> Option<usize> {
        let nodes = part.nodes.iter().map(|&node| &self.topology.nodes()[node]);
        let mut sources = nodes.filter(|node| matches!(node.kind, NodeKind::Source { .. }));
        sources.position(|node| node.pattern.as_ref().is_some_and(|p| p.matches(topic)))
    }

    /// The tasks that fill global stores.
    pub(super) fn global_tasks(&self) -> Vec<TaskId> {
        let parts = self.topology.subtopologies().iter().enumerate();
        let parts = parts.filter(|(_, part)| part.is_global);
        parts.map(|(number, _)| TaskId { subtopology: number as u32, partition: 0 }).collect()
    }

    /// All others.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        let parts = self.topology.subtopologies().iter().enumerate();
        let ids = parts.filter(|(_, part)| !part.is_global).flat_map(|(number, part)| {
            let ids = 0..self.tasks_of(part);
            ids.map(move |partition| TaskId { subtopology: number as u32, partition })
        });
        ids.collect()
    }

    fn tasks_of(&self, part: &SubTopology) -> u32 {
        let partitions = part.sources.iter().map(|topic| self.partitions_of(&self.full(topic)));
        let follows = part.nodes.iter().any(|&node| self.topology.nodes()[node].pattern.is_some());
        let of_patterns = follows.then_some(self.settings.partitions);
        partitions.chain(of_patterns).max().unwrap_or(1)
    }

    /// How many partitions a topic has.
    pub(super) fn partitions_of(&self, topic: &str) -> u32 {
        let internal = self.topology.internal_topics().iter();
        let own = internal.filter(|(name, _)| *self.full(name) == *topic);
        let asked = own.filter_map(|(_, topic)| topic.partitions).next();
        asked.unwrap_or(self.settings.partitions).max(1)
    }

    /// The name that a topic of the topology has in the application.
    fn full(&self, topic: &str) -> Arc<str> {
        if self.topology.internal_topics().contains_key(topic) {
            format!("{}-{topic}", self.application).into()
        } else {
            topic.into()
        }
    }

    /// The topics that may be written, or nothing if any may be: a sink chooses for each record.
    pub(super) fn written(&self) -> Option<Vec<String>> {
        let mut written = BTreeSet::new();
        for node in self.topology.nodes() {
            match &node.kind {
                NodeKind::Source { topics } => {
                    written.extend(topics.iter().map(|topic| self.full(topic).to_string())); // by dead letters
                }
                NodeKind::Sink { topic } => {
                    written.insert(self.full(topic).to_string());
                }
                NodeKind::DynamicSink { .. } => return None,
                NodeKind::Processor => {}
            }
        }
        let logged = self.topology.stores().iter().filter(|(_, spec)| spec.changelog.is_some());
        written.extend(logged.map(|(name, _)| format!("{}-{name}-changelog", self.application)));
        written.extend(self.settings.handlers.dead_letter_topic.iter().map(|to| to.to_string()));
        Some(written.into_iter().collect())
    }

    fn output(&self, topic: &str) -> OutputTopic {
        let name = self.full(topic);
        let partitions = self.partitions_of(&name);
        OutputTopic::unlimited(name, partitions)
    }

    /// A task that goes on at these offsets, with stores made from these logs.
    pub(super) fn open(
        &self,
        id: TaskId,
        globals: Globals,
        (committed, logs): (
            &BTreeMap<TopicPartition, CommittedOffset>,
            &BTreeMap<TopicPartition, Log>,
        ),
        surviving: Option<&Surviving>,
        now: Timestamp,
    ) -> Result<Task, TestDriverError> {
        let part = &self.topology.subtopologies()[id.subtopology as usize];
        let names: Vec<&str> = part.stores.iter().map(String::as_str).collect();
        let mut engines = LossyEngine::new().open(Path::new(&id.to_string()), &names)?;
        for (engine, kept) in engines.iter_mut().zip(surviving.iter().flat_map(|s| &s.unlogged)) {
            *engine = kept.clone().unwrap_or(engine.clone());
        }
        let partitions = self.settings.partitions.max(1);
        let settings = TaskSettings {
            application_id: self.application.clone(),
            handlers: self.settings.handlers.clone(),
            topics: Arc::new(move |topic| Ok(OutputTopic::unlimited(topic.into(), partitions))),
            globals,
            executor: Some(self.executor.clone()),
            ..TaskSettings::default()
        };
        let resolve = |topic: &str| -> Result<OutputTopic, BuildError> { Ok(self.output(topic)) };
        let mut built = self.topology.build_task(id, settings, engines.clone(), &resolve)?;

        let mut stores = Vec::new();
        for (name, engine) in part.stores.iter().zip(engines) {
            let spec = self.topology.stores().get(name);
            let changelog = spec.filter(|spec| spec.changelog.is_some()).map(|spec| {
                let topic: Arc<str> = format!("{}-{name}-changelog", self.application).into();
                let output = OutputTopic::unlimited(topic.clone(), self.tasks_of(part));
                let partition = TopicPartition { topic, partition: id.partition };
                (built.core.outputs_mut().add(output), partition, spec)
            });
            let source = spec.and_then(|spec| Some((spec, spec.source_topic.as_ref()?)));
            let mut follows = None;
            let log = match (&changelog, source) {
                (Some((_, partition, spec)), _) => Some((*spec, partition.clone(), usize::MAX)),
                // What lies behind is processed as input.
                (None, Some((spec, topic))) => {
                    let topic = self.full(topic);
                    let partition = TopicPartition { topic, partition: id.partition };
                    let consumed = committed.get(&partition).map_or(0, |at| at.offset as usize);
                    follows = Some(partition.clone());
                    Some((spec, partition, consumed))
                }
                (None, None) => None,
            };
            if let Some((spec, partition, end)) = log {
                for (_, batch) in logs.get(&partition).into_iter().flatten().take(end) {
                    let mut entries = EntryBatch::new();
                    for record in batch.records() {
                        spec.format.entries(&record?, &mut entries)?;
                    }
                    engine.apply(&mut entries, &position(-1))?;
                }
                engine.flush()?;
            }
            let changelog = changelog.map(|(output, partition, _)| (output, partition));
            stores.push(TaskStore { changelog, follows, engine, position: position(-1) });
        }
        let mut queues = Vec::new();
        let mut own_times = OwnTimes::default();
        for (number, source) in built.sources.iter().enumerate() {
            let like = |topic: &&Arc<str>| self.source_like(part, topic) == Some(number);
            let followed = self.followed.iter().filter(like).cloned();
            for topic in source.topics.iter().map(|topic| self.full(topic)).chain(followed) {
                let all = self.partitions_of(&topic);
                let its = if part.is_global { 0..all } else { id.partition..id.partition + 1 };
                for partition in its.filter(|partition| *partition < all) {
                    let partition = TopicPartition { topic: topic.clone(), partition };
                    let at = committed.get(&partition);
                    let metadata = at.map_or("", |at| &*at.metadata);
                    let times = OffsetMetadata::decode(metadata);
                    built.core.advance_stream_time(times.stream_time);
                    own_times.advance_to(metadata);
                    let offset = at.map_or(0, |at| at.offset);
                    let mut queue =
                        RecordQueue::new(partition, number, offset, times.partition_time);
                    queue.add(Vec::new(), offset, true); // nothing else is to be waited for
                    queues.push(queue);
                }
            }
        }
        built.core.resume(&own_times);
        if let Some(surviving) = surviving {
            built.core.keep(&surviving.wall_clocks);
        }
        built.core.start(now);
        Ok(Task::new(built, queues, stores, WrittenTopics::default()))
    }
}

/// What of a task outlives that it is opened again without a crash, as in a running application.
pub(super) struct Surviving {
    /// The engines of its stores, where these have no changelog.
    unlogged: Vec<Option<Arc<dyn StoreEngine>>>,
    /// When its schedules of the wall clock are due.
    wall_clocks: WallClocks,
}

impl Surviving {
    pub(super) fn of(mut task: Task) -> Self {
        let engine = |store: &TaskStore| store.engine.clone();
        let stores = task.stores_mut().iter();
        let unlogged = stores.map(|store| store.is_unlogged().then(|| engine(store))).collect();
        Self { unlogged, wall_clocks: task.core().wall_clocks() }
    }
}

/// Where a store stands. Its files never outlive its task, so it says nothing but the time.
pub(super) fn position(stream_time: Timestamp) -> Position {
    Position {
        cluster_id: "test".into(),
        topic_id: TopicId(0),
        next_offset: 0,
        others: Vec::new(),
        stream_time,
        kind: None,
    }
}
