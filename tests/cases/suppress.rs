//! Suppressed tables.

use std::time::Duration;

use streams_dsl::{BufferConfig, StreamsBuilder, Suppressed};

use super::table;

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    let limit = |millis, buffer| {
        let limit = Duration::from_millis(millis);
        table(b).suppress(Suppressed::until_time_limit(limit, buffer)).to_stream().to("out");
    };
    match case {
        "suppress-time-limit" => limit(12, BufferConfig::unbounded().emit_early_when_full()),
        "suppress-max-records" => limit(50, BufferConfig::max_records(2)),
        _ => return false,
    }
    true
}
