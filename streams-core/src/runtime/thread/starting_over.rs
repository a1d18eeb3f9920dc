//! Giving up what is not committed, and opening tasks anew where their commits ended: one task, or all.
//! The code from there on is that of a restart.

use std::collections::BTreeMap;

use broker_api::TaskId;

use super::opening::Opening;
use super::running::Running;
use super::surviving::Surviving;
use super::{StreamThread, StreamsError};

impl StreamThread {
    /// Gives up what one task has done since its last commit, and opens it anew. The others go on, and
    /// so do the commits that are under way. That is right because a task writes to its own stores and
    /// outputs alone, and these are in its memory until they are sealed: nobody has seen what goes.
    ///
    /// The engines of its stores stay open. What they lack of its commits is in the changelog.
    pub(super) fn start_task_over(&mut self, id: TaskId) {
        let Some(running) = self.running.remove(&id) else {
            return;
        };
        self.stop_reading(&running);
        let given_up = running.tally();
        self.generation.take_back(&given_up);
        self.env.counters.given_up(&given_up);
        if self.last_processed == Some(id) {
            let mut others = self.running.iter();
            let did = others.find(|(_, running)| running.tally().causes() > 0);
            self.last_processed = did.map(|(id, _)| *id);
        }
        if !self.running.values_mut().any(|running| running.task.has_uncommitted()) {
            self.since = None;
            self.seal_requested = false;
            self.draining = false;
        }
        self.forget_stores(id);
        if self.closing.remove(&id) {
            self.assigned.remove(&id);
        } else {
            self.opening.insert(id, Opening::again(Surviving::of(running)));
        }
    }

    /// The same for all tasks that have done something since their last commit: the next one would have
    /// had parts of them all, and cannot be made because of what this task has done.
    pub(super) fn start_tasks_over(&mut self, because_of: TaskId) {
        let mut at_work = Vec::new();
        for (id, running) in &mut self.running {
            if *id == because_of || running.sealed || running.task.has_uncommitted() {
                at_work.push(*id);
            }
        }
        self.generation.dropped.clear();
        for id in at_work {
            self.start_task_over(id);
        }
    }

    /// Gives up everything that is not committed, and opens all tasks anew: after a doubtful commit, or a
    /// lost membership.
    pub(super) fn start_over(&mut self) -> Result<(), StreamsError> {
        self.refused_since.clear(); // what was refused is given up
        for partition in std::mem::take(&mut self.inputs).into_keys() {
            self.fetcher.unassign(&[partition]);
        }
        let mut survive = BTreeMap::new();
        for (id, running) in &self.running {
            survive.insert(*id, Surviving::without_engines(running));
        }
        for (id, opening) in std::mem::take(&mut self.opening) {
            survive.insert(id, Surviving { engines: None, ..opening.into_surviving() });
        }
        let restoring: Vec<TaskId> = self.restoring.keys().copied().collect();
        for id in restoring {
            let wall_clocks = self.stop_restoring(id).unwrap_or_default();
            survive.insert(id, Surviving { engines: None, wall_clocks });
        }
        self.running.clear();
        self.following.forget_tasks();
        self.paused.clear();
        self.count_given_up();
        self.unsynced.clear();
        self.since = None;
        self.seal_requested = false;
        self.retry_at = None;
        self.draining = false;
        let closing = std::mem::take(&mut self.closing);
        for task in closing {
            self.assigned.remove(&task);
        }
        let again = |id| (id, Opening::again(survive.remove(&id).unwrap_or_default()));
        self.opening = self.assigned.iter().copied().map(again).collect();
        // Fences what is still under way.
        self.transactor = self.env.broker.transactor(&self.transactional_id, self.waker.clone())?;
        Ok(())
    }

    /// Reads the inputs of a task no more.
    pub(super) fn stop_reading(&mut self, running: &Running) {
        for queue in running.task.queues() {
            self.fetcher.unassign(std::slice::from_ref(queue.partition()));
            self.inputs.remove(queue.partition());
            self.paused.remove(queue.partition());
        }
    }
}
