//! How a processor lets go more than one generation should hold: see [`Processor::go_on`](super::Processor::go_on).

use super::{Context, InitContext};
use crate::record::{Data, Record};

/// Stands for what an operator has to remember between two parts of what it lets go: bytes that come
/// back after a crash as they were at the last commit. Empty at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bookmark(usize);

impl InitContext<'_> {
    /// The bookmark of this name. Its bytes ride with every committed offset, so they should be few, and
    /// none when nothing is unended.
    pub fn bookmark(&mut self, name: &str) -> Bookmark {
        Bookmark(self.task.bookmark_of(name))
    }
}

impl<K: Data, V: Data> Context<'_, K, V> {
    /// Forwards one of the many entries that one record, punctuation or commit lets go (`None`: it comes to
    /// nothing, but has changed a store). Answers whether there is room in the generation for another
    /// one. If not, the processor is to stop, and is asked to [go on](super::Processor::go_on)
    /// after the next commit, before any further record comes.
    #[must_use = "without room the processor is to stop"]
    pub fn let_go(&mut self, entry: Option<Record<K, V>>) -> bool {
        let begun = self.task.begin_entry();
        if let (Some(_), Some(record)) = (&begun, entry) {
            self.children.forward(record, self.task);
        }
        self.task.end_entry(begun)
    }

    /// What a bookmark says.
    pub fn bookmark(&self, bookmark: Bookmark) -> &[u8] {
        self.task.bookmark(bookmark.0)
    }

    /// Changes a bookmark.
    pub fn set_bookmark(&mut self, bookmark: Bookmark, bytes: Vec<u8>) {
        self.task.set_bookmark(bookmark.0, bytes);
    }
}
