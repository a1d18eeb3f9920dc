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

/// A broker in a temporary directory, with one partition of each topic.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) broker: EmbeddedBroker,
    pub(crate) clock: Arc<SystemClock>,
}

impl Place {
    /// An empty one, under `TMPDIR`. That should be a real disk, or syncing costs nothing.
    pub(crate) fn new() -> Result<Self> {
        let place = Self::open(tempfile::Builder::new().prefix("vltava-bench-").tempdir()?)?;
        for name in [INPUT, OTHER, OUTPUT] {
            let topic =
                NewTopic { name: name.into(), partitions: 1, config: TopicConfig::default() };
            block_on(place.broker.admin().create_topic(topic))?;
        }
        Ok(place)
    }

    fn open(dir: TempDir) -> Result<Self> {
        let broker = EmbeddedBroker::open(dir.path(), broker_embedded::Settings::default())?;
        Ok(Self { dir, broker, clock: Arc::new(SystemClock::new()) })
    }

    /// Starts an application with default settings.
    pub(crate) fn start(&self, application_id: &str, topology: Topology) -> Result<Streams> {
        let settings = Settings::new(application_id, self.dir.path().join("state"));
        let (broker, engine) = (Arc::new(self.broker.clone()), Arc::<RocksDb>::default());
        let topology = Arc::new(topology);
        let clock = self.clock.clone();
        Ok(block_on(Streams::start(topology, broker, engine, clock, settings))?)
    }

    /// The end of a topic's only partition; 0 if there is no such topic.
    pub(crate) fn end(&self, topic: &str) -> Result<u64> {
        let admin = self.broker.admin();
        if block_on(admin.topic(topic)).is_err() {
            return Ok(0);
        }
        let asked = [(TopicPartition::new(topic, 0), OffsetSpec::Latest)];
        Ok(block_on(admin.offsets(&asked))?.first().copied().unwrap_or(0).try_into()?)
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
        let Self { dir, broker, .. } = self;
        drop(broker);
        std::fs::remove_dir_all(dir.path().join("state"))?;
        Self::open(dir)
    }
}
