//! A stream that is joined with itself, over two stores or over one: the same comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_api::Timestamp;
use broker_api::sim::Dice;
use streams_core::Topology;
use streams_dsl::{JoinWindows, Optimization, StreamsBuilder};

use crate::applications::joined;
use crate::history::Seen;
use crate::replayed::{Replayed, Row};
use crate::subject::{INPUT, OUTPUT, Subject};

#[derive(Clone, Copy, Debug)]
pub(crate) struct SelfJoined {
    one_store: bool,
    /// How much earlier and later the other record may be, in milliseconds.
    before: u64,
    after: u64,
}

const GRACE: u64 = 10;

impl SelfJoined {
    pub(crate) fn subject(dice: &mut Dice) -> Box<dyn Subject> {
        let one_store = dice.one_in(2);
        let this = Self { one_store, before: dice.pick(&[0, 15]), after: dice.pick(&[3, 15]) };
        Box::new(Replayed::like(move || this.topology(), move |input| this.answers(input)))
    }

    fn topology(self) -> Topology {
        let builder = StreamsBuilder::new();
        let input = builder.stream::<String, String>(INPUT);
        let millis = Duration::from_millis;
        let windows = JoinWindows::of(millis(self.after)).before(millis(self.before));
        let windows = windows.grace(millis(GRACE));
        input.join(&input, |_, l, r| joined(l, Some(r)), windows).to(OUTPUT);
        let optimization =
            Optimization { single_store_self_join: self.one_store, ..Optimization::NONE };
        builder.build_with(optimization).expect("the topology is sound")
    }

    /// A record is first the left one of its pairs, then the right one; the pair with itself is one of
    /// the latter. Others come in the order of their times.
    fn answers(self, input: &[Seen]) -> Vec<Row> {
        let [before, after] = [self.before, self.after].map(u64::cast_signed);
        let retention = before + after + GRACE.cast_signed();
        let mut kept = BTreeMap::<String, Vec<(Timestamp, String)>>::new();
        let (mut answers, mut now) = (Vec::new(), -1);
        for record in input {
            let (key, value) = (record.key_text(), record.text().unwrap_or_default());
            let time = record.timestamp;
            let known = kept.entry(key.clone()).or_default();
            let pair = |left: &str, right: &String, other: Timestamp| {
                (key.clone(), Some(joined(left, Some(right))), time.max(other))
            };
            for (other, right) in known.iter() {
                let is_near = (time - before..=time + after).contains(other);
                if is_near && *other > now - retention {
                    answers.push(pair(&value, right, *other));
                }
            }
            now = now.max(time);
            if time > now - retention {
                let place = known.partition_point(|(other, _)| *other <= time);
                known.insert(place, (time, value.clone()));
            }
            for (other, left) in known.iter() {
                let is_near = (time - after..=time + before).contains(other);
                if is_near && *other > now - retention {
                    answers.push(pair(left, &value, *other));
                }
            }
        }
        answers
    }
}
