//! The simulated broker, run through the suite.

use std::sync::{Arc, Mutex};

use crate::Broker;
use crate::conformance::{self, Alarm, Harness, Stop};
use crate::sim::{Faults, SimBroker, SimConfig};

struct Stepped(Mutex<SimBroker>);

impl Stepped {
    fn new(config: SimConfig) -> Self {
        Self(Mutex::new(SimBroker::new(config)))
    }
}

impl Harness for Stepped {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.lock().unwrap().clone())
    }

    fn progress(&self, _alarm: &Alarm) {
        self.0.lock().unwrap().step();
    }

    fn reopen(&self, stop: Stop) -> bool {
        let mut broker = self.0.lock().unwrap();
        if stop == Stop::Clean {
            broker.settle(1_000);
        }
        let survivor = broker.crash();
        *broker = survivor;
        true
    }
}

#[test]
fn without_faults_all_promises_hold() {
    conformance::run_all(&Stepped::new(SimConfig::default()));
}

#[test]
fn all_promises_hold_with_the_capabilities_of_kafka() {
    let capabilities = SimConfig::kafka();
    conformance::run_all(&Stepped::new(SimConfig { capabilities, ..SimConfig::default() }));
}

#[test]
fn all_promises_hold_under_delays() {
    for seed in 0..20 {
        let faults = Faults {
            apply_delay: 5,
            durable_delay: 5,
            sync_delay: 5,
            fetch_delay: 2,
            admin_delay: 2,
            ..Faults::default()
        };
        conformance::run_all(&Stepped::new(SimConfig { seed, faults, ..SimConfig::default() }));
    }
}

#[test]
fn all_promises_hold_under_odd_fetches() {
    for seed in 0..20 {
        let faults = Faults { redelivery: 300, short_fetches: 300, ..Faults::default() };
        conformance::run_all(&Stepped::new(SimConfig { seed, faults, ..SimConfig::default() }));
    }
}
