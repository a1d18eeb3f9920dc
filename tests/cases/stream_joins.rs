//! Joins of two streams.

use std::time::Duration;

use streams_dsl::{JoinWindows, StreamsBuilder};

use super::{Text, pair, stream};

/// `stream-stream-[asymmetric-]KIND-graceN`, and the self-join.
pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    if case == "stream-self-join" {
        let l = stream(b);
        l.join(&l, pair, windows(5, 5, 10)).to("out");
        return true;
    }
    let Some(case) = case.strip_prefix("stream-stream-") else {
        return false;
    };
    let (case, grace) = match case.rsplit_once("-grace") {
        Some((case, grace)) => (case, grace.parse().unwrap_or_default()),
        None => return false,
    };
    let (kind, windows) = match case.strip_prefix("asymmetric-") {
        Some(kind) => (kind, windows(3, 12, grace)),
        None => (case, windows(10, 10, grace)),
    };
    let (l, r) = (stream(b), b.stream::<Text, Text>("b"));
    match kind {
        "inner" => l.join(&r, pair, windows),
        "left" => l.left_join(&r, |k, l, r| pair(k, l, r.unwrap_or(&None)), windows),
        "outer" => {
            l.outer_join(&r, |k, l, r| pair(k, l.unwrap_or(&None), r.unwrap_or(&None)), windows)
        }
        _ => return false,
    }
    .to("out");
    true
}

fn windows(before: u64, after: u64, grace: u64) -> JoinWindows {
    let [before, after, grace] = [before, after, grace].map(Duration::from_millis);
    JoinWindows::of(before).after(after).grace(grace)
}
