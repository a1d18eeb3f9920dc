//! The windowed and joining applications that the simulation kills.

use std::time::Duration;

use broker_api::sim::Dice;
use streams_core::Windowed;
use streams_dsl::{
    BufferConfig, EmitStrategy, JoinWindows, KStream, Materialized, SessionWindows, SlidingWindows,
    Suppressed, TimeWindows,
};

use crate::replayed::{Application, Replayed};
use crate::subject::Subject;

type Input = KStream<String, String>;
type Output = KStream<String, Option<String>>;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// One of two applications.
fn one_of(first: Application, second: Application, dice: &mut Dice) -> Box<dyn Subject> {
    let application = if dice.one_in(2) { first } else { second };
    Box::new(Replayed { application, disorder: 50 })
}

/// A window's key as text.
fn text(key: &Windowed<String>) -> String {
    format!("{}@{}", key.key, key.window.start)
}

/// How many records there were in each window: every count in overlapping ones, or the last one
/// alone.
pub(crate) fn windowed_count(dice: &mut Dice) -> Box<dyn Subject> {
    one_of(every_count, last_count, dice)
}

fn every_count(input: Input) -> Output {
    input
        .group_by_key()
        .windowed_by(TimeWindows::of(millis(20)).advance_by(millis(7)).grace(millis(15)))
        .count_with(Materialized::named("counts").with_caching_disabled())
        .to_stream()
        .map(|key, count| (text(&key), count.map(|n| n.to_string())))
}

fn last_count(input: Input) -> Output {
    input
        .group_by_key()
        .windowed_by(TimeWindows::of(millis(20)).grace(millis(15)))
        .emit_strategy(EmitStrategy::on_window_close())
        .count_with(Materialized::named("counts"))
        .to_stream()
        .map(|key, count| (text(&key), count.map(|n| n.to_string())))
}

/// The values of each sliding window: every one that a window has had, or the last one alone.
pub(crate) fn sliding(dice: &mut Dice) -> Box<dyn Subject> {
    one_of(|input| slid(&input, false), |input| slid(&input, true), dice)
}

fn slid(input: &Input, on_close: bool) -> Output {
    let windowed =
        input.group_by_key().windowed_by(SlidingWindows::of(millis(12)).grace(millis(15)));
    let emit = match on_close {
        true => EmitStrategy::on_window_close(),
        false => EmitStrategy::on_window_update(),
    };
    windowed
        .emit_strategy(emit)
        .reduce_with(
            |all, value| format!("{all} {value}"),
            Materialized::named("slid").with_caching_disabled(),
        )
        .to_stream()
        .map(|key, values| (text(&key), values))
}

/// The values of each session: every one that a session has had, of two streams in one aggregate, or the
/// last one alone.
pub(crate) fn sessions(dice: &mut Dice) -> Box<dyn Subject> {
    one_of(every_session, last_session, dice)
}

fn every_session(input: Input) -> Output {
    let side = |name: char| input.filter(move |_, value| value.starts_with(name)).group_by_key();
    side('l')
        .cogroup(|_, value, so_far: String| format!("{so_far} {value}"))
        .cogroup(&side('r'), |_, value, so_far| format!("{so_far} <{value}>"))
        .windowed_by(SessionWindows::of(millis(8)).grace(millis(15)))
        .aggregate_with(
            String::new,
            |_, earlier, later| format!("({earlier} |{later})"),
            Materialized::named("sessions").with_caching_disabled(),
        )
        .to_stream()
        .map(|key, values| (session(&key), values))
}

fn last_session(input: Input) -> Output {
    input
        .group_by_key()
        .windowed_by(SessionWindows::of(millis(8)).grace(millis(15)))
        .emit_strategy(EmitStrategy::on_window_close())
        .reduce_with(|all, value| format!("{all} {value}"), Materialized::named("sessions"))
        .to_stream()
        .map(|key, values| (session(&key), values))
}

fn session(key: &Windowed<String>) -> String {
    format!("{}-{}", text(key), key.window.end)
}

/// A left join of two streams, where what finds no partner waits for its time; or the last word on
/// its pairs in each window, which waits in turn.
pub(crate) fn left_join(dice: &mut Dice) -> Box<dyn Subject> {
    one_of(|input| pairs(&input).map_values(|_, pair| Some(pair)), last_pairs, dice)
}

fn pairs(input: &Input) -> KStream<String, String> {
    let side = |name: char| input.filter(move |_, value| value.starts_with(name));
    let pair = |_: &String, left: &String, right: Option<&String>| match right {
        Some(right) => format!("{left}+{right}"),
        None => format!("{left}+"),
    };
    let windows = JoinWindows::of(millis(15)).grace(millis(10));
    side('l').left_join(&side('r'), pair, windows)
}

fn last_pairs(input: Input) -> Output {
    pairs(&input)
        .group_by_key()
        .windowed_by(TimeWindows::of(millis(20)).grace(millis(30)))
        .reduce_with(
            |all, pair| format!("{all} {pair}"),
            Materialized::named("pairs").with_caching_disabled(),
        )
        .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
        .to_stream()
        .map(|key, pairs| (text(&key), pairs))
}
