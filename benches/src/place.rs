//! Where a workload runs: a directory that goes with it, a broker in it, applications on that.

use std::sync::Arc;

use broker_api::{Broker, Clock, NewTopic, OffsetSpec, SystemClock, TopicConfig, TopicPartition};
use broker_embedded::EmbeddedBroker;
use futures::executor::block_on;
use state_rocksdb::RocksDb;
use streams_core::Topology;
use streams_core::runtime::{Settings, Streams};
use tempfile::TempDir;

use crate::Result;

/// The topic that every workload reads.
pub(crate) const INPUT: &str = "input";
/// The other topic of a join.
pub(crate) const OTHER: &str = "other";
/// The topic that every workload writes, if it writes one.
pub(crate) const OUTPUT: &str = "output";

/// A broker in a temporary directory.
pub(crate) struct Place {
    dir: TempDir,
    /// How many each topic has.
    pub(crate) partitions: u32,
    pub(crate) broker: EmbeddedBroker,
    pub(crate) clock: Arc<SystemClock>,
}

impl Place {
    /// An empty one, under `TMPDIR`. That should be a real disk, or syncing costs nothing.
    pub(crate) fn new(partitions: u32) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vltava-bench-").tempdir()?;
        let place = Self::open(dir, partitions)?;
        for name in [INPUT, OTHER, OUTPUT] {
            let topic = NewTopic { name: name.into(), partitions, config: TopicConfig::default() };
            block_on(place.broker.admin().create_topic(topic))?;
        }
        Ok(place)
    }

    fn open(dir: TempDir, partitions: u32) -> Result<Self> {
        let broker = EmbeddedBroker::open(dir.path(), broker_embedded::Settings::default())?;
        Ok(Self { dir, partitions, broker, clock: Arc::new(SystemClock::new()) })
    }

    /// The default settings of an application.
    pub(crate) fn settings(&self, application_id: &str) -> Settings {
        Settings::new(application_id, self.dir.path().join("state"))
    }

    /// Starts an application.
    pub(crate) fn start(&self, settings: Settings, topology: Topology) -> Result<Streams> {
        let (broker, engine) = (Arc::new(self.broker.clone()), Arc::<RocksDb>::default());
        let topology = Arc::new(topology);
        let clock = self.clock.clone();
        Ok(block_on(Streams::start(topology, broker, engine, clock, settings))?)
    }

    /// The ends of a topic's partitions, added up; 0 if there is no such topic.
    pub(crate) fn end(&self, topic: &str) -> Result<u64> {
        let admin = self.broker.admin();
        let Ok(found) = block_on(admin.topic(topic)) else {
            return Ok(0);
        };
        let partitions = (0..found.partitions).map(|n| TopicPartition::new(topic, n));
        let asked: Vec<_> = partitions.map(|partition| (partition, OffsetSpec::Latest)).collect();
        Ok(block_on(admin.offsets(&asked))?.iter().sum::<i64>().try_into()?)
    }

    /// Time since the place was opened, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.clock.monotonic().as_secs_f64()
    }

    /// Closes the broker.
    pub(crate) fn close(&self) -> Result<()> {
        Ok(self.broker.close()?)
    }

    /// The same directory after the loss of all stores. The broker must be closed.
    pub(crate) fn opened_again_without_state(self) -> Result<Self> {
        let Self { dir, partitions, broker, .. } = self;
        drop(broker);
        std::fs::remove_dir_all(dir.path().join("state"))?;
        Self::open(dir, partitions)
    }
}
