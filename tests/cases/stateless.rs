//! Operators that need no state.

use streams_dsl::{Repartitioned, StreamsBuilder};

use super::{stream, text};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case {
        "stateless" => stream(b)
            .filter(|_, v| v.is_some())
            .flat_map_values(|_, v| [v.clone(), v.map(|v| v + "'")])
            .map_values(|k, v| format!("{}:{}", text(k), text(&v)))
            .filter_not(|_, v| v.contains('3'))
            .to("out"),
        "branch-merge" => {
            let branches = stream(b)
                .split_with("x-")
                .branch_with(|_, v| v.is_none(), "n")
                .branch_with(|_, v| text(v) < "v5", "low")
                .default_branch_with("rest");
            branches["x-low"]
                .map_values(|_, v| v.map(|v| format!("L{v}")))
                .merge(&branches["x-rest"])
                .merge(&branches["x-n"])
                .to("out");
        }
        "repartition" => stream(b)
            .select_key(|_, v| v.clone())
            .repartition_with(Repartitioned::named("r").with_number_of_partitions(1))
            .to("out"),
        _ => return false,
    }
    true
}
