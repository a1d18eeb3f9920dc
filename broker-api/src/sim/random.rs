//! Random numbers that follow from the seed (SplitMix64).

#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `most`.
    pub(super) fn up_to(&mut self, most: u32) -> u64 {
        self.next() % (u64::from(most) + 1)
    }

    /// One of `count` places; `count` must not be 0.
    pub(super) fn index(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// True in `chance` of 1,000 cases.
    pub(super) fn happens(&mut self, chance: u32) -> bool {
        chance > 0 && self.next() % 1_000 < u64::from(chance)
    }
}
