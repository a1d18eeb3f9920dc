//! Rows that refer to other rows, and what they must come to.
//!
//! Both tables go through a repartition topic, and the two sides of their join talk through two more:
//! four stages that are committed by different tasks, and answers that may overtake each other. What is
//! said on the way depends on who is faster; in the end the output is the join of the two tables.

use std::collections::BTreeMap;

use broker_api::sim::Dice;
use broker_api::{CommittedOffset, TopicPartition};
use streams_core::Topology;
use streams_dsl::{KTable, Materialized, StreamsBuilder};

use crate::Failure;
use crate::history::History;
use crate::oracle::{Keeps, difference, ensure};
use crate::subject::{INPUT, OUTPUT, Subject};

pub(crate) struct ForeignKeys {
    caching: bool,
    is_left: bool,
}

impl ForeignKeys {
    pub(crate) fn subject(dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(Self { caching: dice.one_in(2), is_left: dice.one_in(2) })
    }

    /// What the tables are in the end: left and right.
    fn tables(history: &History, partitions: u32) -> [BTreeMap<String, String>; 2] {
        let mut tables = [BTreeMap::new(), BTreeMap::new()];
        for p in 0..partitions {
            for record in history.records(INPUT, p) {
                let value = record.text().unwrap_or_default();
                let table = &mut tables[usize::from(value.starts_with('r'))];
                match present(&value) {
                    Some(row) => drop(table.insert(record.key_text(), row)),
                    None => drop(table.remove(&record.key_text())),
                }
            }
        }
        tables
    }
}

/// The row that a value stands for; one that ends with a minus sign deletes it.
fn present(value: &str) -> Option<String> {
    (!value.ends_with('-')).then(|| value.to_owned())
}

/// The key that a row refers to.
fn foreign_key(row: &str) -> Option<String> {
    row.split_once('>').map(|(_, key)| key.to_owned())
}

fn pair(left: &str, right: Option<&String>) -> String {
    format!("{left}+{}", right.map_or("", String::as_str))
}

impl Subject for ForeignKeys {
    fn topology(&self) -> Topology {
        let builder = StreamsBuilder::new();
        let input = builder.stream::<String, String>(INPUT).select_key(|key, _| key.clone());
        let table = |side: char, store| -> KTable<String, String> {
            let kept = Materialized::named(store);
            let kept = if self.caching { kept } else { kept.with_caching_disabled() };
            let rows = input.filter(move |_, value| value.starts_with(side));
            rows.map_values(|_, value| present(&value)).to_table_with(kept)
        };
        let (left, right) = (table('l', "left"), table('r', "right"));
        let joined = match self.is_left {
            true => {
                left.left_join_on_foreign_key(&right, |_, l| foreign_key(l), |_, l, r| pair(l, r))
            }
            false => {
                left.join_on_foreign_key(&right, |_, l| foreign_key(l), |_, l, r| pair(l, Some(r)))
            }
        };
        joined.to_stream().to(OUTPUT);
        builder.build().expect("the topology is sound")
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, String) {
        // A key belongs to one partition of the input, which gives its rows an order.
        let partition = name.split('.').next().unwrap_or_default();
        let key = format!("{partition}.{}", dice.pick(&["a", "b"]));
        let refers_to = dice.pick(&[">0.a", ">0.b", ">1.a", ">2.b", ""]);
        let value = match (dice.one_in(2), dice.one_in(4)) {
            (true, false) => format!("l{name}{refers_to}"),
            (false, false) => format!("r{name}"),
            (is_left, true) => format!("{}{name}-", if is_left { 'l' } else { 'r' }),
        };
        (key, value)
    }

    fn disorder(&self) -> u64 {
        50
    }

    fn keeps(&self) -> Keeps {
        Keeps::All
    }

    fn committed(
        &self,
        _: &History,
        _: &[(TopicPartition, CommittedOffset)],
        _: u32,
        _: bool,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn finished(&self, history: &History, partitions: u32) -> Result<(), Failure> {
        let [left, right] = Self::tables(history, partitions);
        let mut expected = BTreeMap::new();
        for (key, row) in left {
            let other = foreign_key(&row).and_then(|key| right.get(&key));
            if self.is_left || other.is_some() {
                expected.insert(key, pair(&row, other));
            }
        }
        let mut found = BTreeMap::new();
        for record in (0..partitions).flat_map(|p| history.records(OUTPUT, p)) {
            match record.text() {
                Some(value) => drop(found.insert(record.key_text(), value)),
                None => drop(found.remove(&record.key_text())),
            }
        }
        let rows = |of: BTreeMap<String, String>| of.into_iter().collect::<Vec<_>>();
        let (found, expected) = (rows(found), rows(expected));
        ensure!(
            found == expected,
            "the join is not that of the tables: {}",
            difference(&found, &expected)
        );
        Ok(())
    }
}
