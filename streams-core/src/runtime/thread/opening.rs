//! From an assigned task to a running one: where its commits ended, which of its stores can be
//! trusted, what has to be replayed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use broker_api::{
    CommittedOffset, Error, Horizon, Offset, OffsetSpec, Start, TaskId, TopicDescription, TopicId,
    TopicPartition,
};
use futures::future::{BoxFuture, FutureExt};

use super::super::metrics::add;
use super::super::shares::Share;
use super::super::{RestoreEvent, RestoreStage};
use super::running::{Running, StoreFlush};
use super::starting::Input;
use super::surviving::Surviving;
use super::{StreamThread, StreamsError, ThreadEnv};
use crate::error::{BuildError, StateError};
use crate::state::{Changelog, Expiry, Position, RestorePlan, Restorer, StoreEngine, StoreKind};
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
    stores: Vec<TaskStore>,
    /// By changelog partition: what is still replayed.
    replays: BTreeMap<TopicPartition, Replay>,
    wall_clocks: WallClocks,
}

struct Replay {
    store: usize,
    restorer: Restorer,
    /// Where it, or its present part, began.
    from: Offset,
    changelog: Changelog,
    /// What has expired by the commit to which it leads.
    expired: Option<Expiry>,
    at_end: bool,
    /// At its end, and that of a part: what the changelog has forgotten by then.
    checking: Option<BoxFuture<'static, Result<Horizon, Error>>>,
    _share: Share,
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

    fn replay_of(
        &self,
        id: TaskId,
        store: usize,
        engine: Arc<dyn StoreEngine>,
        plan: &RestorePlan,
        changelog: Changelog,
        expired: Option<Expiry>,
    ) -> Result<Replay, StreamsError> {
        let topology = &self.env.topology;
        let name = &topology.subtopologies()[id.subtopology as usize].stores[store];
        let spec = self.env.spec_of(name)?;
        let share = self.env.restores.take(1);
        let memory = self.env.restores.each(self.env.settings.restore_memory_bytes);
        let spill = self.env.state_dir.join(id.to_string()).join(format!("{name}.restore"));
        let mut restorer =
            Restorer::new(engine, spec.format.clone(), plan, &changelog, memory, spill)?;
        if let Some(expired) = expired {
            restorer.leave_out(expired)?;
        }
        let from = restorer.next_offset();
        let (at_end, checking) = (false, None);
        Ok(Replay { store, from, restorer, changelog, expired, at_end, checking, _share: share })
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
        let mut busy = false;
        let mut replays = self.restoring.values().flat_map(|r| r.replays.values());
        if replays.any(|replay| replay.checking.is_none())
            && let Poll::Ready(fetched) = self.restore_fetcher.poll(8 << 20)
        {
            busy = true;
            match fetched {
                Err(Error::OffsetOutOfRange { partition, log_start, .. }) => {
                    self.replay_what_is_left(partition, log_start)?;
                }
                fetched => fetched?.iter().try_for_each(|part| self.replay(part))?,
            }
        }
        busy |= self.check_replays()?;
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

    fn replay(&mut self, part: &broker_api::Fetched) -> Result<(), StreamsError> {
        let memory = self.env.restores.each(self.env.settings.restore_memory_bytes);
        let all = self.restoring.iter_mut();
        let mut replays = all.flat_map(|(id, r)| r.replays.iter_mut().map(|(tp, r)| (*id, tp, r)));
        let Some((id, partition, replay)) = replays.find(|(_, tp, _)| **tp == part.partition)
        else {
            return Ok(());
        };
        replay.restorer.set_memory(memory);
        for batch in &part.batches {
            replay.restorer.feed(batch, replay.changelog.end).map_err(|error| match error {
                StateError::ChangelogRecord { reason } => {
                    let part = &self.env.topology.subtopologies()[id.subtopology as usize];
                    StreamsError::ChangelogUnreadable {
                        application: self.env.settings.application_id.to_string(),
                        store: part.stores[replay.store].clone(),
                        changelog: partition.clone(),
                        reason,
                    }
                }
                error => error.into(),
            })?;
        }
        replay.at_end = part.position >= replay.changelog.end;
        if replay.at_end || replay.restorer.is_full() {
            self.restore_fetcher.unassign(std::slice::from_ref(partition));
            let (admin, partition) = (self.env.broker.admin(), partition.clone());
            replay.checking = Some(Box::pin(async move { admin.horizon(&partition).await }));
        }
        let (store, position) = (replay.store, part.position.min(replay.changelog.end));
        self.tell(id, store, &part.partition, RestoreStage::Restored { position });
        Ok(())
    }

    fn check_replays(&mut self) -> Result<bool, StreamsError> {
        let mut ended = Vec::new();
        for (id, restoring) in &mut self.restoring {
            for (partition, replay) in &mut restoring.replays {
                if let Some(checking) = &mut replay.checking
                    && let Poll::Ready(horizon) =
                        checking.as_mut().poll(&mut Context::from_waker(&self.waker))
                {
                    ended.push((*id, partition.clone(), horizon?));
                }
            }
        }
        let busy = !ended.is_empty();
        for (id, partition, horizon) in ended {
            self.end_replay(id, partition, horizon)?;
        }
        Ok(busy)
    }

    /// Ends a replay that has come to its end, or applies its part, unless the changelog was
    /// compacted meanwhile: a deletion that was still to be read may be gone. Then it begins anew.
    fn end_replay(
        &mut self,
        id: TaskId,
        partition: TopicPartition,
        horizon: Horizon,
    ) -> Result<(), StreamsError> {
        let Some(restoring) = self.restoring.get_mut(&id) else {
            return Ok(());
        };
        let Some(mut replay) = restoring.replays.remove(&partition) else {
            return Ok(());
        };
        let position = &restoring.stores[replay.store].position;
        let known = replay.changelog.horizon.tombstones_gone_below;
        if horizon.tombstones_gone_below <= replay.from.max(known) {
            if !replay.at_end {
                replay.restorer.apply_part()?;
                (replay.from, replay.checking) = (replay.restorer.next_offset(), None);
                self.restore_fetcher.assign(&[(partition.clone(), Start::At(replay.from))])?;
                restoring.replays.insert(partition, replay);
                return Ok(());
            }
            let stats = replay.restorer.finish(position)?;
            add(&self.env.counters.restored, stats.records);
            tracing::info!(task = %id, changelog = %partition, records = stats.records, "store restored");
            let stage = RestoreStage::Ended { records: stats.records };
            self.tell(id, replay.store, &partition, stage);
            return Ok(());
        }
        let reason = "its changelog was compacted meanwhile";
        self.replay_anew(id, partition, replay, horizon, reason)
    }

    /// Begins a replay anew that retention, or who deletes records, was faster than.
    fn replay_what_is_left(
        &mut self,
        partition: TopicPartition,
        log_start: Offset,
    ) -> Result<(), StreamsError> {
        self.restore_fetcher.unassign(std::slice::from_ref(&partition));
        let mut all = self.restoring.iter_mut();
        let found = all.find_map(|(id, r)| Some((*id, r.replays.remove(&partition)?)));
        let Some((id, replay)) = found else { return Ok(()) };
        let horizon = Horizon { log_start, ..replay.changelog.horizon };
        self.replay_anew(id, partition, replay, horizon, "its changelog was cut meanwhile")
    }

    fn replay_anew(
        &mut self,
        id: TaskId,
        partition: TopicPartition,
        replay: Replay,
        horizon: Horizon,
        reason: &'static str,
    ) -> Result<(), StreamsError> {
        tracing::warn!(task = %id, changelog = %partition, %reason, "a store is rebuilt that was being restored");
        let Some(restoring) = self.restoring.get(&id) else { return Ok(()) };
        add(&self.env.counters.rebuilt, 1);
        add(&self.env.counters.overtaken, 1);
        let Replay { store, changelog, expired, restorer, .. } = replay;
        let engine = restoring.stores[store].engine.clone();
        drop(restorer); // and with it what it has spilled
        let plan = RestorePlan::Rebuild { reason };
        let changelog = Changelog { horizon, ..changelog };
        let replay = self.replay_of(id, store, engine, &plan, changelog, expired)?;
        self.restore_fetcher.assign(&[(partition.clone(), Start::At(replay.from))])?;
        if let Some(restoring) = self.restoring.get_mut(&id) {
            restoring.replays.insert(partition, replay);
        }
        Ok(())
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

    fn tell(&self, task: TaskId, store: usize, changelog: &TopicPartition, stage: RestoreStage) {
        if let Some(listener) = &self.env.settings.restore_listener {
            let part = &self.env.topology.subtopologies()[task.subtopology as usize];
            let (store, changelog) = (part.stores[store].clone(), changelog.clone());
            listener(&RestoreEvent { task, store, changelog, stage });
        }
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
    fn spec_of(&self, store: &str) -> Result<&StoreSpec, BuildError> {
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
