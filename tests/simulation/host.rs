//! What a simulation runs on: a broker that can lose power.

use std::sync::Arc;
use std::time::Duration;

use broker_api::sim::{Dice, Faults, SimBroker, SimConfig};
use broker_api::{Broker, Capabilities, Clock, Error, ManualClock};
use broker_embedded::vfs::SimVfs;
use broker_embedded::{Durability, Settings, SimulatedBroker, Step};

/// How a process ends without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine lives on.
    Kill,
    /// What was not synced may be gone.
    PowerCut,
}

pub(crate) trait Host {
    fn broker(&self) -> Arc<dyn Broker>;

    /// One step of the background work; whether there may be more.
    fn step(&mut self) -> bool;

    /// Something goes wrong soon. Says whether this host knows such a thing.
    fn plan_fault(&mut self, dice: &mut Dice) -> bool;

    /// Whether the broker may fail by now.
    fn is_doomed(&self) -> bool;

    /// Whether such an end may take back what was acknowledged.
    fn may_lose(&self, end: End) -> bool;

    /// No more faults from now on, those planned excepted.
    fn calm_down(&mut self);

    /// The process ends; the broker is opened again.
    fn restart(&mut self, end: End, dice: &mut Dice) -> Result<(), Error>;

    /// While `on`, readers see at once what there is to see.
    fn read_freely(&self, on: bool);

    /// Whether the history of compacted topics can be read in full.
    fn keeps_changelogs(&self) -> bool;
}

/// The embedded broker on the simulated disk.
pub(crate) struct Embedded {
    vfs: SimVfs,
    clock: Arc<ManualClock>,
    settings: Settings,
    broker: SimulatedBroker,
    doomed: bool,
    /// Journal and housekeeping take turns, so that a reader sees what becomes durable before it can be
    /// compacted away.
    is_journals_turn: bool,
}

impl Embedded {
    pub(crate) fn new(clock: Arc<ManualClock>, dice: &mut Dice, durability: Durability) -> Self {
        let vfs = SimVfs::new(dice.number());
        let settings = Settings {
            durability,
            journal_file_bytes: dice.pick(&[24 << 10, 64 << 10, 1 << 20]),
            memory_tail_bytes: dice.pick(&[1 << 10, 1 << 20]),
            max_queued_bytes: dice.pick(&[4 << 10, 1 << 20]),
            max_commit_bytes: 1 << 20,
            reserve_bytes: 4 << 10,
            seal_after: Duration::from_millis(dice.pick(&[20, 500])),
            sync_every: Duration::from_millis(dice.pick(&[5, 100, 1_000])),
            ..Settings::default()
        };
        let broker = open(&vfs, &clock, &settings, dice).expect("an empty disk");
        Self { vfs, clock, settings, broker, doomed: false, is_journals_turn: true }
    }
}

fn open(
    vfs: &SimVfs,
    clock: &Arc<ManualClock>,
    settings: &Settings,
    dice: &mut Dice,
) -> Result<SimulatedBroker, Error> {
    let (vfs, clock): (_, Arc<dyn Clock>) = (Arc::new(vfs.clone()), clock.clone());
    SimulatedBroker::open(vfs, clock, "/data", settings.clone(), dice.number())
}

impl Host for Embedded {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    fn step(&mut self) -> bool {
        // Who has nothing to do leaves its turn to the other.
        (0..2).any(|_| {
            let is_journals = self.is_journals_turn;
            self.is_journals_turn = !is_journals;
            let step = match is_journals {
                true => self.broker.step_journal(),
                false => self.broker.step_housekeeping(),
            };
            step == Step::Worked
        })
    }

    fn plan_fault(&mut self, dice: &mut Dice) -> bool {
        self.doomed = true;
        if dice.one_in(5) {
            self.vfs.fail_sync(self.vfs.syncs() + dice.within(0..4));
        } else {
            self.vfs.cut_power_at(self.vfs.changes() + dice.within(0..8));
        }
        true
    }

    fn is_doomed(&self) -> bool {
        self.doomed
    }

    fn may_lose(&self, end: End) -> bool {
        // A sync that fails says nothing of what was written before.
        let power = end == End::PowerCut || self.vfs.power_is_cut() || self.doomed;
        self.settings.durability == Durability::Os && power
    }

    fn calm_down(&mut self) {}

    fn restart(&mut self, end: End, dice: &mut Dice) -> Result<(), Error> {
        match end {
            End::Kill if !self.vfs.power_is_cut() => self.vfs.kill(),
            _ => self.vfs.crash(),
        }
        self.broker = open(&self.vfs, &self.clock, &self.settings, dice)?;
        self.doomed = false;
        Ok(())
    }

    fn read_freely(&self, _: bool) {}

    fn keeps_changelogs(&self) -> bool {
        true
    }
}

/// The broker that uses every freedom of the contract.
pub(crate) struct Fickle {
    broker: SimBroker,
    faults: Faults,
    compacts: bool,
    loses: bool,
}

impl Fickle {
    pub(crate) fn new(clock: Arc<ManualClock>, dice: &mut Dice, faults: Faults) -> Self {
        let capabilities = Capabilities {
            applied_view: dice.one_in(2),
            commits_in_flight: dice.pick(&[1, 2, 16]),
            max_commit_bytes: dice.pick(&[2 << 10, 1 << 20]),
            max_offset_metadata_bytes: 4 << 10,
        };
        let config =
            SimConfig { seed: dice.number(), faults, capabilities, appends_in_flight: 100, clock };
        let (compacts, loses) = (faults.compaction > 0, faults.sync_delay > 0);
        Self { broker: SimBroker::new(config), faults, compacts, loses }
    }
}

impl Host for Fickle {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    fn step(&mut self) -> bool {
        self.broker.step()
    }

    fn plan_fault(&mut self, _: &mut Dice) -> bool {
        false
    }

    fn is_doomed(&self) -> bool {
        false
    }

    fn may_lose(&self, end: End) -> bool {
        self.loses && end == End::PowerCut
    }

    fn calm_down(&mut self) {
        self.faults = Faults::default();
        self.broker.set_faults(self.faults);
    }

    fn restart(&mut self, end: End, _: &mut Dice) -> Result<(), Error> {
        match end {
            End::PowerCut => self.broker = self.broker.crash(),
            // What was accepted takes its course.
            End::Kill => {
                self.read_freely(true);
                self.broker.settle(1_000);
                self.read_freely(false);
            }
        }
        Ok(())
    }

    fn read_freely(&self, on: bool) {
        self.broker.set_faults(if on { Faults::default() } else { self.faults });
    }

    fn keeps_changelogs(&self) -> bool {
        !self.compacts
    }
}
