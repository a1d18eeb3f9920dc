//! Random numbers that are the same for the same seed.

use std::ops::Range;

pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x5851_f42d_4c95_7f2d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.within(0..n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.within(0..of.len() as u64) as usize].clone()
    }
}

/// How many seeds to try: `VLTAVA_SIM_SEEDS`, or the default.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    let set = std::env::var("VLTAVA_SIM_SEEDS").ok().and_then(|n| n.parse().ok());
    0..set.unwrap_or(default)
}
