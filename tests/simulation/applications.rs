//! The windowed and joining applications that the simulation kills.

use std::time::Duration;

use broker_api::sim::Dice;
use streams_dsl::{JoinWindows, KStream};

use crate::replayed::Replayed;
use crate::subject::Subject;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The records of a side.
fn side(input: &KStream<String, String>, name: char) -> KStream<String, String> {
    input.filter(move |_, value| value.starts_with(name))
}

/// A left join of two streams: what finds no partner waits in a buffer for its time.
pub(crate) fn left_join(_: &mut Dice) -> Box<dyn Subject> {
    let application = |input: KStream<String, String>| {
        let (left, right) = (side(&input, 'l'), side(&input, 'r'));
        let join = |_: &String, l: &String, r: Option<&String>| match r {
            Some(r) => format!("{l}+{r}"),
            None => format!("{l}+"),
        };
        left.left_join(&right, join, JoinWindows::of(millis(15)).grace(millis(10)))
            .map_values(|_, pair| Some(pair))
    };
    Box::new(Replayed { application, disorder: 40 })
}
