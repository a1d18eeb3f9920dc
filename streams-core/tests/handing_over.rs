//! Tasks that go from one thread to another: when their stores are closed, and with no harm to those who
//! get them.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use broker_api::TopicPartition;
use broker_api::sim::Faults;
use bytes::Bytes;
use streams_core::StateError;
use streams_core::runtime::StreamThread;
use streams_core::state::{
    BulkLoad, EntryBatch, LossyEngine, Position, Scan, StateEngine, StoreEngine,
};

use world::{World, counts};

/// Refuses to open what is still open, as RocksDB does; and others work while a store is closed.
#[derive(Clone, Default)]
struct Exclusive {
    engine: LossyEngine,
    open: Arc<Mutex<BTreeSet<PathBuf>>>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Box<dyn FnMut() + Send>;

struct ExclusiveStore {
    store: Arc<dyn StoreEngine>,
    path: PathBuf,
    engine: Exclusive,
}

impl StateEngine for Exclusive {
    fn open(&self, dir: &Path, names: &[&str]) -> Result<Vec<Arc<dyn StoreEngine>>, StateError> {
        let mut opened: Vec<Arc<dyn StoreEngine>> = Vec::new();
        for (name, store) in names.iter().zip(self.engine.open(dir, names)?) {
            let path = dir.join(name);
            if !self.open.lock().unwrap().insert(path.clone()) {
                let reason = "it is locked".into();
                return Err(StateError::Io { operation: "opening", path, reason });
            }
            opened.push(Arc::new(ExclusiveStore { store, path, engine: self.clone() }));
        }
        Ok(opened)
    }
}

impl Drop for ExclusiveStore {
    fn drop(&mut self) {
        let meanwhile = self.engine.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut others_work) = meanwhile {
            others_work();
        }
        let mut open = self.engine.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.path);
    }
}

impl StoreEngine for ExclusiveStore {
    fn position(&self) -> Result<Option<Position>, StateError> {
        self.store.position()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.store.get(key)
    }

    fn scan<'a>(&'a self, from: &[u8], to: Option<&[u8]>) -> Result<Scan<'a>, StateError> {
        self.store.scan(from, to)
    }

    fn apply(&self, batch: &mut EntryBatch, position: &Position) -> Result<(), StateError> {
        self.store.apply(batch, position)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.store.flush()
    }

    fn bulk_load(&self) -> Result<Box<dyn BulkLoad>, StateError> {
        self.store.bulk_load()
    }
}

const VALUE: &[u8] = b"12345678";

/// One more thread of the application, beside the one that was made last.
fn other_thread(world: &World) -> StreamThread {
    StreamThread::new(world.env(), "p", 1, Waker::noop().clone()).unwrap()
}

#[test]
fn a_thread_that_fails_closes_its_stores_before_another_gets_its_tasks() {
    let world = World::new(1 << 20);
    let engine = Exclusive::default();
    drop(world.thread()); // makes the environment
    let mut env = world.env();
    env.engine = Arc::new(engine.clone());
    let mut failing = StreamThread::new(env.clone(), "p", 0, Waker::noop().clone()).unwrap();
    world.write(&[("a", VALUE)]);
    world.run(&mut failing).unwrap();
    let next = StreamThread::new(env, "p", 1, Waker::noop().clone()).unwrap();
    let next = Arc::new(Mutex::new(next));
    let (others, broker) = (next.clone(), world.broker.clone());
    *engine.meanwhile.lock().unwrap() = Some(Box::new(move || {
        for _ in 0..100 {
            broker.step();
            others.lock().unwrap().step().unwrap();
        }
    }));
    drop(failing);
    let mut next = next.lock().unwrap();
    world.write(&[("a", VALUE)]);
    world.run(&mut next).unwrap();
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2)]));
}

#[test]
fn a_commit_that_waits_for_room_is_none_of_a_former_member_when_its_thread_gets_another_task() {
    let world = World::new(1 << 20);
    world.delete_topic("in");
    world.create_topic("in", 2);
    let mut thread = world.thread();
    let mut leaving = other_thread(&world);
    for _ in 0..100 {
        world.broker.step();
        thread.step().unwrap();
        leaving.step().unwrap();
    }
    assert_eq!((thread.tasks_mut().count(), leaving.tasks_mut().count()), (1, 1));
    leaving.pause(true);
    for partition in 0..2 {
        world.write_to(TopicPartition::new("in", partition), &[("a", VALUE)]);
    }
    let full = Faults { full: 1_000, ..Faults::default() };
    world.broker.set_faults(full);
    while !format!("{thread:?}").contains("unsent: true") {
        world.broker.step();
        thread.step().unwrap();
    }
    drop(leaving);
    while thread.tasks_mut().count() < 2 {
        world.broker.step();
        thread.step().unwrap();
    }
    world.broker.set_faults(Faults::default());
    world.run(&mut thread).unwrap();
    assert_eq!(world.count("out"), 2);
    assert_eq!(world.metrics().given_up, 0);
}
