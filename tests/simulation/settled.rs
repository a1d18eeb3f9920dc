//! An application of several stages, whose last word is fixed whatever came between.
//!
//! Two tables are joined by a foreign key. The order in which their changes meet depends on threads and
//! ends, and so do the results in between. When all is processed, the last result of each row is what the
//! last rows of both tables give.

use std::collections::BTreeMap;

use broker_api::sim::Dice;
use broker_api::{CommittedOffset, TopicPartition};
use streams_core::Topology;
use streams_dsl::StreamsBuilder;

use crate::Failure;
use crate::applications::{by_foreign_key, joined, refers_to, row};
use crate::history::History;
use crate::oracle::ensure;
use crate::subject::{INPUT, OUTPUT, Subject};

/// Orders (`l`) that refer to customers (`r`).
pub(crate) struct ForeignKey {
    caching: bool,
}

impl ForeignKey {
    pub(crate) fn subject(dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(Self { caching: dice.one_in(2) })
    }

    /// The last rows of a side, from the input's records of all partitions.
    fn rows(side: char, history: &History, partitions: u32) -> BTreeMap<String, String> {
        let mut rows = BTreeMap::new();
        for record in (0..partitions).flat_map(|p| history.records(INPUT, p)) {
            let value = record.text().unwrap_or_default();
            if value.starts_with(side) {
                match row(&value) {
                    Some(row) => rows.insert(record.key_text(), row),
                    None => rows.remove(&record.key_text()),
                };
            }
        }
        rows
    }
}

impl Subject for ForeignKey {
    fn topology(&self) -> Topology {
        let builder = StreamsBuilder::new();
        by_foreign_key(builder.stream(INPUT), self.caching).to(OUTPUT);
        builder.build().expect("the topology is sound")
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, String) {
        // Keys tell the partition of the input, so that their changes have one order.
        let partition = name.split('.').next().unwrap_or_default();
        let key = |dice: &mut Dice| format!("{partition}.{}", dice.within(0..6));
        let (row, other) = (key(dice), key(dice));
        let deleted = if dice.one_in(6) { "-" } else { "" };
        match dice.one_in(2) {
            true => (format!("l{row}"), format!("l{name}>{other}{deleted}")),
            false => (other, format!("r{name}{deleted}")),
        }
    }

    fn disorder(&self) -> u64 {
        50
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
        let rows = |side| Self::rows(side, history, partitions);
        let (left, right) = (rows('l'), rows('r'));
        let result = |value: &String| {
            let other = refers_to(value).and_then(|key| right.get(&key));
            joined(value, other.map(String::as_str))
        };
        let expected: BTreeMap<String, String> =
            left.iter().map(|(key, value)| (key.clone(), result(value))).collect();
        let mut found = BTreeMap::new();
        for record in (0..partitions).flat_map(|p| history.records(OUTPUT, p)) {
            match record.text() {
                Some(value) => found.insert(record.key_text(), value),
                None => found.remove(&record.key_text()),
            };
        }
        ensure!(found == expected, "the rows are joined to {found:?} instead of {expected:?}");
        Ok(())
    }
}
