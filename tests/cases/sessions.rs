//! Aggregates in sessions.

use std::time::Duration;

use streams_core::Windowed;
use streams_dsl::{EmitStrategy, KTable, Materialized, SessionWindows, StreamsBuilder};

use super::windows::emit;
use super::{Text, stream, text};

/// `session-[on-close-]graceN`.
pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    let Some((kind, grace)) = case.rsplit_once("-grace") else { return false };
    let strategy = match kind {
        "session" => EmitStrategy::on_window_update(),
        "session-on-close" => EmitStrategy::on_window_close(),
        _ => return false,
    };
    let Ok(grace) = grace.parse().map(Duration::from_millis) else { return false };
    emit(append(b, grace, strategy));
    true
}

pub(super) fn append(
    b: &StreamsBuilder,
    grace: Duration,
    strategy: EmitStrategy,
) -> KTable<Windowed<Text>, String> {
    let windows = SessionWindows::of(Duration::from_millis(6)).grace(grace);
    let sessions = stream(b).group_by_key().windowed_by(windows).emit_strategy(strategy);
    sessions.aggregate_with(
        String::new,
        |_, value, so_far: String| so_far + text(&value),
        merge,
        Materialized::named("s"),
    )
}

pub(super) fn merge(_: &Text, earlier: String, later: String) -> String {
    earlier + &later
}
