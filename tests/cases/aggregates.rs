//! Aggregates without windows.

use streams_dsl::{Materialized, StreamsBuilder};

use super::{stream, text};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case {
        "map-then-count" => stream(b)
            .map(|k, v| (v, k))
            .group_by_key()
            .count_with(Materialized::named("s"))
            .to_stream()
            .map_values(|_, n| n.map(|n| n.to_string()))
            .to("out"),
        "count" => stream(b)
            .group_by_key()
            .count_with(Materialized::named("s"))
            .to_stream()
            .map_values(|_, n| n.map(|n| n.to_string()))
            .to("out"),
        "reduce" => stream(b)
            .group_by(|_, v| v.as_ref().map(|v| v[..1].to_string()))
            .reduce_with(|x, y| Some(x? + &y?), Materialized::named("s"))
            .to_stream()
            .to("out"),
        "aggregate-to-null" => stream(b)
            .group_by_key()
            .aggregate_with(
                String::new,
                |_, v, a| if text(&v).ends_with('7') { None } else { Some(a + text(&v)) },
                Materialized::named("s"),
            )
            .to_stream()
            .to("out"),
        _ => return false,
    }
    true
}
