//! How much more a generation may hold, for what one record lets go: the tasks of a thread commit
//! together, so they share it.

use super::StreamThread;
use crate::task::Task;

/// Bytes of outputs until the generation is sealed for its size.
pub(super) struct Room {
    left: usize,
}

impl Room {
    /// Lets a task work with what is left, and let go at most so many entries when it goes on.
    pub(super) fn used_by<R>(
        &mut self,
        task: &mut Task,
        entries: usize,
        work: impl FnOnce(&mut Task) -> R,
    ) -> R {
        let before = task.output_bytes();
        task.give_room(self.left, entries);
        let result = work(task);
        self.take(task.output_bytes().saturating_sub(before));
        result
    }

    /// So many bytes were added.
    pub(super) fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }
}

impl StreamThread {
    /// What is left in the present generation.
    pub(super) fn room(&mut self) -> Room {
        let used = self.running.values_mut().map(|running| running.task.output_bytes()).sum();
        Room { left: self.seal_bytes().saturating_sub(used) }
    }

    /// Tells tasks that have stopped what is left now: a seal may have made room.
    pub(super) fn share_room(&mut self) {
        if self.running.values().any(|running| running.task.is_unended()) {
            let entries = self.generation_limit.saturating_sub(self.generation.causes());
            let left = self.room().left();
            let unended = self.running.values_mut().filter(|running| running.task.is_unended());
            unended.for_each(|running| running.task.give_room(left, entries));
        }
    }

    /// Bytes of outputs after which a generation is sealed. The other half of the largest commit is
    /// for what cannot be told before.
    pub(super) fn seal_bytes(&self) -> usize {
        self.env.settings.seal_bytes.min(self.capabilities.max_commit_bytes / 2).max(1)
    }
}
