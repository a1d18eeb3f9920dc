//! The window without an end.

use std::hash::Hash;

use streams_core::Data;

use super::sealed::Sealed;
use super::{FixedWindows, Windows};
use crate::cogrouped::CogroupedKStream;
use crate::grouped::KGroupedStream;
use crate::time_windowed::TimeWindowedKStream;
use crate::windowed_cogrouped::TimeWindowedCogroupedKStream;

/// One window that has a beginning and never ends.
///
/// ```
/// use streams_dsl::UnlimitedWindows;
/// // Since the year 2000.
/// let windows = UnlimitedWindows::of().start_on(946_684_800_000);
/// # let _ = windows;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnlimitedWindows {
    pub(crate) start: i64,
}

impl UnlimitedWindows {
    /// All time since 1970.
    pub fn of() -> Self {
        Self::default()
    }

    /// All time from this one on, in milliseconds since the Unix epoch; not negative. Earlier records
    /// belong to no window: they have no effect and are not counted.
    pub fn start_on(self, start: i64) -> Self {
        Self { start }
    }
}

impl Sealed for UnlimitedWindows {}

impl Windows for UnlimitedWindows {
    type Stream<K, V> = TimeWindowedKStream<K, V>;

    fn window<K: Data + Eq + Hash, V: Data>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> TimeWindowedKStream<K, V> {
        TimeWindowedKStream::new(grouped, FixedWindows::Unlimited(self))
    }

    type Cogrouped<K, A> = TimeWindowedCogroupedKStream<K, A>;

    fn window_cogrouped<K: Data + Eq + Hash, A: Data>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> TimeWindowedCogroupedKStream<K, A> {
        TimeWindowedCogroupedKStream::new(cogrouped, FixedWindows::Unlimited(self))
    }
}
