//! Applications of which nothing is said on the way, as what comes out there depends on who is faster: on
//! tasks that talk to each other, or on how what one record lets go is divided among commits. In the end the
//! output is that of the whole input.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_api::sim::Dice;
use broker_api::{CommittedOffset, TopicPartition};
use streams_core::Topology;

use crate::Failure;
use crate::history::History;
use crate::oracle::{Keeps, difference, ensure};
use crate::subject::{OUTPUT, Subject};

/// Such an application.
pub(crate) trait Settling: 'static {
    fn topology(&self) -> Topology;

    /// As [`Subject::record`].
    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>);

    /// As [`Subject::keeps`].
    fn keeps(&self) -> Keeps {
        Keeps::All
    }

    /// As [`Subject::leap`].
    fn leap(&self) -> Option<Duration> {
        None
    }

    /// What the output must come to: the last value of each key that has one.
    fn result(&self, history: &History, partitions: u32) -> BTreeMap<String, String>;
}

/// It, put under test.
pub(crate) struct InTheEnd<T>(pub(crate) T);

impl<T: Settling> Subject for InTheEnd<T> {
    fn topology(&self) -> Topology {
        self.0.topology()
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        self.0.record(name, dice)
    }

    fn keeps(&self) -> Keeps {
        self.0.keeps()
    }

    fn leap(&self) -> Option<Duration> {
        self.0.leap()
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
        let mut found = BTreeMap::new();
        for record in (0..partitions).flat_map(|p| history.records(OUTPUT, p)) {
            match record.text() {
                Some(value) => found.insert(record.key_text(), value),
                None => found.remove(&record.key_text()),
            };
        }
        let list = |of: BTreeMap<String, String>| of.into_iter().collect::<Vec<_>>();
        let (found, expected) = (list(found), list(self.0.result(history, partitions)));
        ensure!(
            found == expected,
            "the output is not that of the whole input: {}",
            difference(&found, &expected)
        );
        Ok(())
    }
}
