//! Random numbers for identities: seeded, so that a simulation with the same seed is the same run.

use std::io::Read;

/// A generator of numbers that differ between brokers and openings (SplitMix64). Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by the operating system. Where it has no random numbers to give, the time and the
    /// process are enough for identities.
    pub(crate) fn of_system(now: i64) -> Self {
        let mut seed = [0; 8];
        let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut seed));
        match read {
            Ok(()) => Self(u64::from_ne_bytes(seed)),
            Err(_) => Self((now as u64) << 20 ^ u64::from(std::process::id())),
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
