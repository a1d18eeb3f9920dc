//! Kinds of windows: which span of event time belongs together.
//!
//! All times are event times, and how exact they are is a millisecond. *Grace* is how much longer a
//! window takes late records after stream time has passed its end.

mod emit;
mod fixed;
mod join;
mod session;
mod sliding;
mod time;
mod unlimited;

use std::hash::Hash;
use std::time::Duration;

use streams_core::Data;

use crate::cogrouped::CogroupedKStream;
use crate::grouped::KGroupedStream;

pub use emit::EmitStrategy;
pub(crate) use fixed::FixedWindows;
pub use join::JoinWindows;
pub use session::SessionWindows;
pub use sliding::SlidingWindows;
pub use time::TimeWindows;
pub use unlimited::UnlimitedWindows;

/// Windows that a grouped stream can be put into, by [`KGroupedStream::windowed_by`], and cogrouped ones,
/// by [`CogroupedKStream::windowed_by`].
pub trait Windows: sealed::Sealed {
    /// The stream in such windows.
    type Stream<K, V>;

    #[doc(hidden)]
    fn window<K: Data + Eq + Hash, V: Data>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> Self::Stream<K, V>;

    /// Cogrouped streams in such windows.
    type Cogrouped<K, A>;

    #[doc(hidden)]
    fn window_cogrouped<K: Data + Eq + Hash, A: Data>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> Self::Cogrouped<K, A>;
}

pub(crate) mod sealed {
    /// Keeps the kinds of windows to those of this crate.
    pub trait Sealed {}
}

/// Milliseconds of a duration; longer ones than there is time count as all time.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
