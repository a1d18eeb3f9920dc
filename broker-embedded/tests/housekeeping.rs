//! What is done in the background goes on when something is in its way: no space, damage, errors of
//! the disk.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::{
    Batch, BatchBuilder, Broker, Commit, Error, FetcherConfig, ManualClock, NewTopic, OffsetSpec,
    Producer, Start, TopicConfig, TopicPartition, View,
};
use broker_embedded::vfs::{OpenMode, SimVfs, Vfs};
use broker_embedded::{Durability, Settings, SimulatedBroker, Step};
use futures::executor::block_on;

const DIR: &str = "/data";
const RESERVE: u64 = 64 << 10;

fn small() -> Settings {
    Settings {
        journal_file_bytes: 64 << 10,
        retired_journal_files: 1,
        memory_tail_bytes: 4 << 10,
        reserve_bytes: 0,
        ..Settings::default()
    }
}

/// A simulated broker with its disk and clock.
struct World {
    vfs: SimVfs,
    clock: Arc<ManualClock>,
    settings: Settings,
    broker: SimulatedBroker,
    producer: Box<dyn Producer>,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self::on(SimVfs::new(1), settings).unwrap()
    }

    fn on(vfs: SimVfs, settings: Settings) -> Result<Self, Error> {
        let clock = Arc::new(ManualClock::new(1_000));
        let disk = Arc::new(vfs.clone());
        let broker = SimulatedBroker::open(disk, clock.clone(), DIR, settings.clone(), 7)?;
        let producer = broker.producer(Waker::noop().clone())?;
        Ok(Self { vfs, clock, settings, broker, producer })
    }

    fn topic(&self, name: &str, partitions: u32, config: TopicConfig) {
        let topic = NewTopic { name: name.into(), partitions, config };
        block_on(self.broker.admin().create_topic(topic)).unwrap();
    }

    /// Appends a record of about `size` bytes, all of it the byte `fill`.
    fn append(&mut self, tp: &TopicPartition, fill: u8, size: usize) -> Result<(), Error> {
        let appended = self.producer.append(tp, batch(fill, size)).map(|_| ());
        while self.producer.poll().is_ready() {}
        appended.map_err(|rejected| rejected.error)
    }

    /// Appends so many records of 1 KiB and writes each.
    fn fill(&mut self, tp: &TopicPartition, fill: u8, records: usize) {
        for _ in 0..records {
            self.append(tp, fill, 1_000).unwrap();
            self.write();
        }
    }

    /// As [`World::fill`], with the housekeeping at work.
    fn live(&mut self, tp: &TopicPartition, fill: u8, records: usize) {
        for _ in 0..records / 10 {
            self.fill(tp, fill, 10);
            self.settle();
        }
    }

    fn write(&mut self) {
        while self.broker.step_journal() == Step::Worked {}
        while self.producer.poll().is_ready() {}
    }

    /// Does all that is to be done now, or in a minute.
    fn settle(&mut self) {
        for _ in 0..2 {
            let step = || {
                let journal = self.broker.step_journal();
                self.broker.step_housekeeping() == Step::Worked || journal == Step::Worked
            };
            assert!((0..100_000).any(|_| !step()), "the broker never comes to rest");
            self.clock.advance(Duration::from_secs(60));
        }
        while self.producer.poll().is_ready() {}
    }

    fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let below = Path::new(DIR).join(folder);
        let wanted = |path: &PathBuf| {
            path.starts_with(&below) && path.extension().is_some_and(|e| e == extension)
        };
        self.vfs.files().into_iter().map(|(path, _)| path).filter(wanted).collect()
    }

    fn start(&self, tp: &TopicPartition) -> i64 {
        block_on(self.broker.admin().offsets(&[(tp.clone(), OffsetSpec::Earliest)])).unwrap()[0]
    }

    /// Opens it again after a power cut.
    fn after_a_power_cut(self) -> Result<Self, Error> {
        self.vfs.crash();
        let Self { vfs, settings, .. } = self;
        Self::on(vfs, settings)
    }

    fn count(&self, tp: &TopicPartition) -> usize {
        let config = FetcherConfig { view: View::Durable, ..FetcherConfig::default() };
        let mut fetcher = self.broker.fetcher(config, Waker::noop().clone()).unwrap();
        fetcher.assign(&[(tp.clone(), Start::Earliest)]).unwrap();
        let mut count = 0;
        while let Poll::Ready(found) = fetcher.poll(1 << 20) {
            let found = found.unwrap();
            count += found.iter().flat_map(|f| &f.batches).map(|b| b.count()).sum::<usize>();
        }
        count
    }
}

fn batch(fill: u8, size: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(0, Some(&[fill]), Some(&vec![fill; size]), &[]).unwrap();
    builder.finish().unwrap()
}

/// Flips a byte in the middle of the record that has `fill` in it, or of the whole file.
fn damage(vfs: &SimVfs, path: &Path, fill: Option<u8>) {
    let file = vfs.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let at = match fill {
        Some(fill) => bytes.windows(100).position(|w| w.iter().all(|b| *b == fill)).unwrap() + 50,
        None => bytes.len() / 2,
    };
    vfs.flip(path, at as u64, 0x40).unwrap();
}

#[test]
fn zeros_that_are_written_ahead_are_no_reason_to_call_the_disk_full() {
    let mut world = World::new(Settings { reserve_bytes: RESERVE, ..small() });
    let tp = TopicPartition::new("t", 0);
    world.topic("t", 1, TopicConfig::default());
    world.vfs.set_capacity(Some(world.vfs.used() + (20 << 10)));
    world.write();
    world.settle();
    world.append(&tp, 1, 100).unwrap();
    world.write();
    assert_eq!(world.count(&tp), 1);
}

#[test]
fn the_space_that_a_full_disk_got_back_is_not_taken_for_the_reserve_at_once() {
    let mut world = World::new(Settings { reserve_bytes: RESERVE, ..small() });
    let tp = TopicPartition::new("t", 0);
    world.topic("t", 1, TopicConfig::default());
    world.fill(&tp, 1, 4);
    world.settle();
    world.vfs.set_capacity(Some(world.vfs.used() + (8 << 10)));
    let refused = (0..1_000).find_map(|_| {
        let refused = world.append(&tp, 1, 3_000).err();
        world.write();
        refused
    });
    assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
    // Somebody makes some room: what was begun needs it more than the reserve does.
    world.vfs.set_capacity(Some(world.vfs.used() + RESERVE + (8 << 10)));
    world.clock.advance(Duration::from_secs(60));
    while world.broker.step_housekeeping() == Step::Worked {}
    let reserve = Path::new(DIR).join("reserve");
    let taken = || world.vfs.exists(&reserve).unwrap();
    assert!(!taken(), "what was begun needs the space");
    let transactor = world.broker.transactor("id", Waker::noop().clone());
    let commit = Commit { batches: vec![(tp.clone(), batch(1, 40_000))], group: None };
    transactor.unwrap().submit(commit).unwrap_err();
    block_on(world.broker.admin().delete_records(&tp, 2)).unwrap();
    assert!(matches!(world.append(&tp, 1, 10), Err(Error::DiskFull { .. })));
    world.vfs.set_capacity(Some(world.vfs.used() + 3 * RESERVE));
    world.settle();
    world.append(&tp, 1, 10).unwrap();
    assert!(world.vfs.files().contains(&(reserve, RESERVE)));
}

#[test]
fn records_for_which_there_is_no_room_are_not_moved_and_leave_nothing_half_written() {
    let mut world = World::new(Settings { reserve_bytes: RESERVE, ..small() });
    let tp = TopicPartition::new("t", 0);
    world.topic("t", 1, TopicConfig::default());
    world.fill(&tp, 1, 100);
    world.vfs.set_capacity(Some(world.vfs.used() + (24 << 10)));
    world.settle();
    assert_eq!(world.files("topics", "tmp"), [] as [PathBuf; 0]);
    world.append(&tp, 2, 100).unwrap();
    world.write();
    assert_eq!(world.count(&tp), 101);
    assert!(world.files("topics", "log").is_empty());
    world.vfs.set_capacity(None);
    world.settle();
    assert!(!world.files("topics", "log").is_empty());
    assert_eq!(world.count(&tp), 101);
}

#[test]
fn an_error_of_the_disk_holds_housekeeping_up_but_does_not_end_it() {
    let life = |fault: Option<u64>| {
        let mut world = World::new(small());
        let tp = TopicPartition::new("t", 0);
        world.topic("t", 1, TopicConfig::compacted());
        world.fill(&tp, 1, 300);
        let before = world.vfs.operations();
        if let Some(n) = fault {
            world.vfs.fail_operation(before + n, ErrorKind::Other);
        }
        while world.broker.step_housekeeping() == Step::Worked {}
        let operations = world.vfs.operations() - before;
        world.settle();
        world.live(&tp, 1, 60);
        (world, tp, operations)
    };
    let (world, _, operations) = life(None);
    let journal = world.files("journal", "log").len();
    assert!(operations > 50 && journal <= 3, "{operations} operations, {journal} files");
    for n in 0..operations {
        let (world, tp, _) = life(Some(n));
        assert_eq!(world.files("journal", "log").len(), journal, "operation {n}");
        assert_eq!(world.files("topics", "tmp"), [] as [PathBuf; 0], "operation {n}");
        let left = world.count(&tp);
        let world = world.after_a_power_cut().unwrap();
        assert_eq!(world.count(&tp), left, "operation {n}");
    }
}

#[test]
fn a_damaged_partition_is_passed_over_and_the_others_go_on() {
    let mut world = World::new(Settings { retired_journal_files: 8, ..small() });
    world.topic("a", 1, TopicConfig::default());
    world.topic("b", 1, TopicConfig::default());
    let (a, b) = (TopicPartition::new("a", 0), TopicPartition::new("b", 0));
    world.fill(&a, 7, 1);
    world.live(&b, 8, 100);
    let oldest = world.files("journal", "log")[0].clone();
    damage(&world.vfs, &oldest, Some(7));
    world.live(&b, 8, 200);
    let journal = world.files("journal", "log");
    assert!(journal.contains(&oldest) && journal.len() <= 11, "{journal:?}");
    let troubles = world.broker.troubles();
    let of_a =
        |error: &Error| matches!(error, Error::Corrupt { partition: Some(p), .. } if *p == a);
    assert!(troubles.len() == 1 && troubles.iter().all(of_a), "{troubles:?}");

    // The damage is got rid of.
    block_on(world.broker.admin().delete_records(&a, 1)).unwrap();
    world.clock.advance(Duration::from_secs(3_600));
    world.settle();
    assert!(!world.files("journal", "log").contains(&oldest));
    assert_eq!(world.broker.troubles(), []);

    assert_eq!(world.count(&b), 300);
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_a_good_one_while_the_broker_runs() {
    let mut world = World::new(small());
    world.topic("t", 1, TopicConfig::default());
    let tp = TopicPartition::new("t", 0);
    world.live(&tp, 1, 100);
    let newest = world.files("checkpoint", "ckpt").pop().unwrap();
    damage(&world.vfs, &newest, None);
    world.live(&tp, 1, 200);
    let checkpoints = world.files("checkpoint", "ckpt");
    assert!(!checkpoints.contains(&newest) && checkpoints.len() == 2, "{checkpoints:?}");
    assert!(world.files("journal", "log").len() <= 4);
    let world = world.after_a_power_cut().unwrap();
    assert_eq!(world.count(&tp), 300);
}

#[test]
fn a_damaged_checkpoint_that_the_journal_does_not_need_is_no_hindrance_after_opening() {
    let mut world = World::new(Settings { retired_journal_files: 100, ..small() });
    world.topic("t", 1, TopicConfig::default());
    let tp = TopicPartition::new("t", 0);
    world.live(&tp, 1, 100);
    for path in world.files("checkpoint", "ckpt") {
        damage(&world.vfs, &path, None);
    }
    world.settings.retired_journal_files = 1;
    let mut world = world.after_a_power_cut().unwrap();
    world.live(&tp, 1, 300);
    assert!(world.files("journal", "log").len() <= 4);
    assert_eq!(world.count(&tp), 400);
    world.after_a_power_cut().unwrap();
}

/// With `Os` an acknowledgement does not wait for the disk; housekeeping has to.
#[test]
fn nothing_is_removed_before_the_reason_for_it_has_reached_the_disk() {
    let run = |cut: Option<u64>| {
        let settings = Settings {
            durability: Durability::Os,
            sync_every: Duration::from_secs(3_600),
            ..small()
        };
        let mut world = World::new(settings);
        world.topic("t", 1, TopicConfig::default());
        let tp = TopicPartition::new("t", 0);
        for i in 0..200 {
            let appended = world.append(&tp, 1, 1_000);
            assert!(appended.is_ok() || world.vfs.power_is_cut(), "{appended:?}");
            // There is always more to write, so that the journal is never idle.
            if world.broker.step_journal() == Step::Worked && i == 120 {
                let before = world.vfs.changes();
                if let Some(cut) = cut {
                    world.vfs.cut_power_at(before + cut);
                }
            }
            world.broker.step_housekeeping();
        }
        world
    };
    for cut in 0..100 {
        let world = run(Some(cut));
        assert!(world.vfs.power_is_cut(), "{cut}");
        world.after_a_power_cut().unwrap_or_else(|e| panic!("cut {cut}: {e}"));
    }
    assert!(!run(None).vfs.power_is_cut());
}

/// Twice the partitions are twice the work, not four times as much.
#[test]
fn a_directory_with_many_partitions_is_housekept_in_linear_time() {
    let operations = |partitions: u32| {
        let mut world = World::new(small());
        world.topic("t", partitions, TopicConfig::compacted());
        for round in 0..3 {
            for partition in 0..partitions {
                world.append(&TopicPartition::new("t", partition), round, 1_000).unwrap();
            }
            world.write();
        }
        let before = world.vfs.operations();
        world.settle();
        assert!(world.start(&TopicPartition::new("t", 0)) == 0);
        world.vfs.operations() - before
    };
    let (few, many) = (operations(60), operations(120));
    assert!(many < few * 5 / 2, "{few} operations, then {many}");
}
