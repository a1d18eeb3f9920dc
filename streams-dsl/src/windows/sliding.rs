//! Sliding windows.

use std::hash::Hash;
use std::time::Duration;

use streams_core::Data;

use super::sealed::Sealed;
use super::{FixedWindows, Windows, millis};
use crate::cogrouped::CogroupedKStream;
use crate::grouped::KGroupedStream;
use crate::time_windowed::TimeWindowedKStream;
use crate::windowed_cogrouped::TimeWindowedCogroupedKStream;

/// Windows that slide along the time axis: records of a key whose timestamps differ by up to
/// a given time share one. Both ends belong to a window. There is one window that ends with each record, and
/// one that begins right after it, as far as they hold something.
///
/// ```
/// use std::time::Duration;
/// use streams_dsl::SlidingWindows;
/// let windows = SlidingWindows::of(Duration::from_secs(300)).grace(Duration::from_secs(60));
/// # let _ = windows;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindows {
    pub(crate) difference: i64,
    pub(crate) grace: i64,
}

impl SlidingWindows {
    /// Records whose timestamps differ by up to this much share a window; no grace.
    pub fn of(difference: Duration) -> Self {
        Self { difference: millis(difference), grace: 0 }
    }

    /// The same with this grace: how much longer they take late records.
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace: millis(grace), ..self }
    }
}

impl Sealed for SlidingWindows {}

impl Windows for SlidingWindows {
    type Stream<K, V> = TimeWindowedKStream<K, V>;

    fn window<K: Data + Eq + Hash, V: Data>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> TimeWindowedKStream<K, V> {
        TimeWindowedKStream::new(grouped, FixedWindows::Sliding(self))
    }

    type Cogrouped<K, A> = TimeWindowedCogroupedKStream<K, A>;

    fn window_cogrouped<K: Data + Eq + Hash, A: Data>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> TimeWindowedCogroupedKStream<K, A> {
        TimeWindowedCogroupedKStream::new(cogrouped, FixedWindows::Sliding(self))
    }
}
