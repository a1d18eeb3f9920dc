//! Several streams in one aggregate.

use streams_dsl::{CogroupedKStream, Materialized, StreamsBuilder};

use super::{Text, stream, text};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case {
        "cogroup" => {
            cogrouped(b).aggregate_with(String::new, Materialized::named("s")).to_stream().to("out")
        }
        _ => return false,
    }
    true
}

fn cogrouped(b: &StreamsBuilder) -> CogroupedKStream<Text, String> {
    let a = stream(b).group_by_key();
    a.cogroup(|_, v, so_far: String| so_far + text(&v))
        .cogroup(&b.stream::<Text, Text>("b").group_by_key(), |_, v, so_far| {
            format!("{so_far}<{}>", text(&v))
        })
}
