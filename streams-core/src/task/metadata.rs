//! The text that rides with every committed offset: times that must survive a restart, and the
//! internal topics on which the offset relies.
//!
//! Layout, version 1: `1;<partition time>;<stream time>;<topics>;<times>`; times in decimal. `<topics>`
//! has for each internal topic that the task writes (changelogs, repartition topics) 16 hexadecimal
//! digits: the CRC-32C of its name, and the CRC-32C of its identity (16 bytes, big-endian); of a
//! changelog also the letter for the [kind](StoreKind) of its store, which older texts lack. Commas
//! are between them. The offset says that input was consumed, and these topics have what became of
//! it: should one of them be gone, or be read as what it is not, the offset is worth nothing. `<times>` has for each operator and
//! store with a time of its own 8 hexadecimal digits, the CRC-32C of its name, `=` and that time; with
//! commas between them.
//!
//! Where an operator has ever been in the midst of something at a commit, a field `;<bookmarks>` follows:
//! for each such operator the checksum of its name, `=`, how often its bookmark has changed (decimal),
//! `:`, and the bookmark's bytes in hexadecimal; with commas between them. Of the texts of several
//! partitions the one counts whose bookmark has changed most often.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use broker_api::{Timestamp, TopicId};

use crate::state::StoreKind;

/// What is remembered of a partition besides its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetMetadata {
    /// The highest timestamp read from the partition; -1: none yet.
    pub partition_time: Timestamp,
    /// The stream time of the task; -1: none yet.
    pub stream_time: Timestamp,
}

impl OffsetMetadata {
    /// Nothing was read yet.
    pub const NONE: Self = Self { partition_time: -1, stream_time: -1 };

    /// As text, with the topics that the task writes and the times of its operators.
    pub fn encode(self, written: &WrittenTopics, times: &OwnTimes) -> String {
        let Self { partition_time, stream_time } = self;
        let bookmarks = times.bookmarks();
        let times = times.times.iter().map(|(name, time)| format!("{name:08x}={time}"));
        let times = times.collect::<Vec<_>>().join(",");
        format!("1;{partition_time};{stream_time};{};{times}{bookmarks}", written.0)
    }

    /// From text. What is not understood counts as nothing: times are then learnt anew.
    pub fn decode(text: &str) -> Self {
        Self::try_decode(text).unwrap_or(Self::NONE)
    }

    /// From text. `None`: no stream task wrote it, but another kind of consumer.
    pub fn try_decode(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let mut next = || parts.next()?.parse::<Timestamp>().ok();
        match (next(), next(), next()) {
            (Some(1), Some(partition_time), Some(stream_time)) => {
                Some(Self { partition_time, stream_time })
            }
            _ => None,
        }
    }
}

/// The times that operators and stores have beside the task's, and the operators' bookmarks, by the
/// checksum of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnTimes {
    times: BTreeMap<u32, Timestamp>,
    bookmarks: BTreeMap<u32, Marked>,
}

/// What an operator has to remember, and how often it has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) changes: i64,
    pub(super) bytes: Vec<u8>,
}

impl OwnTimes {
    /// Adds the time of the operator or store of this name.
    pub fn add(&mut self, name: &str, time: Timestamp) {
        self.times.insert(name_crc(name), time);
    }

    /// Whether there are none, and no bookmarks.
    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty() && self.bookmarks.is_empty()
    }

    /// Adds the bookmark of this name.
    pub(super) fn add_bookmark(&mut self, name: &str, marked: Marked) {
        self.bookmarks.insert(name_crc(name), marked);
    }

    /// The bookmark of this name.
    pub(super) fn bookmark(&self, name: &str) -> Option<&Marked> {
        self.bookmarks.get(&name_crc(name))
    }

    /// The bookmarks as a field of their own, if there are any.
    pub(super) fn bookmarks(&self) -> String {
        let mut text = String::new();
        for (name, Marked { changes, bytes }) in &self.bookmarks {
            text.push(if text.is_empty() { ';' } else { ',' });
            // Writing to a string does not fail.
            let _ = write!(text, "{name:08x}={changes}:");
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
        }
        text
    }

    /// The time of this name.
    pub fn get(&self, name: &str) -> Option<Timestamp> {
        self.times.get(&name_crc(name)).copied()
    }

    /// Takes over the times in the metadata of a committed offset, and the bookmarks, where they are
    /// later.
    pub fn advance_to(&mut self, metadata: &str) {
        let times = field(metadata, 3).unwrap_or_default();
        for (name, time) in times.split(',').filter_map(|time| time.split_once('=')) {
            if let (Ok(name), Ok(time)) = (u32::from_str_radix(name, 16), time.parse()) {
                let known = self.times.entry(name).or_insert(time);
                *known = time.max(*known);
            }
        }
        let bookmarks = field(metadata, 4).unwrap_or_default();
        for (name, marked) in bookmarks.split(',').filter_map(bookmark) {
            let known = self.bookmarks.entry(name).or_default();
            if marked.changes > known.changes {
                *known = marked;
            }
        }
    }
}

/// A bookmark of the text.
fn bookmark(text: &str) -> Option<(u32, Marked)> {
    let (name, marked) = text.split_once('=')?;
    let (changes, hex) = marked.split_once(':')?;
    let name = u32::from_str_radix(name, 16).ok()?;
    let byte = |at| hex.get(at..at + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok());
    let bytes = (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    Some((name, Marked { changes: changes.parse().ok()?, bytes }))
}

/// A field behind the version, if that is known.
fn field(metadata: &str, number: usize) -> Option<&str> {
    metadata.strip_prefix("1;")?.split(';').nth(number)
}

/// The internal topics that a task writes, as its committed offsets remember them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenTopics(Arc<str>);

impl WrittenTopics {
    /// These topics; of changelogs also the kind of their store.
    pub fn of<'a>(topics: impl IntoIterator<Item = (&'a str, TopicId, Option<StoreKind>)>) -> Self {
        let topics = topics.into_iter().map(|(name, id, kind)| {
            let kind = kind.map(|kind| kind.logged().letter().to_string()).unwrap_or_default();
            format!("{:08x}{:08x}{kind}", name_crc(name), id_crc(id))
        });
        Self(topics.collect::<Vec<_>>().join(",").into())
    }

    /// Whether the metadata of a committed offset says that the topic of this name was written and
    /// had another identity than it has now (`None`: it does not exist).
    pub fn is_lost(metadata: &str, name: &str, now: Option<TopicId>) -> bool {
        let now = now.map(|id| format!("{:08x}", id_crc(id)));
        said_of(metadata, name).any(|said| match &now {
            Some(id) => !said.starts_with(id),
            None => true,
        })
    }

    /// The letter for the kind of store whose changelog has this name, as the metadata of a committed
    /// offset says; `None`: it does not.
    pub fn kind_of(metadata: &str, name: &str) -> Option<char> {
        said_of(metadata, name).find_map(|said| said.chars().nth(ID_DIGITS))
    }
}

/// How many digits the checksum of an identity has.
const ID_DIGITS: usize = 8;

/// What the metadata of a committed offset says of the topic of this name.
fn said_of<'a>(metadata: &'a str, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let name = format!("{:08x}", name_crc(name));
    let topics = field(metadata, 2).unwrap_or_default().split(',');
    topics.filter_map(move |topic| topic.strip_prefix(&*name))
}

fn name_crc(name: &str) -> u32 {
    crc32c::crc32c(name.as_bytes())
}

fn id_crc(id: TopicId) -> u32 {
    crc32c::crc32c(&id.0.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1_000,
            failure_persistence: None,
            rng_seed: proptest::test_runner::RngSeed::Fixed(13),
            ..ProptestConfig::default()
        })]

        /// The text is whatever the client of a broker has committed.
        #[test]
        fn metadata_comes_back_and_any_text_is_taken(
            (partition_time, stream_time) in any::<(i64, i64)>(),
            times in proptest::collection::btree_map(".{0,3}", any::<i64>(), 0..4),
            topics in proptest::collection::btree_map(".{0,3}", any::<u128>(), 0..4),
            (cut, other) in (any::<proptest::sample::Index>(), "[-0-9;,=a-f é]{0,20}"),
        ) {
            let mut own = OwnTimes::default();
            times.iter().for_each(|(name, time)| own.add(name, *time));
            let written = WrittenTopics::of(topics.iter().map(|(t, id)| {
                (&**t, TopicId(*id), id.is_multiple_of(2).then_some(StoreKind::Window))
            }));
            let metadata = OffsetMetadata { partition_time, stream_time };
            let text = metadata.encode(&written, &own);
            prop_assert_eq!(OffsetMetadata::try_decode(&text), Some(metadata));
            let mut back = OwnTimes::default();
            back.advance_to(&text);
            prop_assert_eq!(&back, &own);
            let cut = &text[..cut.index(text.len() + 1)]; // it is ASCII
            for harmed in [cut, &other, &format!("{cut}{other}"), &format!("1;{other}")] {
                let _ = OffsetMetadata::decode(harmed);
                back.advance_to(harmed);
                let _ = WrittenTopics::is_lost(harmed, "t", Some(TopicId(1)));
                let _ = WrittenTopics::kind_of(harmed, "t");
            }
        }
    }

    #[test]
    fn times_come_back_and_foreign_text_is_ignored() {
        let times = OffsetMetadata { partition_time: 17, stream_time: 23 };
        assert_eq!(times.encode(&WrittenTopics::default(), &OwnTimes::default()), "1;17;23;;");
        assert_eq!(OffsetMetadata::decode("1;17;23"), times);
        for foreign in ["", "AQAB", "2;17;23", "1;17", "1;x;2"] {
            assert_eq!(OffsetMetadata::decode(foreign), OffsetMetadata::NONE, "{foreign}");
            assert_eq!(OffsetMetadata::try_decode(foreign), None, "{foreign}");
        }
        let anew = OffsetMetadata::NONE.encode(&WrittenTopics::default(), &OwnTimes::default());
        assert_eq!(OffsetMetadata::try_decode(&anew), Some(OffsetMetadata::NONE));
    }

    #[test]
    fn a_written_topic_is_lost_when_it_is_gone_or_another_one() {
        let changelog = ("app-s-changelog", TopicId(7), Some(StoreKind::SessionByTime));
        let written = WrittenTopics::of([changelog, ("x", TopicId(8), None)]);
        let times = OffsetMetadata { partition_time: 17, stream_time: 23 };
        let metadata = times.encode(&written, &OwnTimes::default());
        assert_eq!(metadata, "1;17;23;dfa4dd8a96bafe01s,a93c5f93c8a9c225;");
        assert_eq!(WrittenTopics::kind_of(&metadata, "app-s-changelog"), Some('s'));
        assert_eq!(WrittenTopics::kind_of(&metadata, "x"), None, "it is no changelog");
        assert_eq!(OffsetMetadata::decode(&metadata).stream_time, 23);
        let lost = |name, id| WrittenTopics::is_lost(&metadata, name, id);
        assert!(!lost("app-s-changelog", Some(TopicId(7))) && !lost("x", Some(TopicId(8))));
        assert!(lost("app-s-changelog", Some(TopicId(8))) && lost("x", None));
        assert!(!lost("another", None), "it was never written");
        assert!(!WrittenTopics::is_lost("", "x", None), "an offset that was reset");
        let older = "1;17;23;dfa4dd8a96bafe01,a93c5f93c8a9c225;";
        assert_eq!(WrittenTopics::kind_of(older, "app-s-changelog"), None);
        assert!(!WrittenTopics::is_lost(older, "app-s-changelog", Some(TopicId(7))));
        assert!(WrittenTopics::is_lost(older, "app-s-changelog", Some(TopicId(8))));
    }

    #[test]
    fn the_times_of_operators_come_back_and_never_go_back() {
        let mut times = OwnTimes::default();
        times.add("join", 5);
        times.add("store", -1);
        let metadata = OffsetMetadata::NONE.encode(&WrittenTopics::default(), &times);
        let mut later = OwnTimes::default();
        later.add("join", 7);
        for text in [&*metadata, "", "1;17;23", "1;1;2;;x=1,,5,00000001=y", "2;1;2;;00000001=5"] {
            later.advance_to(text);
        }
        assert_eq!((later.get("join"), later.get("store")), (Some(7), Some(-1)));
        assert_eq!(later.get("other"), None);
        times.advance_to(&OffsetMetadata::NONE.encode(&WrittenTopics::default(), &later));
        assert_eq!(times, later);
    }

    #[test]
    fn the_newest_bookmark_counts_and_its_text_stays_as_it_is() {
        let marked = |changes, bytes: &[u8]| Marked { changes, bytes: bytes.to_vec() };
        let mut times = OwnTimes::default();
        times.add("join", 5);
        times.add_bookmark("join", marked(3, &[0, 255]));
        times.add_bookmark("x", marked(1, &[]));
        let written = WrittenTopics::default();
        let metadata = OffsetMetadata::NONE.encode(&written, &times);
        assert_eq!(metadata, "1;-1;-1;;d4d33321=5;a93c5f93=1:,d4d33321=3:00ff");
        let mut later = OwnTimes::default();
        later.add_bookmark("join", marked(2, b"old"));
        later.add_bookmark("x", marked(2, b"new"));
        for text in [&*metadata, "1;1;2;;;d4d33321=9:0g,d4d33321=9:000,d4d33321=x:00,,5"] {
            later.advance_to(text);
        }
        assert_eq!(later.bookmark("join"), Some(&marked(3, &[0, 255])));
        assert_eq!(later.bookmark("x"), Some(&marked(2, b"new")));
        assert_eq!(later.bookmark("other"), None);
    }
}
