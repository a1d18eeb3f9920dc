//! Versioned tables, with a history of 100 ms.

use std::time::Duration;

use streams_core::HasSerde;
use streams_dsl::{Consumed, Joined, KTable, Materialized, StreamsBuilder};

use super::{Text, stream, table_lookups, tables};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case {
        "stream-versioned-inner" | "stream-versioned-left" | "stream-versioned-grace" => {
            let (stream, table) = (stream(b), versioned::<Text>(b, "b", "t"));
            let pair = table_lookups::pair;
            let grace = Joined::named("j").with_grace(Duration::from_millis(20));
            let inner = move |k: &Text, v: &Text, t: &String| pair(k, v, Some(t));
            match case.rsplit_once('-') {
                Some((_, "inner")) => stream.join_table(&table, inner).to("out"),
                Some((_, "grace")) => stream.join_table_with(&table, inner, grace).to("out"),
                _ => stream.left_join_table(&table, pair).to("out"),
            }
        }
        "versioned-table-group" => versioned::<String>(b, "a", "s")
            .group_by(|_, v| (v[..1].to_string(), v))
            .reduce_with(|x, y| x + "+" + &y, |x, y| x + "-" + &y, Materialized::named("r"))
            .to_stream()
            .to("out"),
        "versioned-table-join" => versioned::<String>(b, "a", "l")
            .left_join(&versioned(b, "b", "r"), |_, l, r| tables::pair(Some(l), r))
            .to_stream()
            .to("out"),
        _ => return false,
    }
    true
}

fn versioned<K: HasSerde + Clone + Send + std::hash::Hash + Eq>(
    b: &StreamsBuilder,
    topic: &str,
    store: &str,
) -> KTable<K, String> {
    let kept = Materialized::versioned(store, Duration::from_millis(100));
    b.table_with(topic, Consumed::default(), kept)
}
