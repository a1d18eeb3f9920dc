//! When windowed aggregations emit.

use std::time::Duration;

use super::millis;

/// When a windowed aggregation emits its results.
///
/// ```
/// use std::time::Duration;
/// use streams_dsl::{EmitStrategy, StreamsBuilder, TimeWindows};
/// let builder = StreamsBuilder::new();
/// builder
///     .stream::<String, String>("clicks")
///     .group_by_key()
///     .windowed_by(TimeWindows::of(Duration::from_secs(60)))
///     .emit_strategy(EmitStrategy::on_window_close())
///     .count();
/// builder.build()?;
/// # Ok::<(), streams_core::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmitStrategy {
    pub(crate) on_close: bool,
    /// Without records for so many milliseconds, stream time goes on with the wall clock.
    pub(crate) after_idle: Option<i64>,
}

impl EmitStrategy {
    /// Whenever a window changes (the default). With caching the changes between two commits are one.
    pub fn on_window_update() -> Self {
        Self { on_close: false, after_idle: None }
    }

    /// Once for each window, when it closes: as soon as the operator sees a record with which stream
    /// time has passed the window's end and grace.
    pub fn on_window_close() -> Self {
        Self { on_close: true, after_idle: None }
    }

    /// The same on closing, but when no record has come for this long, stream time goes on with the wall
    /// clock until one comes: the last windows are not stuck because the input has ended. Records that
    /// are behind that time are late from then on. Off by default: results then depend on when records
    /// come, not on them alone.
    pub fn after_idle(self, idle: Duration) -> Self {
        Self { after_idle: Some(millis(idle)), ..self }
    }

    /// What is wrong with it, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        let is_idle = !self.on_close && self.after_idle.is_some();
        is_idle.then(|| {
            "results on updates wait for nothing; let them come on closing, or leave out after_idle"
                .into()
        })
    }
}
