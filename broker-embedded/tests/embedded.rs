//! What the embedded broker promises beyond the contract.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use broker_api::{
    Batch, BatchBuilder, Broker, CleanupPolicy, Commit, Error, Fetcher, FetcherConfig, ManualClock,
    MembershipConfig, MembershipEvent, NewTopic, OffsetSpec, Producer, Start, TaskId, TopicConfig,
    TopicPartition, Transactor, TransactorEvent, View,
};
use broker_embedded::vfs::{OpenMode, SimVfs, Vfs};
use broker_embedded::{Durability, EmbeddedBroker, Settings, SimulatedBroker, Step};
use futures::executor::block_on;

const DIR: &str = "/data";

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
}

impl World {
    fn new(settings: Settings) -> Self {
        let (vfs, clock) = (SimVfs::new(1), Arc::new(ManualClock::new(1_000)));
        let broker = open(&vfs, &clock, &settings);
        Self { vfs, clock, settings, broker }
    }

    fn topic(&self, name: &str, config: TopicConfig) -> TopicPartition {
        let topic = NewTopic { name: name.into(), partitions: 1, config };
        block_on(self.broker.admin().create_topic(topic)).unwrap();
        TopicPartition::new(name, 0)
    }

    fn transactor(&self) -> Box<dyn Transactor> {
        self.broker.transactor("id", Waker::noop().clone()).unwrap()
    }

    fn fetcher(&self, view: View, tp: &TopicPartition, waker: Waker) -> Box<dyn Fetcher> {
        let config = FetcherConfig { view, ..FetcherConfig::default() };
        let mut fetcher = self.broker.fetcher(config, waker).unwrap();
        fetcher.assign(&[(tp.clone(), Start::Earliest)]).unwrap();
        fetcher
    }

    /// Does all that is to be done now.
    fn settle(&self) {
        let step = || {
            let journal = self.broker.step_journal();
            self.broker.step_housekeeping() == Step::Worked || journal == Step::Worked
        };
        while step() {}
    }

    fn offset(&self, tp: &TopicPartition, spec: OffsetSpec) -> i64 {
        block_on(self.broker.admin().offsets(&[(tp.clone(), spec)])).unwrap()[0]
    }

    /// Bytes of files below a folder.
    fn bytes(&self, folder: &str) -> u64 {
        let below = Path::new(DIR).join(folder);
        self.vfs.files().iter().filter(|(path, _)| path.starts_with(&below)).map(|f| f.1).sum()
    }

    fn keys(&self, tp: &TopicPartition) -> Vec<(i64, Vec<u8>)> {
        let mut fetcher = self.fetcher(View::Durable, tp, Waker::noop().clone());
        let mut keys = Vec::new();
        while let Poll::Ready(found) = fetcher.poll(1 << 20) {
            for batch in found.unwrap().iter().flat_map(|fetched| &fetched.batches) {
                let records = batch.records().map(Result::unwrap);
                keys.extend(records.map(|r| (r.offset, r.key.unwrap().to_vec())));
            }
        }
        keys
    }

    fn reopen(&mut self) {
        self.broker.close().unwrap();
        self.broker = open(&self.vfs, &self.clock, &self.settings);
    }
}

fn open(vfs: &SimVfs, clock: &Arc<ManualClock>, settings: &Settings) -> SimulatedBroker {
    let vfs = Arc::new(vfs.clone());
    SimulatedBroker::open(vfs, clock.clone(), DIR, settings.clone(), 7).unwrap()
}

fn batch(key: &[u8], value: Option<&[u8]>) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(0, Some(key), value, &[]).unwrap();
    builder.finish().unwrap()
}

fn commit(tp: &TopicPartition, batch: Batch) -> Commit {
    Commit { batches: vec![(tp.clone(), batch)], group: None }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_second_opener_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), Settings::default()).unwrap();
    let error = EmbeddedBroker::open(dir.path(), Settings::default()).unwrap_err();
    assert!(matches!(&error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let admin = broker.admin();
    drop(broker);
    assert!(EmbeddedBroker::open(dir.path(), Settings::default()).is_err(), "admin holds it");
    drop(admin);
    EmbeddedBroker::open(dir.path(), Settings::default()).unwrap().close().unwrap();
}

#[test]
fn a_closed_broker_refuses_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), Settings::default()).unwrap();
    broker.close().unwrap();
    broker.close().unwrap();
    assert_eq!(block_on(broker.admin().topics()), Err(Error::Closed));
    assert_eq!(broker.transactor("id", Waker::noop().clone()).err(), Some(Error::Closed));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let world = World::new(small());
    world.broker.close().unwrap();
    let path = Path::new(DIR).join("VERSION");
    let line = "vltava broker 3";
    world.vfs.remove(&path).unwrap();
    let file = world.vfs.open(&path, broker_embedded::vfs::OpenMode::CreateNew).unwrap();
    let text = format!("{line} {:08x}\n", crc32c::crc32c(line.as_bytes()));
    file.write_at(0, text.as_bytes()).unwrap();
    let vfs = Arc::new(world.vfs.clone());
    let opened = SimulatedBroker::open(vfs, world.clock.clone(), DIR, small(), 1);
    assert!(matches!(opened.err(), Some(Error::NewerFormat { found: 3, supported: 2, .. })));
}

#[test]
fn readers_get_the_very_bytes_that_were_submitted() {
    let world = World::new(Settings { memory_tail_bytes: 1 << 20, ..small() });
    let tp = world.topic("t", TopicConfig::default());
    let sent = batch(b"k", Some(b"v"));
    world.transactor().submit(commit(&tp, sent.clone())).unwrap();
    for view in [View::Applied, View::Durable] {
        let mut fetcher = world.fetcher(view, &tp, Waker::noop().clone());
        let Poll::Ready(Ok(found)) = fetcher.poll(1 << 20) else { panic!("nothing to read") };
        assert_eq!(found[0].batches[0].bytes().as_ptr(), sent.bytes().as_ptr());
        world.settle();
    }
}

#[test]
fn readers_are_woken_once_and_only_by_what_they_can_see() {
    let world = World::new(small());
    let (tp, other) =
        (world.topic("t", TopicConfig::default()), world.topic("o", TopicConfig::default()));
    let mut transactor = world.transactor();
    let (applied, durable) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut readers = [
        world.fetcher(View::Applied, &tp, applied.clone().into()),
        world.fetcher(View::Durable, &tp, durable.clone().into()),
    ];
    let woken = || (applied.0.load(Ordering::Relaxed), durable.0.load(Ordering::Relaxed));
    for reader in &mut readers {
        while reader.poll(1 << 20).is_ready() {}
    }
    transactor.submit(commit(&other, batch(b"k", None))).unwrap();
    world.settle();
    assert_eq!(woken(), (0, 0), "nothing for them");
    transactor.submit(commit(&tp, batch(b"k", None))).unwrap();
    transactor.submit(commit(&tp, batch(b"k", None))).unwrap();
    assert_eq!(woken(), (1, 0), "not durable yet, and one call is enough");
    world.settle();
    assert_eq!(woken(), (1, 1));
}

#[test]
fn purging_alone_costs_no_sync_of_its_own() {
    let world = World::new(small());
    let tp = world.topic("t", TopicConfig::default());
    let mut transactor = world.transactor();
    transactor.submit(commit(&tp, batch(b"k", None))).unwrap();
    transactor.purge(&tp, 1);
    let before = world.vfs.syncs();
    world.broker.step_journal(); // writes the commit and the purge
    world.broker.step_journal(); // syncs both
    assert_eq!(world.vfs.syncs(), before + 1);
    assert_eq!(world.offset(&tp, OffsetSpec::Earliest), 1);
}

#[test]
fn waits_without_end_are_no_overflow() {
    let (seal_after, sync_every) = (Duration::MAX, Duration::MAX);
    let settings = Settings { durability: Durability::Os, seal_after, sync_every, ..small() };
    let world = World::new(settings);
    let tp = world.topic("t", TopicConfig::default());
    let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
    producer.append(&tp, batch(b"k", None)).unwrap();
    for _ in 0..10 {
        world.clock.advance(Duration::from_secs(1));
        world.broker.step_journal();
    }
}

#[test]
fn durability_os_acknowledges_before_the_sync_and_syncs_soon_after() {
    let world = World::new(Settings { durability: Durability::Os, ..small() });
    let tp = world.topic("t", TopicConfig::default());
    world.settle();
    let mut transactor = world.transactor();
    let ticket = transactor.submit(commit(&tp, batch(b"k", None))).unwrap();
    assert!(matches!(transactor.poll(), Poll::Ready(TransactorEvent::Applied { .. })));
    let before = world.vfs.syncs();
    while transactor.poll() != Poll::Ready(TransactorEvent::Durable { ticket }) {
        assert_eq!(world.broker.step_journal(), Step::Worked);
    }
    assert_eq!(world.vfs.syncs(), before);
    world.settle();
    assert_eq!(world.vfs.syncs(), before + 1);
}

/// Does something when it is woken.
struct Then(Box<dyn Fn() + Send + Sync>);

impl Wake for Then {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn then(what: impl Fn() + Send + Sync + 'static) -> Waker {
    Arc::new(Then(Box::new(what))).into()
}

/// A broker on the real disk, a reader of its only topic that waits for more, and a writer.
fn waiting(waker: Waker) -> (tempfile::TempDir, EmbeddedBroker, Box<dyn Fetcher>) {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::open(dir.path(), small()).unwrap();
    let topic = NewTopic { name: "t".into(), partitions: 1, config: TopicConfig::default() };
    block_on(broker.admin().create_topic(topic)).unwrap();
    let mut fetcher = broker.fetcher(FetcherConfig::default(), waker).unwrap();
    fetcher.assign(&[(TopicPartition::new("t", 0), Start::Earliest)]).unwrap();
    while fetcher.poll(1 << 20).is_ready() {}
    (dir, broker, fetcher)
}

#[test]
fn a_waker_may_drop_the_last_handle() {
    type Handles = (EmbeddedBroker, Box<dyn Fetcher>, Box<dyn Producer>);
    let last: Arc<Mutex<Option<Handles>>> = Arc::default();
    let (told, dropped) = mpsc::channel();
    let handles = last.clone();
    let waker = then(move || {
        let handles = handles.lock().unwrap().take();
        drop(handles);
        told.send(()).unwrap();
    });
    let (_dir, broker, fetcher) = waiting(waker);
    let mut producer = broker.producer(Waker::noop().clone()).unwrap();
    let mut handles = last.lock().unwrap();
    producer.append(&TopicPartition::new("t", 0), batch(b"k", None)).unwrap();
    *handles = Some((broker, fetcher, producer));
    drop(handles);
    dropped.recv_timeout(Duration::from_secs(20)).expect("the journal's thread waits for itself");
}

#[test]
fn a_waker_that_panics_does_not_end_the_broker() {
    let (_dir, broker, mut fetcher) = waiting(then(|| panic!("a waker of somebody else")));
    let tp = TopicPartition::new("t", 0);
    let (told, appended) = mpsc::channel();
    let waker = then(move || told.send(()).unwrap());
    let mut producer = broker.producer(waker).unwrap();
    for _ in 0..3 {
        producer.append(&tp, batch(b"k", None)).unwrap();
        while producer.poll().is_pending() {
            appended.recv_timeout(Duration::from_secs(20)).expect("the journal's thread is gone");
        }
        while fetcher.poll(1 << 20).is_ready() {} // asks to be woken again
    }
    broker.close().unwrap();
}

#[test]
fn whoever_waits_is_woken_and_told_when_the_broker_fails() {
    let world = World::new(small());
    let tp = world.topic("t", TopicConfig::default());
    let woken: Arc<Count> = Arc::default();
    let mut fetcher = world.fetcher(View::Durable, &tp, woken.clone().into());
    while fetcher.poll(1 << 20).is_ready() {}
    let task = TaskId { subtopology: 0, partition: 0 };
    let config = MembershipConfig {
        application: "a".into(),
        tasks: vec![task],
        following: Vec::new(),
        warm: Vec::new(),
    };
    let mut member = world.broker.membership(config, Waker::noop().clone()).unwrap();
    while member.poll().is_ready() {}
    let mut transactor = world.transactor();
    let ticket = transactor.submit(commit(&tp, batch(b"k", None))).unwrap();
    world.vfs.fail_sync(world.vfs.syncs());
    world.settle();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1, "the reader sleeps for ever");
    assert!(matches!(fetcher.poll(1), Poll::Ready(Err(Error::Failed { .. }))));
    assert_eq!(member.poll(), Poll::Ready(MembershipEvent::Lost));
    assert!(matches!(transactor.poll(), Poll::Ready(TransactorEvent::Applied { .. })));
    assert_eq!(transactor.poll(), Poll::Ready(TransactorEvent::Doubt { ticket }));
    assert!(matches!(transactor.poll(), Poll::Ready(TransactorEvent::Failed(_))));
    assert_eq!(transactor.synced(), None);
}

#[test]
fn a_reader_that_waits_is_woken_when_the_broker_is_closed() {
    let (told, woken) = mpsc::channel();
    let (_dir, broker, mut fetcher) = waiting(then(move || told.send(()).unwrap()));
    broker.close().unwrap();
    woken.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(fetcher.poll(1), Poll::Ready(Err(Error::Closed))));
}

#[test]
fn epochs_rise_over_restarts() {
    let mut world = World::new(small());
    let task = TaskId { subtopology: 0, partition: 0 };
    let mut last = None;
    for _ in 0..3 {
        let config = MembershipConfig {
            application: "a".into(),
            tasks: vec![task],
            following: Vec::new(),
            warm: Vec::new(),
        };
        let mut member = world.broker.membership(config, Waker::noop().clone()).unwrap();
        let Poll::Ready(MembershipEvent::Assigned { token, active, .. }) = member.poll() else {
            panic!("not assigned")
        };
        assert_eq!(active, [task]);
        assert!(Some((token.member, token.epoch)) > last, "{token:?} after {last:?}");
        last = Some((token.member, token.epoch));
        drop(member);
        world.reopen();
    }
}

#[test]
fn tasks_stay_where_they_are_and_prefer_where_their_state_is() {
    let world = World::new(small());
    let tasks: Vec<TaskId> = (0..4).map(|partition| TaskId { subtopology: 0, partition }).collect();
    let join = |warm: &[TaskId]| {
        let (tasks, warm) = (tasks.clone(), warm.to_vec());
        let config =
            MembershipConfig { application: "a".into(), tasks, following: Vec::new(), warm };
        world.broker.membership(config, Waker::noop().clone()).unwrap()
    };
    let mut first = join(&[]);
    let Poll::Ready(MembershipEvent::Assigned { .. }) = first.poll() else { panic!("assigned") };
    let mut second = join(&[tasks[0], tasks[1]]);
    let Poll::Ready(MembershipEvent::Revoke { tasks: revoked }) = first.poll() else {
        panic!("two of four must go")
    };
    assert_eq!(revoked.len(), 2);
    assert!(second.poll().is_pending(), "nothing is free yet");
    first.ack(&revoked);
    let Poll::Ready(MembershipEvent::Assigned { active, .. }) = second.poll() else {
        panic!("what was given up is free")
    };
    assert_eq!(active, revoked);
    drop(first);
    let Poll::Ready(MembershipEvent::Assigned { active, .. }) = second.poll() else {
        panic!("all is free")
    };
    assert_eq!(active, tasks);
    assert!(second.poll().is_pending());
}

#[test]
fn a_changelog_does_not_grow_for_ever_and_keeps_the_newest_of_each_key() {
    let mut world = World::new(small());
    let tp = world.topic("c", TopicConfig::compacted());
    let mut transactor = world.transactor();
    let (mut most, mut last) = (0, vec![0; 10]);
    for i in 0..2_000i64 {
        let key = (i * i % 10) as u8;
        last[usize::from(key)] = i;
        // Large, so that what is kept is small against what was written.
        let mut builder = BatchBuilder::new();
        builder.push(0, Some(&[key]), Some(&[1; 500]), &[]).unwrap();
        transactor.submit(commit(&tp, builder.finish().unwrap())).unwrap();
        while transactor.poll().is_ready() {}
        world.settle();
        most = most.max(world.bytes("topics"));
    }
    assert!(most < 100 << 10, "{most} bytes for ten keys");
    assert!(world.bytes("journal") < 6 * (64 << 10) + (1 << 20));
    let horizon = block_on(world.broker.admin().horizon(&tp)).unwrap();
    assert!(horizon.compacted_below > 1_000, "{horizon:?}");
    for _ in 0..2 {
        let keys = world.keys(&tp);
        for key in [0, 1, 4, 5, 6, 9] {
            let newest = keys.iter().rfind(|(_, k)| *k == [key]).unwrap().0;
            assert_eq!(newest, last[usize::from(key)]);
        }
        assert!(keys.is_sorted());
        world.reopen();
    }
}

#[test]
fn a_deleted_key_is_gone_in_the_end_and_the_horizon_says_so() {
    let world = World::new(small());
    let tp = world.topic("c", TopicConfig::compacted());
    let mut transactor = world.transactor();
    let mut send = |key: &[u8], value: Option<&[u8]>| {
        transactor.submit(commit(&tp, batch(key, value))).unwrap();
        while transactor.poll().is_ready() {}
        world.settle();
    };
    send(b"doomed", Some(b"v"));
    send(b"doomed", None);
    for i in 0..1_000u32 {
        send(&(i % 7).to_be_bytes(), Some(&[1; 400]));
    }
    let horizon = block_on(world.broker.admin().horizon(&tp)).unwrap();
    assert_eq!(horizon.tombstones_gone_below, 2);
    assert!(world.keys(&tp).iter().all(|(_, key)| key != b"doomed"));
}

#[test]
fn purged_data_is_never_copied() {
    let world = World::new(small());
    let tp = world.topic("repartition", TopicConfig::default());
    let mut transactor = world.transactor();
    for i in 0..1_000 {
        transactor.submit(commit(&tp, batch(b"k", Some(&[1; 1_000])))).unwrap();
        transactor.purge(&tp, i + 1);
        while transactor.poll().is_ready() {}
        world.settle();
    }
    assert_eq!(world.bytes("topics"), 0);
    assert_eq!(world.offset(&tp, OffsetSpec::Earliest), 1_000);
}

#[test]
fn retention_keeps_about_as_many_bytes_as_it_is_told() {
    let mut world = World::new(small());
    let config = TopicConfig {
        cleanup_policy: CleanupPolicy::Delete,
        retention_bytes: Some(100 << 10),
        ..TopicConfig::default()
    };
    let tp = world.topic("t", config);
    let mut transactor = world.transactor();
    for _ in 0..2_000 {
        transactor.submit(commit(&tp, batch(b"k", Some(&[1; 1_000])))).unwrap();
        while transactor.poll().is_ready() {}
        world.settle();
    }
    for _ in 0..2 {
        let kept = 2_000 - world.offset(&tp, OffsetSpec::Earliest);
        assert!((100..500).contains(&kept), "{kept} records of about 1 KiB");
        let keys = world.keys(&tp);
        assert_eq!(keys.len() as i64, kept);
        assert!(world.bytes("topics") < 300 << 10);
        world.reopen();
    }
}

#[test]
fn a_deleted_topic_leaves_no_files() {
    let world = World::new(small());
    let tp = world.topic("t", TopicConfig::default());
    let mut transactor = world.transactor();
    for _ in 0..500 {
        transactor.submit(commit(&tp, batch(b"k", Some(&[1; 1_000])))).unwrap();
        while transactor.poll().is_ready() {}
        world.settle();
    }
    assert!(world.bytes("topics") > 0);
    block_on(world.broker.admin().delete_topic("t")).unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.settle();
    assert_eq!(world.bytes("topics"), 0);
}

/// Copies of directories that were broken off, and files that were lost, look like this.
#[test]
fn a_journal_that_was_cut_short_or_lost_after_a_good_closing_is_refused() {
    let world = World::new(small());
    let tp = world.topic("t", TopicConfig::default());
    let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
    producer.append(&tp, batch(b"k", None)).unwrap();
    drop(producer);
    world.broker.close().unwrap();
    let journal = Path::new(DIR).join("journal");
    let path = journal.join(&world.vfs.list(&journal).unwrap()[0]);
    let reopen = || {
        let (vfs, clock) = (Arc::new(world.vfs.clone()), world.clock.clone());
        SimulatedBroker::open(vfs, clock, DIR, world.settings.clone(), 7).map(|_| ())
    };
    let file = world.vfs.open(&path, OpenMode::ReadWrite).unwrap();
    for length in [3 * 4096, 2 * 4096, 4096] {
        file.set_len(length).unwrap();
        let error = reopen().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{length} bytes: {error}");
        assert!(error.to_string().contains("closed in good order"), "{error}");
    }
    world.vfs.remove(&path).unwrap();
    let error = reopen().unwrap_err();
    assert!(error.to_string().contains("the journal's files are missing"), "{error}");
}
