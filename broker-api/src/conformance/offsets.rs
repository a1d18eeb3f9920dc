//! Asking for offsets.

use super::check::Check;
use super::writer::{commit_of, consuming};
use crate::OffsetSpec;

pub(super) fn offsets_are_found_by_specification(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    for spec in [OffsetSpec::Earliest, OffsetSpec::Stable, OffsetSpec::Latest] {
        assert_eq!(check.offset(&tp, spec), 0, "{spec:?} of an empty partition");
    }
    let mut writer = check.writer();
    for _ in 0..5 {
        writer.words(&tp, &["a", "b"]);
    }
    let mut reader = check.reader(std::slice::from_ref(&tp));
    reader.read_records(&tp, 10);
    reader.read_to_end();
    let batches = reader.batches(&tp);
    assert_eq!(check.offset(&tp, OffsetSpec::Earliest), 0);
    let end = check.offset(&tp, OffsetSpec::Stable);
    assert_eq!(Some(end), reader.position(&tp));
    assert!(check.offset(&tp, OffsetSpec::Latest) >= end);

    let times: Vec<_> = batches.iter().map(|batch| batch.append_time()).collect();
    assert!(times.is_sorted() && times[0] > 0, "append times: {times:?}");
    for time in times.iter().flat_map(|t| [t - 1, *t]) {
        let found = check.offset(&tp, OffsetSpec::AppendedAfter(time));
        match batches.iter().find(|batch| batch.append_time() > time) {
            Some(batch) => assert_eq!(found, batch.base_offset()),
            None => assert_eq!(found, end, "nothing was appended after {time}"),
        }
    }
}

pub(super) fn the_longest_text_of_an_offset_is_kept(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let group = check.unique("group");
    let longest = "t".repeat(check.broker().capabilities().max_offset_metadata_bytes);
    let mut commit = consuming(commit_of(&[(&tp, &["a"])]), &group, None, &tp, 3);
    let offsets = commit.group.iter_mut().flat_map(|group| &mut group.offsets);
    offsets.for_each(|(_, committed)| committed.metadata.clone_from(&longest));
    check.committer("id").commit(commit);
    assert_eq!(check.group(&group)[0].1.metadata, longest);
}

pub(super) fn groups_keep_offsets_and_metadata(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let (one, two) = (check.unique("one"), check.unique("two"));
    assert_eq!(check.group(&one), [], "an unknown group has no offsets");
    assert!(!check.is_listed(&one));
    let mut committer = check.committer("id");
    // A commit in flight is counted: who starts anew must not read its input again.
    committer.submit(consuming(commit_of(&[(&tp, &["a"])]), &one, None, &tp, 3));
    assert!(check.is_listed(&one), "a commit in flight is counted here too");
    let found = check.group(&one);
    assert_eq!((found.len(), found[0].1.offset), (1, 3));
    assert_eq!(found[0].1.metadata, "at 3");
    assert_eq!(check.group(&two), []);
    assert!(!check.is_listed(&two));
}
