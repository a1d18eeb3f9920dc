//! Which tasks have store flushes under way, in whatever thread: a task that changes hands without
//! being asked (its member was taken for dead) is opened when nobody writes its files any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use broker_api::TaskId;

#[derive(Default)]
pub(super) struct Flushing(Mutex<State>);

#[derive(Default)]
struct State {
    under_way: BTreeMap<TaskId, usize>,
    waiting: Vec<Waker>,
}

/// A flush; it ends when this is dropped.
pub(super) struct UnderWay {
    of: Arc<Flushing>,
    task: TaskId,
}

impl Flushing {
    pub(super) fn begin(self: &Arc<Self>, task: TaskId) -> UnderWay {
        *self.lock().under_way.entry(task).or_default() += 1;
        UnderWay { of: self.clone(), task }
    }

    /// Whether a flush of this task is under way. If so, `waker` is woken when it ends.
    pub(super) fn is_under_way(&self, task: TaskId, waker: &Waker) -> bool {
        let mut state = self.lock();
        let is = state.under_way.contains_key(&task);
        if is && !state.waiting.iter().any(|known| known.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        is
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        if let Some(count) = state.under_way.get_mut(&self.task) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(&self.task);
            }
        }
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}
