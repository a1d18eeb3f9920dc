//! From an assigned task to a running one: where its commits ended, which of its stores can be
//! trusted, what has to be replayed.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use broker_api::{
    CommittedOffset, OffsetSpec, Start, TaskId, TopicDescription, TopicId, TopicPartition,
};
use futures::future::{BoxFuture, FutureExt};

use super::super::RestoreStage;
use super::super::metrics::add;
use super::replaying::Replay;
use super::running::{Running, StoreFlush};
use super::starting::Input;
use super::surviving::Surviving;
use super::{StreamThread, StreamsError, ThreadEnv};
use crate::error::BuildError;
use crate::state::{Changelog, Position, RestorePlan, StoreKind};
use crate::task::{
    OffsetMetadata, OwnTimes, RecordQueue, Task, TaskSettings, TaskStore, WallClocks,
};
use crate::topology::{NodeKind, StoreSpec};

/// A task that is assigned and not open yet.
#[derive(Default)]
pub(super) struct Opening {
    /// Of the task that it was before in this thread.
    surviving: Surviving,
    /// The broker was asked.
    asking: Option<BoxFuture<'static, Result<Found, StreamsError>>>,
}

impl Opening {
    /// A task that is opened again with what it had.
    pub(super) fn again(surviving: Surviving) -> Self {
        Self { surviving, asking: None }
    }

    pub(super) fn into_surviving(self) -> Surviving {
        self.surviving
    }
}

/// What the broker knows about a task.
pub(super) struct Found {
    offsets: Vec<(TopicPartition, CommittedOffset)>,
    inputs: Vec<Input>,
    changelogs: Vec<Option<Changelog>>,
}

/// A task whose stores are being brought up to date.
pub(super) struct Restoring {
    offsets: Vec<(TopicPartition, CommittedOffset)>,
    inputs: Vec<Input>,
    pub(super) stores: Vec<TaskStore>,
    /// By changelog partition: what is still replayed.
    pub(super) replays: BTreeMap<TopicPartition, Replay>,
    wall_clocks: WallClocks,
}

impl StreamThread {
    pub(super) fn open_tasks(&mut self) -> Result<bool, StreamsError> {
        if self.opening.is_empty() {
            return Ok(false);
        }
        if self.env.globals.globals(&self.waker).is_none() {
            return Ok(false); // processors look for them when they are made
        }
        let mut busy = false;
        for id in self.opening.keys().copied().collect::<Vec<_>>() {
            // A flush for the task as it was before may still hold its files; perhaps in a thread that
            // had it then.
            if !self.may_open(id)
                || self.flushes_running.iter().any(|(task, _)| *task == id)
                || self.env.flushing.is_under_way(id, &self.waker)
            {
                continue;
            }
            let Some(mut opening) = self.opening.remove(&id) else { continue };
            let ask = || ask(self.env.clone(), id).boxed();
            let asking = opening.asking.get_or_insert_with(ask);
            match asking.as_mut().poll(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(found) => {
                    self.begin_restoring(id, found?, opening.surviving)?;
                    busy = true;
                }
                Poll::Pending => {
                    self.opening.insert(id, opening);
                }
            }
        }
        Ok(busy)
    }

    fn begin_restoring(
        &mut self,
        id: TaskId,
        found: Found,
        surviving: Surviving,
    ) -> Result<(), StreamsError> {
        let Surviving { engines, wall_clocks } = surviving;
        let part = &self.env.topology.subtopologies()[id.subtopology as usize];
        let dir = self.env.state_dir.join(id.to_string());
        let engines = match engines {
            Some(kept) => kept,
            None => self.env.engines(&dir, &part.stores)?,
        };
        let Found { offsets, inputs, changelogs } = found;
        let times = own_times(&inputs, &offsets);
        let (stores, replays) = (Vec::new(), BTreeMap::new());
        let mut restoring = Restoring { offsets, inputs, stores, replays, wall_clocks };
        let mut starts = Vec::new();
        for (index, (engine, changelog)) in engines.into_iter().zip(changelogs).enumerate() {
            let name = &part.stores[index];
            let position = engine.position()?;
            self.env.check_kind(name, position.as_ref(), changelog.as_ref())?;
            let Some(changelog) = changelog else {
                let next = self.unlogged(position, self.env.spec_of(name)?.kind);
                restoring.stores.push(TaskStore {
                    changelog: None,
                    follows: None,
                    engine,
                    position: next,
                });
                continue;
            };
            let (logged, topic) = self.env.log_of(name).ok_or_else(|| BuildError::Unknown {
                node: name.clone(),
                missing: "its changelog".into(),
            })?;
            let partition = TopicPartition::new(topic.name.clone(), id.partition);
            let plan = RestorePlan::decide(position.as_ref(), &changelog);
            if let RestorePlan::Rebuild { reason } = &plan
                && (position.is_some() || engine.was_damaged())
            {
                tracing::warn!(task = %id, store = %name, %reason, "the store is rebuilt");
                add(&self.env.counters.rebuilt, 1);
            }
            let next = Position {
                cluster_id: changelog.cluster_id.clone(),
                topic_id: changelog.topic_id,
                next_offset: changelog.end,
                others: Vec::new(),
                stream_time: -1, // what is replayed may be later than what is there
                kind: Some(changelog.kind),
            };
            if !matches!(plan, RestorePlan::UpToDate) {
                let format = &self.env.spec_of(name)?.format;
                let expired = times.get(name).and_then(|time| format.expiry(time));
                let replay =
                    self.replay_of(id, index, engine.clone(), &plan, changelog, expired)?;
                let stage = RestoreStage::Started { from: replay.from, end: replay.changelog.end };
                self.tell(id, index, &partition, stage);
                starts.push((partition.clone(), Start::At(replay.from)));
                restoring.replays.insert(partition.clone(), replay);
            }
            // Its number among the outputs is known when the nodes are built.
            let (changelog, follows) = match logged {
                true => (Some((usize::MAX, partition)), None),
                false => (None, Some(partition)),
            };
            restoring.stores.push(TaskStore { changelog, follows, engine, position: next });
        }
        if !starts.is_empty() {
            self.restore_fetcher.assign(&starts)?;
        }
        self.restoring.insert(id, restoring);
        Ok(())
    }

    fn unlogged(&self, position: Option<Position>, kind: StoreKind) -> Position {
        let position = position.unwrap_or(Position {
            cluster_id: self.env.plan.cluster_id.clone(),
            topic_id: TopicId(0),
            next_offset: 0,
            others: Vec::new(),
            stream_time: -1,
            kind: None,
        });
        Position { kind: Some(kind), ..position }
    }

    pub(super) fn restore(&mut self) -> Result<bool, StreamsError> {
        if self.restoring.is_empty() {
            return Ok(false);
        }
        let mut busy = self.replay_more()?;
        let asked_before = self.finder.is_asking();
        let ready = self.restoring.iter().filter(|(_, r)| r.replays.is_empty());
        let ready = ready.map(|(id, _)| *id).filter(|id| self.knows_letters(*id));
        let ids: Vec<TaskId> = ready.collect();
        busy |= self.finder.is_asking() && !asked_before; // the next step waits for the answer
        for id in ids {
            if let Some(restored) = self.restoring.remove(&id) {
                self.run_task(id, restored)?;
                busy = true;
            }
        }
        Ok(busy)
    }

    /// Forgets a task that is being restored. What was replayed so far stays in its stores. `None`: it is
    /// not.
    pub(super) fn stop_restoring(&mut self, id: TaskId) -> Option<WallClocks> {
        let restoring = self.restoring.remove(&id)?;
        for (partition, replay) in &restoring.replays {
            self.restore_fetcher.unassign(std::slice::from_ref(partition));
            self.tell(id, replay.store, partition, RestoreStage::Suspended);
        }
        Some(restoring.wall_clocks)
    }

    /// Builds the nodes of a restored task and begins to read its inputs.
    fn run_task(&mut self, id: TaskId, restored: Restoring) -> Result<(), StreamsError> {
        let env = &self.env;
        let settings = TaskSettings {
            application_id: env.settings.application_id.clone(),
            handlers: env.settings.error_handlers(),
            topics: self.finder.lookup(env),
            globals: env.globals.globals(&self.waker).unwrap_or_default(),
            executor: env.settings.executor.clone(),
            waker: self.waker.clone(),
            max_offset_metadata_bytes: self.capabilities.max_offset_metadata_bytes,
        };
        let engines = restored.stores.iter().map(|store| store.engine.clone()).collect();
        let plan = env.plan.clone();
        let mut built = env
            .topology
            .build_task(id, settings, engines, &|topic| Ok(plan.topic(topic)?.into()))?;

        let mut stores = restored.stores;
        let part = &env.topology.subtopologies()[id.subtopology as usize];
        for (store, name) in stores.iter_mut().zip(&part.stores) {
            if let (Some((output, _)), Some(topic)) = (&mut store.changelog, plan.changelog(name)) {
                *output = built.core.outputs_mut().add(topic.into());
            }
        }
        let (mut queues, mut at_end) = (Vec::new(), Vec::new());
        for (number, source) in built.sources.iter().enumerate() {
            for topic in &source.topics {
                let Ok(TopicDescription { name: topic, .. }) = env.plan.topic(topic) else {
                    continue; // a repartition topic that nobody feeds yet
                };
                let mut inputs = restored.inputs.iter();
                let Some(input) = inputs.find(|input| input.partition.topic == *topic) else {
                    continue; // fewer partitions than its neighbours
                };
                let partition = input.partition.clone();
                let committed = restored.offsets.iter().find(|(tp, _)| *tp == partition);
                let times = committed
                    .map_or(OffsetMetadata::NONE, |(_, c)| OffsetMetadata::decode(&c.metadata));
                built.core.advance_stream_time(times.stream_time);
                let begin = env.start_of(input, committed.map(|(_, c)| c))?;
                let offset = begin.offset;
                if !env.assign(&mut *self.fetcher, &partition, offset)? {
                    continue;
                }
                queues.push(RecordQueue::new(
                    partition.clone(),
                    number,
                    offset,
                    times.partition_time,
                ));
                at_end.extend(begin.is_end.then(|| partition.clone()));
                self.inputs.insert(partition, id);
            }
        }
        let times = |inputs: &[Input]| own_times(inputs, &restored.offsets);
        let newest = times(&restored.inputs);
        built.core.resume(&newest);
        let has_newest = |input: &Input| times(std::slice::from_ref(input)) == newest;
        if built.core.follows && !restored.inputs.iter().all(has_newest) {
            // They came without a record: the others may be gone at the next start.
            built.core.times_unsealed();
            self.seal_requested = true;
        }
        built.core.keep(&restored.wall_clocks);
        built.core.start(env.clock.now());
        let last = env.clock.monotonic();
        let flush = |store: &TaskStore| {
            // Of what was given up it is not known what is in the files.
            StoreFlush { under_way: false, last, engine_ahead: store.is_unlogged() }
        };
        let flushes: Vec<StoreFlush> = stores.iter().map(flush).collect();
        let mut task = Task::new(built, queues, stores, env.plan.written_by(&env.topology, part));
        task.core_mut().set_wall_clock(env.clock.now());
        for partition in at_end {
            task.commit_position_first(&partition);
            self.seal_requested = true;
        }
        for (_, what) in self.left_out.iter().filter(|(task, _)| *task == id) {
            let left = task.leave_out(what.clone());
            left.map_err(|error| StreamsError::process(id, None, error))?;
        }
        let internal = self.is_internal(id);
        let share = env.stores.take(flushes.len());
        let committed = (0, task.gone_on());
        let running = Running {
            task,
            internal,
            sealed: false,
            committed,
            last_commit: None,
            flushes,
            overtaken: BTreeMap::new(),
            _share: share,
        };
        self.running.insert(id, running);
        self.following.fit_again();
        self.shared_budget = None; // the new stores have no share yet
        tracing::info!(task = %id, thread = %self.transactional_id, "task running");
        Ok(())
    }

    /// Whether a task reads internal topics only.
    fn is_internal(&self, id: TaskId) -> bool {
        let topology = &self.env.topology;
        let part = &topology.subtopologies()[id.subtopology as usize];
        part.nodes.iter().map(|&node| &topology.nodes()[node]).all(|node| match &node.kind {
            NodeKind::Source { topics } => {
                let is_internal = |topic| topology.internal_topics().contains_key(topic);
                node.pattern.is_none() && topics.iter().all(is_internal)
            }
            _ => true,
        })
    }
}

/// The times of operators and stores as they were committed with these inputs.
fn own_times(inputs: &[Input], offsets: &[(TopicPartition, CommittedOffset)]) -> OwnTimes {
    let mut times = OwnTimes::default();
    for input in inputs {
        if let Some((_, at)) = offsets.iter().find(|(tp, _)| *tp == input.partition) {
            times.advance_to(&at.metadata);
        }
    }
    times
}

impl ThreadEnv {
    /// How a store was declared.
    pub(super) fn spec_of(&self, store: &str) -> Result<&StoreSpec, BuildError> {
        self.topology.stores().get(store).ok_or_else(|| BuildError::Unknown {
            node: "the topology".into(),
            missing: store.into(),
        })
    }

    /// Whether the files of a store are not those of another kind. If they stand for another changelog,
    /// they are rebuilt anyway. So they are if they have only been laid out in another way.
    fn check_kind(
        &self,
        store: &str,
        position: Option<&Position>,
        changelog: Option<&Changelog>,
    ) -> Result<(), StreamsError> {
        let now = self.spec_of(store)?.kind;
        let Some((position, was)) = position.and_then(|position| Some((position, position.kind?)))
        else {
            return Ok(());
        };
        let fits = match changelog {
            None => was == now,
            Some(log) => was.logged() == now.logged() || position.topic_id != log.topic_id,
        };
        if fits {
            return Ok(());
        }
        Err(StreamsError::StoreKindChanged {
            application: self.settings.application_id.to_string(),
            store: store.into(),
            was: Some(was),
            now,
        })
    }

    /// The topic from which a store is restored, and whether it is a changelog of its own.
    fn log_of(&self, store: &str) -> Option<(bool, &TopicDescription)> {
        let changelog = self.plan.changelog(store).map(|topic| (true, topic));
        changelog.or_else(|| self.plan.source_of(&self.topology, store).map(|t| (false, t)))
    }
}

/// Asks the broker what a task needs to know.
async fn ask(env: ThreadEnv, id: TaskId) -> Result<Found, StreamsError> {
    let admin = env.broker.admin();
    let offsets = admin.group_offsets(&env.settings.application_id).await?;
    let inputs = env.inputs(id, &*admin).await?;
    let part = &env.topology.subtopologies()[id.subtopology as usize];
    let mut changelogs = Vec::new();
    for store in &part.stores {
        let log = env.log_of(store).filter(|(_, topic)| id.partition < topic.partitions);
        changelogs.push(match log {
            None => None,
            Some((logged, topic)) => {
                let partition = TopicPartition::new(topic.name.clone(), id.partition);
                // Also what is applied but not durable: the task's commits may still be on their way.
                let ends = admin.offsets(&[(partition.clone(), OffsetSpec::Latest)]).await?;
                let horizon = admin.horizon(&partition).await?;
                let mut end = ends.first().copied().unwrap_or(0);
                if !logged {
                    // What lies behind is processed as input.
                    let mut consumed = offsets.iter().filter(|(input, _)| *input == partition);
                    let consumed = consumed.next().map_or(horizon.log_start, |(_, at)| at.offset);
                    end = end.min(consumed);
                }
                let cluster_id = env.plan.cluster_id.clone();
                let kind = env.spec_of(store)?.kind;
                Some(Changelog { cluster_id, topic_id: topic.id, horizon, end, kind })
            }
        });
    }
    // What is restored goes into store files, which must not be ahead of the log.
    admin.sync().await?;
    Ok(Found { offsets, inputs, changelogs })
}
