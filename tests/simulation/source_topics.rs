//! A table that is restored from its own topic, as far as that was consumed, or from a changelog: a filter
//! that tells of a deletion only where there was something to delete shows what the table was before.

use std::collections::BTreeMap;

use broker_api::sim::Dice;
use streams_core::Topology;
use streams_dsl::{Consumed, Optimization, StreamsBuilder};

use crate::applications::store;
use crate::history::Seen;
use crate::replayed::{Replayed, Row};
use crate::subject::{INPUT, OUTPUT, Subject};

/// Rows of the left side, of a table where both sides replace each other.
pub(crate) fn filtered(dice: &mut Dice) -> Box<dyn Subject> {
    let reused = dice.one_in(2);
    Box::new(Replayed::like(move || topology(reused), answers).with_deletions())
}

/// What tells the two sides.
fn is_left(value: &str) -> bool {
    value.starts_with('l')
}

fn topology(reused: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let rows = builder.table_with(INPUT, Consumed::default(), store("rows", false));
    rows.filter(|_: &String, value: &String| is_left(value)).to_stream().to(OUTPUT);
    builder.build_with(reusing(reused)).expect("the topology is sound")
}

/// The optimization, or none.
pub(crate) fn reusing(reused: bool) -> Optimization {
    Optimization { reuse_source_topics: reused, ..Optimization::NONE }
}

fn answers(input: &[Seen]) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    let mut answers = Vec::new();
    for record in input {
        let (key, row) = (record.key_text(), record.text());
        let before = match row.clone() {
            Some(row) => rows.insert(key.clone(), row),
            None => rows.remove(&key),
        };
        let [left, left_before] = [row, before].map(|row| row.filter(|row| is_left(row)));
        if left.is_some() || left_before.is_some() {
            answers.push((key, left, record.timestamp));
        }
    }
    answers
}
