//! One global store and the partitions that it follows.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_api::{
    Admin, Error, Fetched, Horizon, Offset, OffsetSpec, TaskId, Timestamp, TopicDescription,
    TopicId, TopicPartition,
};
use futures::future::BoxFuture;

use super::super::metrics::add;
use super::super::shares::Share;
use super::super::{StreamsError, ThreadEnv};
use crate::error::ProcessError;
use crate::failure::{ErrorHandlers, Halt};
use crate::processor::SourceInfo;
use crate::state::{EntryBatch, Position, StoreEngine, StoreKind};
use crate::task::{Globals, RecordQueue, SharedTask, Task, TaskSettings, TaskStore, WrittenTopics};

/// How many records are processed before readers get a turn.
const SLICE: usize = 256;

/// A global store at work.
pub(super) struct GlobalTable {
    id: TaskId,
    topic: TopicDescription,
    engine: Arc<dyn StoreEngine>,
    kind: Option<StoreKind>,
    asking: Option<BoxFuture<'static, Result<Vec<Log>, StreamsError>>>,
    /// What is in the files cannot be trusted.
    distrusted: bool,
    task: Option<SharedTask>,
    partitions: Vec<Followed>,
    flush: Flush,
    last_flush: Duration,
    budget: usize,
    _share: Share,
}

/// What the broker knows of a partition.
struct Log {
    horizon: Horizon,
    stable: Offset,
    end: Offset,
}

/// A partition and how far it is known to be followed well.
struct Followed {
    partition: TopicPartition,
    /// It is behind while it has not come here.
    end: Offset,
    /// Nothing was missed up to here, when deletions below `gone` had been compacted away.
    sure: Offset,
    gone: Offset,
    /// Whether it is, or was until just now, behind the log, or has read over a gap.
    behind: bool,
    checking: Option<BoxFuture<'static, Result<Horizon, Error>>>,
    paused: bool,
}

/// How far the writing of the store's files is.
enum Flush {
    Idle,
    /// The files must not be ahead of the log, nor stand for more than is known to be followed well.
    Syncing(BoxFuture<'static, Result<Vec<Checked>, Error>>, EntryBatch, Position),
    Writing,
}

/// What a partition that is behind had forgotten when this much of it had been read.
struct Checked {
    partition: TopicPartition,
    read: Offset,
    gone: Offset,
}

/// Entries to be written, where, and the position that the files then have.
pub(super) type Write = (Arc<dyn StoreEngine>, EntryBatch, Position);

impl GlobalTable {
    pub(super) fn new(
        env: &ThreadEnv,
        id: TaskId,
        topic: TopicDescription,
        engine: Arc<dyn StoreEngine>,
    ) -> Self {
        let part = &env.topology.subtopologies()[id.subtopology as usize];
        let spec = part.stores.first().and_then(|store| env.topology.stores().get(store));
        Self {
            kind: spec.map(|spec| spec.kind),
            asking: Some(Box::pin(ask(env.clone(), topic.clone()))),
            id,
            topic,
            engine,
            distrusted: false,
            task: None,
            partitions: Vec::new(),
            flush: Flush::Idle,
            last_flush: env.clock.monotonic(),
            budget: 0,
            _share: env.stores.take(1),
        }
    }

    /// Its task, once it was opened.
    pub(super) fn task(&self) -> Option<&SharedTask> {
        self.task.as_ref()
    }

    /// Whether it is not open yet, or is opened anew.
    pub(super) fn is_opening(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether it has everything that was in the topic when it was opened.
    pub(super) fn is_whole(&self) -> bool {
        self.asking.is_none() && !self.distrusted && self.partitions.iter().all(|p| !p.behind)
    }

    /// Whether everything that was fetched is processed.
    pub(super) fn is_caught_up(&self) -> bool {
        let processed = |task: &SharedTask| task.lock().queues().iter().all(|q| q.is_empty());
        self.is_whole() && self.task.as_ref().is_some_and(processed)
    }

    pub(super) fn is_flushing(&self) -> bool {
        !matches!(self.flush, Flush::Idle)
    }

    /// Goes on with opening; answers where reading begins when that is known.
    pub(super) fn open(
        &mut self,
        env: &ThreadEnv,
        waker: &Waker,
    ) -> Result<Option<Vec<(TopicPartition, Offset)>>, StreamsError> {
        if self.is_flushing() {
            return Ok(None); // the last flush of what is opened anew
        }
        let Some(asking) = &mut self.asking else {
            return Ok(None);
        };
        let Poll::Ready(logs) = asking.as_mut().poll(&mut Context::from_waker(waker)) else {
            return Ok(None);
        };
        self.asking = None;
        let logs = logs?;
        let (offsets, time) = self.offsets(env, &logs)?;
        let followed = |(partition, (log, &from)): (usize, (&Log, &Offset))| Followed {
            partition: TopicPartition::new(self.topic.name.clone(), partition as u32),
            end: log.stable,
            sure: from,
            gone: log.horizon.tombstones_gone_below,
            behind: from < log.stable,
            checking: None,
            paused: false,
        };
        self.partitions = logs.iter().zip(&offsets).enumerate().map(followed).collect();
        let task = self.build(env, &offsets, time)?;
        match &self.task {
            Some(shared) => *shared.lock() = task,
            None => self.task = Some(SharedTask::new(task)),
        }
        self.budget = 0;
        let starts =
            self.partitions.iter().zip(offsets).map(|(p, from)| (p.partition.clone(), from));
        Ok(Some(starts.collect()))
    }

    /// Where to go on in each partition, and the store's time there. A store whose position cannot be trusted is emptied first.
    fn offsets(
        &mut self,
        env: &ThreadEnv,
        logs: &[Log],
    ) -> Result<(Vec<Offset>, Timestamp), StreamsError> {
        const MISSED: &str = "deletions were compacted away before they were read";
        let missed = std::mem::take(&mut self.distrusted);
        let position = self.engine.position()?;
        let starts: Vec<Offset> = logs.iter().map(|log| log.horizon.log_start).collect();
        let Some(position) = position else {
            if missed {
                self.rebuilt(env, MISSED);
            } else if self.engine.was_damaged() {
                self.rebuilt(env, "it was damaged");
            }
            return Ok((starts, -1));
        };
        let known: Vec<Offset> =
            [position.next_offset].into_iter().chain(position.others.iter().copied()).collect();
        let reason = match missed {
            true => Some(MISSED),
            false => self.distrust(env, &position, &known, logs),
        };
        let Some(reason) = reason else {
            return Ok((known, position.stream_time));
        };
        self.rebuilt(env, reason);
        let position = self.position(env, &starts, -1);
        self.engine.bulk_load()?.finish(&position)?;
        Ok((starts, -1))
    }

    fn distrust(
        &self,
        env: &ThreadEnv,
        position: &Position,
        known: &[Offset],
        logs: &[Log],
    ) -> Option<&'static str> {
        if position.cluster_id != env.plan.cluster_id {
            return Some("it belongs to another broker");
        }
        if position.topic_id != self.topic.id {
            return Some("its topic was deleted and made anew");
        }
        if position.kind.is_some() && position.kind != self.kind {
            return Some("it was laid out for another kind of store");
        }
        if known.len() != logs.len() {
            return Some("its topic has another number of partitions");
        }
        let all = || known.iter().zip(logs);
        if all().any(|(from, log)| *from > log.end) {
            return Some("it has more than its topic");
        }
        if all().any(|(from, log)| *from < log.horizon.log_start) {
            return Some("its topic starts after it");
        }
        let gone = |log: &Log| log.horizon.tombstones_gone_below;
        all()
            .any(|(from, log)| *from < gone(log))
            .then_some("deletions after it were compacted away")
    }

    fn rebuilt(&self, env: &ThreadEnv, reason: &str) {
        tracing::warn!(topic = %self.topic.name, %reason, "a global store is rebuilt");
        add(&env.counters.rebuilt, 1);
    }

    fn position(&self, env: &ThreadEnv, offsets: &[Offset], stream_time: i64) -> Position {
        Position {
            cluster_id: env.plan.cluster_id.clone(),
            topic_id: self.topic.id,
            next_offset: offsets.first().copied().unwrap_or(0),
            stream_time,
            others: offsets.iter().skip(1).copied().collect(),
            kind: self.kind,
        }
    }

    fn build(
        &self,
        env: &ThreadEnv,
        offsets: &[Offset],
        time: Timestamp,
    ) -> Result<Task, StreamsError> {
        let topics = env.plan.clone();
        let handler = env.settings.deserialization_handler.clone();
        let settings = TaskSettings {
            application_id: env.settings.application_id.clone(),
            // As in Kafka, there is no leaving out of what a processor fails with. There are no dead
            // letters either: every instance reads the topic, and again whenever it rebuilds the store,
            // so that no commit could hold exactly one.
            handlers: ErrorHandlers {
                deserialization: Arc::new(move |failure| handler(failure).without_letters()),
                ..ErrorHandlers::default()
            },
            topics: Arc::new(move |topic| topics.output(topic)),
            globals: Globals::default(),
            executor: env.settings.executor.clone(),
            ..TaskSettings::default()
        };
        let plan = env.plan.clone();
        let engines = vec![self.engine.clone()];
        let topics = |topic: &str| Ok(plan.topic(topic)?.into());
        let mut built = env.topology.build_task(self.id, settings, engines, &topics)?;
        built.core.start(env.clock.now());
        built.core.stores_mut().at(0).advance_time(time);
        let partitions = self.partitions.iter().zip(offsets);
        let queues =
            partitions.map(|(p, from)| RecordQueue::new(p.partition.clone(), 0, *from, -1));
        let position = Position {
            cluster_id: String::new(),
            topic_id: TopicId(0),
            next_offset: 0,
            stream_time: -1,
            others: Vec::new(),
            kind: self.kind,
        };
        let store =
            TaskStore { changelog: None, follows: None, engine: self.engine.clone(), position };
        Ok(Task::new(built, queues.collect(), vec![store], WrittenTopics::default()))
    }

    /// Whether it follows this partition.
    pub(super) fn follows(&self, partition: &TopicPartition) -> bool {
        self.topic.name == partition.topic
    }

    /// Takes what was fetched; answers whether the partition has enough for now.
    pub(super) fn take(&mut self, part: Fetched, most: usize) -> bool {
        let Some(task) = &self.task else {
            return false;
        };
        let mut task = task.lock();
        let mut followed = self.partitions.iter_mut();
        let followed = followed.find(|f| f.partition == part.partition);
        let Some((queue, followed)) = task.queue_mut(&part.partition).zip(followed) else {
            return false;
        };
        let misses = !part.at_end || has_gaps(&part, queue.fetched_to());
        if misses && !followed.behind {
            followed.behind = true;
            followed.sure = queue.position();
            followed.end = part.stable_end;
        }
        queue.add(part.batches, part.position, part.at_end);
        let full = queue.bytes() > most && !followed.paused;
        followed.paused |= full;
        full
    }

    /// Partitions that may be read again.
    pub(super) fn resumed(&mut self, most: usize) -> Vec<TopicPartition> {
        let Some(task) = &self.task else {
            return Vec::new();
        };
        let mut task = task.lock();
        let mut resumed = Vec::new();
        for followed in self.partitions.iter_mut().filter(|followed| followed.paused) {
            if task.queue_mut(&followed.partition).is_none_or(|q| q.bytes() <= most / 2) {
                followed.paused = false;
                resumed.push(followed.partition.clone());
            }
        }
        resumed
    }

    /// Processes a few records; answers how many.
    pub(super) fn process(&mut self, env: &ThreadEnv) -> Result<u64, StreamsError> {
        let Some(shared) = self.task.as_ref().filter(|_| self.asking.is_none()) else {
            return Ok(0);
        };
        let mut task = shared.lock();
        let budget = env.stores.each(env.settings.state_memory_bytes);
        let store = task.core_mut().stores_mut().at(0);
        if self.is_flushing() && store.dirty_bytes() > budget {
            return Ok(0);
        }
        if self.budget != budget {
            self.budget = budget;
            store.set_budget(budget);
        }
        task.core_mut().set_wall_clock(env.clock.now());
        let before = task.processed();
        match task.process(SLICE) {
            Err(Halt::Fail { record, error }) => {
                return Err(self.failed(record, *error));
            }
            Err(Halt::AtSeal(error)) => return Err(self.failed(None, *error)),
            Err(Halt::LeaveOut(_)) | Ok(_) => {}
        }
        env.counters.dropped(task.core_mut().take_dropped());
        Ok(task.processed() - before)
    }

    fn failed(&self, record: Option<SourceInfo>, error: ProcessError) -> StreamsError {
        match StreamsError::process(self.id, record, error) {
            StreamsError::Process { record, error, .. } => {
                StreamsError::Global { topic: self.topic.name.to_string(), record, error }
            }
            panic => panic,
        }
    }

    /// Partitions that were behind, and are not any more: was something compacted away that they had
    /// not read? Then the store is opened anew; answers whether anything happened.
    pub(super) fn check(&mut self, env: &ThreadEnv, waker: &Waker) -> Result<bool, StreamsError> {
        let Some(shared) = self.task.clone().filter(|_| self.asking.is_none()) else {
            return Ok(false);
        };
        let mut busy = false;
        for followed in self.partitions.iter_mut().filter(|followed| followed.behind) {
            let reached = |task: &mut Task| {
                task.queue_mut(&followed.partition).is_none_or(|q| q.position() >= followed.end)
            };
            if followed.checking.is_none() && reached(&mut shared.lock()) {
                let (admin, partition) = (env.broker.admin(), followed.partition.clone());
                followed.checking = Some(Box::pin(async move { admin.horizon(&partition).await }));
            }
            let Some(checking) = &mut followed.checking else {
                continue;
            };
            let Poll::Ready(horizon) = checking.as_mut().poll(&mut Context::from_waker(waker))
            else {
                continue;
            };
            busy = true;
            followed.checking = None;
            followed.behind = false;
            let gone = horizon?.tombstones_gone_below;
            self.distrusted |= gone > followed.sure.max(followed.gone);
            followed.gone = gone;
        }
        if self.distrusted {
            self.open_anew(env);
        }
        Ok(busy)
    }

    /// Begins again, from the start of the topic: something of it was missed.
    pub(super) fn open_anew(&mut self, env: &ThreadEnv) {
        self.distrusted = true;
        self.asking = Some(Box::pin(ask(env.clone(), self.topic.clone())));
    }

    /// The partitions that it follows.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.iter().map(|followed| &followed.partition)
    }

    fn dirty_bytes(&self) -> usize {
        let bytes = |task: &SharedTask| task.lock().core_mut().stores_mut().at(0).dirty_bytes();
        self.task.as_ref().map_or(0, bytes)
    }

    /// When changes that are in memory only should be in the files.
    pub(super) fn next_flush(&self, interval: Duration) -> Option<Duration> {
        (!self.is_flushing() && self.dirty_bytes() > 0)
            .then(|| self.last_flush.saturating_add(interval))
    }

    /// Begins to write the files if that is due, or goes on; a batch that it answers is to be written
    /// now.
    pub(super) fn flush(
        &mut self,
        env: &ThreadEnv,
        waker: &Waker,
        at_once: bool,
    ) -> Result<Option<Write>, StreamsError> {
        if self.distrusted && !self.is_flushing() {
            return Ok(None); // it is emptied instead
        }
        let now = env.clock.monotonic();
        let due = self.next_flush(env.settings.flush_interval).is_some_and(|due| due <= now);
        let dirty = if self.is_flushing() { 0 } else { self.dirty_bytes() };
        if due || dirty > self.budget / 2 || (at_once && dirty > 0) {
            self.begin_flush(env)?;
        }
        let Flush::Syncing(sync, ..) = &mut self.flush else {
            return Ok(None);
        };
        let Poll::Ready(synced) = sync.as_mut().poll(&mut Context::from_waker(waker)) else {
            return Ok(None);
        };
        for checked in synced? {
            self.checked(&checked);
        }
        if self.distrusted {
            self.flush = Flush::Idle;
            self.open_anew(env);
            waker.wake_by_ref();
            return Ok(None);
        }
        match std::mem::replace(&mut self.flush, Flush::Writing) {
            Flush::Syncing(_, batch, position) => Ok(Some((self.engine.clone(), batch, position))),
            _ => Ok(None),
        }
    }

    fn begin_flush(&mut self, env: &ThreadEnv) -> Result<(), StreamsError> {
        let Some(shared) = self.task.clone() else {
            return Ok(());
        };
        self.last_flush = env.clock.monotonic();
        let mut task = shared.lock();
        let sealed = task.seal().map_err(|error| StreamsError::process(self.id, None, error))?;
        if !sealed.batches.is_empty() {
            tracing::warn!(topic = %self.topic.name, "dead letters of what fills a global store are not written");
        }
        let offsets: Vec<Offset> = task.queues().iter().map(RecordQueue::position).collect();
        let store = task.core_mut().stores_mut().at(0);
        let position = self.position(env, &offsets, store.time());
        let batch = store.begin_flush()?;
        let behind = self.partitions.iter().zip(offsets).filter(|(followed, _)| followed.behind);
        let behind = behind.map(|(followed, read)| (followed.partition.clone(), read));
        let ready = sync(env.broker.admin(), behind.collect());
        self.flush = Flush::Syncing(Box::pin(ready), batch, position);
        Ok(())
    }

    /// Was something compacted away of a partition that it had not read then?
    fn checked(&mut self, checked: &Checked) {
        let mut followed = self.partitions.iter_mut();
        let Some(followed) = followed.find(|f| f.partition == checked.partition) else { return };
        self.distrusted |= checked.gone > followed.sure.max(followed.gone);
        followed.sure = followed.sure.max(checked.read);
        followed.gone = followed.gone.max(checked.gone);
    }

    /// What was to be written is.
    pub(super) fn flushed(&mut self) {
        self.flush = Flush::Idle;
        if let Some(task) = &self.task {
            task.lock().core_mut().stores_mut().at(0).flushed();
        }
    }
}

/// Whether offsets without records were passed from `from` on: some may have been compacted away.
fn has_gaps(part: &Fetched, mut from: Offset) -> bool {
    for batch in &part.batches {
        let span = batch.next_offset() - batch.base_offset();
        if batch.base_offset() > from || span > batch.count() as Offset {
            return true;
        }
        from = from.max(batch.next_offset());
    }
    part.position > from
}

/// Makes sure that files may stand for what was read, also of partitions that are behind.
async fn sync(
    admin: Arc<dyn Admin>,
    behind: Vec<(TopicPartition, Offset)>,
) -> Result<Vec<Checked>, Error> {
    admin.sync().await?;
    let mut checked = Vec::new();
    for (partition, read) in behind {
        let gone = admin.horizon(&partition).await?.tombstones_gone_below;
        checked.push(Checked { partition, read, gone });
    }
    Ok(checked)
}

async fn ask(env: ThreadEnv, topic: TopicDescription) -> Result<Vec<Log>, StreamsError> {
    let admin = env.broker.admin();
    let mut logs = Vec::new();
    for number in 0..topic.partitions {
        let partition = TopicPartition::new(topic.name.clone(), number);
        let horizon = admin.horizon(&partition).await?;
        let specs = [OffsetSpec::Stable, OffsetSpec::Latest];
        let ends = admin.offsets(&specs.map(|spec| (partition.clone(), spec))).await?;
        if let [stable, end] = ends[..] {
            logs.push(Log { horizon, stable, end });
        }
    }
    Ok(logs)
}
