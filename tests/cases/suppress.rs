//! Suppressed tables.

use std::time::Duration;

use streams_dsl::{BufferConfig, StreamsBuilder, Suppressed, TimeWindows};

use super::table;
use super::windows::{append, emit, windowed};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    let ms = Duration::from_millis;
    let limit = |limit, buffer| {
        table(b).suppress(Suppressed::until_time_limit(limit, buffer)).to_stream().to("out");
    };
    let closed = |grace| {
        let windows = TimeWindows::of(ms(10)).grace(ms(grace));
        let closed = Suppressed::until_window_closes(BufferConfig::unbounded());
        emit(append(&windowed(b, windows)).suppress(closed));
    };
    match case {
        "suppress-time-limit" => limit(ms(12), BufferConfig::unbounded().emit_early_when_full()),
        "suppress-max-records" => limit(ms(50), BufferConfig::max_records(2)),
        "suppress-close-grace0" => closed(0),
        "suppress-close-grace15" => closed(15),
        _ => return false,
    }
    true
}
