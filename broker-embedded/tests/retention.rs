//! What goes by age (`retention.ms`), and what is too young to be compacted
//! (`min.compaction.lag.ms`).
#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::{
    BatchBuilder, Broker, Clock, FetcherConfig, Horizon, ManualClock, NewTopic, Producer, Start,
    TopicConfig, TopicPartition,
};
use broker_embedded::vfs::SimVfs;
use broker_embedded::{Settings, SimulatedBroker, Step};
use futures::executor::block_on;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A simulated broker with one partition, its disk and its clock.
struct World {
    vfs: SimVfs,
    clock: Arc<ManualClock>,
    broker: SimulatedBroker,
    producer: Box<dyn Producer>,
    tp: TopicPartition,
}

fn open(vfs: &SimVfs, clock: &Arc<ManualClock>) -> (SimulatedBroker, Box<dyn Producer>) {
    let settings = Settings {
        journal_file_bytes: 32 << 10,
        retired_journal_files: 1,
        memory_tail_bytes: 0,
        reserve_bytes: 0,
        ..Settings::default()
    };
    let disk = Arc::new(vfs.clone());
    let broker = SimulatedBroker::open(disk, clock.clone(), "/data", settings, 7).unwrap();
    let producer = broker.producer(Waker::noop().clone()).unwrap();
    (broker, producer)
}

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        let (vfs, clock) = (SimVfs::new(1), Arc::new(ManualClock::new(1_000_000_000)));
        let (broker, producer) = open(&vfs, &clock);
        let mut config = TopicConfig::default();
        settings.iter().for_each(|(name, value)| config.set(name, value).unwrap());
        let topic = NewTopic { name: "t".into(), partitions: 1, config };
        block_on(broker.admin().create_topic(topic)).unwrap();
        Self { vfs, clock, broker, producer, tp: TopicPartition::new("t", 0) }
    }

    /// Appends a record of 1 KiB, its time so many seconds before now.
    fn append(&mut self, key: u32, seconds_ago: i64) {
        let mut builder = BatchBuilder::new();
        let time = self.clock.now() - seconds_ago * 1_000;
        builder.push(time, Some(&key.to_be_bytes()), Some(&[1; 1_000]), &[]).unwrap();
        self.producer.append(&self.tp, builder.finish().unwrap()).unwrap();
        self.settle();
    }

    /// Does all that is to be done now.
    fn settle(&mut self) {
        let step = || {
            let journal = self.broker.step_journal();
            self.broker.step_housekeeping() == Step::Worked || journal == Step::Worked
        };
        assert!((0..100_000).any(|_| !step()), "the broker never comes to rest");
        while self.producer.poll().is_ready() {}
    }

    /// Time goes by, and nobody writes.
    fn sleep(&mut self, time: Duration) {
        self.clock.advance(time);
        self.settle();
    }

    fn after_a_power_cut(mut self) -> Self {
        self.vfs.crash();
        (self.broker, self.producer) = open(&self.vfs, &self.clock);
        self
    }

    fn horizon(&self) -> Horizon {
        block_on(self.broker.admin().horizon(&self.tp)).unwrap()
    }

    /// Offsets, times and keys of all records.
    fn records(&self) -> Vec<(i64, i64, u32)> {
        let config = FetcherConfig::default();
        let mut fetcher = self.broker.fetcher(config, Waker::noop().clone()).unwrap();
        fetcher.assign(&[(self.tp.clone(), Start::Earliest)]).unwrap();
        let mut records = Vec::new();
        while let Poll::Ready(found) = fetcher.poll(1 << 20) {
            for fetched in found.unwrap() {
                for record in fetched.batches.iter().flat_map(|batch| batch.records()) {
                    let record = record.unwrap();
                    let key = u32::from_be_bytes(record.key.unwrap().try_into().unwrap());
                    if record.offset >= fetched.log_start {
                        records.push((record.offset, record.timestamp, key));
                    }
                }
            }
        }
        records
    }
}

#[test]
fn records_go_with_their_file_when_all_of_it_is_older_than_retention_ms() {
    for policy in ["delete", "compact,delete"] {
        let mut world = World::new(&[("cleanup.policy", policy), ("retention.ms", "600000")]);
        for i in 0..1_200 {
            world.append(i, 0);
            world.clock.advance(Duration::from_secs(1));
        }
        world.sleep(Duration::from_secs(300));
        // Of 1,500 seconds the last 600 are kept, and what shares a file with them.
        let now = world.clock.now();
        let check = |world: &World| {
            let records = world.records();
            let young = (0..1_200).filter(|i| now - (1_000_000_000 + i * 1_000) <= 600_000);
            let found: Vec<i64> = records.iter().map(|(offset, ..)| *offset).collect();
            assert!(found.ends_with(&young.collect::<Vec<_>>()), "{policy}: a young one is gone");
            // Compaction makes large segments of small ones, and old records share theirs.
            let most = if policy == "delete" { 350 } else { 1_200 };
            assert!(found.len() <= most, "{policy}: {} are kept", found.len());
        };
        check(&world);
        let mut world = world.after_a_power_cut();
        check(&world);
        world.sleep(HOUR);
        assert_eq!(world.records(), [], "{policy}");
        assert_eq!(world.horizon().log_start, 1_200, "{policy}");
        world.append(7, 0);
        assert_eq!(world.after_a_power_cut().records().len(), 1, "{policy}");
    }
}

#[test]
fn a_retention_that_is_raised_holds_from_then_on_and_after_a_power_cut() {
    let mut world = World::new(&[("retention.ms", "600000")]);
    (0..200).for_each(|i| world.append(i, 0));
    let raised = TopicConfig { retention_ms: Some(7_200_000), ..TopicConfig::default() };
    block_on(world.broker.admin().configure_topic("t", raised)).unwrap();
    world.sleep(HOUR);
    assert_eq!(world.records().len(), 200);
    let mut world = world.after_a_power_cut();
    world.sleep(HOUR / 2);
    assert_eq!(world.records().len(), 200);
    world.sleep(HOUR);
    assert_eq!(world.records(), []);
}

#[test]
fn a_file_with_one_young_record_stays_and_keeps_what_comes_after() {
    let mut world = World::new(&[("retention.ms", "600000")]);
    world.append(0, -24 * 60 * 60); // of tomorrow
    (1..200).for_each(|i| world.append(i, 3_600));
    world.sleep(HOUR);
    assert_eq!(world.records().len(), 200);
    world.sleep(24 * HOUR);
    assert_eq!(world.records(), []);
}

#[test]
fn without_retention_or_under_a_compacting_policy_nothing_goes_by_age() {
    for settings in [&[][..], &[("cleanup.policy", "compact"), ("retention.ms", "1000")]] {
        let mut world = World::new(settings);
        (0..200).for_each(|i| world.append(i, 0));
        world.sleep(24 * 365 * HOUR);
        assert_eq!(world.records().len(), 200);
    }
}

#[test]
fn what_is_younger_than_min_compaction_lag_ms_is_not_compacted_away() {
    let lag = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "3600000")];
    let mut world = World::new(&lag);
    (0..400).for_each(|i| world.append(i % 4, 0));
    world.sleep(Duration::from_secs(3_000));
    assert_eq!(world.horizon().compacted_below, 0);
    assert_eq!(world.records().len(), 400, "all are younger than an hour");

    (400..600).for_each(|i| world.append(i % 4, 0));
    world.sleep(Duration::from_secs(1_000));
    let records = world.records();
    let compacted_below = world.horizon().compacted_below;
    assert!((300..=400).contains(&compacted_below), "{compacted_below}");
    let young: Vec<i64> = records.iter().map(|r| r.0).filter(|o| *o >= 400).collect();
    assert_eq!(young, (400..600).collect::<Vec<_>>());
    // The last of each key among the old ones stays: nothing that is old enough replaces it.
    assert!(records.iter().filter(|r| r.0 < 400).count() >= 4);
    assert!(records.len() < 350, "{}", records.len());

    world.sleep(HOUR);
    let world = world.after_a_power_cut();
    assert!(world.horizon().compacted_below > 400);
    let records = world.records();
    for key in 0..4 {
        let last = records.iter().rfind(|r| r.2 == key).unwrap();
        assert_eq!(last.0, 596 + i64::from(key));
    }
}

#[test]
fn by_stream_time_input_of_last_year_stays_until_newer_records_come() {
    const YEAR: i64 = 365 * 24 * 60 * 60;
    for policy in ["delete", "compact,delete"] {
        let mut world = World::new(&[
            ("cleanup.policy", policy),
            ("retention.ms", "600000"),
            ("vltava.retention.by", "stream-time"),
        ]);
        // Ten records a minute, an hour of them, all written at once.
        for i in 0..600 {
            world.append(i, YEAR - i64::from(i) * 6);
        }
        world.sleep(HOUR);
        let mut world = world.after_a_power_cut();
        world.sleep(HOUR);
        let newest = world.records().last().map(|(_, time, _)| *time).unwrap();
        let young = |world: &World| {
            let times = world.records().into_iter().map(|(_, time, _)| time);
            times.filter(|time| newest - time <= 600_000).count()
        };
        assert_eq!(young(&world), 101, "{policy}: ten minutes are kept, however old");
        // Compaction makes large segments of small ones, and old records share theirs.
        let most = if policy == "delete" { 250 } else { 600 };
        assert!(world.records().len() <= most, "{policy}: {} are kept", world.records().len());
        // Time moves on in the records: all that came before them goes.
        for i in 0..100 {
            world.append(1_000 + i, YEAR / 2);
        }
        world.sleep(HOUR);
        let left = world.records();
        let keys: Vec<u32> = left.iter().rev().take(100).map(|record| record.2).collect();
        assert_eq!(keys, (1_000..1_100).rev().collect::<Vec<_>>(), "{policy}");
        assert!(left.len() < 250, "{policy}: {} are kept", left.len());
    }
}
