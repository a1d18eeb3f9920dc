//! The handles: an embedded broker with its threads, and one that a simulation drives step by step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle};

use broker_api::{
    Admin, Broker, Capabilities, Clock, Error, Fetcher, FetcherConfig, Membership,
    MembershipConfig, Producer, SystemClock, Transactor,
};

use crate::admin::EmbeddedAdmin;
use crate::core::Core;
use crate::disk::io_error;
use crate::fetcher::EmbeddedFetcher;
use crate::journal::writer::Step;
use crate::membership::EmbeddedMembership;
use crate::producer::EmbeddedProducer;
use crate::random::Random;
use crate::sequencer::{Health, Need};
use crate::settings::Settings;
use crate::transactor::{COMMITS_IN_FLIGHT, EmbeddedTransactor};
use crate::vfs::{RealVfs, Vfs};

/// A broker on a local directory. Cloning shares it.
///
/// It is closed by [`EmbeddedBroker::close`], or when the last handle of any kind (broker, fetcher,
/// transactor, …) is dropped.
///
/// ```
/// use broker_api::{Broker, NewTopic, TopicConfig};
/// use broker_embedded::{EmbeddedBroker, Settings};
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let broker = EmbeddedBroker::open(dir, Settings::default())?;
/// let admin = broker.admin();
/// let topic = NewTopic { name: "lines".into(), partitions: 1, config: TopicConfig::default() };
/// futures::executor::block_on(admin.create_topic(topic))?;
/// broker.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EmbeddedBroker {
    client: Client,
    threads: Arc<Threads>,
}

/// What handles hold: the open broker, and what keeps its threads alive.
#[derive(Clone)]
pub(crate) struct Client {
    core: Arc<Core>,
    _lease: Option<Arc<Threads>>,
}

/// The threads of an open broker. The last handle that lets go of them closes it.
struct Threads {
    core: Arc<Core>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl EmbeddedBroker {
    /// Opens the broker in the directory `dir`, which is created if it is missing. What was
    /// acknowledged before is there again.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody else has it open, [`Error::NewerFormat`], [`Error::Corrupt`]
    /// if something in it is damaged, [`Error::Io`], [`Error::InvalidConfig`].
    pub fn open(dir: impl AsRef<Path>, settings: Settings) -> Result<Self, Error> {
        let clock = Arc::new(SystemClock::new());
        let random = Random::of_system(clock.now());
        let core = Core::open(Arc::new(RealVfs), clock, dir.as_ref(), settings, random, false)?;
        let threads = Arc::new(Threads { core: core.clone(), running: Mutex::default() });
        let work = core.clone();
        threads.spawn("vltava-journal", move || {
            while work.wait_for_work() {
                while work.step_journal(false) == Step::Worked {}
            }
        })?;
        let chores = core.clone();
        threads.spawn("vltava-housekeeping", move || {
            while chores.step_housekeeping() == Step::Worked || chores.wait_for_chores() {}
        })?;
        Ok(Self { client: Client { core, _lease: Some(threads.clone()) }, threads })
    }

    /// What keeps the housekeeping from its work now: damaged partitions, no space, errors of the
    /// disk. Each is tried again, ever more rarely, and gone from here when it has succeeded.
    pub fn troubles(&self) -> Vec<Error> {
        self.client.core.troubles()
    }

    /// Closes the broker in good order: what was accepted is written, the journal is sealed, the
    /// directory is free for others. Other handles get [`Error::Closed`] from then on.
    ///
    /// # Errors
    /// What kept something from being written.
    pub fn close(&self) -> Result<(), Error> {
        self.threads.close()
    }
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedBroker({})", self.client.core.dir.display())
    }
}

impl Threads {
    /// Starts a thread. Should it panic, which is a bug, the broker stops, or all would wait for it.
    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let (core, thread) = (self.core.clone(), name.to_owned());
        let guarded = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                core.fail(Error::Failed { reason: format!("its thread {thread} panicked") });
            }
        };
        let spawned = thread::Builder::new().name(name.into()).spawn(guarded);
        let thread = spawned.map_err(|e| io_error("starting a thread for", &self.core.dir, e))?;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn close(&self) -> Result<(), Error> {
        end(&self.core, self.take())
    }

    fn take(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let running = self.take();
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == thread::current().id();
        let own = running.iter().any(is_own);
        let core = self.core.clone();
        let close = move || {
            if let Err(error) = end(&core, running) {
                tracing::error!(%error, "the broker could not be closed in good order");
            }
        };
        if !own {
            return close();
        }
        // A waker held the last handle, and one of the threads to be ended let go of it: it cannot
        // wait for itself.
        if let Err(error) = thread::Builder::new().name("vltava-close".into()).spawn(close) {
            tracing::error!(%error, "the broker could not be closed in good order");
        }
    }
}

/// Ends the threads and closes the broker.
fn end(core: &Core, running: Vec<JoinHandle<()>>) -> Result<(), Error> {
    if running.is_empty() {
        return Ok(());
    }
    core.begin_close();
    for thread in running {
        // A waker may close the broker on a thread of the broker.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join(); // a panic has stopped the broker, which says so below
        }
    }
    core.finish_close()
}

/// A broker without threads, for simulations: it runs on any disk and any clock, and does its
/// background work when it is told to.
///
/// Dropping it without [`SimulatedBroker::close`] is a crash of the process. An answer of the admin
/// that has to wait for the journal drives it.
#[derive(Clone)]
pub struct SimulatedBroker {
    client: Client,
}

impl SimulatedBroker {
    /// Opens the broker in a directory of `vfs`. The seed gives identities.
    ///
    /// # Errors
    /// As [`EmbeddedBroker::open`].
    pub fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        dir: impl AsRef<Path>,
        settings: Settings,
        seed: u64,
    ) -> Result<Self, Error> {
        let core = Core::open(vfs, clock, dir.as_ref(), settings, Random::seeded(seed), true)?;
        Ok(Self { client: Client { core, _lease: None } })
    }

    /// One step of the journal writer: at most one write or one sync.
    pub fn step_journal(&self) -> Step {
        self.client.core.step_journal(false)
    }

    /// One step of the housekeeping: checkpoints, segments, compaction, retention.
    pub fn step_housekeeping(&self) -> Step {
        self.client.core.step_housekeeping()
    }

    /// What keeps the housekeeping from its work now: damaged partitions, no space, errors of the
    /// disk. Each is tried again, ever more rarely, and gone from here when it has succeeded.
    pub fn troubles(&self) -> Vec<Error> {
        self.client.core.troubles()
    }

    /// Closes the broker in good order.
    ///
    /// # Errors
    /// What kept something from being written.
    pub fn close(&self) -> Result<(), Error> {
        self.client.core.begin_close();
        self.client.core.finish_close()
    }
}

impl Client {
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    fn check_open(&self) -> Result<(), Error> {
        match &self.core.lock().health {
            Health::Stopped(Error::Closed) => Err(Error::Closed),
            _ => Ok(()),
        }
    }
}

/// The longest text of a committed offset, where commits may be large. Kafka's is shorter (4 KiB).
const OFFSET_METADATA_BYTES: usize = 64 << 10;

impl Broker for Client {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            applied_view: true,
            commits_in_flight: COMMITS_IN_FLIGHT / 2,
            max_commit_bytes: self.core.settings.max_commit_bytes,
            // A text counts in the size of its commit, and has no other limit.
            max_offset_metadata_bytes: OFFSET_METADATA_BYTES
                .min(self.core.settings.max_commit_bytes / 16),
        }
    }

    fn fetcher(&self, config: FetcherConfig, waker: Waker) -> Result<Box<dyn Fetcher>, Error> {
        self.check_open()?;
        Ok(Box::new(EmbeddedFetcher::new(self.clone(), config, waker)))
    }

    fn transactor(&self, id: &str, waker: Waker) -> Result<Box<dyn Transactor>, Error> {
        Ok(Box::new(EmbeddedTransactor::new(self.clone(), id, waker)?))
    }

    fn producer(&self, waker: Waker) -> Result<Box<dyn Producer>, Error> {
        self.core.lock().admit(Need::Reserve)?;
        Ok(Box::new(EmbeddedProducer::new(self.clone(), waker)))
    }

    fn membership(
        &self,
        config: MembershipConfig,
        waker: Waker,
    ) -> Result<Box<dyn Membership>, Error> {
        Ok(Box::new(EmbeddedMembership::join(self.clone(), config, waker)?))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(EmbeddedAdmin { client: self.clone() })
    }
}

macro_rules! broker_through_client {
    ($type:ty) => {
        impl Broker for $type {
            fn capabilities(&self) -> Capabilities {
                self.client.capabilities()
            }

            fn fetcher(
                &self,
                config: FetcherConfig,
                waker: Waker,
            ) -> Result<Box<dyn Fetcher>, Error> {
                self.client.fetcher(config, waker)
            }

            fn transactor(&self, id: &str, waker: Waker) -> Result<Box<dyn Transactor>, Error> {
                self.client.transactor(id, waker)
            }

            fn producer(&self, waker: Waker) -> Result<Box<dyn Producer>, Error> {
                self.client.producer(waker)
            }

            fn membership(
                &self,
                config: MembershipConfig,
                waker: Waker,
            ) -> Result<Box<dyn Membership>, Error> {
                self.client.membership(config, waker)
            }

            fn admin(&self) -> Arc<dyn Admin> {
                self.client.admin()
            }
        }
    };
}

broker_through_client!(EmbeddedBroker);
broker_through_client!(SimulatedBroker);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_stops_the_broker_instead_of_leaving_all_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let broker = EmbeddedBroker::open(dir.path(), Settings::default()).unwrap();
        broker.threads.spawn("buggy", || panic!("a bug, for a test")).unwrap();
        let create = || {
            let topic = broker_api::NewTopic {
                name: "t".into(),
                partitions: 1,
                config: broker_api::TopicConfig::default(),
            };
            futures::executor::block_on(broker.admin().create_topic(topic))
        };
        let error = loop {
            match create() {
                Err(error @ Error::Failed { .. }) => break error,
                Ok(_) | Err(Error::TopicExists { .. }) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        };
        assert!(error.to_string().contains("its thread buggy panicked"), "{error}");
    }
}
