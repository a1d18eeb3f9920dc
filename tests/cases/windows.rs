//! Aggregates in tumbling, hopping, sliding and unlimited windows.

use std::time::Duration;

use streams_core::{Data, Windowed};
use streams_dsl::{
    EmitStrategy, KTable, Materialized, SlidingWindows, StreamsBuilder, TimeWindowedKStream,
    TimeWindows, UnlimitedWindows, Windows,
};

use super::{Text, stream, text};

/// `KIND-[on-close-]graceN`, and `unlimited`.
pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    if case == "unlimited" {
        emit(append(&windowed(b, UnlimitedWindows::of().start_on(20))));
        return true;
    }
    let Some((case, grace)) = case.rsplit_once("-grace") else { return false };
    let Ok(grace) = grace.parse().map(Duration::from_millis) else { return false };
    let ms = Duration::from_millis;
    let (tumbling, sliding) = (TimeWindows::of(ms(10)), SlidingWindows::of(ms(10)));
    let on_close = EmitStrategy::on_window_close();
    match case {
        "tumbling" => emit(append(&windowed(b, tumbling.grace(grace)))),
        "hopping" => {
            let hopping = windowed(b, tumbling.advance_by(ms(4)).grace(grace));
            emit(hopping.count_with(Materialized::named("s")));
        }
        "sliding" => emit(append(&windowed(b, sliding.grace(grace)))),
        "tumbling-on-close" => {
            emit(append(&windowed(b, tumbling.grace(grace)).emit_strategy(on_close)));
        }
        "sliding-on-close" => {
            emit(append(&windowed(b, sliding.grace(grace)).emit_strategy(on_close)));
        }
        _ => return false,
    }
    true
}

pub(super) fn windowed<W>(b: &StreamsBuilder, windows: W) -> TimeWindowedKStream<Text, Text>
where
    W: Windows<Stream<Text, Text> = TimeWindowedKStream<Text, Text>>,
{
    stream(b).group_by_key().windowed_by(windows)
}

pub(super) fn append(windowed: &TimeWindowedKStream<Text, Text>) -> KTable<Windowed<Text>, String> {
    let fold = |_: &Text, value: Text, so_far: String| so_far + text(&value);
    windowed.aggregate_with(String::new, fold, Materialized::named("s"))
}

/// To topic `out`, with keys as text.
pub(super) fn emit<V: Data + ToString>(table: KTable<Windowed<Text>, V>) {
    let key = |key: &Windowed<Text>| {
        let Windowed { key, window } = key;
        Some(format!("{}@{}/{}", text(key), window.start, window.end))
    };
    table
        .to_stream()
        .select_key(move |k, _| key(k))
        .map_values(|_, v| v.map(|v| v.to_string()))
        .to("out");
}
