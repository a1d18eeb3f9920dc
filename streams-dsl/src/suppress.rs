//! Holding updates of a table back, until a time has passed or windows have closed.

use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

use streams_core::serde::{DynSerde, HasSerde};
use streams_core::topology::{NodeSpec, StoreSpec};
use streams_core::{BuildError, Data, Windowed};

use crate::getter;
use crate::graph::TableKind;
use crate::processors::{Idle, Limits, Place, Suppress, SuppressConfig};
use crate::table::KTable;
use crate::windows::millis;

/// A buffer that sends updates early when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eager;

/// A buffer that never sends an update early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strict;

/// How much a suppressed table may hold back, and what happens then.
///
/// Without a bound the buffer takes whatever comes. What does not fit into the memory for stores lies
/// in the store on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferConfig<F = Eager> {
    limits: Limits,
    logging: bool,
    when_full: PhantomData<F>,
}

impl BufferConfig<Strict> {
    /// Without a bound; with one that is added, it shuts down.
    pub fn unbounded() -> Self {
        let limits = Limits { emit_early: false, ..Limits::default() };
        Self { limits, logging: true, when_full: PhantomData }
    }
}

impl BufferConfig<Eager> {
    /// At most this many keys. When there are more, the oldest updates go on early.
    pub fn max_records(keys: usize) -> Self {
        Self { limits: Limits::default(), logging: true, when_full: PhantomData }
            .with_max_records(keys)
    }

    /// At most this many bytes of keys and values, as they are encoded. When there are more, the oldest
    /// updates go on early.
    pub fn max_bytes(bytes: usize) -> Self {
        Self { limits: Limits::default(), logging: true, when_full: PhantomData }
            .with_max_bytes(bytes)
    }
}

impl<F> BufferConfig<F> {
    /// The same with at most this many keys.
    pub fn with_max_records(mut self, keys: usize) -> Self {
        self.limits.keys = Some(keys);
        self
    }

    /// The same with at most this many bytes.
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.limits.bytes = Some(bytes);
        self
    }

    /// The same, but more than that ends the application with
    /// [`ProcessError::BufferFull`](streams_core::ProcessError::BufferFull).
    pub fn shut_down_when_full(self) -> BufferConfig<Strict> {
        let limits = Limits { emit_early: false, ..self.limits };
        BufferConfig { limits, logging: self.logging, when_full: PhantomData }
    }

    /// The same, but more than that sends the oldest updates on early.
    pub fn emit_early_when_full(self) -> BufferConfig<Eager> {
        let limits = Limits { emit_early: true, ..self.limits };
        BufferConfig { limits, logging: self.logging, when_full: PhantomData }
    }

    /// The same without a changelog topic: what waits is lost with the store's files.
    pub fn with_logging_disabled(mut self) -> Self {
        self.logging = false;
        self
    }
}

/// When the updates of a table go on. See [`KTable::suppress`].
pub struct Suppressed<K> {
    name: Option<String>,
    until: Until<K>,
    limits: Limits,
    logging: bool,
    after_idle: Option<Duration>,
}

enum Until<K> {
    TimeLimit(i64),
    WindowCloses(fn(&K) -> i64),
}

impl<K> Suppressed<K> {
    /// An update waits until stream time is this much later than the first update of its key that
    /// waits; only the last one of the key goes on.
    pub fn until_time_limit<F>(limit: Duration, buffer: BufferConfig<F>) -> Self {
        Self::new(Until::TimeLimit(millis(limit)), buffer)
    }

    fn new<F>(until: Until<K>, buffer: BufferConfig<F>) -> Self {
        let BufferConfig { limits, logging, .. } = buffer;
        Self { name: None, until, limits, logging, after_idle: None }
    }

    /// The same with this name for the operator; its store then is called `<name>-store`.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same, but when no update has come for this long, stream time goes on with the wall clock until
    /// one comes: what waits is not stuck because the input has ended. What is behind that time is
    /// late from then on, also for the aggregation above. Off by default: results then depend on when
    /// records come, not on them alone.
    pub fn after_idle(mut self, idle: Duration) -> Self {
        self.after_idle = Some(idle);
        self
    }
}

impl<K> Suppressed<Windowed<K>> {
    /// A window's updates wait until it has closed: until stream time has passed its end and its grace.
    /// Only its final result goes on. So the buffer must never send an update early.
    pub fn until_window_closes(buffer: BufferConfig<Strict>) -> Self {
        Self::new(Until::WindowCloses(|key| key.window.end), buffer)
    }
}

impl<K: Data + Eq + Hash, V: Data> KTable<K, V> {
    /// Holds updates back: for a time, or until their windows are closed. In the end only the last
    /// update of each key goes on, with its own timestamp and headers.
    ///
    /// ```
    /// use std::time::Duration;
    /// use streams_dsl::{BufferConfig, StreamsBuilder, Suppressed};
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .table::<String, i64>("prices")
    ///     .suppress(Suppressed::until_time_limit(
    ///         Duration::from_secs(60),
    ///         BufferConfig::max_records(10_000),
    ///     ))
    ///     .to_stream()
    ///     .to("a-price-a-minute");
    /// # builder.build()?;
    /// # Ok::<(), streams_core::BuildError>(())
    /// ```
    pub fn suppress(&self, suppressed: Suppressed<K>) -> Self
    where
        K: HasSerde,
        V: HasSerde,
    {
        let key = self.key.clone().unwrap_or_else(K::serde);
        let value = self.value.clone().unwrap_or_else(V::serde);
        self.suppress_with(suppressed, key, value)
    }

    /// As [`KTable::suppress`], with these serdes for what waits.
    pub fn suppress_with(
        &self,
        suppressed: Suppressed<K>,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> Self {
        let Suppressed { name: given, until, limits, logging, after_idle } = suppressed;
        let mut nodes = self.graph.lock();
        let (name, store) = match given {
            Some(name) => (name.clone(), format!("{name}-store")),
            None => {
                let name = nodes.new_name("KTABLE-SUPPRESS-");
                (name, nodes.new_store_name("KTABLE-SUPPRESS-"))
            }
        };
        if nodes.history(self.node).is_some() {
            nodes.fail(BuildError::Invalid {
                node: name.clone(),
                reason:
                    "a versioned table cannot be suppressed: what is held back would come out of \
                         order; suppress a table that is kept without a history"
                        .into(),
            });
        }
        let (place, wait, above) = match until {
            Until::TimeLimit(limit) => (Place::Arrival, limit, Vec::new()),
            Until::WindowCloses(end) => {
                let closing = nodes.closing(self.node);
                if closing.is_none() {
                    nodes.fail(BuildError::Invalid {
                        node: name.clone(),
                        reason: "it waits for windows to close, but its table has none; suppress \
                                 until a time limit, or aggregate in windows first"
                            .into(),
                    });
                }
                let (wait, above) = closing.map_or((0, Vec::new()), |c| (c.after, c.stream_times));
                (Place::End(end), wait, above)
            }
        };
        nodes.holds_back(wait);
        let buffer = StoreSpec::change_buffer(&store, key, value, logging);
        let (output, kept_in) = (name.clone(), store.clone());
        let time = format!("{name}-time");
        let idle = after_idle.map(|after| Idle::new(millis(after), above));
        let config = SuppressConfig { store, time, place, wait, limits, idle };
        let getter = getter::held_back(self.getter.clone(), config.clone());
        let node = nodes.add(vec![self.node], &output, move |plan, builder| {
            let config = config.clone();
            let supplier = move || Suppress::<K, V>::new(config.clone());
            builder.add(NodeSpec::processor(&name, plan.parents(), supplier))?;
            builder.add_state_store(buffer.clone(), &[&name])
        });
        nodes.is_table(node, TableKind::Suppressed(kept_in));
        drop(nodes);
        let (graph, key, value) = (self.graph.clone(), self.key.clone(), self.value.clone());
        KTable { graph, node, key, value, getter }
    }
}
