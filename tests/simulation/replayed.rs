//! Applications whose every output is fixed by the order of their input.
//!
//! They are one sub-topology without caches: what a partition's output must be follows from the
//! partition's input alone, whatever ended in between. The test driver, which knows no ends, says what it
//! is: the output of a partition equals, record for record, what the driver answers to the part of the
//! input that is consumed. And what the changelogs of the stores come to is what the driver's come to.
//! Only of what the last record lets go there may be a first part.
//!
//! Values of the input begin with `l` or `r`, which makes two streams of one topic.

use std::cell::Cell;
use std::collections::BTreeMap;

use broker_api::partitioner::partition_of;
use broker_api::sim::Dice;
use broker_api::{CommittedOffset, Timestamp, TopicPartition};
use streams_core::Topology;
use streams_core::failure::{ErrorHandlers, log_and_continue};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_dsl::StreamsBuilder;

use crate::Failure;
use crate::applications::{Application, Input, Output};
use crate::history::{History, Seen};
use crate::oracle::{changelog, consumed, difference, ensure};
use crate::subject::{INPUT, NAME, OUTPUT, Subject};

pub(crate) struct Replayed {
    application: Application,
    /// Whether the output was all that is to be expected of the consumed input, when it was last looked at.
    is_whole: Cell<bool>,
}

impl Replayed {
    /// One of these.
    pub(crate) fn one_of(applications: &[Application], dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(Self { application: dice.pick(applications), is_whole: Cell::default() })
    }
}

/// Key, value and time of a result.
pub(crate) type Row = (String, Option<String>, Timestamp);

/// What a store is, as its changelog tells: values and times by key.
type Entries = BTreeMap<Vec<u8>, (Vec<u8>, Timestamp)>;

pub(crate) fn topology(application: impl FnOnce(Input) -> Output) -> Topology {
    let builder = StreamsBuilder::new();
    application(builder.stream(INPUT)).to(OUTPUT);
    builder.build().expect("the topology is sound")
}

/// A record of this name for the partition that the name begins with.
pub(crate) fn record(name: &str, dice: &mut Dice) -> (String, String) {
    // Keys tell the partition of the input, as those of different ones meet in the output.
    let partition = name.split('.').next().unwrap_or_default();
    let (key, side) = (dice.pick(&["a", "b", "c", "d"]), dice.pick(&["l", "r"]));
    (format!("{partition}.{key}"), format!("{side}{name}"))
}

/// The driver, after it was given these records.
pub(crate) fn replay(topology: Topology, input: &[Seen]) -> Result<TopologyTestDriver, Failure> {
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some(OUTPUT.into()),
        ..ErrorHandlers::default()
    };
    let application_id = NAME.into();
    let settings = TestDriverSettings { application_id, handlers, ..TestDriverSettings::default() };
    let driver = TopologyTestDriver::with_settings(topology, settings)?;
    input.iter().try_for_each(|record| pipe(&driver, record))?;
    Ok(driver)
}

fn pipe(driver: &TopologyTestDriver, record: &Seen) -> Result<(), Failure> {
    let topic = driver.input_topic::<String, String>(INPUT);
    topic.pipe(record.key_text(), record.text().unwrap_or_default(), record.timestamp)?;
    Ok(())
}

/// What the driver has answered.
pub(crate) fn answers(driver: &TopologyTestDriver) -> Result<Vec<Row>, Failure> {
    let output = driver.output_topic::<String, Option<String>>(OUTPUT).read_all()?;
    Ok(output.into_iter().map(|r| (r.key, r.value, r.timestamp)).collect())
}

/// What a partition of the output has of the results of a partition of the input.
pub(crate) fn results(history: &History, to: u32, from: u32) -> Vec<Row> {
    let found = history.records(OUTPUT, to).iter();
    let found = found.map(|r| (r.key_text(), r.text(), r.timestamp));
    found.filter(|(key, ..)| key.starts_with(&format!("{from}."))).collect()
}

/// What is logged of each store of a partition comes to what the driver has logged.
pub(crate) fn same_stores(
    history: &History,
    p: u32,
    topology: &Topology,
    driver: &TopologyTestDriver,
) -> Result<(), Failure> {
    for store in topology.stores().values().filter(|store| store.changelog.is_some()) {
        let topic = changelog(&store.name);
        let expected = driver.output_topic::<Vec<u8>, Option<Vec<u8>>>(&topic).read_all()?;
        let expected = entries(expected.into_iter().map(|r| (r.key, r.value, r.timestamp)));
        let found = history.records(&topic, p).iter();
        let found = entries(found.map(|r| (r.key.clone(), r.value.clone(), r.timestamp)));
        ensure!(
            found == expected,
            "the changelog of partition {p} of {} comes to {found:?} instead of {expected:?}",
            store.name
        );
    }
    Ok(())
}

fn entries(log: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>, Timestamp)>) -> Entries {
    let mut entries = Entries::new();
    for (key, value, time) in log {
        match value {
            // An entry of an index: all that it says is its key.
            Some(value) if value.is_empty() => entries.insert(key, (value, 0)),
            Some(value) => entries.insert(key, (value, time)),
            None => entries.remove(&key),
        };
    }
    entries
}

impl Subject for Replayed {
    fn topology(&self) -> Topology {
        topology(self.application)
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, String) {
        record(name, dice)
    }

    fn disorder(&self) -> u64 {
        50
    }

    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        with_changelogs: bool,
    ) -> Result<(), Failure> {
        self.is_whole.set(true);
        for p in 0..partitions {
            let input = consumed(history, offsets, INPUT, p);
            let (last, before) = match input.split_last() {
                Some((last, before)) => (Some(last), before),
                None => (None, input),
            };
            let driver = replay(self.topology(), before)?;
            let mut output = answers(&driver)?;
            let without_last = output.len();
            last.map_or(Ok(()), |last| pipe(&driver, last))?;
            output.extend(answers(&driver)?);
            // What the last record lets go may take further commits.
            let lets_go = output.len() > without_last;
            for to in 0..partitions {
                let goes_there = |key: &str| partition_of(key.as_bytes(), partitions) == to;
                let rows = |of: &[Row]| -> Vec<Row> {
                    of.iter().filter(|(key, ..)| goes_there(key)).cloned().collect()
                };
                let mut expected = rows(&output);
                let least = rows(&output[..without_last]).len();
                let found = results(history, to, p);
                if (least..expected.len()).contains(&found.len()) {
                    expected.truncate(found.len());
                    self.is_whole.set(false);
                }
                ensure!(
                    found == expected,
                    "{} records of partition {p} are committed; the output in {to}: {}",
                    input.len(),
                    difference(&found, &expected)
                );
            }
            if with_changelogs {
                match same_stores(history, p, &self.topology(), &driver) {
                    Err(_) if lets_go => self.is_whole.set(false),
                    same => same?,
                }
            }
        }
        Ok(())
    }

    fn finished(&self, _: &History, _: u32) -> Result<(), Failure> {
        ensure!(self.is_whole.get(), "what the last records let go has not come");
        Ok(())
    }
}
