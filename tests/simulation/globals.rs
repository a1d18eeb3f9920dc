//! A stream joined with a global table, whose topic changes all the time.
//!
//! Nothing is said about the order between the two, so several results are right: a record finds what is
//! there. What is promised all the same, for each result:
//!
//! - It is there once, as every result: the input that is consumed has its results, in its order.
//! - It shows a value that the topic has, never one that a power cut has taken back.
//! - It is at least as new as what the topic had when the process began.
//! - It is at least as new as what the record before it has found: the table never goes back, not over a
//!   crash either.

use std::collections::BTreeMap;

use broker_api::partitioner::partition_of;
use broker_api::sim::Dice;
use broker_api::{CommittedOffset, Offset, TopicPartition};
use streams_core::Topology;
use streams_dsl::{Consumed, Materialized, StreamsBuilder};

use crate::Failure;
use crate::applications::{joined, refers_to};
use crate::history::{History, Seen};
use crate::oracle::{consumed, ensure};
use crate::subject::{INPUT, OUTPUT, Subject, TABLE};

/// Looks every record up.
pub(crate) struct Globals {
    /// It reads the whole topic anew whenever it begins.
    in_memory: bool,
    begins: Vec<Begin>,
}

/// What there was when a process began: the ends of each partition.
struct Begin {
    output: Vec<Offset>,
    table: Vec<Offset>,
}

impl Globals {
    pub(crate) fn subject(dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(Self { in_memory: dice.one_in(2), begins: Vec::new() })
    }

    /// The first version of a key, by number, that the process may have found which wrote this result.
    fn oldest(&self, to: u32, result: &Seen, versions: &[&Seen], partition: u32) -> usize {
        let after = |begin: &&Begin| begin.output[to as usize] <= result.offset;
        let begins = self.begins.iter().filter(after);
        // A record may refer to a partition that there is not.
        let ends = begins.filter_map(|begin| begin.table.get(partition as usize));
        let end = ends.max().copied().unwrap_or(0);
        versions.partition_point(|version| version.offset < end)
    }
}

/// The key's partition is the number that it begins with.
fn partition(key: &str) -> u32 {
    key.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Subject for Globals {
    fn topology(&self) -> Topology {
        let builder = StreamsBuilder::new();
        let store = Materialized::<String, String>::named("looked-into");
        let store = if self.in_memory { store.in_memory() } else { store };
        let table = builder.global_table_with(TABLE, Consumed::default(), store);
        builder
            .stream::<String, String>(INPUT)
            .left_join_global(
                &table,
                |_, value| refers_to(value),
                |_, value, found| joined(value, found),
            )
            .to(OUTPUT);
        builder.build().expect("the topology is sound")
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        let key = format!("{}.{}", partition(name), dice.pick(&["a", "b", "c", "d"]));
        let refers_to = format!("{name}>{}.{}", dice.within(0..3), dice.pick(&["x", "y"]));
        (key, Some(refers_to))
    }

    fn change(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        let key = format!("{}.{}", partition(name), dice.pick(&["x", "y"]));
        (key, (!dice.one_in(4)).then(|| name.to_owned()))
    }

    fn opened(&mut self, history: &History, partitions: u32) {
        let ends = |topic| (0..partitions).map(|p| history.end(topic, p)).collect();
        self.begins.push(Begin { output: ends(OUTPUT), table: ends(TABLE) });
    }

    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        _: bool,
    ) -> Result<(), Failure> {
        for p in 0..partitions {
            // Keys begin with the partition of the input.
            let is_of_p = |result: &&Seen| partition(&result.key_text()) == p;
            let results = |to| history.records(OUTPUT, to).iter().filter(is_of_p);
            let mut results = (0..partitions).map(results).collect::<Vec<_>>();
            let mut found = BTreeMap::<String, usize>::new();
            for record in consumed(history, offsets, INPUT, p) {
                let value = record.text().unwrap_or_default();
                let to = partition_of(&record.key, partitions);
                let Some(result) = results[to as usize].next() else {
                    return Err(Failure::violation(format!("'{value}' has no result")));
                };
                let text = result.text().unwrap_or_default();
                ensure!(
                    result.key == record.key && result.timestamp == record.timestamp,
                    "'{text}' stands where the result of '{value}' should be"
                );
                let key = refers_to(&value).unwrap_or_default();
                let of_key = |version: &&Seen| version.key == key.as_bytes();
                let versions = history.records(TABLE, partition(&key)).iter().filter(of_key);
                let versions = versions.collect::<Vec<_>>();
                let begin = self.oldest(to, result, &versions, partition(&key));
                let oldest = begin.max(found.get(&key).copied().unwrap_or(0));
                // Before the first one there is nothing.
                let right = (oldest..=versions.len()).find(|number| {
                    let version = number.checked_sub(1).and_then(|at| versions[at].text());
                    text == joined(&value, version.as_ref())
                });
                let Some(right) = right else {
                    let versions: Vec<_> = versions.iter().map(|v| v.text()).collect();
                    let what = format!(
                        "'{text}' is not joined with one of {versions:?} from number {oldest} on (0 is nothing; {begin} were there at the beginning)"
                    );
                    return Err(Failure::violation(what));
                };
                found.insert(key, right);
            }
            let more = results.iter_mut().find_map(Iterator::next);
            ensure!(more.is_none(), "{more:?} is the result of nothing that is consumed");
        }
        Ok(())
    }
}
