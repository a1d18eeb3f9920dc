//! What time has made useless in a store.
//!
//! A windowed store hides what is older than its retention, by its own stream time. Such an entry may
//! also *vanish* from an engine, at any moment, once the commit that moved the time so far is synced:
//! no crash leads back behind it, so nobody can ask for the entry again. [`Store::expiry`] says how far
//! that is as of a seal, [`StoreEngine::expire`] is told when that seal is synced, and a restore leaves
//! out what is expired by the commit it begins from. What vanishes makes no changelog record: the
//! changelog's own retention removes it there.
//!
//! [`Store::expiry`]: super::Store::expiry
//! [`StoreEngine::expire`]: super::StoreEngine::expire

use broker_api::Timestamp;

/// Entries that may vanish.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// The time by which the entry of a key expires; `Timestamp::MAX`: it never does. The same function
    /// for all of a store's life.
    pub expires_by: fn(&[u8]) -> Timestamp,
    /// What expires by this time or earlier may vanish.
    pub up_to: Timestamp,
}

impl Expiry {
    /// Whether the entry of this key may vanish.
    pub fn is_over(&self, key: &[u8]) -> bool {
        (self.expires_by)(key) <= self.up_to
    }
}
