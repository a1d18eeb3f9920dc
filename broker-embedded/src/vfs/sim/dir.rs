//! A directory of the simulated disk. Files and directories are known by number, so that a name can
//! come back after a crash together with the file that it meant.

use std::collections::BTreeMap;

use super::random::Dice;
use super::survival::Survival;

pub(super) type NodeId = u64;

#[derive(Clone, Debug, Default)]
pub(super) struct SimDir {
    live: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    pending: Vec<(u64, Change)>,
}

#[derive(Clone, Debug)]
enum Change {
    Link { name: String, node: NodeId },
    Unlink { name: String },
    Rename { from: String, to: String, node: NodeId },
}

impl Change {
    fn apply(&self, to: &mut BTreeMap<String, NodeId>) {
        match self {
            Self::Link { name, node } => {
                to.insert(name.clone(), *node);
            }
            Self::Unlink { name } => {
                to.remove(name);
            }
            Self::Rename { from, to: new, node } => {
                to.remove(from);
                to.insert(new.clone(), *node);
            }
        }
    }
}

impl SimDir {
    pub(super) fn get(&self, name: &str) -> Option<NodeId> {
        self.live.get(name).copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, NodeId)> {
        self.live.iter().map(|(name, node)| (name, *node))
    }

    pub(super) fn link(&mut self, seq: u64, name: &str, node: NodeId) {
        self.change(seq, Change::Link { name: name.into(), node });
    }

    pub(super) fn unlink(&mut self, seq: u64, name: &str) {
        self.change(seq, Change::Unlink { name: name.into() });
    }

    pub(super) fn rename(&mut self, seq: u64, from: &str, to: &str, node: NodeId) {
        self.change(seq, Change::Rename { from: from.into(), to: to.into(), node });
    }

    fn change(&mut self, seq: u64, change: Change) {
        change.apply(&mut self.live);
        self.pending.push((seq, change));
    }

    pub(super) fn sync(&mut self) {
        for (_, change) in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn oldest_pending(&self) -> Option<u64> {
        self.pending.first().map(|(seq, _)| *seq)
    }

    /// A power cut: some of the unsynced changes have happened, in any combination.
    pub(super) fn crash(&mut self, survival: Survival, dice: &mut Dice) {
        for (seq, change) in self.pending.drain(..) {
            if survival.keeps(dice, seq) {
                change.apply(&mut self.durable);
            }
        }
        self.live.clone_from(&self.durable);
    }

    /// Every node that the directory means, or may mean after a crash.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let pending = self.pending.iter().filter_map(|(_, change)| match change {
            Change::Link { node, .. } | Change::Rename { node, .. } => Some(*node),
            Change::Unlink { .. } => None,
        });
        self.live.values().chain(self.durable.values()).copied().chain(pending)
    }
}
