//! Which tasks the thread has: joining, taking on, giving up.

use std::collections::BTreeSet;
use std::task::Poll;

use broker_api::{MembershipConfig, MembershipEvent, TaskId};

use super::opening::Opening;
use super::{StreamThread, StreamsError, ThreadEnv};

/// How a thread joins the application.
pub(super) fn member_of(env: &ThreadEnv) -> MembershipConfig {
    let application = env.settings.application_id.clone();
    let (tasks, following) = (env.plan.tasks.clone(), env.topology.following());
    MembershipConfig { application, tasks, following, warm: Vec::new() }
}

impl StreamThread {
    pub(super) fn join(&mut self) -> Result<(), StreamsError> {
        let config = member_of(&self.env);
        self.membership = Some(self.env.broker.membership(config, self.waker.clone())?);
        Ok(())
    }

    pub(super) fn poll_membership(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        while let Some(Poll::Ready(event)) = self.membership.as_mut().map(|m| m.poll()) {
            busy = true;
            match event {
                MembershipEvent::Assigned { token, active, standby: _ } => {
                    self.token = Some(token);
                    self.assign(active.into_iter().collect());
                }
                MembershipEvent::Revoke { tasks } => {
                    self.revoked.extend(&tasks);
                    for task in tasks {
                        self.give_up(task);
                    }
                }
                MembershipEvent::TopicsChanged => self.following.look_again(),
                MembershipEvent::Stop => return Err(StreamsError::Stopped),
                MembershipEvent::Lost => {
                    tracing::warn!(thread = %self.transactional_id, "the thread lost its tasks and joins again");
                    self.start_over()?;
                    self.join_anew()?;
                }
            }
        }
        self.acknowledge();
        Ok(busy)
    }

    /// Forgets its tasks and joins: after [`StreamThread::start_over`] of a member that is none any
    /// more.
    pub(super) fn join_anew(&mut self) -> Result<(), StreamsError> {
        self.opening.clear();
        self.assigned.clear();
        self.revoked.clear();
        self.token = None;
        self.join()
    }

    fn assign(&mut self, tasks: BTreeSet<TaskId>) {
        for &task in tasks.difference(&self.assigned) {
            tracing::info!(%task, thread = %self.transactional_id, "task assigned");
            self.opening.insert(task, Opening::default());
            self.following.look_before_opening();
        }
        let gone: Vec<TaskId> = self.assigned.difference(&tasks).copied().collect();
        for task in gone {
            self.give_up(task);
        }
        self.assigned.extend(tasks);
    }

    /// A task that does not run yet goes at once; a running one seals and flushes first.
    fn give_up(&mut self, task: TaskId) {
        let unopened = self.opening.remove(&task).is_some();
        let restored = self.stop_restoring(task).is_some();
        if unopened || restored {
            self.assigned.remove(&task);
        } else if self.running.contains_key(&task) {
            self.closing.insert(task);
        }
    }

    /// Acknowledges a revocation when all of its tasks are given up. The token is void from then
    /// on; a new one follows.
    fn acknowledge(&mut self) {
        let has = |task: &TaskId| {
            self.running.contains_key(task)
                || self.restoring.contains_key(task)
                || self.opening.contains_key(task)
        };
        if self.revoked.is_empty() || self.revoked.iter().any(has) {
            return;
        }
        let given_up: Vec<TaskId> = std::mem::take(&mut self.revoked).into_iter().collect();
        self.token = None;
        if let Some(membership) = &mut self.membership {
            membership.ack(&given_up);
        }
    }

    /// Ends tasks that are given up and whose last commit is synced and flushed.
    pub(super) fn close_tasks(&mut self) -> Result<bool, StreamsError> {
        if self.stopping {
            self.closing.extend(self.running.keys());
            self.opening.clear();
            let restoring: Vec<TaskId> = self.restoring.keys().copied().collect();
            for task in restoring {
                self.stop_restoring(task);
            }
        }
        let mut busy = false;
        for id in self.closing.clone() {
            let Some(running) = self.running.get_mut(&id) else {
                self.closing.remove(&id);
                continue;
            };
            if self.unsent.is_some() {
                continue; // it may be in there
            }
            if running.task.has_uncommitted() {
                busy |= !std::mem::replace(&mut self.seal_requested, true);
                continue;
            }
            if running.last_commit.is_some() || running.flush_under_way() {
                continue;
            }
            busy = true;
            if self.flush_settled(id)? {
                continue;
            }
            if let Some(running) = self.running.remove(&id) {
                self.stop_reading(&running);
            }
            tracing::info!(task = %id, thread = %self.transactional_id, "task closed");
            self.closing.remove(&id);
            self.assigned.remove(&id);
        }
        self.acknowledge();
        Ok(busy)
    }
}
