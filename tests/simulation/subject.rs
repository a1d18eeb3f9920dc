//! What is put under test: an application, its input, and what must be true of what it did.

use std::time::Duration;

use broker_api::sim::Dice;
use broker_api::{CommittedOffset, TopicPartition};
use streams_core::Topology;

use crate::Failure;
use crate::history::History;
use crate::oracle::Keeps;

/// The application's id.
pub(crate) const NAME: &str = "app";
/// The topic that it reads.
pub(crate) const INPUT: &str = "input";
/// The topic that it writes.
pub(crate) const OUTPUT: &str = "output";

/// The topic of a global table, if it has one.
pub(crate) const TABLE: &str = "table";

/// Makes a subject for a seed.
pub(crate) type Make<'a> = &'a dyn Fn(&mut Dice) -> Box<dyn Subject>;

/// An application that reads [`INPUT`] and writes [`OUTPUT`].
pub(crate) trait Subject {
    fn topology(&self) -> Topology;

    /// A record for its input: key and value. `name` is unlike those of all other records of the run.
    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>);

    /// A change of [`TABLE`]: key and new value. `name` as above.
    fn change(&self, name: &str, _: &mut Dice) -> (String, Option<String>) {
        unreachable!("'{name}' for a table that nobody reads")
    }

    /// Whether it is known what must come out where what one record lets go is divided among commits.
    fn may_be_divided(&self) -> bool {
        true
    }

    /// How far time leaps once in a run, if it does.
    fn leap(&self) -> Option<Duration> {
        None
    }

    /// What its stores hold of their changelogs.
    fn keeps(&self) -> Keeps {
        Keeps::Recent
    }

    /// The process begins, and this is what it finds.
    fn opened(&mut self, _: &History, _partitions: u32) {}

    /// Everything durable agrees: all that was read has had its effect, exactly once. `offsets` are the
    /// durable ones.
    fn committed(
        &self,
        history: &History,
        offsets: &[(TopicPartition, CommittedOffset)],
        partitions: u32,
        with_changelogs: bool,
    ) -> Result<(), Failure>;

    /// All input is processed, and everything is at rest.
    fn finished(&self, _: &History, _partitions: u32) -> Result<(), Failure> {
        Ok(())
    }
}
