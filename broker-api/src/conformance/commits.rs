//! Commits are whole, and their tickets resolve in order.

use std::collections::VecDeque;

use super::check::{Check, batch};
use super::writer::{commit_of, consuming};
use crate::{Commit, CommittedOffset, ProducerEvent, Ticket, TransactorEvent};

fn committed(offset: i64) -> CommittedOffset {
    CommittedOffset { offset, metadata: format!("at {offset}") }
}

pub(super) fn a_commit_takes_effect_as_a_whole(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let input = check.topic("input", 1).remove(0);
    let group = check.unique("group");
    let mut committer = check.committer("id");
    for round in 0..3 {
        let commit = commit_of(&[(&tps[0], &["a", "b"]), (&tps[1], &["c"])]);
        let bases = committer.commit(consuming(commit, &group, None, &input, round));
        let (first, second) = (check.contents(&tps[0]), check.contents(&tps[1]));
        let round = round as usize;
        assert_eq!((first.len(), second.len()), (2 * (round + 1), round + 1));
        assert_eq!(first[2 * round..], [(bases[0], "a".into()), (bases[0] + 1, "b".into())]);
        assert_eq!(second[round..], [(bases[1], "c".into())]);
        assert_eq!(check.group(&group), [(input.clone(), committed(round as i64))]);
    }
}

pub(super) fn batches_of_a_commit_keep_their_order(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let commit = commit_of(&[
        (&tps[0], &["a"]),
        (&tps[1], &["x"]),
        (&tps[0], &["b", "c"]),
        (&tps[0], &["d"]),
    ]);
    let bases = check.committer("id").commit(commit);
    assert_eq!(bases.len(), 4);
    let found = check.contents(&tps[0]);
    let expected = [(bases[0], "a"), (bases[2], "b"), (bases[2] + 1, "c"), (bases[3], "d")];
    assert_eq!(found, expected.map(|(offset, word)| (offset, word.to_owned())));
}

pub(super) fn an_empty_commit_is_legal(check: &mut Check<'_>) {
    let mut committer = check.committer("id");
    assert!(committer.commit(Commit::default()).is_empty());
    assert!(committer.commit(Commit::default()).is_empty());
}

pub(super) fn offsets_may_commit_alone(check: &mut Check<'_>) {
    let input = check.topic("input", 2);
    let group = check.unique("group");
    let mut committer = check.committer("id");
    committer.commit(consuming(Commit::default(), &group, None, &input[0], 3));
    committer.commit(consuming(Commit::default(), &group, None, &input[1], 4));
    committer.commit(consuming(Commit::default(), &group, None, &input[0], 5));
    let mut found = check.group(&group);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, [(input[0].clone(), committed(5)), (input[1].clone(), committed(4))]);
}

pub(super) fn what_is_not_submitted_leaves_nothing(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let group = check.unique("group");
    let mut committer = check.committer("id");
    drop(consuming(commit_of(&[(&tp, &["aborted"])]), &group, None, &tp, 1));
    committer.commit(commit_of(&[(&tp, &["committed"])]));
    let values: Vec<_> = check.contents(&tp).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["committed"]);
    assert_eq!(check.group(&group), []);
}

pub(super) fn tickets_resolve_in_order_and_once(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let in_flight = check.broker().capabilities().commits_in_flight.clamp(1, 8);
    let mut committer = check.committer("id");
    let (mut applied, mut durable) = (VecDeque::<Ticket>::new(), VecDeque::<Ticket>::new());
    let (mut last, mut next_base) = (None, 0);
    for _ in 0..10 {
        while durable.len() + applied.len() < in_flight {
            let ticket = committer.submit(commit_of(&[(&tp, &["a", "b"])]));
            assert!(last < Some(ticket), "tickets rise");
            last = Some(ticket);
            applied.push_back(ticket);
        }
        while applied.len() + durable.len() > 0 {
            match committer.next() {
                TransactorEvent::Applied { ticket, base_offsets } => {
                    assert_eq!(applied.pop_front(), Some(ticket));
                    assert!(base_offsets.len() == 1 && base_offsets[0] >= next_base);
                    next_base = base_offsets[0] + 2;
                    durable.push_back(ticket);
                }
                TransactorEvent::Durable { ticket } => {
                    assert_eq!(durable.pop_front(), Some(ticket));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    assert!(committer.transactor.poll().is_pending(), "a ticket resolved twice");
    assert_eq!(check.contents(&tp).len(), 10 * in_flight * 2);
}

pub(super) fn appends_resolve_in_order_and_once(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let mut writer = check.writer();
    let mut tickets = VecDeque::new();
    for i in 0..20 {
        let tp = &tps[i % 2];
        let ticket = writer.producer.append(tp, batch(&["a"])).expect("append");
        assert!(tickets.back().is_none_or(|last| *last < ticket), "tickets rise");
        tickets.push_back(ticket);
    }
    let mut bases = [Vec::new(), Vec::new()];
    for i in 0..20 {
        match writer.next() {
            ProducerEvent::Appended { ticket, base_offset } => {
                assert_eq!(tickets.pop_front(), Some(ticket));
                bases[i % 2].push(base_offset);
            }
            ProducerEvent::Failed { error, .. } => panic!("an append failed: {error}"),
        }
    }
    assert!(writer.producer.poll().is_pending(), "a ticket resolved twice");
    for (tp, bases) in tps.iter().zip(bases) {
        let found: Vec<_> = check.contents(tp).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(found, bases);
    }
}

pub(super) fn a_dropped_transactor_leaves_whole_commits(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let group = check.unique("group");
    let mut committer = check.committer("dropped");
    let commit = commit_of(&[(&tps[0], &["a"]), (&tps[1], &["a"])]);
    committer.submit(consuming(commit, &group, None, &tps[0], 1));
    drop(committer);
    // What comes later in the order settles what came before.
    check.committer("other").commit(commit_of(&[(&tps[0], &["b"]), (&tps[1], &["b"])]));
    let taken = check.group(&group).len();
    for tp in &tps {
        assert_eq!(check.contents(tp).len(), 1 + taken, "half a commit");
    }
}

pub(super) fn commits_are_synced_in_order_after_they_are_durable(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let mut committer = check.committer("id");
    assert_eq!(committer.transactor.synced(), None);
    for _ in 0..5 {
        let before = committer.transactor.synced();
        let ticket = committer.submit(commit_of(&[(&tp, &["a"])]));
        committer.applied(ticket);
        let synced = committer.transactor.synced();
        // What happens behind the back of this test may be seen before its event is polled.
        assert!(before <= synced && synced <= Some(ticket), "{synced:?} of {ticket:?}");
        committer.durable(ticket);
        committer.synced(ticket);
        assert_eq!(committer.transactor.synced(), Some(ticket));
    }
}
