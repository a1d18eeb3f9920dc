//! Joins of a stream with tables that it looks into.

use streams_dsl::{Consumed, KStream, Materialized, StreamsBuilder};

use super::{Text, stream, text};

/// `stream-table-[rekeyed-]KIND` and `stream-global-KIND`.
pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    if let Some(how) = case.strip_prefix("stream-global-") {
        global(how, b);
    } else if let Some(how) = case.strip_prefix("stream-table-rekeyed-") {
        let last = |v: &String| v.bytes().last().unwrap_or_default() % 5;
        let rekeyed = stream(b).select_key(move |_, v| v.as_ref().map(|v| format!("k{}", last(v))));
        table(how, b, &rekeyed);
    } else if let Some(how) = case.strip_prefix("stream-table-") {
        let stream = stream(b);
        table(how, b, &stream);
    } else {
        return false;
    }
    true
}

/// Stream and table have nullable keys alike.
fn table(how: &str, b: &StreamsBuilder, stream: &KStream<Text, Text>) {
    let named = Materialized::<Text, String>::named("t");
    let table = b.table_with("b", Consumed::default(), named);
    match how {
        "inner" => stream.join_table(&table, |k, v, t| pair(k, v, Some(t))).to("out"),
        _ => stream.left_join_table(&table, pair).to("out"),
    }
}

fn global(how: &str, b: &StreamsBuilder) {
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
}

pub(super) fn pair(_: &Text, value: &Text, found: Option<&String>) -> Text {
    Some(format!("{}+{}", text(value), found.map_or("null", String::as_str)))
}
