//! The topologies of `peer-kafka/src/Oracle.java`, in the DSL: a file for each family of operators.

mod aggregates;
mod cogroups;
mod processors;
mod sessions;
mod stateless;
mod stream_joins;
mod suppress;
mod table_lookups;
mod tables;
mod versioned;
mod windows;

use streams_dsl::{Consumed, KStream, KTable, Materialized, StreamsBuilder};

pub(crate) type Text = Option<String>;

/// Builds the topology of a case, if there are operators for it.
pub(crate) fn build(case: &str, b: &StreamsBuilder) -> bool {
    stateless::build(case, b)
        || aggregates::build(case, b)
        || cogroups::build(case, b)
        || sessions::build(case, b)
        || tables::build(case, b)
        || stream_joins::build(case, b)
        || windows::build(case, b)
        || versioned::build(case, b)
        || suppress::build(case, b)
        || processors::build(case, b)
        || table_lookups::build(case, b)
}

fn stream(b: &StreamsBuilder) -> KStream<Text, Text> {
    b.stream("a")
}

fn table(b: &StreamsBuilder) -> KTable<String, String> {
    b.table_with("a", Consumed::default(), Materialized::named("s"))
}

pub(crate) fn text(value: &Text) -> &str {
    value.as_deref().unwrap_or("null")
}

fn pair(_: &Text, left: &Text, right: &Text) -> Text {
    Some(format!("{}+{}", text(left), text(right)))
}
