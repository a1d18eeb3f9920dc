//! Waiting until an application has processed its input, whichever instance has its tasks.
//!
//! The threads of this instance say themselves when they have nothing left. How far the others are shows
//! in what the group has committed. Nothing tells when that changes, so it is looked at every 100 ms.

use std::collections::{BTreeMap, BTreeSet};

use broker_api::{Offset, TaskId, TopicPartition};

use super::thread::Input;
use super::{State, Streams, StreamsError, ThreadEnv};

/// The tasks of other instances.
#[derive(Default)]
struct Others {
    /// Where their inputs ended when they were looked at first.
    targets: BTreeMap<TopicPartition, Offset>,
    /// Where the repartition topics ended last: what is written there is for somebody to process.
    written: BTreeMap<TopicPartition, Offset>,
    /// Whether they were not behind at the last look, and what they had committed is synced.
    synced: bool,
}

impl Others {
    /// Whether they have input to process that was there at the first look, or follows from it.
    async fn are_behind(
        &mut self,
        env: &ThreadEnv,
        own: &BTreeSet<TaskId>,
    ) -> Result<bool, StreamsError> {
        if env.plan.tasks.iter().all(|task| own.contains(task)) {
            return Ok(false);
        }
        let (admin, application) = (env.broker.admin(), &env.settings.application_id);
        let mut inputs = Vec::new();
        for &task in &env.plan.tasks {
            let of_task = env.inputs(task, &*admin).await?;
            inputs.extend(of_task.into_iter().map(|input| (input, own.contains(&task))));
        }
        let committed = admin.group_offsets(application).await?;
        let committed: BTreeMap<_, _> = committed.into_iter().collect();
        let mut behind = false;
        for (Input { partition, range }, own) in inputs {
            let internal = env.plan.is_repartition(&partition.topic);
            let end = match internal {
                true => range.stable,
                false => *self.targets.entry(partition.clone()).or_insert(range.stable),
            };
            let done = committed.get(&partition).map_or(0, |c| c.offset).max(range.log_start);
            behind |= !own && done < end;
            if internal {
                // What came meanwhile may be for a task that was asked before.
                behind |= self.written.insert(partition, end) != Some(end);
            }
        }
        let synced = std::mem::replace(&mut self.synced, !behind);
        if !behind && !synced {
            // The offsets are those of commits on their way, too; what these write shows afterwards.
            admin.sync().await?;
            behind = !self.written.is_empty();
        }
        Ok(behind)
    }
}

impl Streams {
    /// Waits until everything that was in the input when it was called, and all that follows from
    /// it, is processed and durable, by whatever instance of the application.
    ///
    /// # Errors
    /// Why the application failed instead; [`StreamsError::NoThread`] if this instance has no stream
    /// thread: it was not begun, or all were removed.
    pub async fn caught_up(&self) -> Result<(), StreamsError> {
        let mut others = Others::default();
        let mut looks = self.shared.looks.subscribe();
        loop {
            looks.mark_unchanged();
            // A thread that had nothing left may get more from another one. So the answers of all
            // count only if nothing was processed or committed while they were given.
            let before = self.metrics();
            self.threads_are_caught_up().await?;
            let (own, env) = self.shared.tasks();
            if others.are_behind(env.as_ref().unwrap_or(&self.env), &own).await? {
                self.shared.a_while(&mut looks).await;
                continue;
            }
            let after = self.metrics();
            if (before.processed, before.commits) == (after.processed, after.commits) {
                return Ok(());
            }
        }
    }

    async fn threads_are_caught_up(&self) -> Result<(), StreamsError> {
        let mut progress = self.shared.progress.subscribe();
        let question = self.shared.ask();
        let mut answer = Ok(());
        // The sender lives as long as `self`.
        let _ = progress
            .wait_for(|_| {
                let (answered, has_threads) =
                    (self.shared.have_answered(question), self.shared.has_threads());
                // After that: who fails says so before it is gone.
                answer = match self.state() {
                    State::Error => Err(self.shared.error()),
                    State::PendingError => return false,
                    _ if !has_threads => Err(StreamsError::NoThread),
                    _ => Ok(()),
                };
                answered || answer.is_err()
            })
            .await;
        answer
    }
}
