//! How a processor lets go more than one generation should hold: see [`Processor::go_on`](super::Processor::go_on).

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::{Context, InitContext};
use crate::error::ProcessError;
use crate::record::{Data, Record};

/// Stands for what an operator has to remember between two parts of what it lets go: bytes that come
/// back after a crash as they were at the last commit. Empty at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bookmark(usize);

/// What tells an entry that an operator lets go from all others: the same when it is let go again after a
/// crash, by whatever record.
///
/// Where one place may be used twice between two commits, it also says what the entry holds. Entries of
/// one place that hold the same are one as good as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId {
    place: u64,
    /// `None`: whatever it holds.
    content: Option<u64>,
}

impl EntryId {
    /// The entries of the operator of this name.
    pub fn of(operator: &str) -> Self {
        Self { place: FixedState::default().hash_one(operator), content: None }
    }

    /// That at this place, in the operator's store for instance.
    #[must_use]
    pub fn at(self, place: &[u8]) -> Self {
        let place = FixedState::default().hash_one((self.place, place));
        Self { place, ..self }
    }

    /// One of several at a place.
    #[must_use]
    pub fn number(self, number: usize) -> Self {
        let place = FixedState::default().hash_one((self.place, number));
        Self { place, ..self }
    }

    /// That with this content, as the operator's store encodes it for instance.
    #[must_use]
    pub fn holding(self, content: &[u8]) -> Self {
        Self { content: Some(FixedState::default().hash_one(content)), ..self }
    }

    /// Whatever it holds.
    pub(crate) fn whatever(self) -> Self {
        Self { content: None, ..self }
    }

    pub(crate) fn is_at_place_of(self, other: Self) -> bool {
        self.place == other.place
    }

    /// Whether this one, of which something is known, may be that which is let go.
    pub(crate) fn may_be(self, other: Self) -> bool {
        self.is_at_place_of(other) && (self.content.is_none() || self.content == other.content)
    }
}

impl InitContext<'_> {
    /// The bookmark of this name. Its bytes ride with every committed offset, so they should be few, and
    /// none when nothing is unended: all bookmarks of a task together have a quarter of the broker's
    /// [`max_offset_metadata_bytes`](broker_api::Capabilities::max_offset_metadata_bytes).
    pub fn bookmark(&mut self, name: &str) -> Bookmark {
        Bookmark(self.task.bookmark_of(name))
    }
}

impl<K: Data, V: Data> Context<'_, K, V> {
    /// Forwards what `entry` makes of one of the many entries that one record, punctuation or commit lets
    /// go (`None`: it comes to nothing, but has changed a store). If that fails, or a node further down does,
    /// the entry is left out alone, should the handler say so; not the record that lets it go.
    ///
    /// Answers whether there is room in the generation for another one. If not, the processor is to
    /// stop, and is asked to [go on](super::Processor::go_on) after the next commit, before any further
    /// record comes.
    ///
    /// # Errors
    /// What `entry` answers.
    pub fn let_go(
        &mut self,
        id: EntryId,
        entry: impl FnOnce(&mut Self) -> Result<Option<Record<K, V>>, ProcessError>,
    ) -> Result<bool, ProcessError> {
        let begun = self.task.begin_entry(id);
        if begun.is_some()
            && let Some(record) = entry(self)?
        {
            self.forward(record);
        }
        Ok(self.task.end_entry(begun))
    }

    /// What a bookmark says.
    pub fn bookmark(&self, bookmark: Bookmark) -> &[u8] {
        self.task.bookmark(bookmark.0)
    }

    /// Changes a bookmark.
    ///
    /// # Errors
    /// [`ProcessError::Bookmark`]: that is too long to ride with an offset, and the bookmark stays as it
    /// was. A processor may then let go the rest at once, whatever the room.
    pub fn set_bookmark(&mut self, bookmark: Bookmark, bytes: Vec<u8>) -> Result<(), ProcessError> {
        self.task.set_bookmark(bookmark.0, bytes)
    }
}
