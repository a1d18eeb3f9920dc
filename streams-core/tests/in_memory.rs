//! Stores without files, also those of so many entries, beside stores with files, in one task.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor, StoreHandle};
use streams_core::runtime::StreamThread;
use streams_core::state::{KeyValueStore, StateEngine, StoreOptions};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::World;

const STORES: [&str; 4] = ["few", "files", "forgetful", "memory"];

/// Puts every record in all stores.
#[derive(Default)]
struct Keep {
    stores: Vec<StoreHandle<KeyValueStore<String, String>>>,
}

impl Processor for Keep {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.stores = STORES.iter().map(|name| cx.store(name)).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        for store in &self.stores {
            let value = Some(record.value.clone()).filter(|value| !value.is_empty());
            cx.store(*store).put(record.key.clone(), value, record.timestamp)?;
        }
        Ok(())
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new();
    let text = String::serde();
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
    builder.add(NodeSpec::processor("keep", vec!["in".into()], Keep::default)).unwrap();
    for name in STORES {
        let logged = name != "forgetful";
        let options = StoreOptions { logged, ..StoreOptions::default() };
        let options = StoreOptions { max_entries: (name == "few").then_some(2), ..options };
        let store = StoreSpec::key_value(name, text.clone(), text.clone(), options);
        let store = if name == "files" || name == "few" { store } else { store.in_memory() };
        builder.add_state_store(store, &["keep"]).unwrap();
    }
    builder.build().unwrap()
}

fn entries(thread: &mut StreamThread) -> [Vec<(String, String)>; 4] {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let task = thread.tasks_mut().next().unwrap();
    let stores = task.core_mut().stores_mut();
    STORES.map(|name| {
        let at = stores.position(name).unwrap();
        let entries = stores.at(at).dump().unwrap();
        entries.into_iter().map(|(key, value, _)| (text(key), text(value))).collect()
    })
}

/// What a store's changelog comes to.
fn changelog(world: &World, store: &str) -> Vec<(String, String)> {
    let mut fold = BTreeMap::new();
    for (key, value) in world.records(&format!("app-{store}-changelog")) {
        match value {
            Some(value) => fold.insert(key, String::from_utf8(value).unwrap()),
            None => fold.remove(&key),
        };
    }
    fold.into_iter().collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[test]
fn a_store_in_memory_comes_back_from_its_changelog_and_leaves_no_files() {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(topology());
    world.write(&[("a", b"1"), ("b", b"1"), ("c", b"1")]);
    world.run_once();
    world.write(&[("a", b"2"), ("b", b"")]);
    world.run_once();
    let mut thread = world.thread();
    world.run(&mut thread).unwrap();
    let kept = pairs(&[("a", "2"), ("c", "1")]);
    // Of a, b and c, a was dropped by c; it came back, and b was deleted.
    assert_eq!(entries(&mut thread), [kept.clone(), kept.clone(), pairs(&[]), kept.clone()]);
    world.write(&[("d", b"3")]);
    world.run(&mut thread).unwrap();
    let kept = [kept, pairs(&[("d", "3")])].concat();
    let few = pairs(&[("c", "1"), ("d", "3")]); // all times are equal: the keys decide
    assert_eq!(entries(&mut thread), [few.clone(), kept.clone(), pairs(&[("d", "3")]), kept]);
    assert_eq!(changelog(&world, "few"), few);
    drop(thread);
    let dir = world.env().state_dir.join("0_0");
    let files = world.engine.open(&dir, &STORES).unwrap();
    let in_files: Vec<_> = files.iter().map(|store| store.position().unwrap().is_some()).collect();
    assert_eq!(in_files, [false, true, false, false]);
}
