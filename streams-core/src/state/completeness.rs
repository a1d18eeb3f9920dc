//! How much of what an engine has is in memory as well.
//!
//! Not a bare time: no time is later than all, so none could say that of no time everything is in memory.

use broker_api::Timestamp;

/// The time from which on memory has every key of the engine. The greater one promises less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Completeness {
    /// Of keys of this time or a later one, the engine has none that memory has not.
    From(Timestamp),
    /// The engine may have keys of any time.
    Never,
}

impl Completeness {
    /// The engine has nothing that memory has not.
    pub(super) const ALWAYS: Self = Self::From(Timestamp::MIN);

    /// Of keys up to this time, memory may lack some.
    pub(super) fn after(time: Timestamp) -> Self {
        time.checked_add(1).map_or(Self::Never, Self::From)
    }

    /// Whether keys of this time and later ones need not be looked for in the engine.
    pub(super) fn covers(self, time: Timestamp) -> bool {
        Self::From(time) >= self
    }
}
