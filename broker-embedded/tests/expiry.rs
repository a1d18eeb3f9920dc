//! Consumer groups that nobody uses are forgotten, and only those.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::{
    Broker, Commit, CommittedOffset, GroupCommit, ManualClock, MemberToken, Membership,
    MembershipConfig, MembershipEvent, NewTopic, TaskId, TopicConfig, TopicPartition,
};
use broker_embedded::vfs::SimVfs;
use broker_embedded::{Settings, SimulatedBroker, Step};
use futures::executor::block_on;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A simulated broker with its disk and its clock.
struct World {
    vfs: SimVfs,
    clock: Arc<ManualClock>,
    settings: Settings,
    broker: SimulatedBroker,
}

fn open(vfs: &SimVfs, clock: &Arc<ManualClock>, settings: &Settings) -> SimulatedBroker {
    let (vfs, clock) = (Arc::new(vfs.clone()), clock.clone());
    SimulatedBroker::open(vfs, clock, "/data", settings.clone(), 7).unwrap()
}

fn seven_days() -> Settings {
    Settings { offsets_retention: Duration::from_secs(7 * 24 * 60 * 60), ..Settings::default() }
}

impl World {
    fn new(settings: Settings) -> Self {
        let settings = Settings { reserve_bytes: 0, ..settings };
        let (vfs, clock) = (SimVfs::new(1), Arc::new(ManualClock::new(1_000_000_000)));
        let broker = open(&vfs, &clock, &settings);
        let topic = NewTopic { name: "t".into(), partitions: 1, config: TopicConfig::default() };
        block_on(broker.admin().create_topic(topic)).unwrap();
        Self { vfs, clock, settings, broker }
    }

    fn settle(&self) {
        let step = || {
            let journal = self.broker.step_journal();
            self.broker.step_housekeeping() == Step::Worked || journal == Step::Worked
        };
        while step() {}
    }

    /// Time goes by, in steps in which the broker does what is to be done.
    fn sleep(&self, time: Duration) {
        for _ in 0..time.as_secs() / HOUR.as_secs() {
            self.clock.advance(HOUR);
            self.settle();
        }
    }

    fn commit(&self, group: &str, token: Option<MemberToken>) {
        let mut transactor = self.broker.transactor("id", Waker::noop().clone()).unwrap();
        let committed = CommittedOffset { offset: 1, metadata: String::new() };
        let offsets = vec![(TopicPartition::new("t", 0), committed)];
        let group = Some(GroupCommit { group: group.into(), token, offsets });
        transactor.submit(Commit { batches: Vec::new(), group }).unwrap();
        self.settle();
    }

    fn knows(&self, group: &str) -> bool {
        !block_on(self.broker.admin().group_offsets(group)).unwrap().is_empty()
    }

    fn member(&self, application: &str) -> (Box<dyn Membership>, MemberToken) {
        let config = MembershipConfig {
            application: application.into(),
            tasks: vec![TaskId { subtopology: 0, partition: 0 }],
            following: Vec::new(),
            warm: Vec::new(),
        };
        let mut member = self.broker.membership(config, Waker::noop().clone()).unwrap();
        let Poll::Ready(MembershipEvent::Assigned { token, .. }) = member.poll() else {
            panic!("not assigned")
        };
        (member, token)
    }

    fn after_a_power_cut(mut self) -> Self {
        self.vfs.crash();
        self.broker = open(&self.vfs, &self.clock, &self.settings);
        self
    }
}

#[test]
fn a_group_that_nobody_uses_for_seven_days_is_forgotten_for_good() {
    let world = World::new(seven_days());
    world.commit("idle", None);
    world.sleep(4 * DAY);
    world.commit("busy", None);
    world.sleep(3 * DAY - HOUR);
    assert!(world.knows("idle"), "before its time");
    world.sleep(2 * HOUR);
    assert!(!world.knows("idle") && world.knows("busy"));
    let world = world.after_a_power_cut();
    assert!(!world.knows("idle") && world.knows("busy"));
}

#[test]
fn a_group_with_a_live_member_is_kept_and_expires_seven_days_after_the_last_one_left() {
    let world = World::new(seven_days());
    let (member, token) = world.member("app");
    world.commit("app", Some(token));
    world.sleep(30 * DAY);
    assert!(world.knows("app"));
    drop(member);
    world.sleep(6 * DAY);
    assert!(world.knows("app"));
    world.sleep(2 * DAY);
    assert!(!world.knows("app"));
    // Nobody is taken for a member of then.
    let (_member, again) = world.member("app");
    assert!(again.member > token.member && again.epoch > token.epoch, "{again:?} after {token:?}");
}

#[test]
fn an_application_that_was_down_for_long_has_an_hour_to_come_back() {
    let world = World::new(seven_days());
    let (_member, token) = world.member("app");
    world.commit("app", Some(token));
    world.commit("other", None);
    world.clock.advance(30 * DAY);
    let world = world.after_a_power_cut();
    world.clock.advance(HOUR / 2);
    world.settle();
    assert!(world.knows("app") && world.knows("other"));
    let _member = world.member("app");
    world.sleep(DAY);
    assert!(world.knows("app") && !world.knows("other"));
}

#[test]
fn nothing_expires_where_the_setting_says_never() {
    let world = World::new(Settings { offsets_retention: Duration::MAX, ..Settings::default() });
    world.commit("idle", None);
    world.sleep(10 * DAY);
    world.clock.advance(10_000 * DAY);
    world.settle();
    assert!(world.knows("idle"));
}
