//! When the simulated disk misbehaves: counts operations and says how each one ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use super::random::Dice;

/// What an operation does to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Change,
    Sync,
}

/// How an operation ends.
#[derive(Debug)]
pub(super) enum Fate {
    /// As it should.
    Done,
    /// With an error, and without effect or with a part of it.
    Failed(io::Error),
    /// The power went after it took effect and before it returned.
    Unanswered,
}

impl Fate {
    /// For operations that happen as a whole or not at all: whether this one happens.
    pub(super) fn happens(self) -> io::Result<Self> {
        match self {
            Self::Failed(e) => Err(e),
            fate => Ok(fate),
        }
    }

    /// What the caller gets to see of an operation that took effect.
    pub(super) fn answer(self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Failed(e) => Err(e),
            Self::Unanswered => Err(power_is_cut()),
        }
    }
}

/// Counts and plans.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) operations: u64,
    pub(super) changes: u64,
    pub(super) syncs: u64,
    pub(super) failing_operations: BTreeMap<u64, ErrorKind>,
    pub(super) failing_syncs: BTreeSet<u64>,
    pub(super) cut_at: Option<u64>,
    pub(super) power_is_cut: bool,
}

impl Faults {
    pub(super) fn begin(&mut self, kind: Kind, dice: &mut Dice) -> io::Result<Fate> {
        if self.power_is_cut {
            return Err(power_is_cut());
        }
        let mut error = self.failing_operations.remove(&self.operations);
        self.operations += 1;
        if kind == Kind::Read {
            return Ok(error.map_or(Fate::Done, |kind| Fate::Failed(injected(kind))));
        }
        if kind == Kind::Sync {
            if self.failing_syncs.remove(&self.syncs) {
                error = error.or(Some(ErrorKind::Other));
            }
            self.syncs += 1;
        }
        self.power_is_cut = self.cut_at == Some(self.changes);
        self.changes += 1;
        Ok(match error {
            _ if self.power_is_cut && dice.chance(4) => Fate::Unanswered,
            _ if self.power_is_cut => Fate::Failed(power_is_cut()),
            Some(kind) => Fate::Failed(injected(kind)),
            None => Fate::Done,
        })
    }
}

fn injected(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "injected fault")
}

fn power_is_cut() -> io::Error {
    io::Error::other("the power is cut")
}
