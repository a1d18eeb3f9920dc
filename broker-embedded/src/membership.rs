//! Members that share the tasks of an application: the stream threads of this process.
//!
//! The coordinator lives in the sequencer, so that a commit's token is checked in the same order in
//! which tasks change hands. Every member aims at its *target*, a balanced and sticky share; a task
//! changes hands in two steps: its owner is told to give it up; when that is acknowledged (its last commits
//! are submitted) its token is no longer good, it gets another one, and the next owner gets the
//! task. Epochs go through the journal, so that
//! they rise over restarts as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Poll, Waker};

use broker_api::{Error, MemberToken, Membership, MembershipConfig, MembershipEvent, TaskId};

use crate::broker::Client;
use crate::journal::entry::Entry;
use crate::sequencer::{Haste, Need, Notify, Sequencer};

/// The members of one application.
pub(crate) struct Coordinator {
    /// Of which its members know.
    tasks: BTreeSet<TaskId>,
    following: BTreeSet<u32>,
    members: BTreeMap<u64, Member>,
}

struct Member {
    /// The tasks of which it knows.
    tasks: BTreeSet<TaskId>,
    /// What the member has, or will have when it fetches its news.
    owned: BTreeSet<TaskId>,
    target: BTreeSet<TaskId>,
    warm: BTreeSet<TaskId>,
    /// Asked for and not yet given up.
    revoking: BTreeSet<TaskId>,
    /// Given up, but the member's token still covers them, as it has more to give up.
    gave_up: BTreeSet<TaskId>,
    /// All was given up: the token is not good any more, and there must be another.
    must_be_told: bool,
    /// What the member was last told; its commits carry it.
    told: Option<MemberToken>,
    /// To be told: it owns just `owned` from now on.
    assigned: Option<MemberToken>,
    /// To be told after that: give these up.
    revoke: BTreeSet<TaskId>,
    /// To be told before anything else: stop.
    stop: bool,
    /// To be told: look at the topics.
    topics_changed: bool,
    waker: Waker,
}

impl Coordinator {
    /// The members are none any more.
    pub(crate) fn into_wakers(self) -> impl Iterator<Item = Waker> {
        self.members.into_values().map(|member| member.waker)
    }

    /// Whether a commit with this token comes from a member that still has its tasks.
    pub(crate) fn is_valid(&self, token: MemberToken) -> bool {
        self.members.get(&token.member).is_some_and(|member| member.told == Some(token))
    }

    fn runs(&self, tasks: &BTreeSet<TaskId>, following: &BTreeSet<u32>) -> bool {
        let is_fixed = |task: &&TaskId| !following.contains(&task.subtopology);
        let (its, theirs) = (self.tasks.iter().filter(is_fixed), tasks.iter().filter(is_fixed));
        self.following == *following && its.eq(theirs)
    }

    /// Aims at a balanced share for every member: those that have a task keep it, then those that
    /// have its state at hand, then the one with the fewest.
    fn aim(&mut self) {
        self.tasks = self.members.values().flat_map(|member| &member.tasks).copied().collect();
        let count = self.members.len();
        if count == 0 {
            return;
        }
        let (least, mut larger) = (self.tasks.len() / count, self.tasks.len() % count);
        let mut free = self.tasks.clone();
        for member in self.members.values_mut() {
            member.target.clear();
        }
        let had: fn(&Member) -> &BTreeSet<TaskId> = |member| &member.owned;
        let warm: fn(&Member) -> &BTreeSet<TaskId> = |member| &member.warm;
        let any = self.tasks.clone();
        for wish in [Some(had), Some(warm), None] {
            for member in self.members.values_mut() {
                let wanted: Vec<TaskId> =
                    wish.map_or(&any, |wish| wish(member)).intersection(&free).copied().collect();
                for task in wanted {
                    let share = member.target.len();
                    if share > least || (share == least && larger == 0) {
                        break;
                    }
                    larger -= usize::from(share == least);
                    free.remove(&task);
                    member.target.insert(task);
                }
            }
        }
    }
}

/// Carries out what can be: tells members what to give up, and gives what is free to whom it is
/// meant for.
fn settle(sequencer: &mut Sequencer, group: &Arc<str>, wakes: &mut Vec<Waker>) {
    let Some(coordinator) = sequencer.coordinators.get_mut(group) else { return };
    let mut taken = BTreeSet::new();
    for member in coordinator.members.values_mut() {
        taken.extend(member.owned.union(&member.gave_up).copied());
        let leaving: BTreeSet<TaskId> = member.owned.difference(&member.target).copied().collect();
        let new: BTreeSet<TaskId> = leaving.difference(&member.revoking).copied().collect();
        if !new.is_empty() {
            member.revoking.extend(&new);
            member.revoke.extend(new);
            wakes.push(member.waker.clone());
        }
    }
    let mut changed = Vec::new();
    for (id, member) in &mut coordinator.members {
        if !member.revoking.is_empty() {
            continue; // what it keeps is told together with what it gets
        }
        let gains: Vec<TaskId> = member.target.difference(&taken).copied().collect();
        let knows_nothing = member.told.or(member.assigned).is_none();
        let idle = knows_nothing && member.target.is_empty();
        let must_know = member.must_be_told && member.assigned.is_none();
        if !gains.is_empty() || idle || must_know {
            taken.extend(&gains);
            member.owned.extend(gains);
            changed.push(*id);
        }
    }
    for id in changed {
        assign(sequencer, group, id, wakes);
    }
}

/// Gives a member its next token, through the journal.
fn assign(sequencer: &mut Sequencer, group: &Arc<str>, id: u64, wakes: &mut Vec<Waker>) {
    let (member, epoch) = sequencer.state.group_numbers(group);
    let token = MemberToken { member: id, epoch: epoch + 1 };
    let now = sequencer.state.last_time;
    let entry = Entry::Group { now, group: group.clone(), member, epoch: token.epoch };
    sequencer.push(entry, Notify::Nobody, Haste::Lazy, wakes);
    let members = sequencer.coordinators.get_mut(group).map(|c| &mut c.members);
    if let Some(member) = members.and_then(|members| members.get_mut(&id)) {
        member.assigned = Some(token);
        wakes.push(member.waker.clone());
    }
}

/// Tells the members that follow topics to look at them.
pub(crate) fn topics_changed(sequencer: &mut Sequencer, wakes: &mut Vec<Waker>) {
    let all = sequencer.coordinators.values_mut();
    for coordinator in all.filter(|coordinator| !coordinator.following.is_empty()) {
        for member in coordinator.members.values_mut() {
            member.topics_changed = true;
            wakes.push(member.waker.clone());
        }
    }
}

/// A member's place.
pub(crate) struct EmbeddedMembership {
    client: Client,
    group: Arc<str>,
    id: u64,
    /// It was told that the broker has stopped.
    lost: bool,
}

impl EmbeddedMembership {
    pub(crate) fn join(
        client: Client,
        config: MembershipConfig,
        waker: Waker,
    ) -> Result<Self, Error> {
        let group = config.application.clone();
        let id = client.core().with(|sequencer, wakes| {
            sequencer.admit(Need::Reserve)?;
            let tasks: BTreeSet<TaskId> = config.tasks.iter().copied().collect();
            let following: BTreeSet<u32> = config.following.iter().copied().collect();
            let present = sequencer.coordinators.get(&group);
            if present.is_some_and(|present| !present.runs(&tasks, &following)) {
                return Err(Error::OtherTopology { application: group.to_string() });
            }
            let (last, epoch) = sequencer.state.group_numbers(&group);
            let id = last + 1;
            let now = sequencer.stamp(client.core().clock.now());
            let entry = Entry::Group { now, group: group.clone(), member: id, epoch };
            sequencer.push(entry, Notify::Nobody, Haste::Lazy, wakes);
            let coordinator = sequencer.coordinators.entry(group.clone());
            let coordinator = coordinator.or_insert_with(|| Coordinator {
                tasks: BTreeSet::new(),
                following,
                members: BTreeMap::new(),
            });
            let member = Member {
                tasks,
                owned: BTreeSet::new(),
                target: BTreeSet::new(),
                warm: config.warm.iter().copied().collect(),
                revoking: BTreeSet::new(),
                gave_up: BTreeSet::new(),
                must_be_told: false,
                told: None,
                assigned: None,
                revoke: BTreeSet::new(),
                stop: false,
                topics_changed: false,
                waker,
            };
            coordinator.members.insert(id, member);
            coordinator.aim();
            settle(sequencer, &group, wakes);
            Ok(id)
        })?;
        Ok(Self { client, group, id, lost: false })
    }
}

impl Membership for EmbeddedMembership {
    fn poll(&mut self) -> Poll<MembershipEvent> {
        let mut sequencer = self.client.core().lock();
        let coordinator = sequencer.coordinators.get_mut(&self.group);
        let member = coordinator.and_then(|coordinator| coordinator.members.get_mut(&self.id));
        let Some(member) = member else {
            // The broker has stopped.
            let told = std::mem::replace(&mut self.lost, true);
            return if told { Poll::Pending } else { Poll::Ready(MembershipEvent::Lost) };
        };
        if std::mem::take(&mut member.stop) {
            return Poll::Ready(MembershipEvent::Stop);
        }
        if std::mem::take(&mut member.topics_changed) {
            return Poll::Ready(MembershipEvent::TopicsChanged);
        }
        if let Some(token) = member.assigned.take() {
            member.told = Some(token);
            member.must_be_told = false;
            let (active, standby) = (member.owned.iter().copied().collect(), Vec::new());
            return Poll::Ready(MembershipEvent::Assigned { token, active, standby });
        }
        if !member.revoke.is_empty() {
            let tasks = std::mem::take(&mut member.revoke).into_iter().collect();
            return Poll::Ready(MembershipEvent::Revoke { tasks });
        }
        Poll::Pending
    }

    fn ack(&mut self, tasks: &[TaskId]) {
        self.client.core().with(|sequencer, wakes| {
            let coordinator = sequencer.coordinators.get_mut(&self.group);
            let member = coordinator.and_then(|coordinator| coordinator.members.get_mut(&self.id));
            let Some(member) = member else { return };
            for task in tasks {
                if member.revoking.remove(task) {
                    member.owned.remove(task);
                    member.gave_up.insert(*task);
                }
            }
            if member.revoking.is_empty() && !member.gave_up.is_empty() {
                member.gave_up.clear();
                member.told = None;
                member.must_be_told = true;
            }
            settle(sequencer, &self.group, wakes);
        });
    }

    fn set_tasks(&mut self, tasks: &[TaskId]) {
        self.client.core().with(|sequencer, wakes| {
            let Some(coordinator) = sequencer.coordinators.get_mut(&self.group) else { return };
            let Some(member) = coordinator.members.get_mut(&self.id) else { return };
            member.tasks = tasks.iter().copied().collect();
            coordinator.aim();
            settle(sequencer, &self.group, wakes);
        });
    }

    fn stop_application(&mut self) {
        self.client.core().with(|sequencer, wakes| {
            let Some(coordinator) = sequencer.coordinators.get_mut(&self.group) else { return };
            for member in coordinator.members.values_mut() {
                member.stop = true;
                wakes.push(member.waker.clone());
            }
        });
    }

    /// All members see the same log without delay: there is nothing to weigh up.
    fn progress(&mut self, _lags: &[(TaskId, u64)]) {}
}

impl Drop for EmbeddedMembership {
    fn drop(&mut self) {
        let core = self.client.core();
        core.with(|sequencer, wakes| {
            let Some(coordinator) = sequencer.coordinators.get_mut(&self.group) else { return };
            coordinator.members.remove(&self.id);
            if coordinator.members.is_empty() {
                sequencer.coordinators.remove(&self.group);
                // From now on nobody uses the group: this is when its offsets begin to expire.
                if sequencer.admit(Need::Reserve).is_ok() {
                    let (member, epoch) = sequencer.state.group_numbers(&self.group);
                    let now = sequencer.stamp(core.clock.now());
                    let entry = Entry::Group { now, group: self.group.clone(), member, epoch };
                    sequencer.push(entry, Notify::Nobody, Haste::Lazy, wakes);
                }
            } else {
                coordinator.aim();
                settle(sequencer, &self.group, wakes);
            }
        });
    }
}
