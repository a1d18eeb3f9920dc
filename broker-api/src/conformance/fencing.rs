//! A newer transactor with the same id takes over.

use super::check::Check;
use super::writer::{commit_of, consuming};
use crate::{Error, TransactorEvent};

pub(super) fn a_newer_transactor_fences_the_older(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let mut generations = vec![check.committer("id")];
    for _ in 0..3 {
        generations.push(check.committer("id"));
        let newest = generations.len() - 1;
        for (i, committer) in generations.iter_mut().enumerate() {
            let answer = committer.attempt(commit_of(&[(&tp, &[&format!("{newest} by {i}")])]));
            if i == newest {
                answer.expect("the newest commits");
                assert!(matches!(committer.next(), TransactorEvent::Durable { .. }));
            } else {
                assert!(matches!(answer, Err(Error::Fenced { .. })), "{i}: {answer:?}");
            }
        }
    }
    let values: Vec<_> = check.contents(&tp).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["1 by 1", "2 by 2", "3 by 3"]);
}

pub(super) fn a_delayed_commit_of_a_fenced_transactor_is_whole_or_nothing(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    for round in 0..5 {
        let (id, group) = (format!("id{round}"), check.unique(&format!("group{round}")));
        let mut old = check.committer(&id);
        let commit = commit_of(&[(&tps[0], &["old"]), (&tps[1], &["old"])]);
        let ticket = old.submit(consuming(commit, &group, None, &tps[0], 7));

        // From the moment the new one exists, the outcome of the old one's commit is settled: what
        // the group's offsets say now stays true.
        let mut new = check.committer(&id);
        let taken = check.group(&group).len();
        new.commit(commit_of(&[(&tps[0], &["new"]), (&tps[1], &["new"])]));
        assert_eq!(check.group(&group).len(), taken, "the commit took effect afterwards");
        for tp in &tps {
            let values: Vec<_> = check.contents(tp).into_iter().map(|(_, v)| v).collect();
            let mine = &values[values.len() - 1 - taken..];
            assert_eq!(mine, &["old", "new"][1 - taken..], "order");
        }

        // And the old one hears of it: the commit's outcome first, then that it is fenced.
        let mut outcome = Vec::new();
        loop {
            match old.next() {
                TransactorEvent::Fenced => break,
                TransactorEvent::Applied { ticket: t, .. }
                | TransactorEvent::Durable { ticket: t }
                | TransactorEvent::Doubt { ticket: t } => {
                    assert_eq!(t, ticket);
                    outcome.push(t);
                }
                TransactorEvent::Failed(error) => panic!("{error}"),
            }
        }
        assert!(taken == 0 || !outcome.is_empty(), "a commit was taken, its writer heard nothing");
    }
}

pub(super) fn other_transactional_ids_are_left_alone(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let mut first = check.committer("one");
    let mut second = check.committer("two");
    first.commit(commit_of(&[(&tp, &["a"])]));
    second.commit(commit_of(&[(&tp, &["b"])]));
    first.commit(commit_of(&[(&tp, &["c"])]));
    assert_eq!(check.contents(&tp).len(), 3);
}
