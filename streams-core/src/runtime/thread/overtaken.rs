//! Inputs that retention has overtaken: what a running task was to read next was deleted. It goes on where
//! `auto_offset_reset` says.
//!
//! The end of a log is another one whenever somebody asks. So a task that goes on there commits that
//! position before it processes anything: else one that is opened again would pass over what came
//! meanwhile. A position has place for one offset, so what was fetched before is processed first.

use std::task::{Context, Poll};

use broker_api::{Error, Start};
use futures::future::BoxFuture;

use super::starting::Input;
use super::{StreamThread, StreamsError};

/// An input that goes on at its end. Once there is nothing left of it: the broker's answer where that is.
pub(super) type Overtaken = Option<BoxFuture<'static, Result<Vec<Input>, StreamsError>>>;

impl StreamThread {
    /// After a fetch that failed: what was deleted before it was read is passed over.
    pub(super) fn pass_over(&mut self, error: Error) -> Result<(), StreamsError> {
        if self.is_gone(&error) {
            return Ok(());
        }
        let Error::OffsetOutOfRange { partition, offset, log_start, end } = error else {
            return Err(error.into());
        };
        let start = self.env.reset(&partition, offset, (log_start, end))?;
        let task = self.inputs.get(&partition).and_then(|id| self.running.get_mut(id));
        match task.filter(|_| start == Start::Latest) {
            Some(running) => {
                self.fetcher.unassign(std::slice::from_ref(&partition));
                running.overtaken.insert(partition, None);
            }
            None => self.fetcher.assign(&[(partition, start)])?,
        }
        Ok(())
    }

    /// Begins to read at their ends the inputs that go on there. Answers whether there were any.
    pub(super) fn go_on_at_ends(&mut self) -> Result<bool, StreamsError> {
        let mut found = Vec::new();
        for (id, running) in &mut self.running {
            for (partition, asking) in &mut running.overtaken {
                if running.task.queue_mut(partition).is_some_and(|queue| !queue.is_empty()) {
                    continue;
                }
                let asking = asking.get_or_insert_with(|| {
                    let (env, partition) = (self.env.clone(), partition.clone());
                    Box::pin(async move { env.ranges([partition], &*env.broker.admin()).await })
                });
                let asked = asking.as_mut().poll(&mut Context::from_waker(&self.waker));
                if let Poll::Ready(inputs) = asked {
                    found.push((*id, partition.clone(), inputs?));
                }
            }
        }
        let any = !found.is_empty();
        for (id, partition, inputs) in found {
            let Some(running) = self.running.get_mut(&id) else { continue };
            running.overtaken.remove(&partition);
            let Some(queue) = running.task.queue_mut(&partition) else { continue };
            match inputs.first().map(|input| input.range.stable) {
                Some(end) if self.env.assign(&mut *self.fetcher, &partition, end)? => {
                    queue.add(Vec::new(), end, false);
                    running.task.commit_position_first(&partition);
                    self.seal_requested = true;
                }
                _ => self.following.look_again(), // its topic is gone
            }
        }
        Ok(any)
    }
}
