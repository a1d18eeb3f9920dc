//! Applications whose every output is fixed by the order of their input.
//!
//! They are one sub-topology without caches: what a partition's output must be follows from the
//! partition's input alone, whatever ended in between. The test driver, which knows no ends, says what it
//! is: the output of a partition equals, record for record, what the driver answers to the part of the
//! input that is consumed.
//!
//! Values of the input begin with `l` or `r`, which makes two streams of one topic.

use broker_api::partitioner::partition_of;
use broker_api::sim::Dice;
use broker_api::{CommittedOffset, TopicPartition};
use streams_core::Topology;
use streams_core::failure::{ErrorHandlers, log_and_continue};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_dsl::StreamsBuilder;

use crate::Failure;
use crate::applications::Application;
use crate::history::History;
use crate::oracle::{consumed, difference, ensure};
use crate::subject::{INPUT, OUTPUT, Subject};

pub(crate) struct Replayed {
    application: Application,
}

impl Replayed {
    /// One of these.
    pub(crate) fn one_of(applications: &[Application], dice: &mut Dice) -> Box<dyn Subject> {
        Box::new(Self { application: dice.pick(applications) })
    }
}

impl Subject for Replayed {
    fn topology(&self) -> Topology {
        let builder = StreamsBuilder::new();
        (self.application)(builder.stream(INPUT)).to(OUTPUT);
        builder.build().expect("the topology is sound")
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, String) {
        // Keys tell the partition of the input, as those of different ones meet in the output.
        let partition = name.split('.').next().unwrap_or_default();
        let (key, side) = (dice.pick(&["a", "b", "c", "d"]), dice.pick(&["l", "r"]));
        (format!("{partition}.{key}"), format!("{side}{name}"))
    }

    fn disorder(&self) -> u64 {
        50
    }

    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        _: bool,
    ) -> Result<(), Failure> {
        for p in 0..partitions {
            let input = consumed(history, offsets, INPUT, p);
            let handlers = ErrorHandlers {
                processing: log_and_continue(),
                dead_letter_topic: Some(OUTPUT.into()),
                ..ErrorHandlers::default()
            };
            let settings = TestDriverSettings { handlers, ..TestDriverSettings::default() };
            let driver = TopologyTestDriver::with_settings(self.topology(), settings)?;
            let topic = driver.input_topic::<String, String>(INPUT);
            for record in input {
                let value = record.text().unwrap_or_default();
                topic.pipe(record.key_text(), value, record.timestamp)?;
            }
            let output = driver.output_topic::<String, Option<String>>(OUTPUT).read_all()?;
            let output: Vec<_> =
                output.into_iter().map(|r| (r.key, r.value, r.timestamp)).collect();
            for to in 0..partitions {
                let goes_there = |key: &str| partition_of(key.as_bytes(), partitions) == to;
                let expected = output.iter().filter(|(key, ..)| goes_there(key));
                let expected: Vec<_> = expected.cloned().collect();
                let found = history.records(OUTPUT, to).iter();
                let found = found.map(|r| (r.key_text(), r.text(), r.timestamp));
                let found: Vec<_> =
                    found.filter(|(key, ..)| key.starts_with(&format!("{p}."))).collect();
                ensure!(
                    found == expected,
                    "{} records of partition {p} are committed; the output in {to}: {}",
                    input.len(),
                    difference(&found, &expected)
                );
            }
        }
        Ok(())
    }
}
