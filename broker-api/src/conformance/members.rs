//! Members of one application share its tasks.

use std::collections::BTreeSet;
use std::task::Poll;

use super::check::Check;
use super::writer::{Committer, commit_of, consuming};
use crate::{
    Commit, Error, GroupCommit, MemberToken, Membership, MembershipConfig, MembershipEvent, TaskId,
    TopicPartition,
};

fn tasks(count: u32) -> Vec<TaskId> {
    (0..count).map(|partition| TaskId { subtopology: 0, partition }).collect()
}

/// A member, and what it may believe to own.
struct Member {
    membership: Box<dyn Membership>,
    token: Option<MemberToken>,
    owned: BTreeSet<TaskId>,
    revoked: Vec<TaskId>,
}

fn join(check: &Check<'_>, tasks: &[TaskId]) -> Result<Member, Error> {
    join_following(check, tasks, &[])
}

fn join_following(check: &Check<'_>, tasks: &[TaskId], following: &[u32]) -> Result<Member, Error> {
    let (application, tasks) = (check.unique("application").into(), tasks.to_vec());
    let following = following.to_vec();
    let config = MembershipConfig { application, tasks, following, warm: Vec::new() };
    let membership = check.broker().membership(config, check.alarm.waker())?;
    Ok(Member { membership, token: None, owned: BTreeSet::new(), revoked: Vec::new() })
}

/// Gives one event to member `i`. No task may be owned twice then.
fn handle(members: &mut [Member], i: usize, event: MembershipEvent) {
    match event {
        MembershipEvent::Assigned { token, active, .. } => {
            members[i].token = Some(token);
            members[i].owned = active.iter().copied().collect();
            assert_eq!(members[i].owned.len(), active.len(), "a task twice in {active:?}");
            let all: usize = members.iter().map(|m| m.owned.len()).sum();
            let once: BTreeSet<_> = members.iter().flat_map(|m| &m.owned).collect();
            assert_eq!(all, once.len(), "a task has two owners");
        }
        MembershipEvent::Revoke { tasks } => {
            assert!(tasks.iter().all(|t| members[i].owned.contains(t)), "revoked, but not owned");
            members[i].revoked.extend(tasks);
        }
        MembershipEvent::Lost => panic!("a member was lost"),
        MembershipEvent::Stop => panic!("nobody has asked to stop"),
        MembershipEvent::TopicsChanged => {}
    }
}

/// Gives up what was revoked. (Until here it was owned.)
fn give_up(member: &mut Member) {
    let tasks = std::mem::take(&mut member.revoked);
    member.owned.retain(|task| !tasks.contains(task));
    if !tasks.is_empty() {
        member.token = None; // another one follows
        member.membership.ack(&tasks);
    }
}

/// Lets members talk to the broker until `settled`.
fn negotiate(check: &Check<'_>, members: &mut [Member], settled: impl Fn(&[Member]) -> bool) {
    check.until("the members to agree", || {
        for i in 0..members.len() {
            while let Poll::Ready(event) = members[i].membership.poll() {
                handle(members, i, event);
            }
            give_up(&mut members[i]);
        }
        settled(members).then_some(())
    });
}

/// All tasks have an owner, and no member has two more than another.
fn balanced(count: usize) -> impl Fn(&[Member]) -> bool {
    move |members| {
        let sizes: Vec<usize> = members.iter().map(|m| m.owned.len()).collect();
        let (most, least) = (sizes.iter().max().copied(), sizes.iter().min().copied());
        sizes.iter().sum::<usize>() == count
            && most.unwrap_or(0) <= least.unwrap_or(0) + 1
            && members.iter().all(|m| m.token.is_some())
    }
}

pub(super) fn a_single_member_owns_all_tasks(check: &mut Check<'_>) {
    let all = tasks(5);
    let mut members = vec![join(check, &all).expect("membership")];
    members[0].membership.progress(&[(all[0], 10)]);
    negotiate(check, &mut members, balanced(5));
    assert!(members[0].membership.poll().is_pending());
}

pub(super) fn tasks_are_handed_over_and_never_owned_twice(check: &mut Check<'_>) {
    let all = tasks(5);
    let mut members = vec![join(check, &all).expect("membership")];
    negotiate(check, &mut members, balanced(5));
    for count in 2..=3 {
        members.push(join(check, &all).expect("membership"));
        let newest = members.len() - 1;
        // As long as nobody gives up anything, the new member has nothing.
        check.until("a task to be revoked", || {
            for i in 0..members.len() {
                while let Poll::Ready(event) = members[i].membership.poll() {
                    handle(&mut members, i, event);
                }
            }
            members.iter().any(|m| !m.revoked.is_empty()).then_some(())
        });
        // Not even if another one joins and leaves.
        let passing = join(check, &all).expect("membership");
        for _ in 0..3 {
            check.committer("barrier").commit(Commit::default());
            for i in 0..members.len() {
                while let Poll::Ready(event) = members[i].membership.poll() {
                    handle(&mut members, i, event);
                }
            }
        }
        drop(passing);
        assert_eq!(members[newest].owned.len(), 0, "assigned before it was given up");
        negotiate(check, &mut members, balanced(5));
        assert_eq!(members.len(), count);
    }
    // More members than tasks: some stay idle.
    for _ in 0..3 {
        members.push(join(check, &all).expect("membership"));
    }
    negotiate(check, &mut members, |members| {
        members.iter().all(|m| m.owned.len() <= 1)
            && members.iter().map(|m| m.owned.len()).sum::<usize>() == 5
    });
}

pub(super) fn members_that_leave_free_their_tasks(check: &mut Check<'_>) {
    let all = tasks(4);
    let mut members =
        vec![join(check, &all).expect("membership"), join(check, &all).expect("membership")];
    negotiate(check, &mut members, balanced(4));
    members.remove(0);
    negotiate(check, &mut members, balanced(4));
    // One that leaves between being asked for a task and giving it up.
    members.push(join(check, &all).expect("membership"));
    check.until("a task to be revoked", || {
        while let Poll::Ready(event) = members[0].membership.poll() {
            handle(&mut members, 0, event);
        }
        (!members[0].revoked.is_empty()).then_some(())
    });
    members.remove(0);
    negotiate(check, &mut members, balanced(4));
    // And the application may start again from none.
    members.clear();
    members.push(join(check, &all).expect("membership"));
    negotiate(check, &mut members, balanced(4));
}

/// Commits a word as a member; the group is the application.
fn commit_as(
    committer: &mut Committer<'_, '_>,
    token: Option<MemberToken>,
    tp: &TopicPartition,
    offset: i64,
) -> Result<(), Error> {
    let application = committer.check.unique("application");
    let commit = consuming(commit_of(&[(tp, &["x"])]), &application, token, tp, offset);
    committer.attempt(commit)?;
    assert!(matches!(committer.next(), crate::TransactorEvent::Durable { .. }));
    Ok(())
}

fn assert_stale(answer: Result<(), Error>) {
    assert!(matches!(answer, Err(Error::StaleMember { .. })), "{answer:?}");
}

pub(super) fn stale_members_are_refused(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let all = tasks(2);
    let mut members = vec![join(check, &all).expect("membership")];
    negotiate(check, &mut members, balanced(2));
    let old = members[0].token;
    let mut committer = check.committer("id");
    commit_as(&mut committer, old, &tp, 1).expect("its token is good");

    members.push(join(check, &all).expect("membership"));
    check.until("a task to be revoked", || {
        while let Poll::Ready(event) = members[0].membership.poll() {
            handle(&mut members, 0, event);
        }
        (!members[0].revoked.is_empty()).then_some(())
    });
    commit_as(&mut committer, members[0].token, &tp, 2).expect("its token is good until the ack");
    give_up(&mut members[0]);
    assert_stale(commit_as(&mut committer, old, &tp, 99));
    negotiate(check, &mut members, balanced(2));
    assert_ne!(members[0].token, old, "an assignment has a new token");
    assert_stale(commit_as(&mut committer, old, &tp, 99));
    commit_as(&mut committer, members[0].token, &tp, 3).expect("its token is good");
    commit_as(&mut committer, members[1].token, &tp, 4).expect("its token is good");

    let gone = members.remove(0);
    let token = gone.token;
    drop(gone);
    negotiate(check, &mut members, balanced(2));
    assert_stale(commit_as(&mut committer, token, &tp, 99));
    let unknown = MemberToken { member: u64::MAX, epoch: u64::MAX };
    assert_stale(commit_as(&mut committer, Some(unknown), &tp, 99));

    // Nor does it write where it has consumed nothing.
    let mut write = |token| {
        let group = check.unique("application").into();
        let group = Some(GroupCommit { group, token, offsets: Vec::new() });
        committer.attempt(Commit { group, ..commit_of(&[(&tp, &["x"])]) })?;
        assert!(matches!(committer.next(), crate::TransactorEvent::Durable { .. }));
        Ok(())
    };
    assert_stale(write(token));
    assert_stale(write(None));
    write(members[0].token).expect("its token is good");

    let application = check.unique("application");
    assert_eq!(check.group(&application)[0].1.offset, 4, "a stale commit took effect");
    assert_eq!(check.contents(&tp).len(), 5, "a stale commit took effect");
}

pub(super) fn a_member_that_keeps_its_tasks_keeps_committing(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let all = tasks(4);
    let mut members =
        vec![join(check, &all).expect("membership"), join(check, &all).expect("membership")];
    negotiate(check, &mut members, balanced(4));
    let mut committer = check.committer("id");
    // A third joins and leaves. Whatever the others are told, the token that they were told last
    // is good as long as they have not given up anything.
    members.push(join(check, &all).expect("membership"));
    check.until("a task to be revoked", || {
        for i in 0..members.len() {
            while let Poll::Ready(event) = members[i].membership.poll() {
                handle(&mut members, i, event);
            }
        }
        members.iter().any(|m| !m.revoked.is_empty()).then_some(())
    });
    for (i, member) in members[..2].iter().enumerate() {
        commit_as(&mut committer, member.token, &tp, i as i64).expect("its token is good");
    }
    members.pop();
    for (i, member) in members.iter().enumerate() {
        commit_as(&mut committer, member.token, &tp, i as i64).expect("its token is good");
    }
    negotiate(check, &mut members, balanced(4));
}

pub(super) fn members_with_other_tasks_are_refused(check: &mut Check<'_>) {
    let mut members = vec![join(check, &tasks(2)).expect("membership")];
    negotiate(check, &mut members, balanced(2));
    let refused = join(check, &tasks(3)).err();
    assert!(matches!(refused, Some(Error::OtherTopology { .. })), "{refused:?}");
    members.clear();
    members.push(join(check, &tasks(3)).expect("nobody runs the old tasks any more"));
    negotiate(check, &mut members, balanced(3));
}

/// The tasks of sub-topology 0, which is followed, and one of sub-topology 1, which is not.
fn followed(count: u32) -> Vec<TaskId> {
    let fixed = TaskId { subtopology: 1, partition: 0 };
    tasks(count).into_iter().chain([fixed]).collect()
}

pub(super) fn tasks_of_followed_topics_come_and_go_and_the_others_stay(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let join = |check: &Check<'_>, count| join_following(check, &followed(count), &[0]);
    let mut members = vec![join(check, 2).expect("joins")];
    members.push(join(check, 3).expect("it knows of one more"));
    negotiate(check, &mut members, balanced(4));
    let other = join_following(check, &tasks(2), &[0]).err();
    assert!(matches!(other, Some(Error::OtherTopology { .. })), "{other:?}");
    let other = join_following(check, &followed(2), &[]).err();
    assert!(matches!(other, Some(Error::OtherTopology { .. })), "{other:?}");

    // New tasks: who gives nothing up keeps what it has, and its token.
    let had: Vec<_> = members.iter().map(|m| m.owned.clone()).collect();
    let tokens: Vec<_> = members.iter().map(|m| m.token).collect();
    members[0].membership.set_tasks(&followed(5));
    let mut committer = check.committer("id");
    for token in tokens {
        commit_as(&mut committer, token, &tp, 1).expect("nothing was given up");
    }
    negotiate(check, &mut members, balanced(6));
    assert!(members.iter().zip(&had).all(|(m, had)| m.owned.is_superset(had)), "a task has moved");

    // As long as one knows of them, they stay; the last one takes them away.
    members[0].membership.set_tasks(&followed(1));
    members[1].membership.set_tasks(&followed(5));
    negotiate(check, &mut members, balanced(6));
    members[1].membership.set_tasks(&followed(1));
    negotiate(check, &mut members, balanced(2));
    let all: BTreeSet<TaskId> = members.iter().flat_map(|m| &m.owned).copied().collect();
    assert!(all.iter().eq(&followed(1)), "{all:?}");

    // And with a member goes what only it knew.
    members.push(join(check, 2).expect("joins"));
    negotiate(check, &mut members, balanced(3));
    members.pop();
    negotiate(check, &mut members, balanced(2));
}

pub(super) fn all_members_are_told_to_stop_and_later_ones_are_not(check: &mut Check<'_>) {
    let tasks = tasks(2);
    let mut members = vec![];
    for _ in 0..2 {
        members.push(join(check, &tasks).expect("joins"));
    }
    negotiate(check, &mut members, balanced(2));
    members[0].membership.stop_application();
    let mut later = vec![join(check, &tasks).expect("joins")];
    for member in &mut members {
        check.until("a member to be told", || match member.membership.poll() {
            Poll::Ready(MembershipEvent::Stop) => Some(()),
            _ => None,
        });
    }
    drop(members);
    negotiate(check, &mut later, balanced(2)); // which panics if it is told, too
}
