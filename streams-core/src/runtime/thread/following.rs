//! Topics that come and go while the application runs, and that a pattern is like.
//!
//! ```text
//!  broker tells, or metadata_max_age --> look --> plan --> the tasks there are: to the membership
//!                                                     \--> inputs that are new: join running tasks
//!                                                      \-> topics that are gone: read no more
//! ```
//! Every thread looks for itself. They need not see the same at the same time: task `p` reads partition
//! `p` of every topic that its owner knows of, and who owns which task is the membership's business;
//! the application has all tasks of which one of its members knows. A task is opened only after a look
//! that began when it was assigned, so whoever takes it over knows all that was read before.
//!
//! Nothing happens to tasks that run, but that they have another input, which begins at its committed
//! offset or where `auto_offset_reset` says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use broker_api::{Commit, CommittedOffset, Error, Fetcher, Offset, Start, TaskId, TopicPartition};
use futures::future::BoxFuture;

use super::starting::Input;
use super::{StreamThread, StreamsError, ThreadEnv};
use crate::runtime::Plan;
use crate::task::{OffsetMetadata, RecordQueue};
use crate::topology::{NodeKind, Topology};

/// How far a thread's knowledge of the topics goes.
#[derive(Default)]
pub(super) struct Following {
    looking: Option<Asking<(Arc<Topology>, Plan)>>,
    /// How many looks have begun, how many have ended, and how many must have before tasks are opened.
    begun: u64,
    done: u64,
    needed: u64,
    /// Something has changed since the last look began.
    stale: bool,
    /// When there is another one in any case.
    due: Duration,
    /// Running tasks may lack inputs.
    unfit: bool,
    /// Inputs about which the broker is asked.
    adding: BTreeMap<TaskId, Asking<New>>,
}

/// An answer of the broker that is waited for.
type Asking<T> = BoxFuture<'static, Result<T, StreamsError>>;

/// Inputs that join a task.
struct New {
    inputs: Vec<Input>,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
}

impl Following {
    /// A topic has come or gone.
    pub(super) fn look_again(&mut self) {
        self.stale = true;
    }

    /// A task was assigned: there must be a look before it is opened.
    pub(super) fn look_before_opening(&mut self) {
        self.needed = self.begun + 1;
    }

    /// A task runs that was opened on an earlier look.
    pub(super) fn fit_again(&mut self) {
        self.unfit = true;
    }

    /// Whether tasks may be opened.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.done >= self.needed
    }

    fn is_settled(&self) -> bool {
        self.looking.is_none()
            && !self.stale
            && self.is_up_to_date()
            && !self.unfit
            && self.adding.is_empty()
    }

    /// What is asked for running tasks is of no interest any more.
    pub(super) fn forget_tasks(&mut self) {
        self.adding.clear();
    }
}

impl StreamThread {
    /// Looks for topics when it is time, and reads what has come.
    pub(super) fn follow_topics(&mut self) -> Result<bool, StreamsError> {
        if !self.env.topology.has_patterns() {
            return Ok(false);
        }
        let now = self.env.clock.monotonic();
        let follow = &mut self.following;
        let is_time = follow.stale || !follow.is_up_to_date() || now >= follow.due;
        if follow.looking.is_none() && is_time {
            follow.begun += 1;
            follow.stale = false;
            follow.due = now.saturating_add(self.env.settings.metadata_max_age);
            follow.looking = Some(Box::pin(look(self.env.clone())));
        }
        let mut busy = false;
        if let Some(looking) = &mut follow.looking
            && let Poll::Ready(found) = looking.as_mut().poll(&mut Context::from_waker(&self.waker))
        {
            follow.looking = None;
            follow.done = follow.begun;
            let (topology, plan) = found?;
            self.adopt(topology, plan);
            busy = true;
        }
        Ok(self.fit_inputs()? || busy)
    }

    /// When there is a look in any case.
    pub(super) fn next_look(&self) -> Option<Duration> {
        self.env.topology.has_patterns().then_some(self.following.due)
    }

    /// Whether it reads all topics of which it was told.
    pub(super) fn follows_all(&self) -> bool {
        !self.env.topology.has_patterns() || self.following.is_settled()
    }

    /// Whether the task is one of those that the last look has shown.
    pub(super) fn may_open(&self, id: TaskId) -> bool {
        !self.env.topology.has_patterns()
            || (self.following.is_up_to_date() && self.env.plan.tasks.contains(&id))
    }

    fn adopt(&mut self, topology: Arc<Topology>, plan: Plan) {
        let (env, plan) = (&mut self.env, Arc::new(plan));
        let id = |plan: &Plan, topic: &str| plan.topic(topic).ok().map(|topic| topic.id);
        let is_same = |topic: &&str| id(&env.plan, topic) == id(&plan, topic);
        let gone = env.topology.followed().filter(|topic| !is_same(topic));
        let gone: Vec<String> = gone.map(str::to_owned).collect();
        for topic in topology.followed().filter(|topic| !is_same(topic)) {
            tracing::info!(thread = %self.transactional_id, topic, "a topic that is followed has come");
        }
        let other_tasks = plan.tasks != env.plan.tasks;
        (env.topology, env.plan) = (topology, plan);
        gone.iter().for_each(|topic| self.drop_topic(topic));
        if other_tasks && let Some(membership) = &mut self.membership {
            membership.set_tasks(&self.env.plan.tasks);
        }
        self.following.unfit = true;
    }

    /// A topic that was followed is gone, or is another one.
    fn drop_topic(&mut self, topic: &str) {
        tracing::info!(thread = %self.transactional_id, topic, "a topic that was followed is gone");
        for running in self.running.values_mut() {
            running.task.remove_inputs(topic);
            running.overtaken.retain(|partition, _| *partition.topic != *topic);
        }
        let partitions = self.inputs.keys().filter(|partition| *partition.topic == *topic);
        for partition in partitions.cloned().collect::<Vec<_>>() {
            self.fetcher.unassign(std::slice::from_ref(&partition));
            self.inputs.remove(&partition);
            self.paused.remove(&partition);
        }
    }

    /// After an error of the fetcher: whether it was only that a topic that is followed is gone.
    pub(super) fn is_gone(&mut self, error: &Error) -> bool {
        let (Error::UnknownTopic { topic } | Error::UnknownPartition { topic, .. }) = error else {
            return false;
        };
        if !self.env.topology.follows(topic) {
            return false;
        }
        self.drop_topic(topic);
        self.following.look_again();
        true
    }

    /// Takes the offsets of a topic that is gone out of a commit that was refused for them.
    pub(super) fn leave_out_gone(&mut self, commit: &mut Commit, error: &Error) -> bool {
        let (Error::UnknownTopic { topic } | Error::UnknownPartition { topic, .. }) = error else {
            return false;
        };
        let Some(group) = &mut commit.group else { return false };
        let before = group.offsets.len();
        if self.env.topology.follows(topic) {
            group.offsets.retain(|(partition, _)| *partition.topic != **topic);
        }
        group.offsets.len() < before && self.is_gone(error)
    }

    /// Gives running tasks the inputs that they lack.
    fn fit_inputs(&mut self) -> Result<bool, StreamsError> {
        let Following { unfit, adding, .. } = &mut self.following;
        if std::mem::take(unfit) {
            for (id, running) in &self.running {
                let has = |partition: &TopicPartition| {
                    running.task.queues().iter().any(|queue| queue.partition() == partition)
                };
                let lacks: Vec<_> = self.env.partitions(*id).filter(|tp| !has(tp)).collect();
                if lacks.is_empty() || self.closing.contains(id) {
                    continue;
                }
                // What is being asked already was asked on an earlier look.
                adding.insert(*id, Box::pin(ask(self.env.clone(), lacks)));
            }
        }
        let mut ready = Vec::new();
        for (id, asking) in adding.iter_mut() {
            if let Poll::Ready(new) = asking.as_mut().poll(&mut Context::from_waker(&self.waker)) {
                ready.push((*id, new?));
            }
        }
        let busy = !ready.is_empty();
        for (id, new) in ready {
            self.following.adding.remove(&id);
            self.add_inputs(id, &new)?;
        }
        Ok(busy)
    }

    fn add_inputs(&mut self, id: TaskId, new: &New) -> Result<(), StreamsError> {
        let Some(running) = self.running.get_mut(&id).filter(|_| !self.closing.contains(&id))
        else {
            return Ok(());
        };
        for input in &new.inputs {
            let partition = &input.partition;
            let Some(source) = self.env.source_of(id, &partition.topic) else { continue };
            if running.task.queue_mut(partition).is_some() {
                continue;
            }
            let committed = new.offsets.iter().find(|(tp, _)| tp == partition).map(|(_, at)| at);
            let times =
                committed.map_or(OffsetMetadata::NONE, |at| OffsetMetadata::decode(&at.metadata));
            let begin = self.env.start_of(input, committed)?;
            let offset = begin.offset;
            if !self.env.assign(&mut *self.fetcher, partition, offset)? {
                self.following.stale = true;
                continue;
            }
            running.task.core_mut().advance_stream_time(times.stream_time);
            let time = times.partition_time;
            running.task.add_input(RecordQueue::new(partition.clone(), source, offset, time));
            if begin.is_end {
                running.task.commit_position_first(partition);
            }
            self.inputs.insert(partition.clone(), id);
            self.seal_requested = true; // it has something to commit
            tracing::info!(task = %id, thread = %self.transactional_id, %partition, offset, "input added");
        }
        Ok(())
    }
}

impl ThreadEnv {
    /// Begins to read a partition; `false` if it belongs to a topic that is followed and gone.
    pub(super) fn assign(
        &self,
        fetcher: &mut dyn Fetcher,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<bool, Error> {
        match fetcher.assign(&[(partition.clone(), Start::At(offset))]) {
            Err(Error::UnknownTopic { .. } | Error::UnknownPartition { .. })
                if self.topology.follows(&partition.topic) =>
            {
                Ok(false)
            }
            assigned => assigned.map(|()| true),
        }
    }

    /// The number, among the sources of a task, of the one that reads a topic.
    fn source_of(&self, id: TaskId, topic: &str) -> Option<usize> {
        let part = &self.topology.subtopologies()[id.subtopology as usize];
        let nodes = part.nodes.iter().map(|&node| &self.topology.nodes()[node].kind);
        let mut sources = nodes.filter_map(|kind| match kind {
            NodeKind::Source { topics } => Some(topics),
            _ => None,
        });
        let is_it = |name: &String| self.plan.topic(name).is_ok_and(|found| *found.name == *topic);
        sources.position(|topics| topics.iter().any(is_it))
    }
}

/// Looks at the broker's topics.
async fn look(env: ThreadEnv) -> Result<(Arc<Topology>, Plan), StreamsError> {
    let (admin, settings) = (env.broker.admin(), &env.settings);
    let id = &settings.application_id;
    let (topology, mut plan) = Plan::follow(&env.topology, id, &*admin, Some(&env.plan)).await?;
    if let Some(letters) = &settings.dead_letter_topic {
        plan.add_topic(env.plan.topic(letters)?.clone());
    }
    Ok((topology, plan))
}

/// Asks where inputs begin.
async fn ask(env: ThreadEnv, partitions: Vec<TopicPartition>) -> Result<New, StreamsError> {
    let admin = env.broker.admin();
    let offsets = admin.group_offsets(&env.settings.application_id).await?;
    let inputs = env.ranges(partitions, &*admin).await?;
    Ok(New { inputs, offsets })
}
