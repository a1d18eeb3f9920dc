//! Rows that refer to other rows, and what they must come to.
//!
//! Both tables go through a repartition topic, one for both or one each, and the two sides of their join
//! talk through two more: stages that are committed by different tasks, and answers that may overtake each
//! other. What is said on the way depends on who is faster; in the end the output is the join of the two
//! tables.

use std::collections::BTreeMap;

use broker_api::sim::Dice;
use streams_core::Topology;
use streams_dsl::StreamsBuilder;

use crate::applications::{by_foreign_key, joined, refers_to, row};
use crate::history::History;
use crate::in_the_end::{InTheEnd, Settling};
use crate::subject::{INPUT, OUTPUT, Subject};

/// Orders (`l`) that refer to customers (`r`).
pub(crate) struct ForeignKeys {
    caching: bool,
    is_left: bool,
    /// The input is repartitioned as a whole, and not each table by itself.
    together: bool,
    /// How many keys there are in each partition: with few, the same rows change all the time.
    keys: u64,
}

impl ForeignKeys {
    pub(crate) fn subject(dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(InTheEnd(Self {
            caching: dice.one_in(2),
            is_left: dice.one_in(2),
            together: dice.one_in(2),
            keys: dice.pick(&[2, 6]),
        }))
    }

    /// What the tables are in the end: left and right.
    fn tables(history: &History, partitions: u32) -> [BTreeMap<String, String>; 2] {
        let mut tables = [BTreeMap::new(), BTreeMap::new()];
        for record in (0..partitions).flat_map(|p| history.records(INPUT, p)) {
            let value = record.text().unwrap_or_default();
            let table = &mut tables[usize::from(value.starts_with('r'))];
            match row(&value) {
                Some(row) => table.insert(record.key_text(), row),
                None => table.remove(&record.key_text()),
            };
        }
        tables
    }
}

impl Settling for ForeignKeys {
    fn topology(&self) -> Topology {
        let builder = StreamsBuilder::new();
        let input = builder.stream::<String, String>(INPUT);
        let input = match self.together {
            true => input.repartition(),
            false => input.select_key(|key, _| key.clone()),
        };
        by_foreign_key(&input, self.is_left, self.caching).to(OUTPUT);
        builder.build().expect("the topology is sound")
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        // A key belongs to one partition of the input, which gives its rows an order.
        let partition = name.split('.').next().unwrap_or_default();
        let key = format!("{partition}.{}", dice.within(0..self.keys));
        let is_left = dice.one_in(2);
        let side = if is_left { 'l' } else { 'r' };
        let refers_to = match is_left && !dice.one_in(5) {
            true => format!(">{}.{}", dice.within(0..3), dice.within(0..self.keys)),
            false => String::new(),
        };
        let deleted = if dice.one_in(5) { "-" } else { "" };
        (key, Some(format!("{side}{name}{refers_to}{deleted}")))
    }

    fn result(&self, history: &History, partitions: u32) -> BTreeMap<String, String> {
        let [left, right] = Self::tables(history, partitions);
        let mut expected = BTreeMap::new();
        for (key, row) in left {
            let other = refers_to(&row).and_then(|key| right.get(&key));
            if self.is_left || other.is_some() {
                expected.insert(key, joined(&row, other));
            }
        }
        expected
    }
}
