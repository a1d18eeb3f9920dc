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
//! Entries are numbered: within the record or punctuation that lets them go or, when going on, since the
//! task's beginning, and that number is committed too. So one that fails further down can be left out
//! when the generation is processed again, as a record can: the record that lets it go is not to blame,
//! and the next one would meet it again.

use broker_api::Timestamp;

use super::TaskCore;
use super::metadata::{Marked, OwnTimes};
use crate::failure::{LeftOut, Place};

/// How far something has come.
#[derive(Default)]
pub(super) struct GoingOn {
    /// How many bytes the task may have in the generation; `None`: any number.
    room: Option<usize>,
    /// How many entries it may let go when going on.
    entries: Option<usize>,
    unended: bool,
    /// Whether the operators are going on at the moment.
    now: bool,
    /// How many entries were ever let go so.
    count: i64,
    /// How many entries the last record and what followed from it (punctuations, the seal) have let go.
    let_go: u32,
    /// Which of them is on its way: the innermost, if there are several.
    entry: Option<u32>,
    to_leave_out: Vec<LeftOut>,
    left_out: Vec<Place>,
    bookmarks: Vec<(String, Marked)>,
    /// Up to which stream time punctuations were called; `None`: up to the task's.
    punctuated: Option<Timestamp>,
}

/// The name of [`GoingOn::count`] among the times; no node is called so.
const COUNT: &str = "\0count";

/// The name of the bookmark that says up to when punctuations were called.
const PUNCTUATED: &str = "\0punctuated";

/// What was being called before an entry was let go.
pub(crate) struct Before {
    calling: Option<Place>,
    entry: Option<u32>,
}

impl GoingOn {
    /// Another record comes.
    #[inline]
    pub(super) fn begin_record(&mut self) {
        self.let_go = 0;
    }

    /// Nothing is on its way any more.
    #[inline]
    pub(super) fn end_place(&mut self) {
        self.entry = None;
    }

    /// Which entry is on its way, or has failed on it.
    pub(super) fn entry(&self) -> Option<u32> {
        self.entry
    }

    /// What shows whether something of this has changed since a seal.
    pub(super) fn marks(&self) -> impl Iterator<Item = i64> {
        let changes = self.bookmarks.iter().map(|(_, marked)| marked.changes);
        changes.chain([self.count])
    }
}

impl TaskCore {
    /// The number of the bookmark of this name, which is empty at first.
    pub(crate) fn bookmark_of(&mut self, name: &str) -> usize {
        let bookmarks = &mut self.going_on.bookmarks;
        bookmarks.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            bookmarks.push((name.to_owned(), Marked::default()));
            bookmarks.len() - 1
        })
    }

    /// What a bookmark says.
    pub(crate) fn bookmark(&self, number: usize) -> &[u8] {
        &self.going_on.bookmarks[number].1.bytes
    }

    /// Changes a bookmark.
    pub(crate) fn set_bookmark(&mut self, number: usize, bytes: Vec<u8>) {
        let marked = &mut self.going_on.bookmarks[number].1;
        if marked.bytes != bytes {
            *marked = Marked { changes: marked.changes + 1, bytes };
            self.touch();
        }
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
        unsealed + self.outputs_mut().bytes()
    }

    /// Whether something was stopped, and has not gone on to its end.
    pub(crate) fn is_unended(&self) -> bool {
        self.going_on.unended
    }

    /// How many entries were ever let go when going on.
    pub(super) fn gone_on(&self) -> i64 {
        self.going_on.count
    }

    /// The operators go on now. What stops again says so.
    pub(super) fn begin_going_on(&mut self) {
        (self.going_on.now, self.going_on.unended) = (true, false);
    }

    /// They have, as far as they could.
    pub(super) fn end_going_on(&mut self, failed: bool) {
        self.going_on.now = false;
        self.going_on.unended |= failed;
    }

    /// An entry is let go. `None`: it is left out.
    pub(crate) fn begin_entry(&mut self) -> Option<Before> {
        if self.going_on.now {
            self.going_on.count += 1;
            self.going_on.entries = self.going_on.entries.map(|left| left.saturating_sub(1));
            let place = Place::GoingOn { entry: self.going_on.count };
            if self.leaves_out(&place) {
                return None;
            }
            return Some(Before { calling: self.calling.replace(place), entry: None });
        }
        let number = self.going_on.let_go;
        self.going_on.let_go += 1;
        if !self.going_on.to_leave_out.is_empty() {
            let of = Box::new(self.place().unwrap_or_else(|| self.place_at_seal()));
            if self.leaves_out(&Place::Entry { of, number }) {
                return None;
            }
        }
        Some(Before { calling: None, entry: self.going_on.entry.replace(number) })
    }

    /// Whether the entry at this place was to be left out, which then is done.
    fn leaves_out(&mut self, place: &Place) -> bool {
        let to_leave_out = &mut self.going_on.to_leave_out;
        let Some(at) = to_leave_out.iter().position(|what| what.place == *place) else {
            return false;
        };
        let what = to_leave_out.swap_remove(at);
        if let Err(error) = self.leave_out(what.stage, &what.letters) {
            self.fail(error);
        }
        self.going_on.left_out.push(what.place);
        true
    }

    /// It has been on all its ways; answers whether there is room for another one. A failure keeps the
    /// blame.
    pub(crate) fn end_entry(&mut self, before: Option<Before>) -> bool {
        if let Some(before) = before.filter(|_| !self.has_failed()) {
            match self.going_on.now {
                true => self.calling = before.calling,
                false => self.going_on.entry = before.entry,
            }
        }
        // What is further down has stopped: it goes on first.
        self.going_on.unended |= !self.has_room();
        !self.going_on.unended
    }

    /// What is at work, if it is a record or a call.
    fn place(&self) -> Option<Place> {
        match self.source() {
            Some(source) => Some(Place::Record(source.partition, source.offset)),
            None => self.calling.clone(),
        }
    }

    /// At the seal it is the last record: what fails there is found in a generation that has no other.
    fn place_at_seal(&self) -> Place {
        let last = self.last_source();
        last.map_or(Place::WallClock, |last| Place::Record(last.partition, last.offset))
    }

    /// What is to blame for a failure at the moment. By the wall clock nothing comes again as it was, so
    /// there it is the call.
    pub(super) fn place_to_blame(&mut self) -> Place {
        let of = self.place().unwrap_or(Place::WallClock);
        self.calling = None;
        match self.going_on.entry.take() {
            Some(number) if of != Place::WallClock => Place::Entry { of: Box::new(of), number },
            _ => of,
        }
    }

    /// Tells to leave out an entry that will be let go when going on.
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
    pub(super) fn note_punctuated(&mut self) {
        let waits = self.is_unended() && !self.schedules_mut().is_empty();
        let bytes = self.punctuated().to_be_bytes();
        let known = self.going_on.bookmarks.iter().any(|(name, _)| name == PUNCTUATED);
        if waits || known {
            let number = self.bookmark_of(PUNCTUATED);
            self.set_bookmark(number, if waits { bytes.to_vec() } else { Vec::new() });
        }
    }

    /// Adds what is to be committed.
    pub(super) fn add_marks(&self, times: &mut OwnTimes) {
        for (name, marked) in self.going_on.bookmarks.iter().filter(|(_, m)| m.changes > 0) {
            times.add_bookmark(name, marked.clone());
        }
        if self.going_on.count > 0 {
            times.add(COUNT, self.going_on.count);
        }
    }

    /// Goes on where a commit was.
    pub(super) fn resume_marks(&mut self, times: &OwnTimes) {
        if times.bookmark(PUNCTUATED).is_some() {
            self.bookmark_of(PUNCTUATED);
        }
        for (name, marked) in &mut self.going_on.bookmarks {
            if let Some(committed) = times.bookmark(name) {
                marked.clone_from(committed);
            }
        }
        self.going_on.count = times.get(COUNT).unwrap_or(0);
        let punctuated = times.bookmark(PUNCTUATED).and_then(|marked| marked.bytes.first_chunk());
        self.going_on.punctuated = punctuated.map(|bytes| Timestamp::from_be_bytes(*bytes));
    }
}
