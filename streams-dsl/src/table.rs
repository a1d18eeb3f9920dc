//! Tables.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::serde::{DynSerde, nullable};
use streams_core::topology::NodeSpec;
use streams_core::{BuildError, Change, Data, Record, TopologyBuilder};

use crate::config::{IntoTableConfig, Named, TableConfig};
use crate::getter::{self, MakeGetter};
use crate::graph::{Graph, NodeId, Nodes, Plan, TableKind};
use crate::processors::{
    Nulls, TableFilter, TableMapValues, TableSource, TableStore, Updates, stateless,
};
use crate::stream::KStream;

/// A table: the last value of each key. Its updates travel as [`Change`]s; the value before is known
/// only where something downstream asks for it.
pub struct KTable<K, V> {
    pub(crate) graph: Graph,
    pub(crate) node: NodeId,
    /// Serdes given by hand upstream.
    pub(crate) key: Option<DynSerde<K>>,
    pub(crate) value: Option<DynSerde<V>>,
    /// How its values are looked up.
    pub(crate) getter: MakeGetter<K, V>,
}

impl<K, V> Clone for KTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            node: self.node,
            key: self.key.clone(),
            value: self.value.clone(),
            getter: self.getter.clone(),
        }
    }
}

impl<K: Data + Eq + Hash, V: Data> KTable<K, V> {
    /// The entries for which `predicate` holds; of the others the table forwards deletions.
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.add_filter(predicate, None)
    }

    /// As [`KTable::filter`], with a name, or kept in a store (which needs a name).
    pub fn filter_with(
        &self,
        predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        config: impl IntoTableConfig<K, V>,
    ) -> Self {
        self.add_filter(predicate, Some(config.into_table_config()))
    }

    /// The entries for which `predicate` does not hold.
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.filter(move |key, value| !predicate(key, value))
    }

    /// As [`KTable::filter_not`], with a name, or kept in a store (which needs a name).
    pub fn filter_not_with(
        &self,
        predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        config: impl IntoTableConfig<K, V>,
    ) -> Self {
        self.filter_with(move |key, value| !predicate(key, value), config)
    }

    fn add_filter(
        &self,
        keeps: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        config: Option<TableConfig<K, V>>,
    ) -> Self {
        let mut nodes = self.graph.lock();
        let Derived { name, store, key, value } =
            self.derived(&mut nodes, "KTABLE-FILTER-", config, &self.value);
        // Asked at once, as Kafka does: an operator that comes later does not change this one.
        let passes_old_values = nodes.send_old_values(self.node, false);
        let is_versioned = nodes.history(self.node).is_some();
        let keeps = Arc::new(keeps);
        let getter = match &store {
            Some(store) => getter::stored(&store.name),
            None => {
                let keeps = keeps.clone();
                let keep = move |key: &K, value| Some(value).filter(|value| keeps(key, value));
                getter::derived(self.getter.clone(), keep)
            }
        };
        let node =
            self.add_derived(&mut nodes, name, store, move |name, sends_old_values, updates| {
                let keeps = keeps.clone();
                NodeSpec::processor(name, vec![], move || TableFilter {
                    keeps: keeps.clone(),
                    sends_old_values,
                    is_versioned,
                    updates: updates.clone(),
                })
            });
        if passes_old_values {
            nodes.passes_old_values(node);
        }
        drop(nodes);
        let value = value.or(self.value.clone());
        KTable { graph: self.graph.clone(), node, key, value, getter }
    }

    /// Turns each value into another one; deletions stay.
    pub fn map_values<V2: Data>(
        &self,
        map: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        self.add_map_values(map, None)
    }

    /// As [`KTable::map_values`], with a name, or kept in a store (which needs a name).
    pub fn map_values_with<V2: Data>(
        &self,
        map: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
        config: impl IntoTableConfig<K, V2>,
    ) -> KTable<K, V2> {
        self.add_map_values(map, Some(config.into_table_config()))
    }

    fn add_map_values<V2: Data>(
        &self,
        map: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
        config: Option<TableConfig<K, V2>>,
    ) -> KTable<K, V2> {
        let mut nodes = self.graph.lock();
        let Derived { name, store, key, value } =
            self.derived(&mut nodes, "KTABLE-MAPVALUES-", config, &None);
        let map = Arc::new(map);
        let getter = match &store {
            Some(store) => getter::stored(&store.name),
            None => {
                let map = map.clone();
                getter::derived(self.getter.clone(), move |key: &K, value| Some(map(key, value)))
            }
        };
        let node =
            self.add_derived(&mut nodes, name, store, move |name, sends_old_values, updates| {
                let map = map.clone();
                NodeSpec::processor(name, vec![], move || TableMapValues {
                    map: map.clone(),
                    sends_old_values,
                    updates: updates.clone(),
                    marker: PhantomData,
                })
            });
        drop(nodes);
        KTable { graph: self.graph.clone(), node, key, value, getter }
    }

    /// Name and store of an operator on this table. Without a name for its store it has none, but
    /// having been given a [`Materialized`](crate::Materialized) uses up a number, as in Kafka.
    pub(crate) fn derived<V2: Data>(
        &self,
        nodes: &mut Nodes,
        prefix: &str,
        config: Option<TableConfig<K, V2>>,
        upstream: &Option<DynSerde<V2>>,
    ) -> Derived<K, V2> {
        let Some(TableConfig { name, materialized, is_materialized }) = config else {
            let name = nodes.new_name(prefix);
            return Derived { name, store: None, key: self.key.clone(), value: None };
        };
        let key = materialized.key.to_inherit().or(self.key.clone());
        let value = materialized.value.to_inherit();
        if is_materialized && materialized.name.is_none() {
            nodes.new_store_name(prefix);
        }
        let store = materialized.name.is_some().then(|| {
            let key = materialized.key.clone().or(&self.key);
            let value = materialized.value.clone().or(upstream);
            materialized.store(nodes, prefix, &key, &value)
        });
        Derived { name: nodes.name_or(name, prefix), store, key, value }
    }

    /// Adds an operator on this table; `make` gets its name, whether it sends old values, and its
    /// side of its store.
    pub(crate) fn add_derived<V2: Data>(
        &self,
        nodes: &mut Nodes,
        name: String,
        store: Option<TableStore<K, V2>>,
        make: impl Fn(&str, bool, Option<Updates<K, V2>>) -> NodeSpec + Send + Sync + 'static,
    ) -> NodeId {
        let kind = match &store {
            Some(store) => TableKind::Stored(store.name.clone()),
            None => TableKind::Derived,
        };
        let output = name.clone();
        let node = nodes.add(vec![self.node], &output, move |plan, builder| {
            let sends_old_values = plan.sends_old_values();
            let updates = store.as_ref().map(|store| store.updates());
            let spec = make(&name, sends_old_values, updates);
            builder.add(plan.below(&spec))?;
            match &store {
                Some(store) => builder.add_state_store(store.spec(sends_old_values), &[&name]),
                None => Ok(()),
            }
        });
        nodes.is_table(node, kind);
        node
    }

    /// The updates as a stream; `None` is a deletion.
    pub fn to_stream(&self) -> KStream<K, Option<V>> {
        self.to_stream_with(Named::default())
    }

    /// As [`KTable::to_stream`], with a name.
    pub fn to_stream_with(&self, named: impl Into<Named>) -> KStream<K, Option<V>> {
        let value = self.value.clone().map(nullable);
        self.add_to_stream(named.into(), value, Some)
    }

    /// The updates that are no deletions, as a stream.
    pub fn to_stream_present(&self) -> KStream<K, V> {
        self.to_stream_present_with(Named::default())
    }

    /// As [`KTable::to_stream_present`], with a name.
    pub fn to_stream_present_with(&self, named: impl Into<Named>) -> KStream<K, V> {
        self.add_to_stream(named.into(), self.value.clone(), |new| new)
    }

    fn add_to_stream<V2: Data>(
        &self,
        named: Named,
        value: Option<DynSerde<V2>>,
        pass: impl Fn(Option<V>) -> Option<V2> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        let each = stateless(move |record: Record<K, Change<V>>, cx| {
            let Record { key, value, timestamp, headers } = record;
            if let Some(value) = pass(value.new) {
                cx.forward(Record { key, value, timestamp, headers });
            }
        });
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(named.0, "KTABLE-TOSTREAM-");
        let spec = NodeSpec::processor(&name, vec![], each);
        let node =
            nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
        drop(nodes);
        let (graph, key) = (self.graph.clone(), self.key.clone());
        KStream::at(graph, node, name, (key, value), false)
    }
}

/// What an operator on a table has come to.
pub(crate) struct Derived<K, V> {
    pub(crate) name: String,
    pub(crate) store: Option<TableStore<K, V>>,
    /// Serdes for what follows to inherit.
    pub(crate) key: Option<DynSerde<K>>,
    pub(crate) value: Option<DynSerde<V>>,
}

/// The node that makes a table of records.
pub(crate) struct TableSourceNode<K, V> {
    pub(crate) name: String,
    pub(crate) store: TableStore<K, V>,
    /// The topic whose records it puts as they are.
    pub(crate) topic: Option<String>,
}

impl<K: Data + Eq + Hash, V: Data> TableSourceNode<K, V> {
    /// Adds it behind a stream with values `X`.
    pub(crate) fn add<X: Data + Into<Option<V>>>(
        self,
        nodes: &mut Nodes,
        parent: NodeId,
    ) -> NodeId {
        let output = self.name.clone();
        nodes.add(vec![parent], &output, move |plan, builder| {
            self.write::<X>(plan, builder, plan.parents())
        })
    }

    /// Writes it, with its store if something needs that.
    pub(crate) fn write<X: Data + Into<Option<V>>>(
        &self,
        plan: &Plan<'_>,
        builder: &mut TopologyBuilder,
        parents: Vec<String>,
    ) -> Result<(), BuildError> {
        let nulls = Nulls::of(&self.store.key);
        let updates = plan.is_materialized().then(|| self.store.updates());
        let supplier = move || TableSource::<K, X, V> {
            null_keys: nulls.clone(),
            updates: updates.clone(),
            marker: PhantomData,
        };
        builder.add(NodeSpec::processor(&self.name, parents, supplier))?;
        if !plan.is_materialized() {
            return Ok(());
        }
        let store = self.store.spec(plan.sends_old_values());
        let store = match &self.topic {
            Some(topic) if plan.optimization().reuse_source_topics && self.store.is_copy() => {
                store.copy_of(topic)?
            }
            _ => store,
        };
        builder.add_state_store(store, &[&self.name])
    }
}
