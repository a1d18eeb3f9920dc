//! Tumbling and hopping windows.

use std::hash::Hash;
use std::time::Duration;

use streams_core::Data;

use super::sealed::Sealed;
use super::{FixedWindows, Windows, millis};
use crate::cogrouped::CogroupedKStream;
use crate::grouped::KGroupedStream;
use crate::time_windowed::TimeWindowedKStream;
use crate::windowed_cogrouped::TimeWindowedCogroupedKStream;

/// Windows of a fixed size, aligned to the epoch; the end does not belong to them. *Tumbling* ones
/// follow each other, *hopping* ones begin more often than they end, so that they overlap.
///
/// ```
/// use std::time::Duration;
/// use streams_dsl::TimeWindows;
/// let minute = Duration::from_secs(60);
/// let tumbling = TimeWindows::of(5 * minute).grace(minute);
/// let hopping = TimeWindows::of(5 * minute).advance_by(minute);
/// # let _ = (tumbling, hopping);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWindows {
    pub(crate) size: i64,
    pub(crate) advance: i64,
    pub(crate) grace: i64,
}

impl TimeWindows {
    /// Tumbling windows of this size (at least a millisecond), without grace.
    pub fn of(size: Duration) -> Self {
        let size = millis(size);
        Self { size, advance: size, grace: 0 }
    }

    /// A window begins every so often (at least a millisecond, at most the size), instead of when
    /// the one before ends.
    pub fn advance_by(self, advance: Duration) -> Self {
        Self { advance: millis(advance), ..self }
    }

    /// The same with this grace: how much longer they take late records.
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace: millis(grace), ..self }
    }

    /// What is wrong with them, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        if self.size < 1 {
            return Some("its windows have no size; give them a millisecond or more".into());
        }
        if self.advance < 1 || self.advance > self.size {
            let Self { size, advance, .. } = self;
            return Some(format!(
                "its windows of {size} ms advance by {advance} ms; let them advance by 1 to {size} ms"
            ));
        }
        None
    }

    /// Where the windows begin that a time belongs to, the earliest first. None begins before 0.
    pub(crate) fn starts(&self, time: i64) -> impl Iterator<Item = i64> + use<> {
        let Self { size, advance, .. } = *self;
        let earliest = time.saturating_sub(size).saturating_add(advance).max(0);
        let first = earliest / advance * advance;
        std::iter::successors(Some(first), move |start| start.checked_add(advance))
            .take_while(move |start| *start <= time)
    }
}

impl Sealed for TimeWindows {}

impl Windows for TimeWindows {
    type Stream<K, V> = TimeWindowedKStream<K, V>;

    fn window<K: Data + Eq + Hash, V: Data>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> TimeWindowedKStream<K, V> {
        TimeWindowedKStream::new(grouped, FixedWindows::Time(self))
    }

    type Cogrouped<K, A> = TimeWindowedCogroupedKStream<K, A>;

    fn window_cogrouped<K: Data + Eq + Hash, A: Data>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> TimeWindowedCogroupedKStream<K, A> {
        TimeWindowedCogroupedKStream::new(cogrouped, FixedWindows::Time(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(size: u64, advance: u64, time: i64) -> Vec<i64> {
        let windows = TimeWindows::of(Duration::from_millis(size));
        windows.advance_by(Duration::from_millis(advance)).starts(time).collect()
    }

    #[test]
    fn a_time_belongs_to_all_windows_around_it() {
        assert_eq!(starts(10, 10, 0), [0]);
        assert_eq!(starts(10, 10, 9), [0]);
        assert_eq!(starts(10, 10, 10), [10]);
        assert_eq!(starts(10, 4, 13), [4, 8, 12]);
        assert_eq!(starts(10, 4, 14), [8, 12]);
        assert_eq!(starts(10, 4, 3), [0], "no window begins before 0");
        assert_eq!(starts(10, 4, i64::MAX).len(), 2, "the end of time");
    }
}
