//! Processors between `in` and `out`, with a store `counts`, and topologies of them.

use std::time::Duration;

use streams_core::processor::{
    Context, InitContext, Processor, PunctuationKind, Schedule, StoreHandle,
};
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::topology::{NodeSpec, StoreSpec, Topology, TopologyBuilder};
use streams_core::{BuildError, HasSerde, ProcessError, Record};

/// Counts keys; with every tick of the wall clock it only changes the key `ticks`.
#[derive(Default)]
pub struct Count {
    /// Forwards at the seal.
    caches: bool,
    store: Option<StoreHandle<KeyValueStore<String, i64>>>,
}

impl Processor for Count {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.store = Some(cx.store("counts")?);
        cx.schedule(Duration::from_secs(1), PunctuationKind::WallClock)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let count = add(self.store, &record.key, cx)?;
        if !self.caches {
            cx.forward(record.with_value(count));
        }
        Ok(())
    }

    fn before_seal(&mut self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        while self.caches
            && let Some(update) = cx.store(self.store.unwrap()).next_forward()?
        {
            cx.forward(Record::new(update.key, update.new.unwrap_or_default(), update.timestamp));
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        add(self.store, "ticks", cx).map(|_| ())
    }
}

impl Count {
    pub fn new(caches: bool) -> Self {
        Self { caches, store: None }
    }
}

/// Counts a key; answers how often it has come.
pub fn add(
    store: Option<StoreHandle<KeyValueStore<String, i64>>>,
    key: &str,
    cx: &mut Context<'_, String, i64>,
) -> Result<i64, ProcessError> {
    let updated = cx.store(store.unwrap()).update(&key.to_owned(), |value, _| {
        *value.get_or_insert(0) += 1;
        0
    })?;
    Ok(updated.new.copied().unwrap_or_default())
}

/// Counts keys and forwards the count. A value says what goes wrong, and when: with nothing done,
/// or with the store changed and a result written. What a cache holds for the key `unsealable` fails at the
/// seal, and once there is a key `tick` punctuations fail.
#[derive(Default)]
pub struct Moody {
    caches: bool,
    store: Option<StoreHandle<KeyValueStore<String, i64>>>,
}

impl Processor for Moody {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.store = Some(cx.store("counts")?);
        cx.schedule(Duration::from_secs(1), PunctuationKind::WallClock)?;
        cx.schedule(Duration::from_millis(100), PunctuationKind::StreamTime)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        if record.value == "early" {
            return Err(ProcessError::user("an early failure"));
        }
        let count = add(self.store, &record.key, cx)?;
        let value = record.value.clone();
        if !self.caches {
            cx.forward(record.with_value(count));
        }
        match &*value {
            "late" => Err(ProcessError::user("a late failure")),
            "panic" => panic!("no more"),
            _ => Ok(()),
        }
    }

    fn before_seal(&mut self, cx: &mut Context<'_, String, i64>) -> Result<(), ProcessError> {
        while self.caches
            && let Some(update) = cx.store(self.store.unwrap()).next_forward()?
        {
            if update.key == "unsealable" {
                return Err(ProcessError::user("a failure at the seal"));
            }
            cx.forward(Record::new(update.key, update.new.unwrap_or_default(), update.timestamp));
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        _: i64,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        let store = cx.store(self.store.unwrap());
        if store.get(&"tick".to_owned())?.is_none() {
            return Ok(());
        }
        let kind = schedule.kind();
        store.put(kind.to_string(), Some(1), 0)?;
        Err(ProcessError::user(format!("a failure of the {kind}")))
    }
}

/// [`Count`], which caches if its store does.
pub fn counting(options: StoreOptions) -> Topology {
    with_counts("count", options, move || Count::new(options.forward_on_seal), out("count"))
}

/// [`Moody`], which may cache.
pub fn moody(caches: bool) -> Topology {
    moody_to(caches, out("moody"))
}

/// The same with another sink.
pub fn moody_to(caches: bool, sink: NodeSpec) -> Topology {
    let options = StoreOptions { forward_on_seal: caches, ..StoreOptions::default() };
    with_counts("moody", options, move || Moody { caches, store: None }, sink)
}

/// The sink of `out`.
fn out(parent: &str) -> NodeSpec {
    let (text, count) = (String::serde(), i64::serde());
    NodeSpec::sink("sink", vec![parent.into()], "out", text, count, None)
}

/// A processor of this name between `in` and a sink.
fn with_counts<P>(
    name: &str,
    options: StoreOptions,
    make: impl Fn() -> P + Send + Sync + 'static,
    sink: NodeSpec,
) -> Topology
where
    P: Processor<KIn = String, VIn = String, KOut = String, VOut = i64>,
{
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = NodeSpec::source("source", vec!["in".into()], text.clone(), text.clone());
    builder.add(source).unwrap();
    builder.add(NodeSpec::processor(name, vec!["source".into()], make)).unwrap();
    let store = StoreSpec::key_value("counts", text, count, options);
    builder.add_state_store(store, &[name]).unwrap();
    builder.add(sink).unwrap();
    builder.build().unwrap()
}
