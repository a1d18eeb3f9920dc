//! Tables that hold only so many keys: which one has to go depends on how lately each was used, and that is
//! known after a crash only as far as times tell it.

use std::collections::{BTreeMap, BTreeSet};

use broker_api::partitioner::partition_of;
use broker_api::sim::Dice;
use broker_api::{CommittedOffset, TopicPartition};
use streams_core::processor::{FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
use streams_core::{ProcessError, Topology};
use streams_dsl::Materialized;

use crate::Failure;
use crate::applications::{Input, Output, joined};
use crate::history::{History, Seen};
use crate::oracle::{consumed, ensure};
use crate::replayed::{Replayed, Row, found_in, record, results, topology};
use crate::subject::{INPUT, Subject};

/// How many of them; there are twice as many in a partition.
const MOST: usize = 2;

const STORE: &str = "few";

fn few() -> Materialized<String, String> {
    Materialized::named(STORE).lru_map(MOST)
}

/// All values of each key that is still known. Each use has a time of its own, so a crash changes nothing.
pub(crate) fn collected() -> Box<dyn Subject> {
    let application = |input: Input| -> Output {
        let fold = |all: String, value: String| format!("{all} {value}");
        input.process_values(|| Numbered).group_by_key().reduce_with(fold, few()).to_stream()
    };
    Box::new(Replayed::like(move || topology(application), collect))
}

/// What the records of a partition are answered.
fn collect(input: &[Seen]) -> Vec<Row> {
    let (mut known, mut answers) = (Vec::<(String, String)>::new(), Vec::new());
    for record in input {
        let (key, value) = (record.key_text(), record.text().unwrap_or_default());
        let time = number(&value);
        let value = match known.iter().position(|(known, _)| *known == key) {
            Some(at) => format!("{} {value}", known.remove(at).1),
            None => value,
        };
        known.push((key.clone(), value.clone()));
        if known.len() > MOST {
            known.remove(0);
        }
        answers.push((key, Some(value), time));
    }
    answers
}

/// Gives each record the time that its name says: no other one has it.
struct Numbered;

impl FixedKeyProcessor for Numbered {
    type Key = String;
    type VIn = String;
    type VOut = String;

    fn process(
        &mut self,
        record: FixedKeyRecord<String, String>,
        cx: &mut FixedKeyContext<'_, '_, String, String>,
    ) -> Result<(), ProcessError> {
        let time = number(record.value());
        cx.forward(record.with_timestamp(time));
        Ok(())
    }
}

fn number(value: &str) -> i64 {
    value.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Records of the left side look up what the right side said last. To be looked up is a use too, which a
/// crash forgets. So there are several right answers; but what is found is what was said last, what was
/// dropped does not come back, and what nobody else can have pushed out is there.
pub(crate) struct LookedUp;

/// What a table says of a key.
struct Entry {
    value: String,
    /// Which other keys were used since it was said.
    others: BTreeSet<String>,
    is_dropped: bool,
}

impl Subject for LookedUp {
    fn topology(&self) -> Topology {
        topology(|input| {
            let input = input.process_values(|| Numbered);
            let side = |name: char| input.filter(move |_, value| value.starts_with(name));
            let right = side('r').map_values(|_, value| is_said(&value).then_some(value));
            let table = right.to_table_with::<String>(few());
            side('l').left_join_table(&table, |_, l, r| Some(joined(l, r)))
        })
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        record(name, dice)
    }

    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        with_changelogs: bool,
    ) -> Result<(), Failure> {
        for p in 0..partitions {
            let found = (0..partitions).map(|to| results(history, to, p).into_iter());
            let mut found: Vec<_> = found.collect();
            let mut table = BTreeMap::<String, Entry>::new();
            for record in consumed(history, offsets, INPUT, p) {
                let (key, value) = (record.key_text(), record.text().unwrap_or_default());
                if value.starts_with('r') {
                    table.remove(&key);
                    if is_said(&value) {
                        is_used(&mut table, &key);
                        let (others, is_dropped) = (BTreeSet::new(), false);
                        table.insert(key, Entry { value, others, is_dropped });
                    }
                    continue;
                }
                let answer = found[partition_of(key.as_bytes(), partitions) as usize].next();
                let answer = answer.and_then(|(_, answer, _)| answer);
                let entry = table.get_mut(&key).filter(|entry| !entry.is_dropped);
                let without = joined(&value, None);
                if answer.as_ref() == Some(&without) {
                    if let Some(entry) = entry {
                        ensure!(
                            entry.others.len() >= MOST,
                            "'{value}' does not find '{}' of {key}, and only {:?} were used since",
                            entry.value,
                            entry.others
                        );
                        entry.is_dropped = true;
                    }
                    continue;
                }
                let expected = entry.map(|entry| joined(&value, Some(&entry.value)));
                ensure!(
                    answer.is_some() && answer == expected,
                    "'{value}' of {key} is answered {answer:?} instead of {expected:?} or {without:?}"
                );
                is_used(&mut table, &key);
            }
            let more = found.iter_mut().find_map(Iterator::next);
            ensure!(more.is_none(), "{more:?} is the result of nothing that is consumed");
            let entries = if with_changelogs { found_in(history, p, STORE).len() } else { 0 };
            ensure!(entries <= MOST, "the changelog of partition {p} has {entries} keys");
        }
        Ok(())
    }
}

/// Every seventh deletes.
fn is_said(value: &str) -> bool {
    !value.ends_with('7')
}

/// For all other keys this one is used since.
fn is_used(table: &mut BTreeMap<String, Entry>, key: &str) {
    for (of, entry) in table {
        if of != key {
            entry.others.insert(key.to_owned());
        }
    }
}
