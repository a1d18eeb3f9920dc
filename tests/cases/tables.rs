//! Tables: what is derived from one.

use streams_dsl::{Materialized, StreamsBuilder};

use super::table;

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case {
        "table" => table(b).to_stream().to("out"),
        "table-filter" => table(b).filter(|_, v| v.as_str() < "v5").to_stream().to("out"),
        "table-filter-stored" => table(b)
            .filter_with(|_, v| v.as_str() < "v5", Materialized::named("f"))
            .map_values_with(|_, v| v + "!", Materialized::named("m"))
            .to_stream()
            .to("out"),
        _ => return false,
    }
    true
}
