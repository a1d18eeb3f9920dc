//! Applications whose every output is fixed by the order of their input.
//!
//! They are one sub-topology without caches: what a partition's output must be follows from the
//! partition's input alone, whatever ended in between. The test driver, which knows no ends, says what it
//! is: the output of a partition equals, record for record, what the driver answers to the part of the
//! input that is consumed. And what the changelogs of the stores come to is what the driver's come to.
//! Only of what the last record lets go there may be a first part, where the driver makes several commits
//! of it: then stores may be as they are anywhere in between, and in the end everything must have come.
//! The driver itself is measured against a plain model, where an application has one.
//!
//! Values of the input begin with `l` or `r`, which makes two streams of one topic.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

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
    topology: Box<dyn Fn() -> Topology>,
    model: Option<Box<Model>>,
    may_be_divided: bool,
    /// Some records have no value.
    deletes: bool,
    leap: Option<Duration>,
    /// Whether the output was all that is to be expected of the consumed input, when it was last looked at.
    is_whole: Cell<bool>,
}

impl Replayed {
    /// One of these.
    pub(crate) fn one_of(applications: &[Application], dice: &mut Dice) -> Box<dyn Subject> {
        let application = dice.pick(applications);
        let topology = Box::new(move || topology(application));
        Box::new(Self {
            topology,
            model: None,
            may_be_divided: true,
            deletes: false,
            leap: None,
            is_whole: Cell::default(),
        })
    }

    /// An application that must answer as a model does.
    pub(crate) fn like(
        topology: impl Fn() -> Topology + 'static,
        model: impl Fn(&[Seen]) -> Vec<Row> + 'static,
    ) -> Self {
        let (topology, model) = (Box::new(topology), Some(Box::new(model) as _));
        Self {
            topology,
            model,
            may_be_divided: true,
            deletes: false,
            leap: None,
            is_whole: Cell::default(),
        }
    }

    /// The same, where what one record lets go is one commit.
    pub(crate) fn undivided(self) -> Self {
        Self { may_be_divided: false, ..self }
    }

    /// The same, where time leaps by so much.
    pub(crate) fn leaping(self, leap: Option<Duration>) -> Self {
        Self { leap, ..self }
    }

    /// The same, where some records have no value.
    pub(crate) fn with_deletions(self) -> Self {
        Self { deletes: true, ..self }
    }
}

/// What a partition of the input is answered.
type Model = dyn Fn(&[Seen]) -> Vec<Row>;

/// Key, value and time of a result.
pub(crate) type Row = (String, Option<String>, Timestamp);

/// What a store is, as its changelog tells: values and times by key.
pub(crate) type Entries = BTreeMap<Vec<u8>, (Vec<u8>, Timestamp)>;

/// Key, value and time of a record of a changelog.
pub(crate) type Logged = (Vec<u8>, Option<Vec<u8>>, Timestamp);

pub(crate) fn topology(application: impl FnOnce(Input) -> Output) -> Topology {
    let builder = StreamsBuilder::new();
    application(builder.stream(INPUT)).to(OUTPUT);
    builder.build().expect("the topology is sound")
}

/// A record of this name for the partition that the name begins with.
pub(crate) fn record(name: &str, dice: &mut Dice) -> (String, Option<String>) {
    // Keys tell the partition of the input, as those of different ones meet in the output.
    let partition = name.split('.').next().unwrap_or_default();
    let (key, side) = (dice.pick(&["a", "b", "c", "d"]), dice.pick(&["l", "r"]));
    (format!("{partition}.{key}"), Some(format!("{side}{name}")))
}

/// The driver, after it was given these records.
pub(crate) fn replay(topology: Topology, input: &[Seen]) -> Result<TopologyTestDriver, Failure> {
    replay_in_parts(topology, input, usize::MAX)
}

/// The same, with a commit after so many bytes of what one record lets go.
fn replay_in_parts(
    topology: Topology,
    input: &[Seen],
    seal_bytes: usize,
) -> Result<TopologyTestDriver, Failure> {
    let handlers = ErrorHandlers {
        processing: log_and_continue(),
        dead_letter_topic: Some(OUTPUT.into()),
        ..ErrorHandlers::default()
    };
    let application_id = NAME.into();
    let settings =
        TestDriverSettings { application_id, handlers, seal_bytes, ..Default::default() };
    let driver = TopologyTestDriver::with_settings(topology, settings)?;
    input.iter().try_for_each(|record| pipe(&driver, record))?;
    Ok(driver)
}

fn pipe(driver: &TopologyTestDriver, record: &Seen) -> Result<(), Failure> {
    let topic = driver.input_topic::<String, Option<String>>(INPUT);
    topic.pipe(record.key_text(), record.text(), record.timestamp)?;
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

/// The names of the stores that have changelogs.
pub(crate) fn logged_stores(topology: &Topology) -> impl Iterator<Item = &str> {
    let logged = topology.stores().values().filter(|store| store.changelog.is_some());
    logged.map(|store| &*store.name)
}

/// What the driver has logged of a store since it was last asked.
pub(crate) fn log_of(driver: &TopologyTestDriver, store: &str) -> Result<Vec<Logged>, Failure> {
    let log = driver.output_topic::<Vec<u8>, Option<Vec<u8>>>(&changelog(store)).read_all()?;
    Ok(log.into_iter().map(|r| (r.key, r.value, r.timestamp)).collect())
}

/// What the application's log of a store comes to in a partition.
pub(crate) fn found_in(history: &History, p: u32, store: &str) -> Entries {
    let mut found = Entries::new();
    for Seen { key, value, timestamp, .. } in history.records(&changelog(store), p) {
        change(&mut found, (key.clone(), value.clone(), *timestamp));
    }
    found
}

/// A record of a changelog takes effect.
pub(crate) fn change(entries: &mut Entries, (key, value, time): Logged) {
    match value {
        // An entry of an index: all that it says is its key.
        Some(value) if value.is_empty() => entries.insert(key, (value, 0)),
        Some(value) => entries.insert(key, (value, time)),
        None => entries.remove(&key),
    };
}

/// What the driver answers to the input of a partition.
struct Told {
    output: Vec<Row>,
    /// How much of the output there is without the last record.
    without_last: usize,
    /// How many commits that takes.
    commits: u64,
    /// By store: what it is without the last record, and what that changes.
    stores: BTreeMap<String, (Entries, Vec<Logged>)>,
}

impl Told {
    /// By a driver with a commit after so many bytes of what one record lets go.
    fn by_driver(topology: Topology, input: &[Seen], seal_bytes: usize) -> Result<Self, Failure> {
        let (last, before) = match input.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, input),
        };
        let names: Vec<String> = logged_stores(&topology).map(str::to_owned).collect();
        let driver = replay_in_parts(topology, before, seal_bytes)?;
        let mut output = answers(&driver)?;
        let (without_last, commits) = (output.len(), driver.commits());
        let mut stores = BTreeMap::new();
        for store in names {
            let mut entries = Entries::new();
            log_of(&driver, &store)?.into_iter().for_each(|record| change(&mut entries, record));
            stores.insert(store, (entries, Vec::new()));
        }
        last.map_or(Ok(()), |last| pipe(&driver, last))?;
        output.extend(answers(&driver)?);
        for (store, (_, changes)) in &mut stores {
            *changes = log_of(&driver, store)?;
        }
        let commits = driver.commits() - commits;
        Ok(Self { output, without_last, commits, stores })
    }

    /// What a store is in the end.
    fn store(&self, name: &str) -> Entries {
        let (mut entries, changes) = self.stores.get(name).cloned().unwrap_or_default();
        changes.into_iter().for_each(|record| change(&mut entries, record));
        entries
    }

    /// Whether a store is so at some time while the last record takes effect.
    fn is_ever(&self, name: &str, found: &Entries) -> bool {
        let (mut entries, changes) = self.stores.get(name).cloned().unwrap_or_default();
        // The first part need not have changed it.
        entries == *found
            || changes.into_iter().any(|record| {
                change(&mut entries, record);
                entries == *found
            })
    }
}

impl Subject for Replayed {
    fn topology(&self) -> Topology {
        (self.topology)()
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        let (key, value) = record(name, dice);
        (key, value.filter(|_| !self.deletes || !dice.one_in(6)))
    }

    fn leap(&self) -> Option<Duration> {
        self.leap
    }

    fn may_be_divided(&self) -> bool {
        self.may_be_divided
    }

    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        with_changelogs: bool,
    ) -> Result<(), Failure> {
        self.is_whole.set(true);
        let topology = self.topology();
        for p in 0..partitions {
            let input = consumed(history, offsets, INPUT, p);
            let whole = Told::by_driver(self.topology(), input, usize::MAX)?;
            if let Some(answer) = self.model.as_ref().map(|model| model(input)) {
                ensure!(
                    whole.output == answer,
                    "the driver differs from the model: {}",
                    difference(&whole.output, &answer)
                );
            }
            let parts = Told::by_driver(self.topology(), input, 1)?;
            for to in 0..partitions {
                let goes_there = |key: &str| partition_of(key.as_bytes(), partitions) == to;
                let rows = |of: &[Row]| -> Vec<Row> {
                    of.iter().filter(|(key, ..)| goes_there(key)).cloned().collect()
                };
                let mut expected = rows(&whole.output);
                let least = rows(&whole.output[..whole.without_last]).len();
                let found = results(history, to, p);
                if parts.commits > 1 && (least..expected.len()).contains(&found.len()) {
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
            for store in logged_stores(&topology).filter(|_| with_changelogs) {
                let (found, expected) = (found_in(history, p, store), whole.store(store));
                if found == expected {
                    continue;
                }
                ensure!(
                    parts.commits > 1 && parts.is_ever(store, &found),
                    "the changelog of partition {p} of {store} comes to {found:?} instead of {expected:?}"
                );
                self.is_whole.set(false);
            }
        }
        Ok(())
    }

    fn finished(&self, _: &History, _: u32) -> Result<(), Failure> {
        ensure!(self.is_whole.get(), "what the last records let go has not come");
        Ok(())
    }
}
