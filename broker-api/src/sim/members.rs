//! The members of an application and who owns which task.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Waker;

use crate::{MemberToken, MembershipConfig, MembershipEvent, TaskId};

struct Member {
    waker: Waker,
    /// Of which it knows.
    tasks: BTreeSet<TaskId>,
    warm: BTreeSet<TaskId>,
    /// Its tasks, also those that it was asked to give up and has not.
    owned: BTreeSet<TaskId>,
    /// To be asked for.
    to_revoke: BTreeSet<TaskId>,
    /// Asked for.
    revoked: BTreeSet<TaskId>,
    /// It has to hear what it owns.
    to_assign: bool,
    /// It has to hear that it should stop.
    to_stop: bool,
    /// The epoch of its valid token.
    epoch: Option<u64>,
}

impl Member {
    /// How many tasks it will have when it has given up all that it is asked for.
    fn kept(&self) -> usize {
        self.owned.len() - self.to_revoke.len() - self.revoked.len()
    }
}

/// The members that share one application's tasks.
pub(super) struct Application {
    /// Of which its members know.
    tasks: BTreeSet<TaskId>,
    following: BTreeSet<u32>,
    members: BTreeMap<u64, Member>,
    /// Taken for dead, not told yet.
    lost: VecDeque<u64>,
    epoch: u64,
    /// A rebalance is due.
    pub(super) unsettled: bool,
}

impl Application {
    pub(super) fn new() -> Self {
        let (members, lost) = (BTreeMap::new(), VecDeque::new());
        let (tasks, following) = (BTreeSet::new(), BTreeSet::new());
        Self { tasks, following, members, lost, epoch: 0, unsettled: false }
    }

    /// Whether it has no living member.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn accepts(&self, token: MemberToken) -> bool {
        self.members.get(&token.member).is_some_and(|m| m.epoch == Some(token.epoch))
    }

    /// False if the members that it has run other tasks.
    pub(super) fn join(&mut self, number: u64, config: &MembershipConfig, waker: Waker) -> bool {
        let tasks: BTreeSet<TaskId> = config.tasks.iter().copied().collect();
        let following: BTreeSet<u32> = config.following.iter().copied().collect();
        let is_fixed = |task: &&TaskId| !following.contains(&task.subtopology);
        let fixed = tasks.iter().filter(is_fixed);
        let same = following == self.following && fixed.eq(self.tasks.iter().filter(is_fixed));
        if !self.is_empty() && !same {
            return false;
        }
        self.following = following;
        let member = Member {
            waker,
            tasks,
            warm: config.warm.iter().copied().collect(),
            owned: BTreeSet::new(),
            to_revoke: BTreeSet::new(),
            revoked: BTreeSet::new(),
            to_assign: false,
            to_stop: false,
            epoch: None,
        };
        self.members.insert(number, member);
        self.count_tasks();
        true
    }

    pub(super) fn set_tasks(&mut self, number: u64, tasks: &[TaskId]) {
        if let Some(member) = self.members.get_mut(&number) {
            member.tasks = tasks.iter().copied().collect();
            self.count_tasks();
        }
    }

    /// The application has the tasks of which its members know.
    fn count_tasks(&mut self) {
        self.tasks = self.members.values().flat_map(|member| &member.tasks).copied().collect();
        self.unsettled = true;
    }

    pub(super) fn leave(&mut self, number: u64) {
        if self.members.remove(&number).is_some() {
            self.count_tasks();
        }
        self.lost.retain(|lost| *lost != number);
    }

    /// Takes members for dead. True if there was one.
    pub(super) fn lose(
        &mut self,
        to_wake: &mut Vec<Waker>,
        mut chosen: impl FnMut() -> bool,
    ) -> bool {
        let lost: Vec<u64> = self.members.keys().copied().filter(|_| chosen()).collect();
        for number in &lost {
            to_wake.extend(self.members.remove(number).map(|member| member.waker));
        }
        let any = !lost.is_empty();
        self.lost.extend(lost);
        if any {
            self.count_tasks();
        }
        any
    }

    pub(super) fn poll(&mut self, number: u64) -> Option<MembershipEvent> {
        let Some(member) = self.members.get_mut(&number) else {
            let place = self.lost.iter().position(|lost| *lost == number)?;
            self.lost.remove(place);
            return Some(MembershipEvent::Lost);
        };
        if std::mem::take(&mut member.to_stop) {
            return Some(MembershipEvent::Stop);
        }
        // Who is busy giving up tasks hears what is left to it afterwards.
        if !member.revoked.is_empty() {
            return None;
        }
        if std::mem::take(&mut member.to_assign) {
            self.epoch += 1;
            member.epoch = Some(self.epoch);
            let token = MemberToken { member: number, epoch: self.epoch };
            let active = member.owned.iter().copied().collect();
            return Some(MembershipEvent::Assigned { token, active, standby: Vec::new() });
        }
        if member.to_revoke.is_empty() {
            return None;
        }
        member.revoked = std::mem::take(&mut member.to_revoke);
        Some(MembershipEvent::Revoke { tasks: member.revoked.iter().copied().collect() })
    }

    /// Tells all members to stop.
    pub(super) fn stop(&mut self, to_wake: &mut Vec<Waker>) {
        for member in self.members.values_mut() {
            member.to_stop = true;
            to_wake.push(member.waker.clone());
        }
    }

    pub(super) fn ack(&mut self, number: u64, tasks: &[TaskId], to_wake: &mut Vec<Waker>) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let given_up = tasks.iter().filter(|task| member.revoked.remove(task));
        let given_up: Vec<&TaskId> = given_up.collect();
        if given_up.is_empty() {
            return;
        }
        member.owned.retain(|task| !given_up.contains(&task));
        self.unsettled = true;
        if member.revoked.is_empty() {
            member.epoch = None;
            member.to_assign = true;
            to_wake.push(member.waker.clone());
        }
    }

    /// Asks members above their share for tasks, and gives free tasks to those below.
    pub(super) fn rebalance(&mut self, to_wake: &mut Vec<Waker>) {
        if !std::mem::take(&mut self.unsettled) || self.members.is_empty() {
            return;
        }
        for member in self.members.values_mut() {
            // What nobody was asked for yet is decided anew, and who is new hears something.
            let gone =
                |task: &&TaskId| !self.tasks.contains(task) && !member.revoked.contains(task);
            member.to_revoke = member.owned.iter().filter(gone).copied().collect();
            member.to_assign |= member.epoch.is_none() && member.revoked.is_empty();
        }
        // Those that have most keep the tasks that cannot be shared out evenly.
        let mut order: Vec<u64> = self.members.keys().copied().collect();
        order.sort_by_key(|number| std::cmp::Reverse(self.members[number].kept()));
        let (even, more) = (self.tasks.len() / order.len(), self.tasks.len() % order.len());
        let share = |place: usize| even + usize::from(place < more);
        let mut free = self.tasks.clone();
        for (place, number) in order.iter().enumerate() {
            let Some(member) = self.members.get_mut(number) else { continue };
            free.retain(|task| !member.owned.contains(task));
            let surplus = member.kept().saturating_sub(share(place));
            let taken: Vec<TaskId> = surplus_of(member, surplus);
            member.to_revoke.extend(taken);
            if !member.to_revoke.is_empty() {
                to_wake.push(member.waker.clone());
            }
        }
        let mut shares: Vec<(u64, usize)> = order
            .iter()
            .enumerate()
            .map(|(place, n)| (*n, share(place).saturating_sub(self.members[n].kept())))
            .collect();
        for task in free {
            let wants = |(_, room): &(u64, usize)| *room > 0;
            let warm = shares
                .iter()
                .position(|entry| wants(entry) && self.members[&entry.0].warm.contains(&task));
            let Some(place) = warm.or_else(|| shares.iter().position(wants)) else { break };
            shares[place].1 -= 1;
            if let Some(member) = self.members.get_mut(&shares[place].0) {
                member.owned.insert(task);
                member.to_assign = true;
            }
        }
        let told = self.members.values().filter(|member| member.to_assign);
        to_wake.extend(told.map(|member| member.waker.clone()));
    }
}

/// `count` tasks that a member can give up: first those that it does not have warm.
fn surplus_of(member: &Member, count: usize) -> Vec<TaskId> {
    let mut kept: Vec<TaskId> = member
        .owned
        .iter()
        .filter(|task| !member.to_revoke.contains(task) && !member.revoked.contains(task))
        .copied()
        .collect();
    kept.sort_by_key(|task| (member.warm.contains(task), std::cmp::Reverse(*task)));
    kept.truncate(count);
    kept
}
