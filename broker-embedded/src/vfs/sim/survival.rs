//! Which of the unsynced changes a power cut leaves.

use super::random::Dice;

/// One crash's policy. Fair coins alone would almost never keep all of a long list, or just the
/// first half of it, and those are the outcomes that recovery is most often wrong about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survival {
    /// Each change survives in so many of 8 cases: 0 is none, 8 is all.
    Coin(u64),
    /// Changes numbered below this survive, in all files: the disk wrote them in order.
    Before(u64),
}

impl Survival {
    /// A policy for a crash before which the changes below `next_seq` were made, the oldest
    /// unsynced one being `oldest`.
    pub(super) fn draw(dice: &mut Dice, oldest: u64, next_seq: u64) -> Self {
        match dice.below(8) {
            0 => Self::Coin(0),
            1 => Self::Coin(8),
            2..=4 => Self::Before(oldest + dice.below(next_seq.saturating_sub(oldest) + 1)),
            n => Self::Coin([1, 4, 7][n as usize - 5]),
        }
    }

    /// How many of the changes `seqs`, all to the same place, were made before the place was last
    /// written to the disk.
    pub(super) fn versions(self, dice: &mut Dice, seqs: &[u64]) -> usize {
        match self {
            Self::Before(seq) => seqs.partition_point(|s| *s < seq),
            Self::Coin(0) => 0,
            Self::Coin(8) => seqs.len(),
            Self::Coin(eighths) => {
                seqs.iter().rposition(|_| dice.chance(eighths)).map_or(0, |i| i + 1)
            }
        }
    }

    /// Whether the change `seq` survives.
    pub(super) fn keeps(self, dice: &mut Dice, seq: u64) -> bool {
        self.versions(dice, &[seq]) == 1
    }
}
