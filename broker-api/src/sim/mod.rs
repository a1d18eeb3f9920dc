//! `sim`: an in-memory broker that keeps the whole contract, and uses every freedom that the
//! contract leaves.
//!
//! What runs on it cannot come to rely on what only the embedded broker does. It is driven by
//! steps: nothing happens until [`SimBroker::step`] is called. Two brokers with the same seed, the
//! same calls and the same steps do the same.
//!
//! ```
//! use broker_api::sim::{Faults, SimBroker, SimConfig};
//! let broker = SimBroker::new(SimConfig { seed: 7, faults: Faults::all(), ..SimConfig::default() });
//! assert!(!broker.step()); // nothing was under way
//! ```
//!
//! Faults come at random ([`Faults`]) or on demand ([`Fault`], [`SimBroker::inject`]);
//! [`SimBroker::crash`] gives the broker that is left after a power cut.

mod admin;
mod dice;
mod entries;
mod faults;
mod fetcher;
mod log;
mod members;
mod membership;
mod producer;
mod state;
mod transactor;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::clock::{Clock, ManualClock};
use crate::{
    Admin, Broker, Capabilities, Error, Fetcher, FetcherConfig, Membership, MembershipConfig,
    Producer, Transactor,
};
pub use dice::Dice;
pub use faults::{Fault, Faults};
use state::State;

/// Settings of a [`SimBroker`].
#[derive(Clone)]
pub struct SimConfig {
    /// Everything that happens by chance follows from it.
    pub seed: u64,
    /// What goes wrong, and how often. Default: nothing.
    pub faults: Faults,
    /// What it says about itself, and keeps to. Default: [`SimConfig::embedded`].
    pub capabilities: Capabilities,
    /// How many appends a producer may have in flight. Default: 1,000.
    pub appends_in_flight: usize,
    /// Where append times come from. Default: a clock that stands still.
    pub clock: Arc<dyn Clock>,
}

impl SimConfig {
    /// The capabilities of the embedded broker, with a limit of 1 MiB for a commit.
    pub fn embedded() -> Capabilities {
        Capabilities {
            applied_view: true,
            commits_in_flight: 16,
            max_commit_bytes: 1 << 20,
            max_offset_metadata_bytes: 64 << 10,
        }
    }

    /// The capabilities of an Apache Kafka cluster: what is not durable is not seen, and commits
    /// follow one another. Again with a limit of 1 MiB.
    pub fn kafka() -> Capabilities {
        Capabilities {
            applied_view: false,
            commits_in_flight: 1,
            max_commit_bytes: 1 << 20,
            max_offset_metadata_bytes: 4 << 10,
        }
    }
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            faults: Faults::default(),
            capabilities: Self::embedded(),
            appends_in_flight: 1_000,
            clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        }
    }
}

/// The in-memory broker. Clones are the same broker.
#[derive(Clone)]
pub struct SimBroker {
    shared: Shared,
}

impl SimBroker {
    /// A broker without topics.
    pub fn new(config: SimConfig) -> Self {
        Self { shared: Shared(Arc::new(Mutex::new(State::new(config)))) }
    }

    /// Lets one unit of time pass: what is due is applied and becomes durable, members are
    /// rebalanced, faults strike. Says whether anything is still under way that further steps
    /// will bring to its end.
    pub fn step(&self) -> bool {
        self.shared.with(State::step)
    }

    /// Makes steps until nothing is under way. With random faults there may always be something:
    /// at most `limit` steps.
    pub fn settle(&self, limit: usize) {
        for _ in 0..limit {
            if !self.step() {
                return;
            }
        }
    }

    /// Runs a future to its end, making steps while it waits: for tests and examples. The future
    /// is polled only when it was woken, so that a lost wake-up shows.
    ///
    /// # Panics
    /// If it was not woken within 100,000 steps.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let bell = Arc::new(Bell(AtomicBool::new(true)));
        let waker = Waker::from(bell.clone());
        let mut context = Context::from_waker(&waker);
        let mut waited = 0;
        while waited < 100_000 {
            if !bell.0.swap(false, Ordering::SeqCst) {
                self.step();
                waited += 1;
                continue;
            }
            if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
                return answer;
            }
            waited = 0;
        }
        panic!("a future waits for something that never comes");
    }

    /// How many steps were made.
    pub fn steps(&self) -> u64 {
        self.shared.with(|state| state.steps)
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.with(|state| state.faults = faults);
    }

    /// Makes one fault happen now. Says whether it could.
    pub fn inject(&self, fault: Fault) -> bool {
        self.shared.with(|state| state.inject(fault))
    }

    /// The broker that is left after a power cut: what was durable, and nothing else. All handles
    /// of this one are closed.
    pub fn crash(&self) -> Self {
        let survivor = self.shared.with(State::crash);
        Self { shared: Shared(Arc::new(Mutex::new(survivor))) }
    }
}

/// Whether a future was woken.
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The state, behind its lock.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    /// Runs `call` on the state. Wakers that it collects are woken when the lock is free again.
    fn with<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = call(&mut state);
        let woken = std::mem::take(&mut state.to_wake);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        answer
    }
}

impl Broker for SimBroker {
    fn capabilities(&self) -> Capabilities {
        self.shared.with(|state| state.capabilities)
    }

    fn fetcher(&self, config: FetcherConfig, waker: Waker) -> Result<Box<dyn Fetcher>, Error> {
        fetcher::SimFetcher::open(&self.shared, config, waker).map(|f| Box::new(f) as _)
    }

    fn transactor(&self, id: &str, waker: Waker) -> Result<Box<dyn Transactor>, Error> {
        transactor::SimTransactor::open(&self.shared, id, waker).map(|t| Box::new(t) as _)
    }

    fn producer(&self, waker: Waker) -> Result<Box<dyn Producer>, Error> {
        producer::SimProducer::open(&self.shared, waker).map(|p| Box::new(p) as _)
    }

    fn membership(
        &self,
        config: MembershipConfig,
        waker: Waker,
    ) -> Result<Box<dyn Membership>, Error> {
        membership::SimMembership::join(&self.shared, config, waker).map(|m| Box::new(m) as _)
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(admin::SimAdmin { shared: self.shared.clone() })
    }
}
