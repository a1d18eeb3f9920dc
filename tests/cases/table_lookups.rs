//! Joins of a stream with tables that it looks into.

use streams_dsl::{Consumed, Materialized, StreamsBuilder};

use super::{Text, stream, text};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case.strip_prefix("stream-global-") {
        Some(how) => global(how, b),
        None => false,
    }
}

/// `stream-global-KIND`.
fn global(how: &str, b: &StreamsBuilder) -> bool {
    let stream = stream(b);
    let named = Materialized::<String, String>::named("t");
    let table = b.global_table_with("b", Consumed::default(), named);
    let key = |k: &Text, v: &Text| {
        v.as_ref().filter(|v| *v != "v3")?;
        k.clone()
    };
    match how {
        "inner" => stream.join_global(&table, key, |k, v, t| pair(k, v, Some(t))).to("out"),
        _ => stream.left_join_global(&table, key, pair).to("out"),
    }
    true
}

fn pair(_: &Text, value: &Text, found: Option<&String>) -> Text {
    Some(format!("{}+{}", text(value), found.map_or("null", String::as_str)))
}
