//! What kind of store has written bytes, so that another one does not take them for its own.
//!
//! The kind of a changelog's store rides with the committed offsets
//! ([`WrittenTopics`](crate::task::WrittenTopics)), that of a store's files stands in their
//! [`Position`](super::Position). There it is a letter; a new kind gets a new one, and none changes.

use std::fmt;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Values by key.
    KeyValue,
    /// The same, read in the order of the keys' bytes.
    Sorted,
    /// Values by key and start of a window.
    Window,
    /// The same, and its files are also read by time.
    WindowByTime,
    /// Values by key and session.
    Session,
    /// The same, and its files are also read by time.
    SessionByTime,
    /// Values by key, and those they had before.
    Versioned,
    /// What waits for its time.
    Buffer,
    /// Updates of a table that wait.
    ChangeBuffer,
}

impl StoreKind {
    const ALL: [Self; 9] = [
        Self::KeyValue,
        Self::Sorted,
        Self::Window,
        Self::WindowByTime,
        Self::Session,
        Self::SessionByTime,
        Self::Versioned,
        Self::Buffer,
        Self::ChangeBuffer,
    ];

    /// The letter for it.
    pub const fn letter(self) -> char {
        match self {
            Self::KeyValue => 'k',
            Self::Sorted => 'o',
            Self::Window => 'w',
            Self::WindowByTime => 'W',
            Self::Session => 's',
            Self::SessionByTime => 'S',
            Self::Versioned => 'v',
            Self::Buffer => 'b',
            Self::ChangeBuffer => 'c',
        }
    }

    /// The kind with this letter.
    pub fn of_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }

    /// The kind as far as it can be seen in the changelog.
    pub const fn logged(self) -> Self {
        match self {
            Self::WindowByTime => Self::Window,
            Self::SessionByTime => Self::Session,
            other => other,
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyValue => "key-value store",
            Self::Sorted => "sorted store",
            Self::Window => "window store",
            Self::WindowByTime => "window store that is read by time",
            Self::Session => "session store",
            Self::SessionByTime => "session store that is read by time",
            Self::Versioned => "versioned store",
            Self::Buffer => "buffer of records",
            Self::ChangeBuffer => "buffer of a suppressed table",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_letters() {
        let letters: String = StoreKind::ALL.into_iter().map(StoreKind::letter).collect();
        assert_eq!(letters, "kowWsSvbc");
        for kind in StoreKind::ALL {
            assert_eq!(StoreKind::of_letter(kind.letter()), Some(kind));
        }
        assert_eq!(StoreKind::of_letter('x'), None);
    }
}
