//! A record that fails after it has left something behind sets back the task whose record it is, and no
//! other: that task is opened anew on the store engines that it had, and the others go on.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use broker_api::{BatchBuilder, Broker, TopicPartition};
use streams_core::StateError;
use streams_core::runtime::{Background, Inline, Next, StreamThread, log_and_continue};
use streams_core::state::{LossyEngine, StateEngine, StoreEngine};

use world::{World, counts, processors};

/// Counts how often the stores of each task are opened.
#[derive(Clone, Default)]
struct Opened {
    engine: LossyEngine,
    times: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Opened {
    fn times(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateEngine for Opened {
    fn open(&self, dir: &Path, names: &[&str]) -> Result<Vec<Arc<dyn StoreEngine>>, StateError> {
        let task = dir.file_name().unwrap().to_string_lossy().into_owned();
        *self.times().entry(task).or_default() += 1;
        self.engine.open(dir, names)
    }
}

/// Flushes that wait until somebody runs them.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<Vec<Flush>>>);

type Flush = Box<dyn FnOnce() + Send>;

impl Background for Waiting {
    fn run(&self, flush: Flush) {
        self.0.lock().unwrap().push(flush);
    }
}

impl Waiting {
    fn run_all(&self) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap());
        waiting.into_iter().for_each(|flush| flush());
    }
}

/// Two tasks that leave out what fails.
fn world(caches: bool) -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(processors::moody(caches));
    world.delete_topic("in");
    world.create_topic("in", 2);
    world.settings.processing_handler = log_and_continue();
    world
}

fn thread(world: &World, engine: &Opened, flushes: impl Background) -> StreamThread {
    drop(world.thread()); // makes the environment
    let mut env = world.env();
    env.engine = Arc::new(engine.clone());
    env.background = Arc::new(flushes);
    StreamThread::new(env, "p", 0, Waker::noop().clone()).unwrap()
}

fn write(world: &World, partition: u32, records: &[(&str, &[u8])]) {
    world.write_to(TopicPartition::new("in", partition), records);
}

fn sorted(mut records: Vec<(String, i64)>) -> Vec<(String, i64)> {
    records.sort();
    records
}

#[test]
fn a_failing_record_sets_its_own_task_back_and_the_others_go_on_unopened() {
    let (world, engine) = (world(false), Opened::default());
    let mut thread = thread(&world, &engine, Inline);
    for round in 1..=3 {
        write(&world, 0, &[("a", b"-"), ("x", b"late"), ("a", b"-")]);
        write(&world, 1, &[("b", b"-"), ("c", b"-"), ("b", b"-")]);
        world.run(&mut thread).unwrap();
        assert!(thread.is_caught_up());
        assert_eq!(world.metrics().given_up, round * 2, "a and x, not what the other task did");
    }
    let once = [("0_0", 1), ("0_1", 1)].map(|(task, times)| (task.to_owned(), times));
    assert_eq!(*engine.times(), once.into(), "the failing task keeps its stores open");
    let out = sorted(world.read("out"));
    let mut expected = Vec::new();
    expected.extend((1..=6).map(|n| ("a", n)));
    expected.extend((1..=6).map(|n| ("b", n)));
    expected.extend((1..=3).map(|n| ("c", n)));
    assert_eq!(out, counts(&expected));
    assert_eq!(world.metrics().processed, 18);
    assert_eq!(world.metrics().dropped.get("not processed"), Some(&3));
}

/// The task that fails waits for room, which only a commit of the other one makes.
#[test]
fn what_others_did_before_a_record_failed_is_committed_though_the_generation_is_full() {
    let (mut world, engine) = (world(false), Opened::default());
    world.settings.seal_bytes = 1;
    let mut thread = thread(&world, &engine, Inline);
    world.run(&mut thread).unwrap(); // both tasks are open
    write(&world, 0, &[("x", b"late"), ("a", b"-")]);
    write(&world, 1, &[("b", b"-")]);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(sorted(world.read("out")), counts(&[("a", 1), ("b", 1)]));
}

#[test]
fn what_fails_at_the_seal_sets_tasks_back_whose_stores_stay_open() {
    let (world, engine) = (world(true), Opened::default());
    let mut thread = thread(&world, &engine, Inline);
    write(&world, 0, &[("a", b"-"), ("a", b"-"), ("unsealable", b"-"), ("a", b"-")]);
    write(&world, 1, &[("b", b"-"), ("b", b"late"), ("c", b"-")]);
    world.run(&mut thread).unwrap();
    assert!(thread.is_caught_up());
    assert_eq!(
        last(world.read("out")),
        counts(&[("a", 3), ("b", 1), ("c", 1)]).into_iter().collect()
    );
    assert_eq!(world.metrics().processed, 7);
    assert_eq!(world.metrics().dropped.get("not processed"), Some(&2));
    assert_eq!(engine.times().values().copied().collect::<Vec<_>>(), [1, 1]);
}

/// Commits are on their way, and so are flushes, when records fail: whatever comes first, each count
/// is there once, and the files hold the last ones.
#[test]
fn what_is_under_way_when_a_record_fails_takes_effect_once() {
    for seed in 1..=50 {
        let (expected, out) = fail_at_random(false, seed);
        let mut all = Vec::new();
        for (key, count) in &expected {
            all.extend((1..=*count).map(|n| (key.clone(), n)));
        }
        assert_eq!(sorted(out), all, "seed {seed}");
    }
}

#[test]
fn what_is_under_way_when_a_seal_fails_takes_effect_once() {
    for seed in 1..=50 {
        let (expected, out) = fail_at_random(true, seed);
        assert_eq!(last(out), expected, "seed {seed}");
    }
}

/// Steps of everybody in any order, while records come of which some fail. Answers the counts of the
/// others, and what was written; the files hold the counts.
fn fail_at_random(caches: bool, seed: u64) -> (BTreeMap<String, i64>, Vec<(String, i64)>) {
    let (mut world, engine) = (world(caches), Opened::default());
    world.settings.flush_interval = Duration::ZERO;
    world.settings.commit_interval = Duration::ZERO;
    let flushes = Waiting::default();
    let mut thread = thread(&world, &engine, flushes.clone());
    let mut producer = world.broker.producer(Waker::noop().clone()).unwrap();
    let mut random = Random(seed);
    let mut expected = BTreeMap::new();
    for _ in 0..60 {
        let partition = random.below(2) as u32;
        let (key, value) = match random.below(8) {
            0 => (format!("{partition}{}", random.below(3)), "late"),
            1 if caches => ("unsealable".to_owned(), "-"),
            _ => (format!("{partition}{}", random.below(3)), "-"),
        };
        if key != "unsealable" && value != "late" {
            *expected.entry(key.clone()).or_insert(0) += 1;
        }
        let mut batch = BatchBuilder::new();
        batch.push(5, Some(key.as_bytes()), Some(value.as_bytes()), &[]).unwrap();
        producer.append(&TopicPartition::new("in", partition), batch.finish().unwrap()).unwrap();
        for _ in 0..random.below(8) {
            match random.below(8) {
                0 => flushes.run_all(),
                1..=4 => drop(world.broker.step()),
                _ => drop(thread.step().unwrap()),
            }
        }
    }
    let settle = |done: fn(&StreamThread, Next) -> bool, thread: &mut StreamThread| {
        for _ in 0..100 {
            flushes.run_all();
            let next = world.run(thread).unwrap();
            if done(thread, next) {
                return;
            }
        }
        panic!("seed {seed}: it never comes to rest: {thread:?}");
    };
    settle(|thread, _| thread.is_caught_up(), &mut thread);
    thread.stop();
    settle(|_, next| next == Next::Stopped, &mut thread);
    assert_eq!(in_files(&world, &engine), expected, "seed {seed}");
    assert_eq!(world.metrics().processed, 60, "seed {seed}");
    (expected, world.read("out"))
}

/// The last count of each key.
fn last(counts: Vec<(String, i64)>) -> BTreeMap<String, i64> {
    let mut last = BTreeMap::new();
    for (key, count) in counts {
        let before = last.insert(key, count).unwrap_or_default();
        assert!(before < count, "a count never goes back");
    }
    last
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What the stores' files hold.
fn in_files(world: &World, engine: &Opened) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for task in ["0_0", "0_1"] {
        let dir = world.env().state_dir.join(task);
        let store = engine.engine.open(&dir, &["counts"]).unwrap().remove(0);
        for entry in store.scan(&[], None).unwrap() {
            let (key, value) = entry.unwrap();
            let count = i64::from_be_bytes(value[8..].try_into().unwrap()); // behind the timestamp
            found.insert(String::from_utf8(key.to_vec()).unwrap(), count);
        }
    }
    found
}
