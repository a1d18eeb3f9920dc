//! Sessions.

use std::hash::Hash;
use std::time::Duration;

use streams_core::Data;

use super::sealed::Sealed;
use super::{Windows, millis};
use crate::cogrouped::CogroupedKStream;
use crate::grouped::KGroupedStream;
use crate::session_windowed::SessionWindowedKStream;
use crate::windowed_cogrouped::SessionWindowedCogroupedKStream;

/// Sessions: records of a key belong together as long as no gap of inactivity between them is longer than
/// this. A session begins with its first record and ends with its last one; both belong to it. A record
/// between two sessions can make one of them.
///
/// ```
/// use std::time::Duration;
/// use streams_dsl::SessionWindows;
/// let minute = Duration::from_secs(60);
/// let windows = SessionWindows::of(30 * minute).grace(5 * minute);
/// # let _ = windows;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWindows {
    pub(crate) gap: i64,
    pub(crate) grace: i64,
}

impl SessionWindows {
    /// Records up to this far apart (at least a millisecond) are of one session; no grace.
    pub fn of(gap: Duration) -> Self {
        Self { gap: millis(gap), grace: 0 }
    }

    /// The same with this grace: how much longer sessions take late records.
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace: millis(grace), ..self }
    }

    /// How long after their end sessions must be kept: at this age they are still open.
    pub(crate) fn open_for(&self) -> i64 {
        self.gap.saturating_add(self.grace)
    }

    /// How long after its end (as stream time goes) a session is closed: the end belongs to it.
    pub(crate) fn closes_after(&self) -> i64 {
        self.open_for().saturating_add(1)
    }

    /// What is wrong with them, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        (self.gap < 1)
            .then(|| "its sessions have a gap of 0 ms; give them a millisecond or more".into())
    }
}

impl Sealed for SessionWindows {}

impl Windows for SessionWindows {
    type Stream<K, V> = SessionWindowedKStream<K, V>;

    fn window<K: Data + Eq + Hash, V: Data>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> SessionWindowedKStream<K, V> {
        SessionWindowedKStream::new(grouped, self)
    }

    type Cogrouped<K, A> = SessionWindowedCogroupedKStream<K, A>;

    fn window_cogrouped<K: Data + Eq + Hash, A: Data>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> SessionWindowedCogroupedKStream<K, A> {
        SessionWindowedCogroupedKStream::new(cogrouped, self)
    }
}
