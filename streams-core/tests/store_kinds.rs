//! A store that is of another kind than at the last start, under its old name: what the other one left
//! is not to be taken for its own, nor forgotten in silence.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::task::Waker;

use broker_api::{Broker, Commit, GroupCommit};
use streams_core::processor::{Context, InitContext, Processor, StoreHandle};
use streams_core::state::{
    LossyEngine, StoreOptions, VersionedOptions, WindowStore, WindowedOptions,
};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

use world::processors::counting;
use world::{World, counts, now};

/// Has the store, whatever it is, and leaves it alone.
struct Idle;

impl Processor for Idle {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, _: &mut InitContext<'_>) -> Result<(), BuildError> {
        Ok(())
    }

    fn process(
        &mut self,
        _: Record<String, String>,
        _: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }
}

fn with(store: StoreSpec) -> Arc<Topology> {
    let mut builder = TopologyBuilder::new();
    let text = String::serde();
    builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text)).unwrap();
    builder.add(NodeSpec::processor("idle", vec!["in".into()], || Idle)).unwrap();
    builder.add_state_store(store, &["idle"]).unwrap();
    Arc::new(builder.build().unwrap())
}

fn windowed(by_time: bool) -> WindowedOptions {
    WindowedOptions { by_time, ..WindowedOptions::new(1_000) }
}

fn window(by_time: bool) -> StoreSpec {
    StoreSpec::window("counts", String::serde(), i64::serde(), 10, windowed(by_time))
}

fn session() -> StoreSpec {
    StoreSpec::session("counts", String::serde(), i64::serde(), windowed(false))
}

fn versioned(logged: bool) -> StoreSpec {
    let options = VersionedOptions { logged, retention: 1_000 };
    StoreSpec::versioned("counts", String::serde(), i64::serde(), options)
}

fn buffer() -> StoreSpec {
    StoreSpec::buffer("counts", String::serde(), i64::serde(), true)
}

/// An application that has counted.
fn world() -> World {
    let world = World::new(1 << 20);
    world.write(&[("a", b"-"), ("a", b"-"), ("a long name", b"-")]);
    world.run_once();
    world
}

#[test]
fn a_store_of_another_kind_does_not_start_with_and_without_files() {
    let kinds = [
        (window(false), "window store"),
        (window(true), "window store"),
        (session(), "session store"),
        (versioned(true), "versioned store"),
        (buffer(), "buffer of records"),
    ];
    for (store, becomes) in kinds {
        for files in [true, false] {
            let mut world = world();
            world.topology = with(store.clone());
            if !files {
                world.engine = LossyEngine::new();
            }
            let error = world.try_thread().map(drop).unwrap_err().to_string();
            let said = format!(
                "store 'counts' of application 'app' was a key-value store and is a {becomes} now"
            );
            assert!(error.contains(&said), "{error}");
            assert!(error.contains("vltava app reset --app app"), "{error}");
            // Nothing is lost: it goes on as it was.
            world.topology = Arc::new(counting(StoreOptions::default()));
            world.write(&[("a", b"-")]);
            world.run_once();
            assert_eq!(world.read("out").last(), Some(&("a".to_owned(), 3)), "{becomes}");
        }
    }
}

/// What the next start says, or the tasks of it.
fn refusal(world: &World) -> String {
    let started = world.try_thread().and_then(|mut thread| world.run(&mut thread));
    started.unwrap_err().to_string()
}

/// Sets what rides with the committed offsets to what earlier versions wrote.
fn forget_kinds(world: &World) {
    let admin = world.broker.admin();
    let mut offsets = now(&world.broker, admin.group_offsets("app")).unwrap();
    for (_, at) in &mut offsets {
        let mut fields: Vec<&str> = at.metadata.split(';').collect();
        assert!(fields[3].ends_with('k'), "{fields:?}");
        fields[3] = &fields[3][..16];
        at.metadata = fields.join(";");
    }
    let group = GroupCommit { group: "app".into(), token: None, offsets };
    let mut transactor = world.broker.transactor("older", Waker::noop().clone()).unwrap();
    transactor.submit(Commit { batches: Vec::new(), group: Some(group) }).unwrap();
    world.broker.settle(1_000);
}

#[test]
fn files_tell_of_another_kind_where_the_offsets_do_not() {
    let said = "was a key-value store and is a versioned store now";
    let mut world = world();
    forget_kinds(&world);
    world.topology = with(versioned(true));
    let error = refusal(&world);
    assert!(error.contains(said), "{error}");

    // One without a changelog.
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(counting(StoreOptions { logged: false, ..Default::default() }));
    world.write(&[("a", b"-")]);
    world.run_once();
    world.topology = with(versioned(false));
    let error = refusal(&world);
    assert!(error.contains(said), "{error}");
}

#[test]
fn a_changelog_that_cannot_be_read_is_not_said_to_be_rebuilt_from_itself() {
    let mut world = world();
    forget_kinds(&world);
    world.engine = LossyEngine::new();
    world.topology = with(versioned(true));
    let error = refusal(&world);
    assert!(error.contains("app-counts-changelog-0 of store 'counts'"), "{error}");
    assert!(error.contains("a store of another kind has written it, or it is damaged"), "{error}");
    assert!(error.contains("vltava app reset --app app"), "{error}");
}

/// Counts in windows of 10 ms.
struct CountWindows(Option<StoreHandle<WindowStore<String, i64>>>);

impl Processor for CountWindows {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.store("counts")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let store = cx.store(self.0.unwrap());
        let count = store.get(&record.key, 0)?.map_or(1, |(count, _)| count + 1);
        store.put(&record.key, 0, Some(count), record.timestamp)?;
        cx.forward(record.with_value(count));
        Ok(())
    }
}

#[test]
fn a_window_store_that_is_read_by_time_from_now_on_is_rebuilt() {
    let counting = |by_time| {
        let mut builder = TopologyBuilder::new();
        let text = String::serde();
        builder.add(NodeSpec::source("in", vec!["in".into()], text.clone(), text.clone())).unwrap();
        let node = || CountWindows(None);
        builder.add(NodeSpec::processor("count", vec!["in".into()], node)).unwrap();
        builder.add_state_store(window(by_time), &["count"]).unwrap();
        let count = i64::serde();
        let sink = NodeSpec::sink("sink", vec!["count".into()], "out", text, count, None);
        builder.add(sink).unwrap();
        Arc::new(builder.build().unwrap())
    };
    let mut world = World::new(1 << 20);
    for (by_time, rebuilt) in [(false, 0), (true, 1), (true, 0), (false, 1)] {
        world.topology = counting(by_time);
        world.write(&[("a", b"-")]);
        world.run_once();
        assert_eq!(world.metrics().rebuilt, rebuilt);
    }
    assert_eq!(world.read("out"), counts(&[("a", 1), ("a", 2), ("a", 3), ("a", 4)]));
}
