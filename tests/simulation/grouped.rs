//! A table whose rows are grouped and summed up, where a change takes the old row out of one group and puts
//! the new one into another, perhaps of another task.
//!
//! The two halves of a change travel by themselves, so what a group says on the way depends on who is
//! faster. In the end it is the sum of the rows that are there.

use std::collections::BTreeMap;

use broker_api::sim::Dice;
use streams_core::Topology;
use streams_dsl::{Consumed, StreamsBuilder};

use crate::applications::{refers_to, store};
use crate::history::History;
use crate::in_the_end::{InTheEnd, Settling};
use crate::source_topics::reusing;
use crate::subject::{INPUT, OUTPUT, Subject};

/// Rows name their group behind a `>`.
pub(crate) struct Grouped {
    rows_cached: bool,
    sums_cached: bool,
    /// The rows are restored from the input, or from a changelog.
    reused: bool,
}

impl Grouped {
    pub(crate) fn subject(dice: &mut Dice) -> Box<dyn Subject> {
        let [rows_cached, sums_cached, reused] = [(); 3].map(|()| dice.one_in(2));
        Box::new(InTheEnd(Self { rows_cached, sums_cached, reused }))
    }
}

/// What a row adds: its number in the run, unlike that of all others.
fn number(row: &str) -> i64 {
    let name = row.split('>').next().unwrap_or_default();
    name.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// How many rows and their sum, with one more or less; nothing once there is none.
fn changed(so_far: &str, rows: i64, number: i64) -> Option<String> {
    let (count, sum) = so_far.split_once(':').unwrap_or(("0", "0"));
    let count = count.parse::<i64>().unwrap_or(0) + rows;
    let sum = sum.parse::<i64>().unwrap_or(0) + rows * number;
    ((count, sum) != (0, 0)).then(|| format!("{count}:{sum}"))
}

impl Settling for Grouped {
    fn topology(&self) -> Topology {
        let builder = StreamsBuilder::new();
        builder
            .table_with(INPUT, Consumed::default(), store("rows", self.rows_cached))
            .group_by(|_: &String, row: String| (refers_to(&row), number(&row)))
            .aggregate_with(
                String::new,
                |_, number, so_far: String| changed(&so_far, 1, number),
                |_, number, so_far: String| changed(&so_far, -1, number),
                store("sums", self.sums_cached),
            )
            .to_stream()
            .to(OUTPUT);
        builder.build_with(reusing(self.reused)).expect("the topology is sound")
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        // A key belongs to one partition of the input, which gives its rows an order.
        let partition = name.split('.').next().unwrap_or_default();
        let key = format!("{partition}.{}", dice.within(0..4));
        let group = if dice.one_in(6) { "" } else { dice.pick(&[">x", ">y", ">z"]) };
        (key, (!dice.one_in(5)).then(|| format!("{name}{group}")))
    }

    fn result(&self, history: &History, partitions: u32) -> BTreeMap<String, String> {
        let mut rows = BTreeMap::new();
        for record in (0..partitions).flat_map(|p| history.records(INPUT, p)) {
            rows.insert(record.key_text(), record.text());
        }
        let mut expected = BTreeMap::<String, String>::new();
        for row in rows.into_values().flatten() {
            if let Some(group) = refers_to(&row) {
                let sum = expected.remove(&group).unwrap_or_default();
                expected.extend(changed(&sum, 1, number(&row)).map(|sum| (group, sum)));
            }
        }
        expected
    }
}
