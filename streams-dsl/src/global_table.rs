//! Global tables and stores: every instance of the application has all of them.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::Processor;
use streams_core::serde::{DynSerde, nullable};
use streams_core::topology::{NodeSpec, StoreSpec};
use streams_core::{BuildError, Data, HasSerde, TopologyBuilder};

use crate::builder::StreamsBuilder;
use crate::config::{Consumed, Joined, Materialized};
use crate::graph::Graph;
use crate::optional::Optional;
use crate::process::ProcessorSupplier;
use crate::processors::{GlobalJoin, Nulls, TableJoinFn, TableSource};
use crate::stream::KStream;

/// A table of a whole topic, all partitions of it, which every instance of the application keeps by
/// itself. Streams join it by any key that their records tell
/// ([`KStream::join_global`]); its topic may have any number of partitions.
pub struct GlobalKTable<K, V> {
    graph: Graph,
    store: String,
    key: DynSerde<K>,
    marker: PhantomData<fn() -> V>,
}

impl<K, V> Clone for GlobalKTable<K, V> {
    fn clone(&self) -> Self {
        let (graph, store) = (self.graph.clone(), self.store.clone());
        Self { graph, store, key: self.key.clone(), marker: PhantomData }
    }
}

impl<K, V> GlobalKTable<K, V> {
    /// The name of its store, which processors can read too
    /// ([`InitContext::global_store`](streams_core::processor::InitContext::global_store)).
    pub fn store_name(&self) -> &str {
        &self.store
    }
}

impl StreamsBuilder {
    /// A table of a topic's last value for each key, kept whole by every instance of the application. A
    /// null value deletes the key; records with a null key are dropped and counted.
    pub fn global_table<K, V>(&self, topic: impl Into<String>) -> GlobalKTable<K, V>
    where
        K: Data + Eq + Hash + HasSerde,
        V: Data + HasSerde,
    {
        self.global_table_with(topic, Consumed::default(), Materialized::default())
    }

    /// As [`StreamsBuilder::global_table`], with a name or serdes for reading, and with a named store.
    /// A global store has no changelog and no cache, whatever is said here: its topic is the one.
    pub fn global_table_with<K, V>(
        &self,
        topic: impl Into<String>,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> GlobalKTable<K, V>
    where
        K: Data + Eq + Hash,
        V: Data,
    {
        let topic = topic.into();
        let key = consumed.key.or(&materialized.key.to_inherit());
        let value = consumed.value.or(&materialized.value.to_inherit());
        let materialized = materialized.with_caching_disabled().with_logging_disabled();
        let mut nodes = self.graph.lock();
        let store = materialized.store(&mut nodes, &format!("{topic}-"), &key, &value);
        let source = nodes.new_name("KSTREAM-SOURCE-");
        let source = consumed.name.as_ref().map_or(source, |name| format!("{name}-source"));
        let name = nodes.name_or(consumed.name, "KTABLE-SOURCE-");
        if store.history.is_some() {
            nodes.fail(BuildError::Invalid {
                node: name.clone(),
                reason: "a global table has no history; keep it without (with_history)".into(),
            });
        }
        let (extractor, topics) = (consumed.extractor.nullable(), vec![topic]);
        let source =
            NodeSpec::source_with(&source, topics, key.clone(), nullable(value), extractor);
        let (nulls, updates) = (Nulls::of(&key), store.updates());
        let parents = vec![source.name.to_string()];
        let keep = NodeSpec::processor(&name, parents, move || TableSource::<K, Option<V>, V> {
            null_keys: nulls.clone(),
            updates: Some(updates.clone()),
            marker: PhantomData,
        });
        let (spec, store) = (store.spec(false), store.name);
        nodes.add(vec![], &name, move |_, builder| {
            builder.add_global_store(spec.clone(), source.clone(), keep.clone())
        });
        drop(nodes);
        GlobalKTable { graph: self.graph.clone(), store, key, marker: PhantomData }
    }

    /// A store that every instance of the application keeps whole, and that a processor of yours writes
    /// from a topic. It should only turn records into entries: after a crash it sees records again.
    pub fn add_global_store<K, V, S, P>(
        &self,
        store: StoreSpec,
        topic: impl Into<String>,
        consumed: Consumed<K, V>,
        supplier: S,
    ) -> &Self
    where
        K: Data,
        V: Data,
        S: ProcessorSupplier<Processor = P>,
        P: Processor<KIn = K, VIn = V>,
    {
        self.add_filled(topic.into(), consumed, supplier, move |builder, source, keep| {
            builder.add_global_store(store.clone(), source, keep)
        })
    }

    /// A store that a processor of yours keeps as a copy of a topic, for processors that are connected to
    /// it to look into: each task has its partition of it. It has no changelog, and is restored from the
    /// topic record by record: the processor must put what it gets.
    pub fn add_read_only_state_store<K, V, S, P>(
        &self,
        store: StoreSpec,
        topic: impl Into<String>,
        consumed: Consumed<K, V>,
        supplier: S,
    ) -> &Self
    where
        K: Data,
        V: Data,
        S: ProcessorSupplier<Processor = P>,
        P: Processor<KIn = K, VIn = V>,
    {
        self.add_filled(topic.into(), consumed, supplier, move |builder, source, keep| {
            builder.add_read_only_state_store(store.clone(), source, keep)
        })
    }

    /// A source and the processor that fills a store from it.
    fn add_filled<K, V, S, P>(
        &self,
        topic: String,
        consumed: Consumed<K, V>,
        supplier: S,
        add: impl Fn(&mut TopologyBuilder, NodeSpec, NodeSpec) -> Result<(), BuildError>
        + Send
        + Sync
        + 'static,
    ) -> &Self
    where
        K: Data,
        V: Data,
        S: ProcessorSupplier<Processor = P>,
        P: Processor<KIn = K, VIn = V>,
    {
        let (key, value) = (consumed.key.or(&None), consumed.value.or(&None));
        let mut nodes = self.graph.lock();
        let source = nodes.new_name("KSTREAM-SOURCE-");
        let source = consumed.name.as_ref().map_or(source, |name| format!("{name}-source"));
        let name = nodes.name_or(consumed.name, "KTABLE-SOURCE-");
        let source = NodeSpec::source_with(&source, vec![topic], key, value, consumed.extractor);
        let parents = vec![source.name.to_string()];
        let keep = NodeSpec::processor(&name, parents, move || supplier.processor());
        nodes.add(vec![], &name, move |_, builder| add(builder, source.clone(), keep.clone()));
        drop(nodes);
        self
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Joins each record with what a global table has, at that moment, for the key that `select` finds
    /// in the record. Records without a match, without such a key or without a value give nothing.
    /// Only the stream makes results; they have the time of its records.
    ///
    /// ```
    /// use streams_dsl::StreamsBuilder;
    /// let builder = StreamsBuilder::new();
    /// let flights = builder.stream::<String, String>("flights");
    /// let airports = builder.global_table::<String, String>("airports");
    /// flights
    ///     .join_global(&airports, |_, to| to.clone(), |_, _, airport| airport.clone())
    ///     .to("destinations");
    /// # builder.build()?;
    /// # Ok::<(), streams_core::BuildError>(())
    /// ```
    pub fn join_global<K2, T, M, O>(
        &self,
        table: &GlobalKTable<K2, T>,
        select: impl Fn(&K, &V) -> M + Send + Sync + 'static,
        join: impl Fn(&K, &V, &T) -> O + Send + Sync + 'static,
    ) -> KStream<K, O>
    where
        K: HasSerde,
        V: HasSerde,
        K2: Data + Eq + Hash,
        T: Data + HasSerde,
        M: Optional<K2>,
        O: Data,
    {
        self.join_global_with(table, select, join, Joined::default())
    }

    /// As [`KStream::join_global`], with a name or serdes.
    pub fn join_global_with<K2, T, M, O>(
        &self,
        table: &GlobalKTable<K2, T>,
        select: impl Fn(&K, &V) -> M + Send + Sync + 'static,
        join: impl Fn(&K, &V, &T) -> O + Send + Sync + 'static,
        joined: Joined<K, V, T>,
    ) -> KStream<K, O>
    where
        K2: Data + Eq + Hash,
        T: Data,
        M: Optional<K2>,
        O: Data,
    {
        let join = move |key: &K, value: &V, found: Option<&T>| Some(join(key, value, found?));
        self.add_global_join(table, select, Arc::new(join), joined, false)
    }

    /// As [`KStream::join_global`], but every record that has a value gives a result.
    pub fn left_join_global<K2, T, M, O>(
        &self,
        table: &GlobalKTable<K2, T>,
        select: impl Fn(&K, &V) -> M + Send + Sync + 'static,
        join: impl Fn(&K, &V, Option<&T>) -> O + Send + Sync + 'static,
    ) -> KStream<K, O>
    where
        K: HasSerde,
        V: HasSerde,
        K2: Data + Eq + Hash,
        T: Data + HasSerde,
        M: Optional<K2>,
        O: Data,
    {
        self.left_join_global_with(table, select, join, Joined::default())
    }

    /// As [`KStream::left_join_global`], with a name or serdes.
    pub fn left_join_global_with<K2, T, M, O>(
        &self,
        table: &GlobalKTable<K2, T>,
        select: impl Fn(&K, &V) -> M + Send + Sync + 'static,
        join: impl Fn(&K, &V, Option<&T>) -> O + Send + Sync + 'static,
        joined: Joined<K, V, T>,
    ) -> KStream<K, O>
    where
        K2: Data + Eq + Hash,
        T: Data,
        M: Optional<K2>,
        O: Data,
    {
        let join = move |key: &K, value: &V, found: Option<&T>| Some(join(key, value, found));
        self.add_global_join(table, select, Arc::new(join), joined, true)
    }

    fn add_global_join<K2, T, M, O>(
        &self,
        table: &GlobalKTable<K2, T>,
        select: impl Fn(&K, &V) -> M + Send + Sync + 'static,
        join: Arc<TableJoinFn<K, V, T, O>>,
        joined: Joined<K, V, T>,
        is_left: bool,
    ) -> KStream<K, O>
    where
        K2: Data + Eq + Hash,
        T: Data,
        M: Optional<K2>,
        O: Data,
    {
        let key = joined.key.to_inherit().or(self.key.clone());
        let null_values = Nulls::of(&joined.value.or(&self.value));
        let null_keys = Nulls::of(&table.key);
        let select = Arc::new(move |key: &K, value: &V| select(key, value).into_option());
        let store = table.store.clone();
        let supplier = move || GlobalJoin {
            store: store.clone(),
            handle: None,
            null_values: null_values.clone(),
            null_keys: null_keys.clone(),
            select: select.clone(),
            join: join.clone(),
            is_left,
            marker: PhantomData,
        };
        let mut nodes = self.graph.lock();
        // The same for an inner join, as in Kafka.
        let name = nodes.name_or(joined.name, "KSTREAM-LEFTJOIN-");
        if !self.graph.is(&table.graph) {
            nodes.fail_for_two_builders(&name, "it joins a stream with a table");
        }
        if joined.grace.is_some() {
            let reason = "a global table knows only what is now, so no record waits for it; join without \
                          grace, or join a versioned table";
            nodes.fail(BuildError::Invalid { node: name.clone(), reason: reason.into() });
        }
        let spec = NodeSpec::processor(&name, vec![], supplier);
        let node =
            nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
        if is_left {
            nodes.keeps_null_keys(node);
        }
        drop(nodes);
        KStream::at(self.graph.clone(), node, name, (key, None), self.rekeyed)
    }
}
