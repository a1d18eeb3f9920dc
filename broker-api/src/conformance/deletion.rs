//! Deleting records from the front of a log.

use super::check::Check;
use super::writer::commit_of;
use crate::{Error, Offset, OffsetSpec, Start, TopicPartition, View};

fn log_start(check: &Check<'_>, tp: &TopicPartition) -> Offset {
    check.run(check.admin().horizon(tp)).expect("horizon").log_start
}

pub(super) fn deleted_records_are_gone(check: &mut Check<'_>) {
    let tps = check.topic("topic", 1);
    let tp = &tps[0];
    let mut writer = check.writer();
    writer.words(tp, &["a", "b"]);
    let middle = writer.words(tp, &["c", "d", "e"]) + 1;
    assert_eq!(log_start(check, tp), 0);
    let delete = |before| check.run(check.admin().delete_records(tp, before));
    assert_eq!(delete(middle), Ok(middle));
    assert_eq!(log_start(check, tp), middle);
    assert_eq!(check.offset(tp, OffsetSpec::Earliest), middle);
    assert_eq!(delete(1), Ok(middle), "what is gone stays gone");
    let beyond = delete(check.offset(tp, OffsetSpec::Latest) + 1);
    assert!(matches!(beyond, Err(Error::OffsetOutOfRange { .. })), "{beyond:?}");
    let mut reader = check.reader(&tps);
    let fetched = reader.fetch(1 << 20).expect("fetch");
    assert_eq!(fetched[0].log_start, middle);

    let mut reader = check.reader_from(View::Durable, &tps, Start::At(middle));
    reader.read_to_end();
    assert_eq!(reader.values(tp), [(middle, "d".into()), (middle + 1, "e".into())]);
    reader.assign(&tps, Start::At(middle - 1));
    let below = reader.fetch(1 << 20);
    match below {
        Err(Error::OffsetOutOfRange { offset, log_start, .. }) => {
            assert_eq!((offset, log_start), (middle - 1, middle));
        }
        other => panic!("expected OffsetOutOfRange, got {other:?}"),
    }
}

pub(super) fn a_log_may_be_emptied(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let mut writer = check.writer();
    writer.words(&tp, &["a", "b"]);
    let end = check.end(&tp);
    assert_eq!(check.run(check.admin().delete_records(&tp, end)), Ok(end));
    assert_eq!(check.contents(&tp), []);
    assert_eq!(check.end(&tp), end);
    let base = writer.words(&tp, &["c"]);
    assert!(base >= end, "offsets are not used again");
    assert_eq!(check.contents(&tp), [(base, "c".into())]);
}

pub(super) fn purged_records_go_some_time(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let mut committer = check.committer("id");
    let mut last = 0;
    for _ in 0..3 {
        last = committer.commit(commit_of(&[(&tp, &["a", "b"])]))[0];
    }
    committer.transactor.purge(&tp, last);
    for _ in 0..100 {
        // Something has to happen for some time to pass.
        committer.commit(commit_of(&[(&tp, &["c"])]));
        let start = log_start(check, &tp);
        assert!(start == 0 || start == last, "purged up to {start} instead of {last}");
        if start == last {
            assert_eq!(check.contents(&tp)[0], (last, "a".into()));
            return;
        }
    }
    panic!("the purged records are still there");
}
