//! Suppressed tables.

use std::time::Duration;

use streams_dsl::{BufferConfig, EmitStrategy, StreamsBuilder, Suppressed, TimeWindows};

use super::windows::{append, emit, windowed};
use super::{sessions, table};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    let ms = Duration::from_millis;
    let limit = |limit, buffer| {
        table(b).suppress(Suppressed::until_time_limit(limit, buffer)).to_stream().to("out");
    };
    let closed = || Suppressed::until_window_closes(BufferConfig::unbounded());
    let windows = |grace| {
        let windows = TimeWindows::of(ms(10)).grace(ms(grace));
        emit(append(&windowed(b, windows)).suppress(closed()));
    };
    let sessions = |grace| {
        let sessions = sessions::append(b, ms(grace), EmitStrategy::on_window_update());
        emit(sessions.suppress(closed()));
    };
    match case {
        "suppress-time-limit" => limit(ms(12), BufferConfig::unbounded().emit_early_when_full()),
        "suppress-max-records" => limit(ms(50), BufferConfig::max_records(2)),
        "suppress-close-grace0" => windows(0),
        "suppress-close-grace15" => windows(15),
        "suppress-session-grace0" => sessions(0),
        "suppress-session-grace15" => sessions(15),
        _ => return false,
    }
    true
}
