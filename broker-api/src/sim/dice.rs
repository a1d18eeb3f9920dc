//! Random numbers that follow from a seed.

use std::ops::Range;

/// Random numbers that follow from a seed (SplitMix64), for everything that a simulation leaves to
/// chance: the same seed is the same run. Not for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a range; the start of an empty one.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.number() % range.end.saturating_sub(range.start).max(1)
    }

    /// A number from 0 to `most`.
    pub(super) fn up_to(&mut self, most: u32) -> u64 {
        self.within(0..u64::from(most) + 1)
    }

    /// One of `count` places; 0 if there is none.
    pub fn index(&mut self, count: usize) -> usize {
        self.within(0..count as u64) as usize
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())].clone()
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.within(0..n) == 0
    }

    /// True in `chance` of 1,000 cases.
    pub(super) fn happens(&mut self, chance: u32) -> bool {
        chance > 0 && self.within(0..1_000) < u64::from(chance)
    }
}
