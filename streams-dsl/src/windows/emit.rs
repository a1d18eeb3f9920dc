//! When windowed aggregations emit.

/// When a windowed aggregation says its results.
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
}

impl EmitStrategy {
    /// Whenever a window changes (the default). With caching the changes between two commits are one.
    pub fn on_window_update() -> Self {
        Self { on_close: false }
    }

    /// Once for each window, when it closes: as soon as the operator sees a record with which stream
    /// time has passed the window's end and grace.
    pub fn on_window_close() -> Self {
        Self { on_close: true }
    }
}
