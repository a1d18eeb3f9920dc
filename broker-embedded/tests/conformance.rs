//! The contract's suite, on the real disk with threads and on the simulated one step by step.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_api::conformance::{Alarm, Harness, Stop, run_all};
use broker_api::{Broker, ManualClock};
use broker_embedded::vfs::SimVfs;
use broker_embedded::{Durability, EmbeddedBroker, Settings, SimulatedBroker, Step};

fn small() -> Settings {
    Settings {
        journal_file_bytes: 64 << 10,
        memory_tail_bytes: 4 << 10,
        max_queued_bytes: 1 << 20,
        max_commit_bytes: 1 << 20,
        reserve_bytes: 64 << 10,
        ..Settings::default()
    }
}

struct Real {
    dir: tempfile::TempDir,
    settings: Settings,
    broker: RefCell<Option<EmbeddedBroker>>,
}

impl Real {
    fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = EmbeddedBroker::open(dir.path(), settings.clone()).unwrap();
        Self { dir, settings, broker: RefCell::new(Some(broker)) }
    }
}

impl Harness for Real {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.borrow().clone().unwrap())
    }

    fn progress(&self, alarm: &Alarm) {
        alarm.wait();
    }

    fn reopen(&self, stop: Stop) -> bool {
        if stop == Stop::Crash {
            return false; // the simulated disk does that better
        }
        self.broker.borrow_mut().take().unwrap().close().unwrap();
        let broker = EmbeddedBroker::open(self.dir.path(), self.settings.clone()).unwrap();
        *self.broker.borrow_mut() = Some(broker);
        true
    }
}

struct Simulated {
    vfs: SimVfs,
    clock: Arc<ManualClock>,
    settings: Settings,
    broker: RefCell<SimulatedBroker>,
    /// Identities that are chosen after a restart are new.
    opened: Cell<u64>,
}

impl Simulated {
    fn new(seed: u64, settings: Settings) -> Self {
        let (vfs, clock) = (SimVfs::new(seed), Arc::new(ManualClock::new(1_000)));
        let broker = RefCell::new(open(&vfs, &clock, &settings, 0));
        Self { vfs, clock, settings, broker, opened: Cell::new(0) }
    }
}

fn open(vfs: &SimVfs, clock: &Arc<ManualClock>, settings: &Settings, seed: u64) -> SimulatedBroker {
    let vfs = Arc::new(vfs.clone());
    let dir = Path::new("/data/broker");
    SimulatedBroker::open(vfs, clock.clone(), dir, settings.clone(), seed).unwrap()
}

impl Harness for Simulated {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.borrow().clone())
    }

    fn progress(&self, _: &Alarm) {
        let broker = self.broker.borrow();
        let chores = broker.step_housekeeping();
        if broker.step_journal() == Step::Idle && chores == Step::Idle {
            self.clock.advance(Duration::from_millis(10));
        }
    }

    fn reopen(&self, stop: Stop) -> bool {
        match stop {
            Stop::Clean => self.broker.borrow().close().unwrap(),
            Stop::Crash => self.vfs.crash(),
        }
        self.opened.update(|times| times + 1);
        let seed = self.opened.get();
        *self.broker.borrow_mut() = open(&self.vfs, &self.clock, &self.settings, seed);
        true
    }
}

#[test]
fn on_the_real_disk() {
    run_all(&Real::new(Settings::default()));
}

#[test]
fn on_the_real_disk_with_small_files_and_little_memory() {
    run_all(&Real::new(small()));
}

#[test]
fn on_the_real_disk_acknowledging_before_the_sync() {
    run_all(&Real::new(Settings { durability: Durability::Os, ..small() }));
}

#[test]
fn on_the_simulated_disk() {
    for seed in 0..10 {
        run_all(&Simulated::new(seed, small()));
    }
}

#[test]
fn on_the_simulated_disk_acknowledging_before_the_sync() {
    for seed in 0..10 {
        run_all(&Simulated::new(seed, Settings { durability: Durability::Os, ..small() }));
    }
}
