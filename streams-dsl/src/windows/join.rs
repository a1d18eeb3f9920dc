//! Windows of joins.

use std::time::Duration;

use super::millis;

/// Which records of two streams are joined: those with equal keys whose timestamps are near each other.
///
/// ```
/// use std::time::Duration;
/// use streams_dsl::JoinWindows;
/// // A payment up to an hour after its order, or a minute before it.
/// let hour = Duration::from_secs(3600);
/// let minute = Duration::from_secs(60);
/// let windows = JoinWindows::of(hour).before(minute).grace(minute);
/// # let _ = windows;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinWindows {
    pub(crate) before: i64,
    pub(crate) after: i64,
    pub(crate) grace: i64,
}

impl JoinWindows {
    /// Timestamps that differ by up to this much, whichever is earlier; no grace. (Windows without
    /// any length need a grace: the join keeps its records for both.)
    pub fn of(difference: Duration) -> Self {
        let difference = millis(difference);
        Self { before: difference, after: difference, grace: 0 }
    }

    /// The same, but records of the other stream may be earlier by up to this much.
    pub fn before(self, before: Duration) -> Self {
        Self { before: millis(before), ..self }
    }

    /// The same, but records of the other stream may be later by up to this much.
    pub fn after(self, after: Duration) -> Self {
        Self { after: millis(after), ..self }
    }

    /// The same with this grace: how long an unmatched record of a left or outer join waits beyond its
    /// window for a late partner.
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace: millis(grace), ..self }
    }

    /// How long records are kept, in milliseconds.
    pub(crate) fn retention(&self) -> i64 {
        self.before.saturating_add(self.after).saturating_add(self.grace)
    }

    /// What is wrong with them, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        (self.retention() == 0).then(|| {
            "before, after and grace of its windows are all 0, so that it keeps no record for as long \
             as a partner takes; give them a grace of a millisecond or more"
                .into()
        })
    }

    /// The window as the other stream's records see it.
    pub(crate) fn reversed(&self) -> Self {
        Self { before: self.after, after: self.before, grace: self.grace }
    }
}
