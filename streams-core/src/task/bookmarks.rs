//! The bookmarks of a task's operators: what they have to remember between two commits of what one
//! record lets go ([`GoingOn`](super::going_on::GoingOn)).
//!
//! They ride with every committed offset of the task, in a text of which a broker takes only so much
//! ([`max_offset_metadata_bytes`](broker_api::Capabilities::max_offset_metadata_bytes)). So they are
//! bounded: all of them together may take half of it. The other half is for times and topics, a
//! score of bytes for each.

use super::metadata::{Marked, OwnTimes};
use crate::error::ProcessError;

/// See the module.
pub(super) struct Bookmarks {
    all: Vec<(String, Marked)>,
    /// How much of the text they may take.
    most: usize,
    /// With how many offsets they may ride.
    offsets: usize,
    /// One has changed since the last seal.
    changed: bool,
}

/// What always fits, such as a time: the other half has room for it.
const SHORT: usize = 8;

/// What a bookmark takes besides its bytes: the checksum of its name, the number of its changes, and
/// what stands between.
const AROUND: usize = 8 + 20 + 3;

impl Bookmarks {
    /// Those of a task whose committed offsets may have a text of so many bytes.
    pub(super) fn new(text: usize) -> Self {
        Self { all: Vec::new(), most: text / 2, offsets: 1, changed: false }
    }

    pub(super) fn set_offsets(&mut self, offsets: usize) {
        self.offsets = offsets;
    }

    /// The number of the bookmark of this name, which is empty at first.
    pub(super) fn number_of(&mut self, name: &str) -> usize {
        self.all.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.all.push((name.to_owned(), Marked::default()));
            self.all.len() - 1
        })
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        self.all.iter().any(|(known, _)| known == name)
    }

    pub(super) fn get(&self, number: usize) -> &[u8] {
        &self.all[number].1.bytes
    }

    /// Changes a bookmark; answers whether it was another one.
    ///
    /// # Errors
    /// [`ProcessError::Bookmark`]: it stays as it was.
    pub(super) fn set(&mut self, number: usize, bytes: Vec<u8>) -> Result<bool, ProcessError> {
        let old = &self.all[number].1.bytes;
        if *old == bytes {
            return Ok(false);
        }
        // One that is not longer than before always fits, too.
        let others = self.text() - 2 * old.len();
        if bytes.len() > old.len().max(SHORT) && others + 2 * bytes.len() > self.most {
            let (bytes, most) = (bytes.len(), self.most.saturating_sub(others) / 2);
            return Err(ProcessError::Bookmark { node: String::new(), bytes, most });
        }
        let marked = &mut self.all[number].1;
        *marked = Marked { changes: marked.changes + 1, bytes };
        self.changed = true;
        Ok(true)
    }

    /// How much of a text they take at most.
    fn text(&self) -> usize {
        self.all.iter().map(|(_, marked)| AROUND + 2 * marked.bytes.len()).sum()
    }

    /// How much they add to a commit.
    pub(super) fn unsealed_bytes(&self) -> usize {
        if self.changed { self.text() * self.offsets } else { 0 }
    }

    /// They are as they will be committed.
    pub(super) fn sealed(&mut self) {
        self.changed = false;
    }

    /// How often each has changed.
    pub(super) fn changes(&self) -> impl Iterator<Item = i64> {
        self.all.iter().map(|(_, marked)| marked.changes)
    }

    /// Adds what is to be committed.
    pub(super) fn add_to(&self, times: &mut OwnTimes) {
        for (name, marked) in self.all.iter().filter(|(_, marked)| marked.changes > 0) {
            times.add_bookmark(name, marked.clone());
        }
    }

    /// As of a commit.
    pub(super) fn resume(&mut self, times: &OwnTimes) {
        for (name, marked) in &mut self.all {
            if let Some(committed) = times.bookmark(name) {
                marked.clone_from(committed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bookmarks_together_take_half_of_the_text() {
        let mut bookmarks = Bookmarks::new(400);
        let [one, other] = ["one", "other"].map(|name| bookmarks.number_of(name));
        assert_eq!(bookmarks.set(one, vec![1; 40]), Ok(true));
        let error = ProcessError::Bookmark { node: String::new(), bytes: 30, most: 29 };
        assert_eq!(bookmarks.set(other, vec![2; 30]), Err(error));
        assert_eq!(bookmarks.set(other, vec![2; 29]), Ok(true));
        assert_eq!(bookmarks.set(one, vec![3; 40]), Ok(true));
        let mut times = OwnTimes::default();
        bookmarks.add_to(&mut times);
        assert!(times.bookmarks().len() <= 200, "{}", times.bookmarks().len());
    }

    #[test]
    fn a_bookmark_adds_to_the_commit_in_which_it_changes_with_every_offset() {
        let mut bookmarks = Bookmarks::new(400);
        let number = bookmarks.number_of("one");
        bookmarks.set_offsets(3);
        assert_eq!(bookmarks.unsealed_bytes(), 0);
        bookmarks.set(number, vec![1; 40]).unwrap();
        assert_eq!(bookmarks.unsealed_bytes(), 3 * (31 + 80));
        bookmarks.sealed();
        assert_eq!(bookmarks.set(number, vec![1; 40]), Ok(false));
        assert_eq!(bookmarks.unsealed_bytes(), 0);
    }
}
