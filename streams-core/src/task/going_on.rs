//! What one record lets go, where that is more than one generation should hold.
//!
//! An operator that lets go many entries at once asks after each whether there is room for more. If
//! not, it stops, and something is *unended*: the task takes no further record and calls nothing until
//! the generation is sealed; then the operators *go on*, the most downstream first, as often as it takes.
//! So no record comes in between, and each operator forwards what it would have forwarded in one go.
//!
//! Where an operator stands must outlive a crash, since the record is committed with the first part:
//! stores that lose what is let go are a memory by themselves, other operators keep a bookmark, which
//! rides with the committed offsets. A task that is opened goes on first, whatever it finds.
//!
//! Each entry has an id that stays the same. So one that fails further down can be left out when the
//! generation is processed again, wherever it is let go then: the record that does it is not to blame, and
//! the next one would meet the entry again. A place of its store is not enough for an id, as several
//! entries may come and go there in one generation: what it holds tells them apart.

use broker_api::Timestamp;

use super::bookmarks::Bookmarks;
use super::calls::Held;
use super::metadata::OwnTimes;
use super::{TaskCore, TaskSettings};
use crate::error::ProcessError;
use crate::failure::{LeftOut, Place};
use crate::processor::EntryId;

/// How far something has come.
pub(super) struct GoingOn {
    /// How many bytes the task may have in the generation; `None`: any number.
    room: Option<usize>,
    /// How many entries it may let go when going on.
    entries: Option<usize>,
    unended: bool,
    /// Whether the operators are going on at the moment.
    now: bool,
    /// How many entries were let go so since the task was opened, and the last one of all.
    count: u64,
    last: Option<EntryId>,
    /// Which entry is on its way: the innermost, if there are several.
    entry: Option<EntryId>,
    to_leave_out: Vec<LeftOut>,
    left_out: Vec<Place>,
    bookmarks: Bookmarks,
    /// Up to which stream time punctuations were called; `None`: up to the task's.
    punctuated: Option<Timestamp>,
}

/// The name of the bookmark that says up to when punctuations were called.
const PUNCTUATED: &str = "\0punctuated";

/// What was on its way before an entry was let go, and what the calls of that belong to.
pub(crate) struct Before {
    entry: Option<EntryId>,
    holding: Option<Held>,
}

impl GoingOn {
    pub(super) fn new(settings: &TaskSettings) -> Self {
        Self {
            room: None,
            entries: None,
            unended: false,
            now: false,
            count: 0,
            last: None,
            entry: None,
            to_leave_out: Vec::new(),
            left_out: Vec::new(),
            bookmarks: Bookmarks::new(settings.max_offset_metadata_bytes),
            punctuated: None,
        }
    }

    /// The bookmarks may ride with so many offsets.
    pub(super) fn set_offsets(&mut self, offsets: usize) {
        self.bookmarks.set_offsets(offsets);
    }

    /// What there is will be committed.
    pub(super) fn sealed(&mut self) {
        self.bookmarks.sealed();
    }

    /// Nothing is on its way any more.
    #[inline]
    pub(super) fn forget_entry(&mut self) {
        self.entry = None;
    }

    /// Which entry is on its way, or has failed on it.
    pub(super) fn entry(&self) -> Option<EntryId> {
        self.entry
    }

    /// A result of a call that was made for an entry goes on.
    pub(super) fn resume_entry(&mut self, entry: EntryId) {
        self.entry = Some(entry);
    }

    /// What shows whether something of this has changed since a seal.
    pub(super) fn marks(&self) -> impl Iterator<Item = i64> {
        self.bookmarks.changes().chain([self.count.cast_signed()])
    }
}

impl TaskCore {
    /// The number of the bookmark of this name, which is empty at first.
    pub(crate) fn bookmark_of(&mut self, name: &str) -> usize {
        self.going_on.bookmarks.number_of(name)
    }

    /// What a bookmark says.
    pub(crate) fn bookmark(&self, number: usize) -> &[u8] {
        self.going_on.bookmarks.get(number)
    }

    /// Changes a bookmark.
    ///
    /// # Errors
    /// [`ProcessError::Bookmark`]: it stays as it was.
    pub(crate) fn set_bookmark(
        &mut self,
        number: usize,
        bytes: Vec<u8>,
    ) -> Result<(), ProcessError> {
        if self.going_on.bookmarks.set(number, bytes)? {
            self.touch();
        }
        Ok(())
    }

    /// How many bytes the task may have from now on in this generation, and how many entries it may let
    /// go when going on.
    pub(super) fn set_room(&mut self, bytes: usize, entries: usize) {
        (self.going_on.room, self.going_on.entries) = (Some(bytes), Some(entries));
    }

    /// Whether a further entry may be let go.
    pub(super) fn has_room(&mut self) -> bool {
        if self.has_failed() || self.is_full() || !self.going_on.left_out.is_empty() {
            return false;
        }
        if self.going_on.now && self.going_on.entries == Some(0) {
            return false;
        }
        self.going_on.room.is_none_or(|room| self.unsealed_bytes() < room)
    }

    /// Bytes of outputs that wait for the seal, and about how many the seal will add.
    pub(super) fn unsealed_bytes(&mut self) -> usize {
        let stores = self.stores_mut().iter_mut();
        let unsealed: usize = stores.map(|store| store.unsealed_bytes()).sum();
        unsealed + self.outputs_mut().bytes() + self.going_on.bookmarks.unsealed_bytes()
    }

    /// Whether something was stopped, and has not gone on to its end.
    pub(crate) fn is_unended(&self) -> bool {
        self.going_on.unended
    }

    /// The entry that was let go last.
    pub(super) fn last_entry(&self) -> Option<EntryId> {
        self.going_on.last
    }

    /// How many entries were let go when going on, since the task was opened.
    pub(super) fn gone_on(&self) -> u64 {
        self.going_on.count
    }

    /// The operators go on now. What stops again says so.
    pub(super) fn begin_going_on(&mut self) {
        (self.going_on.now, self.going_on.unended) = (true, false);
    }

    /// They have, as far as they could.
    pub(super) fn end_going_on(&mut self) {
        self.going_on.now = false;
    }

    /// Whether an error now is of no entry, but of going on itself, which would meet it again and again.
    pub(super) fn would_fail_again(&self) -> bool {
        self.going_on.now && self.going_on.entry.is_none()
    }

    /// An entry is let go. `None`: it is left out.
    pub(crate) fn begin_entry(&mut self, id: EntryId) -> Option<Before> {
        // What is let go further down belongs to the same one of the operator that goes on.
        if self.going_on.now && self.going_on.entry.is_none() {
            self.going_on.count += 1;
            self.going_on.entries = self.going_on.entries.map(|left| left.saturating_sub(1));
        }
        if !self.going_on.to_leave_out.is_empty() && self.leaves_out(id) {
            return None;
        }
        self.going_on.last = Some(id);
        let holding = self.hold_nothing();
        Some(Before { entry: self.going_on.entry.replace(id), holding })
    }

    /// Whether an entry was to be left out, which then is done.
    fn leaves_out(&mut self, id: EntryId) -> bool {
        let to_leave_out = &mut self.going_on.to_leave_out;
        let is_it = |what: &LeftOut| matches!(what.place, Place::Entry(known) if known.may_be(id));
        let Some(at) = to_leave_out.iter().rposition(is_it) else {
            return false;
        };
        let what = to_leave_out.remove(at);
        // An earlier one of the same place has led to this one: see `entry_to_blame`.
        let is_settled = |other: &mut LeftOut| matches!(other.place, Place::Entry(known) if known.is_at_place_of(id));
        let settled = to_leave_out.extract_if(.., is_settled).map(|other| other.place);
        self.going_on.left_out.extend(settled);
        if let Err(error) = self.leave_out(what.stage, &what.letters) {
            self.fail(error);
        }
        self.going_on.left_out.push(what.place);
        true
    }

    /// Which entry is to be left out when one has failed. If one of its place was to be already and has not
    /// been met, its content is not the same each time (a serde may write a map in any order): then
    /// the place has to do.
    pub(super) fn entry_to_blame(&self, failed: EntryId) -> EntryId {
        let is_known =
            |what: &LeftOut| matches!(what.place, Place::Entry(it) if it.is_at_place_of(failed));
        match self.going_on.to_leave_out.iter().any(is_known) {
            true => failed.whatever(),
            false => failed,
        }
    }

    /// It has been on all its ways; answers whether there is room for another one. A failure keeps the
    /// blame.
    pub(crate) fn end_entry(&mut self, before: Option<Before>) -> bool {
        if let Some(before) = before.filter(|_| !self.has_failed()) {
            self.hold_again(before.holding);
            self.going_on.entry = before.entry;
        }
        // What is further down has stopped: it goes on first.
        self.going_on.unended |= !self.has_room();
        !self.going_on.unended
    }

    /// What is at work, which is to blame for a failure: an entry, a record or a call; at the seal none
    /// of them may be.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        let calling = self.calling.take();
        match (self.going_on.entry.take(), self.source()) {
            (Some(entry), _) => Some(Place::Entry(entry)),
            (None, Some(source)) => Some(Place::Record(source.partition, source.offset)),
            (None, None) => calling,
        }
    }

    /// Tells to leave out an entry when it is let go.
    pub(super) fn leave_entry_out(&mut self, what: LeftOut) {
        self.going_on.to_leave_out.push(what);
    }

    /// Which entries were left out since the last seal.
    pub(super) fn entries_left_out(&self) -> &[Place] {
        &self.going_on.left_out
    }

    /// The same, for the seal.
    pub(super) fn take_entries_left_out(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.going_on.left_out)
    }

    /// The punctuations of stream time have been called.
    pub(super) fn has_punctuated(&mut self) {
        self.going_on.punctuated = Some(self.stream_time());
    }

    /// Up to when they had been, when the task starts.
    pub(super) fn start_punctuated(&mut self) -> Timestamp {
        let punctuated = self.punctuated();
        *self.going_on.punctuated.insert(punctuated)
    }

    /// Up to when they have.
    fn punctuated(&self) -> Timestamp {
        self.going_on.punctuated.unwrap_or(self.stream_time())
    }

    /// Before a seal: a punctuation that waits until something has ended is due after a crash, too.
    ///
    /// # Errors
    /// [`ProcessError::Bookmark`].
    pub(super) fn note_punctuated(&mut self) -> Result<(), ProcessError> {
        let waits = self.is_unended() && !self.schedules_mut().is_empty();
        let bytes = self.punctuated().to_be_bytes();
        if waits || self.going_on.bookmarks.is_known(PUNCTUATED) {
            let number = self.bookmark_of(PUNCTUATED);
            self.set_bookmark(number, if waits { bytes.to_vec() } else { Vec::new() })?;
        }
        Ok(())
    }

    /// Adds what is to be committed.
    pub(super) fn add_marks(&self, times: &mut OwnTimes) {
        self.going_on.bookmarks.add_to(times);
    }

    /// Goes on where a commit was.
    pub(super) fn resume_marks(&mut self, times: &OwnTimes) {
        if times.bookmark(PUNCTUATED).is_some() {
            self.bookmark_of(PUNCTUATED);
        }
        self.going_on.bookmarks.resume(times);
        let punctuated = times.bookmark(PUNCTUATED).and_then(|marked| marked.bytes.first_chunk());
        self.going_on.punctuated = punctuated.map(|bytes| Timestamp::from_be_bytes(*bytes));
    }
}
