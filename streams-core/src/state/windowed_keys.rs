//! How the keys of windowed stores become bytes. The first two are Kafka's, in changelogs and here.
//!
//! | | bytes |
//! |---|---|
//! | window | key, start (i64), number among equals (u32) |
//! | session | key, end (i64), start (i64) |
//!
//! All numbers are big-endian, times are never negative. In the engine a store that is also read by
//! time has two entries for each window. The byte before them tells which:
//!
//! | | bytes |
//! |---|---|
//! | by key | 0, as above |
//! | window by time | 1, start (i64), key, number (u32); the value is empty |
//! | session by time | 1, end (i64), start (i64), key; the value is empty |

use std::ops::Range;

use broker_api::{RecordRef, Timestamp};

use super::entry_codec::{logged_key, put_logged_value};
use super::ordered::{GroupOf, RANK};
use super::{ChangelogFormat, EntryBatch, Expiry};
use crate::error::StateError;

/// Which kind of windowed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Window,
    Session,
}

/// How a store lays out its keys in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) kind: Kind,
    /// Whether there are entries by time too.
    pub(super) by_time: bool,
}

/// The parts of a key of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Where in the bytes the key itself lies.
    pub(super) key: Range<usize>,
    pub(super) start: Timestamp,
    /// Of a session; for windows the same as the start.
    pub(super) end: Timestamp,
    /// Of a window among equals.
    pub(super) number: u32,
}

/// The time of all entries by time: they do not change with the value.
pub(super) const NO_TIME: Timestamp = 0;

const BY_KEY: u8 = 0;
const BY_TIME: u8 = 1;
const TIME: usize = 8;
const NUMBER: usize = 4;

impl Kind {
    /// Bytes after the key.
    const fn suffix(self) -> usize {
        match self {
            Self::Window => TIME + NUMBER,
            Self::Session => 2 * TIME,
        }
    }

    /// Appends what follows a key.
    pub(super) fn put_suffix(
        self,
        start: Timestamp,
        end: Timestamp,
        number: u32,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Window => {
                out.extend_from_slice(&start.to_be_bytes());
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Session => {
                out.extend_from_slice(&end.to_be_bytes());
                out.extend_from_slice(&start.to_be_bytes());
            }
        }
    }
}

impl Layout {
    /// Begins a key of the engine.
    pub(super) fn begin(self, out: &mut Vec<u8>) {
        if self.by_time {
            out.push(BY_KEY);
        }
    }

    /// Whether a key of the engine is one by time, which no changelog knows.
    pub(super) fn is_by_time(self, key: &[u8]) -> bool {
        self.by_time && key.first() == Some(&BY_TIME)
    }

    /// The key of the changelog within a key of the engine.
    pub(super) fn logged(self, key: &[u8]) -> &[u8] {
        if self.by_time { key.get(1..).unwrap_or_default() } else { key }
    }

    /// The parts of a key of the engine; `None` if it cannot be one.
    pub(super) fn parts(self, key: &[u8]) -> Option<Parts> {
        if self.is_by_time(key) {
            let first = time(key, 1)?;
            return match self.kind {
                Kind::Window => {
                    let end = key.len().checked_sub(NUMBER).filter(|end| *end > TIME)?;
                    let number = number(key, end)?;
                    Some(Parts { key: 1 + TIME..end, start: first, end: first, number })
                }
                Kind::Session => {
                    let start = time(key, 1 + TIME)?;
                    Some(Parts { key: 1 + 2 * TIME..key.len(), start, end: first, number: 0 })
                }
            };
        }
        let from = usize::from(self.by_time);
        let to = key.len().checked_sub(self.kind.suffix()).filter(|to| *to >= from)?;
        let first = time(key, to)?;
        Some(match self.kind {
            Kind::Window => {
                let number = number(key, to + TIME)?;
                Parts { key: from..to, start: first, end: first, number }
            }
            Kind::Session => {
                Parts { key: from..to, start: time(key, to + TIME)?, end: first, number: 0 }
            }
        })
    }

    /// The entry by time that belongs to a key of the engine.
    pub(super) fn put_by_time(self, key: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let Parts { key: range, start, end, number } = self.parts(key)?;
        out.push(BY_TIME);
        match self.kind {
            Kind::Window => {
                out.extend_from_slice(&start.to_be_bytes());
                out.extend_from_slice(&key[range]);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Kind::Session => {
                out.extend_from_slice(&end.to_be_bytes());
                out.extend_from_slice(&start.to_be_bytes());
                out.extend_from_slice(&key[range]);
            }
        }
        Some(())
    }

    /// The entry by key that belongs to one by time.
    pub(super) fn put_by_key(self, by_time: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let Parts { key, start, end, number } = self.parts(by_time)?;
        self.begin(out);
        out.extend_from_slice(&by_time[key]);
        self.kind.put_suffix(start, end, number, out);
        Some(())
    }

    /// Where the entries by time begin whose first time is `from` or later.
    pub(super) fn put_time(self, from: Timestamp, out: &mut Vec<u8>) {
        out.push(BY_TIME);
        out.extend_from_slice(&from.to_be_bytes());
    }

    /// As [`Layout::expires_by`], for a cache.
    pub(super) fn time_of(self) -> fn(&[u8]) -> Timestamp {
        const fn layout(kind: Kind, by_time: bool) -> Layout {
            Layout { kind, by_time }
        }
        match (self.kind, self.by_time) {
            (Kind::Window, false) => |key| layout(Kind::Window, false).expires_by(key),
            (Kind::Window, true) => |key| layout(Kind::Window, true).expires_by(key),
            (Kind::Session, false) => |key| layout(Kind::Session, false).expires_by(key),
            (Kind::Session, true) => |key| layout(Kind::Session, true).expires_by(key),
        }
    }

    /// How long the beginning of a key of the engine is that all windows of its key share; `None`: it is an
    /// entry by time, or cannot be a key. For a cache.
    pub(super) fn group_of(self) -> GroupOf {
        fn before(suffix: usize, kind: &[u8], key: &[u8]) -> Option<usize> {
            key.strip_prefix(kind)?.len().checked_sub(suffix).map(|length| kind.len() + length)
        }
        const WINDOW: usize = Kind::Window.suffix();
        const SESSION: usize = Kind::Session.suffix();
        const { assert!(WINDOW <= RANK && SESSION <= RANK) };
        match (self.kind, self.by_time) {
            (Kind::Window, false) => |key| before(WINDOW, &[], key),
            (Kind::Window, true) => |key| before(WINDOW, &[BY_KEY], key),
            (Kind::Session, false) => |key| before(SESSION, &[], key),
            (Kind::Session, true) => |key| before(SESSION, &[BY_KEY], key),
        }
    }

    /// The time by which an entry expires: the start of a window, the end of a session. What cannot
    /// be a key never does.
    pub(super) fn expires_by(self, key: &[u8]) -> Timestamp {
        self.parts(key).map_or(Timestamp::MAX, |parts| parts.end)
    }
}

/// The changelog of a windowed store.
pub(super) struct WindowedFormat {
    pub(super) layout: Layout,
    /// `None`: more than its time decides what has expired.
    pub(super) retention: Option<Timestamp>,
}

impl ChangelogFormat for WindowedFormat {
    fn expiry(&self, time: Timestamp) -> Option<Expiry> {
        let up_to = time.saturating_sub(self.retention?);
        Some(Expiry { expires_by: self.layout.time_of(), up_to })
    }

    fn entries(&self, record: &RecordRef<'_>, out: &mut EntryBatch) -> Result<(), StateError> {
        let logged = logged_key(record)?;
        let layout = self.layout;
        let mut by_key = Vec::with_capacity(1 + logged.len());
        layout.begin(&mut by_key);
        by_key.extend_from_slice(logged);
        if layout.by_time {
            out.put_with(
                |by_time| {
                    layout.put_by_time(&by_key, by_time).ok_or_else(|| {
                        StateError::ChangelogRecord {
                            reason: format!("record {} has a key of no window", record.offset),
                        }
                    })
                },
                |value| Ok(record.value.map(|_| value.extend_from_slice(&NO_TIME.to_be_bytes()))),
            )?;
        }
        out.put_with(
            |key| {
                key.extend_from_slice(&by_key);
                Ok(())
            },
            |value| Ok(put_logged_value(record, value)),
        )
    }
}

fn time(key: &[u8], at: usize) -> Option<Timestamp> {
    key.get(at..)?.first_chunk().map(|bytes| Timestamp::from_be_bytes(*bytes))
}

fn number(key: &[u8], at: usize) -> Option<u32> {
    key.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Layout = Layout { kind: Kind::Window, by_time: true };
    const SESSION: Layout = Layout { kind: Kind::Session, by_time: true };

    #[test]
    fn golden_bytes() {
        let mut key = b"k".to_vec();
        Kind::Window.put_suffix(258, 0, 7, &mut key);
        assert_eq!(key, [b'k', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 7]);
        let mut key = b"k".to_vec();
        Kind::Session.put_suffix(1, 258, 0, &mut key);
        assert_eq!(key, [b'k', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn both_entries_of_a_window_lead_to_each_other() {
        for layout in [WINDOW, SESSION] {
            let mut by_key = Vec::new();
            layout.begin(&mut by_key);
            by_key.extend_from_slice(b"key");
            layout.kind.put_suffix(10, 20, 0, &mut by_key);
            let mut by_time = Vec::new();
            layout.put_by_time(&by_key, &mut by_time).unwrap();
            assert!(layout.is_by_time(&by_time) && !layout.is_by_time(&by_key));
            let mut back = Vec::new();
            layout.put_by_key(&by_time, &mut back).unwrap();
            assert_eq!(back, by_key);
            assert_eq!(layout.expires_by(&by_key), layout.expires_by(&by_time));
            assert_eq!(&by_key[layout.parts(&by_key).unwrap().key], b"key");
            assert_eq!((layout.group_of())(&by_key), Some(1 + b"key".len()));
            assert_eq!((layout.group_of())(&by_time), None);
            assert_eq!(&by_time[layout.parts(&by_time).unwrap().key], b"key");
        }
    }

    #[test]
    fn what_is_too_short_is_no_key() {
        for layout in [WINDOW, SESSION] {
            for length in 0..12 {
                assert_eq!(layout.parts(&vec![0; length]), None, "{length}");
                assert_eq!(layout.parts(&vec![1; length]), None, "{length}");
                assert_eq!(layout.expires_by(&vec![1; length]), Timestamp::MAX);
            }
        }
    }
}
