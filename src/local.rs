//! A broker in a directory and the applications on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_api::{Broker, Error, NewTopic, SystemClock, TopicConfig};
use broker_embedded::EmbeddedBroker;
use state_rocksdb::RocksDb;
use streams_core::runtime::{Settings, Streams, StreamsError};
use streams_core::{TokioExecutor, Topology};

/// A directory with everything: the embedded broker, and beside it, under `state/`, the stores of
/// the applications that run on it.
pub struct Vltava {
    dir: PathBuf,
    broker: EmbeddedBroker,
    engine: Arc<RocksDb>,
    clock: Arc<SystemClock>,
}

impl Vltava {
    /// Opens the directory, which is made if it is missing, with default settings.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open, [`Error::Corrupt`],
    /// [`Error::NewerFormat`], [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(dir, broker_embedded::Settings::default())
    }

    /// Opens the directory with settings of the broker.
    ///
    /// # Errors
    /// As [`Vltava::open`].
    pub fn open_with(
        dir: impl AsRef<Path>,
        settings: broker_embedded::Settings,
    ) -> Result<Self, Error> {
        let broker = EmbeddedBroker::open(&dir, settings)?;
        let dir = dir.as_ref().into();
        let clock = Arc::new(SystemClock::new());
        Ok(Self { dir, broker, engine: Arc::default(), clock })
    }

    /// The broker, as the async clients of [`broker_api::client`] take it.
    pub fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    /// Creates a topic with default settings unless it exists; `broker().admin()` creates others.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if it exists with another number of partitions.
    pub async fn ensure_topic(&self, name: &str, partitions: u32) -> Result<(), Error> {
        let admin = self.broker.admin();
        let config = TopicConfig::default();
        match admin.create_topic(NewTopic { name: name.into(), partitions, config }).await {
            Err(Error::TopicExists { .. }) => {}
            created => return created.map(|_| ()),
        }
        let found = admin.topic(name).await?.partitions;
        if found == partitions {
            return Ok(());
        }
        Err(Error::InvalidConfig {
            name: "partitions".into(),
            value: partitions.to_string(),
            expected: format!(
                "{found}, the number of partitions that topic '{name}' was created with; \
                 use that, or another directory"
            ),
        })
    }

    /// The default settings of an application whose state lies in this directory.
    pub fn settings(&self, application_id: &str) -> Settings {
        Settings::new(application_id, self.dir.join("state"))
    }

    /// Makes an application, and the internal topics that it lacks; nothing runs before
    /// [`Streams::begin`]. Its async operators call on the tokio runtime that this is called in,
    /// unless the settings name another executor.
    ///
    /// # Errors
    /// As [`Streams::create`].
    pub async fn create(
        &self,
        topology: Topology,
        mut settings: Settings,
    ) -> Result<Streams, StreamsError> {
        if settings.executor.is_none()
            && let Some(tokio) = TokioExecutor::current()
        {
            settings.executor = Some(Arc::new(tokio));
        }
        let (engine, clock) = (self.engine.clone(), self.clock.clone());
        Streams::create(Arc::new(topology), self.broker(), engine, clock, settings).await
    }

    /// Starts an application: [`Vltava::create`] and [`Streams::begin`].
    ///
    /// # Errors
    /// As [`Streams::start`].
    pub async fn start(
        &self,
        topology: Topology,
        settings: Settings,
    ) -> Result<Streams, StreamsError> {
        let streams = self.create(topology, settings).await?;
        streams.begin()?;
        Ok(streams)
    }

    /// Closes the broker in good order. Close the applications first.
    ///
    /// # Errors
    /// What kept something from being written.
    pub fn close(&self) -> Result<(), Error> {
        self.broker.close()
    }
}
