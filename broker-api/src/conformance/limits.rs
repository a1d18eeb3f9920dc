//! What is refused leaves no trace.

use super::check::{Check, batch, batch_of_size};
use super::writer::{commit_of, consuming};
use crate::{
    BatchBuilder, CleanupPolicy, Commit, Error, TopicConfig, TopicPartition, TransactorEvent,
};

fn too_large<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::TooLarge { .. })), "{answer:?}");
}

pub(super) fn a_commit_above_the_limit_is_refused(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let group = check.unique("group");
    let limit = check.broker().capabilities().max_commit_bytes;
    // Copies of one batch share its bytes: even a large limit costs little memory.
    let part = batch_of_size((limit / 4).min(1 << 20));
    let copies = limit / part.bytes().len() + 1;
    let batches = vec![(tp.clone(), part); copies];
    let mut committer = check.committer("id");
    let commit = consuming(Commit { batches, group: None }, &group, None, &tp, 1);
    let refused = committer.transactor.submit(commit).expect_err("a commit above the limit");
    assert_eq!(refused.submitted.batches.len(), copies, "the commit is given back");
    too_large(Err::<(), _>(refused.error));

    committer.commit(commit_of(&[(&tp, &["small"])]));
    assert_eq!(check.contents(&tp).len(), 1);
    assert_eq!(check.group(&group), []);
}

pub(super) fn a_batch_above_the_topics_limit_is_refused(check: &mut Check<'_>) {
    let config = TopicConfig { max_message_bytes: 1_000, ..TopicConfig::default() };
    let tp = check.topic_with("topic", 1, config).remove(0);
    let large = batch_of_size(1_000);
    let mut committer = check.committer("id");
    let batches = vec![(tp.clone(), batch(&["small"])), (tp.clone(), large.clone())];
    let commit = Commit { batches, group: None };
    too_large(committer.transactor.submit(commit).map_err(|e| e.error));
    let mut writer = check.writer();
    too_large(writer.producer.append(&tp, large).map_err(|e| e.error));

    let base = writer.append(&tp, batch_of_size(800));
    assert_eq!(check.contents(&tp)[0].0, base);
    assert_eq!(check.contents(&tp).len(), 1, "something of a refused request was written");
}

pub(super) fn a_record_without_a_key_is_refused_by_a_compacted_topic(check: &mut Check<'_>) {
    let mut builder = BatchBuilder::new();
    for key in [Some(&b"k"[..]), None] {
        builder.push(1_000, key, Some(b"v"), &[]).expect("push");
    }
    let keyless = builder.finish().expect("finish");
    let free = check.topic("free", 1).remove(0);
    let group = check.unique("group");
    let mut committer = check.committer("id");
    let mut writer = check.writer();
    for policy in [CleanupPolicy::Compact, CleanupPolicy::CompactDelete] {
        let config = TopicConfig { cleanup_policy: policy, ..TopicConfig::default() };
        let name = format!("{policy:?}");
        let tp = check.topic_with(&name, 1, config).remove(0);
        let refused = |answer: Result<_, Error>| match answer {
            Err(Error::InvalidRecord { partition, .. }) => assert_eq!(partition, tp),
            other => panic!("{other:?}"),
        };
        refused(writer.producer.append(&tp, keyless.clone()).map_err(|e| e.error));
        let batches = vec![(free.clone(), keyless.clone()), (tp.clone(), keyless.clone())];
        let commit = consuming(Commit { batches, group: None }, &group, None, &free, 1);
        refused(committer.transactor.submit(commit).map_err(|e| e.error));

        // Nothing of it happened, and both work on.
        writer.words(&tp, &["a"]);
        committer.commit(commit_of(&[(&tp, &["b"])]));
        assert_eq!(check.contents(&tp).len(), 2);
    }
    assert_eq!(check.contents(&free), []);
    assert_eq!(check.group(&group), []);
    writer.append(&free, keyless);
}

pub(super) fn one_bad_batch_refuses_the_whole_commit(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let group = check.unique("group");
    let missing = TopicPartition::new(tp.topic.clone(), 1);
    let mut committer = check.committer("id");
    let commit = commit_of(&[(&tp, &["good"]), (&missing, &["bad"])]);
    let commit = consuming(commit, &group, None, &tp, 1);
    let refused = committer.transactor.submit(commit).expect_err("there is no such partition");
    assert!(matches!(refused.error, Error::UnknownPartition { .. }), "{}", refused.error);

    // Nothing of it happened, and the transactor works on.
    committer.commit(commit_of(&[(&tp, &["next"])]));
    let values: Vec<_> = check.contents(&tp).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["next"]);
    assert_eq!(check.group(&group), []);
}

pub(super) fn a_full_queue_refuses_and_recovers(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let mut committer = check.committer("id");
    let mut accepted = 0;
    for _ in 0..200 {
        match committer.transactor.submit(commit_of(&[(&tp, &["a"])])) {
            Ok(_) => accepted += 1,
            Err(refused) => {
                assert!(matches!(refused.error, Error::Full), "{}", refused.error);
                break;
            }
        }
    }
    assert!(accepted > 0, "an idle broker is full");
    let mut durable = 0;
    while durable < accepted {
        durable += usize::from(matches!(committer.next(), TransactorEvent::Durable { .. }));
    }
    committer.commit(commit_of(&[(&tp, &["b"])]));
    assert_eq!(check.contents(&tp).len(), accepted + 1);
}
