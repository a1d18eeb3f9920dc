//! Tables: what is derived from one.

use streams_dsl::{Consumed, KTable, Materialized, StreamsBuilder, TableJoined};

use super::table;

fn named(b: &StreamsBuilder, topic: &str, store: &str) -> KTable<String, String> {
    b.table_with(topic, Consumed::default(), Materialized::named(store))
}

fn foreign_key(_: &String, row: &String) -> String {
    format!("k{}", row.as_bytes().last().map_or(0, |last| last % 5))
}

pub(super) fn pair(left: Option<&String>, right: Option<&String>) -> String {
    let text = |value: Option<&String>| value.map_or("null", String::as_str).to_string();
    text(left) + "+" + &text(right)
}

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case {
        "table" => table(b).to_stream().to("out"),
        "table-filter" => table(b).filter(|_, v| v.as_str() < "v5").to_stream().to("out"),
        "table-filter-stored" => table(b)
            .filter_with(|_, v| v.as_str() < "v5", Materialized::named("f"))
            .map_values_with(|_, v| v + "!", Materialized::named("m"))
            .to_stream()
            .to("out"),
        "table-group-count" => table(b)
            .group_by(|k, v| (v, k.clone()))
            .count_with(Materialized::named("c"))
            .to_stream()
            .map_values(|_, n| n.map(|n| n.to_string()))
            .to("out"),
        "table-group-reduce" => table(b)
            .group_by(|_, v| (v[..1].to_string(), v))
            .reduce_with(|x, y| x + "+" + &y, |x, y| x + "-" + &y, Materialized::named("r"))
            .to_stream()
            .to("out"),
        "table-table-inner" => {
            let join = |_: &String, l: &String, r: &String| format!("{l}+{r}");
            named(b, "a", "l").join(&named(b, "b", "r"), join).to_stream().to("out");
        }
        "table-table-left" => {
            let join = |_: &String, l: &String, r: Option<&String>| pair(Some(l), r);
            named(b, "a", "l").left_join(&named(b, "b", "r"), join).to_stream().to("out");
        }
        "table-table-outer" => {
            let join = |_: &String, l: Option<&String>, r: Option<&String>| pair(l, r);
            named(b, "a", "l").outer_join(&named(b, "b", "r"), join).to_stream().to("out");
        }
        "table-table-table" => named(b, "a", "l")
            .left_join_with(
                &named(b, "b", "r"),
                |_, l, r| pair(Some(l), r),
                Materialized::named("lr"),
            )
            .outer_join(&named(b, "c", "t"), |_, l, r| pair(l, r))
            .to_stream()
            .to("out"),
        "foreign-key-inner" => named(b, "a", "l")
            .join_on_foreign_key_with(
                &named(b, "b", "r"),
                foreign_key,
                |_, l, r| pair(Some(l), Some(r)),
                TableJoined::default(),
                Materialized::named("j"),
            )
            .to_stream()
            .to("out"),
        "foreign-key-left" => named(b, "a", "l")
            .left_join_on_foreign_key_with(
                &named(b, "b", "r"),
                |k, v| (v != "v3").then(|| foreign_key(k, v)),
                |_, l, r| pair(Some(l), r),
                TableJoined::default(),
                Materialized::named("j"),
            )
            .to_stream()
            .to("out"),
        _ => return false,
    }
    true
}
