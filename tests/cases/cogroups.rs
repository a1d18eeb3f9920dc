//! Several streams in one aggregate.

use std::time::Duration;

use streams_dsl::{CogroupedKStream, Materialized, SessionWindows, StreamsBuilder, TimeWindows};

use super::sessions::merge;
use super::windows::emit;
use super::{Text, stream, text};

/// `cogroup`, `cogroup-tumbling` and `cogroup-session`.
pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    let ms = Duration::from_millis;
    match case {
        "cogroup" => {
            cogrouped(b).aggregate_with(String::new, Materialized::named("s")).to_stream().to("out")
        }
        "cogroup-tumbling" => {
            let windows = TimeWindows::of(ms(10)).grace(ms(5));
            let windowed = cogrouped(b).windowed_by(windows);
            emit(windowed.aggregate_with(String::new, Materialized::named("s")));
        }
        "cogroup-session" => {
            let windows = SessionWindows::of(ms(6)).grace(ms(5));
            let windowed = cogrouped(b).windowed_by(windows);
            emit(windowed.aggregate_with(String::new, merge, Materialized::named("s")));
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
