//! What windows of a fixed size have in common.

use super::{SlidingWindows, TimeWindows, UnlimitedWindows};

/// Windows whose size is known, so that a key and a start tell one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FixedWindows {
    Time(TimeWindows),
    Sliding(SlidingWindows),
    Unlimited(UnlimitedWindows),
}

impl FixedWindows {
    /// From the start of a window to its end.
    pub(crate) fn size(&self) -> i64 {
        match self {
            Self::Time(windows) => windows.size,
            Self::Sliding(windows) => windows.difference,
            Self::Unlimited(_) => i64::MAX,
        }
    }

    /// How long after its end (as stream time goes) a window is closed.
    pub(crate) fn closes_after(&self) -> i64 {
        match self {
            Self::Time(windows) => windows.grace,
            // Their end belongs to them.
            Self::Sliding(windows) => windows.grace.saturating_add(1),
            Self::Unlimited(_) => i64::MAX,
        }
    }

    /// How long windows must be kept: from the start of a window until it is of no more use.
    pub(crate) fn retention(&self) -> i64 {
        match self {
            Self::Time(windows) => windows.size.saturating_add(windows.grace),
            // A new window is made of what is in the one before, which ended earlier.
            Self::Sliding(SlidingWindows { difference, grace }) => {
                difference.saturating_add(*grace).saturating_add(1.max(*difference))
            }
            Self::Unlimited(_) => i64::MAX,
        }
    }

    /// What is wrong with them, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        match self {
            Self::Time(windows) => windows.mistake(),
            Self::Unlimited(windows) if windows.start < 0 => {
                Some("its window begins before 1970; let it start on 0 or later".into())
            }
            Self::Sliding(_) | Self::Unlimited(_) => None,
        }
    }
}
