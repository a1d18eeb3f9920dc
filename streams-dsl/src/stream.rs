//! Streams.

use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use streams_core::processor::Processor;
use streams_core::serde::{DynSerde, nullable};
use streams_core::topology::{InternalTopic, NodeSpec};
use streams_core::{Data, HasSerde, Record};

use crate::config::{Grouped, IntoTableConfig, Named, Produced, Repartitioned, TableConfig};
use crate::getter;
use crate::graph::{Graph, NodeId, TableKind, Way};
use crate::grouped::KGroupedStream;
use crate::processors::stateless;
use crate::repartition::{Names, Repartition};
use crate::table::{KTable, TableSourceNode};

/// A stream of records with keys `K` and values `V`.
///
/// Closures see key and value; those that observe get references, those that make something new get
/// what they replace by value. They are shared by all tasks, hence `Fn + Send + Sync`: what has to be
/// remembered belongs in a store.
///
/// An operator that may change the key marks the stream; the next one that needs the key reads it
/// through a repartition topic.
pub struct KStream<K, V> {
    pub(crate) graph: Graph,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// Serdes given by hand upstream.
    pub(crate) key: Option<DynSerde<K>>,
    pub(crate) value: Option<DynSerde<V>>,
    pub(crate) rekeyed: bool,
    /// The repartition that joins without a name share.
    pub(crate) join_repartition: Arc<OnceLock<NodeId>>,
}

impl<K, V> Clone for KStream<K, V> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            node: self.node,
            name: self.name.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            rekeyed: self.rekeyed,
            join_repartition: self.join_repartition.clone(),
        }
    }
}

impl<K, V> KStream<K, V> {
    /// The stream of what a node forwards, with the serdes given by hand so far.
    pub(crate) fn at(
        graph: Graph,
        node: NodeId,
        name: String,
        (key, value): (Option<DynSerde<K>>, Option<DynSerde<V>>),
        rekeyed: bool,
    ) -> Self {
        Self { graph, node, name, key, value, rekeyed, join_repartition: Arc::default() }
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Keeps the records for which `predicate` holds.
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.filter_with(predicate, Named::default())
    }

    /// As [`KStream::filter`], with a name.
    pub fn filter_with(
        &self,
        predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> Self {
        let each = stateless(move |record: Record<K, V>, cx| {
            if predicate(&record.key, &record.value) {
                cx.forward(record);
            }
        });
        let (key, value) = (self.key.clone(), self.value.clone());
        self.then("KSTREAM-FILTER-", named.into(), each, key, value).passing()
    }

    /// Drops the records for which `predicate` holds.
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.filter(move |key, value| !predicate(key, value))
    }

    /// As [`KStream::filter_not`], with a name.
    pub fn filter_not_with(
        &self,
        predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> Self {
        self.filter_with(move |key, value| !predicate(key, value), named)
    }

    /// Turns each record into another one.
    pub fn map<K2: Data, V2: Data>(
        &self,
        map: impl Fn(K, V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        self.map_with(map, Named::default())
    }

    /// As [`KStream::map`], with a name.
    pub fn map_with<K2: Data, V2: Data>(
        &self,
        map: impl Fn(K, V) -> (K2, V2) + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> KStream<K2, V2> {
        let each = stateless(move |record: Record<K, V>, cx| {
            let Record { key, value, timestamp, headers } = record;
            let (key, value) = map(key, value);
            cx.forward(Record { key, value, timestamp, headers });
        });
        self.then("KSTREAM-MAP-", named.into(), each, None, None).rekeyed()
    }

    /// Turns each value into another one.
    pub fn map_values<V2: Data>(
        &self,
        map: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.map_values_with(map, Named::default())
    }

    /// As [`KStream::map_values`], with a name.
    pub fn map_values_with<V2: Data>(
        &self,
        map: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> KStream<K, V2> {
        let each = stateless(move |record: Record<K, V>, cx| {
            let Record { key, value, timestamp, headers } = record;
            let value = map(&key, value);
            cx.forward(Record { key, value, timestamp, headers });
        });
        self.then("KSTREAM-MAPVALUES-", named.into(), each, self.key.clone(), None)
    }

    /// Turns each record into any number of records.
    pub fn flat_map<K2: Data, V2: Data, I: IntoIterator<Item = (K2, V2)>>(
        &self,
        map: impl Fn(K, V) -> I + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        self.flat_map_with(map, Named::default())
    }

    /// As [`KStream::flat_map`], with a name.
    pub fn flat_map_with<K2: Data, V2: Data, I: IntoIterator<Item = (K2, V2)>>(
        &self,
        map: impl Fn(K, V) -> I + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> KStream<K2, V2> {
        let each = stateless(move |record: Record<K, V>, cx| {
            let Record { key, value, timestamp, headers } = record;
            for (key, value) in map(key, value) {
                cx.forward(Record { key, value, timestamp, headers: headers.clone() });
            }
        });
        self.then("KSTREAM-FLATMAP-", named.into(), each, None, None).rekeyed()
    }

    /// Turns each value into any number of values.
    pub fn flat_map_values<V2: Data, I: IntoIterator<Item = V2>>(
        &self,
        map: impl Fn(&K, V) -> I + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.flat_map_values_with(map, Named::default())
    }

    /// As [`KStream::flat_map_values`], with a name.
    pub fn flat_map_values_with<V2: Data, I: IntoIterator<Item = V2>>(
        &self,
        map: impl Fn(&K, V) -> I + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> KStream<K, V2> {
        let each = stateless(move |record: Record<K, V>, cx| {
            let Record { key, value, timestamp, headers } = record;
            for value in map(&key, value) {
                cx.forward(Record { key: key.clone(), value, timestamp, headers: headers.clone() });
            }
        });
        self.then("KSTREAM-FLATMAPVALUES-", named.into(), each, self.key.clone(), None)
    }

    /// Gives each record another key.
    pub fn select_key<K2: Data>(
        &self,
        select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        self.select_key_with(select, Named::default())
    }

    /// As [`KStream::select_key`], with a name.
    pub fn select_key_with<K2: Data>(
        &self,
        select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> KStream<K2, V> {
        let each = stateless(move |record: Record<K, V>, cx| {
            let key = select(&record.key, &record.value);
            cx.forward(record.with_key(key));
        });
        let value = self.value.clone();
        self.then("KSTREAM-KEY-SELECT-", named.into(), each, None, value).rekeyed()
    }

    /// Shows each record to `look`, and passes it on. `look` may see a record again whose first
    /// processing a crash has undone.
    pub fn peek(&self, look: impl Fn(&K, &V) + Send + Sync + 'static) -> Self {
        self.peek_with(look, Named::default())
    }

    /// As [`KStream::peek`], with a name.
    pub fn peek_with(
        &self,
        look: impl Fn(&K, &V) + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> Self {
        let each = stateless(move |record: Record<K, V>, cx| {
            look(&record.key, &record.value);
            cx.forward(record);
        });
        let (key, value) = (self.key.clone(), self.value.clone());
        self.then("KSTREAM-PEEK-", named.into(), each, key, value).passing()
    }

    /// Shows each record to `look`; the stream ends here. As with [`KStream::peek`], a record may be
    /// seen again after a crash.
    pub fn for_each(&self, look: impl Fn(&K, &V) + Send + Sync + 'static) {
        self.for_each_with(look, Named::default());
    }

    /// As [`KStream::for_each`], with a name.
    pub fn for_each_with(
        &self,
        look: impl Fn(&K, &V) + Send + Sync + 'static,
        named: impl Into<Named>,
    ) {
        self.add_for_each("KSTREAM-FOREACH-", look, named.into().0);
    }

    pub(crate) fn add_for_each(
        &self,
        prefix: &str,
        look: impl Fn(&K, &V) + Send + Sync + 'static,
        name: Option<String>,
    ) {
        let each = stateless::<K, V, (), (), _>(move |record, _| look(&record.key, &record.value));
        self.then(prefix, Named(name), each, None, None);
    }

    /// The records of both streams. Nothing is said about their order.
    pub fn merge(&self, other: &KStream<K, V>) -> Self {
        self.merge_with(other, Named::default())
    }

    /// As [`KStream::merge`], with a name.
    pub fn merge_with(&self, other: &KStream<K, V>, named: impl Into<Named>) -> Self {
        let each = stateless(|record: Record<K, V>, cx| cx.forward(record));
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(named.into().0, "KSTREAM-MERGE-");
        if !self.graph.is(&other.graph) {
            nodes.fail_for_two_builders(&name, "it merges streams");
        }
        let parents = match self.node == other.node || !self.graph.is(&other.graph) {
            true => vec![self.node],
            false => vec![self.node, other.node],
        };
        let spec = NodeSpec::processor(&name, vec![], each);
        let node = nodes.add(parents, &name, move |plan, builder| builder.add(plan.below(&spec)));
        drop(nodes);
        let rekeyed = self.rekeyed || other.rekeyed;
        let (graph, key, value) = (self.graph.clone(), self.key.clone(), self.value.clone());
        KStream::at(graph, node, name, (key, value), rekeyed).passing()
    }

    /// Writes the records to a topic.
    pub fn to(&self, topic: impl Into<String>)
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.to_with(topic, Produced::default());
    }

    /// As [`KStream::to`], with a name, serdes or a choice of partitions.
    pub fn to_with(&self, topic: impl Into<String>, produced: Produced<K, V>) {
        let topic = topic.into();
        let (key, value) = (produced.key.or(&self.key), produced.value.or(&self.value));
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(produced.name, "KSTREAM-SINK-");
        let spec = NodeSpec::sink(&name, vec![], &topic, key, value, produced.partitioner);
        nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
    }

    /// Writes each record to the topic that `choose` tells: one that exists by then, else the production
    /// handler is asked.
    pub fn to_dynamic(&self, choose: impl Fn(&Record<K, V>) -> String + Send + Sync + 'static)
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.to_dynamic_with(choose, Produced::default());
    }

    /// As [`KStream::to_dynamic`], with a name, serdes or a choice of partitions.
    pub fn to_dynamic_with<F>(&self, choose: F, produced: Produced<K, V>)
    where
        F: Fn(&Record<K, V>) -> String + Send + Sync + 'static,
    {
        let serdes = (produced.key.or(&self.key), produced.value.or(&self.value));
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(produced.name, "KSTREAM-SINK-");
        // Kafka shows the class of the function, which has no name either.
        let extractor = std::any::type_name::<F>();
        let (choose, partitioner) = (Arc::new(choose), produced.partitioner);
        let spec = NodeSpec::dynamic_sink(&name, vec![], extractor, choose, serdes, partitioner);
        nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
    }

    /// Sends the records through a topic of its own, partitioned by their keys. Records with a null
    /// key are dropped.
    pub fn repartition(&self) -> Self
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.repartition_with(Repartitioned::default())
    }

    /// As [`KStream::repartition`], with a name, serdes or a number of partitions.
    pub fn repartition_with(&self, repartitioned: Repartitioned<K, V>) -> Self {
        let key = repartitioned.key.to_inherit().or(self.key.clone());
        let value = repartitioned.value.to_inherit().or(self.value.clone());
        let mut nodes = self.graph.lock();
        let prefix = match repartitioned.name {
            Some(name) => name,
            None => nodes.new_name("KSTREAM-REPARTITION-"),
        };
        let names = Names::new(&mut nodes, &prefix);
        let name = names.source().to_string();
        let repartition = Repartition {
            names,
            key: repartitioned.key.or(&self.key),
            value: repartitioned.value.or(&self.value),
            topic: InternalTopic { partitions: repartitioned.partitions },
            partitioner: repartitioned.partitioner,
        };
        let node = repartition.add(&mut nodes, self.node, |value: V| value);
        drop(nodes);
        KStream {
            graph: self.graph.clone(),
            node,
            name,
            key,
            value,
            rekeyed: false,
            join_repartition: Default::default(),
        }
    }

    /// Groups the records by another key. Those for which it is null are dropped by the aggregation.
    pub fn group_by<K2>(
        &self,
        select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
    ) -> KGroupedStream<K2, V>
    where
        K2: Data + HasSerde,
        V: HasSerde,
    {
        self.group_by_with(select, Grouped::default())
    }

    /// As [`KStream::group_by`], with a name or serdes.
    pub fn group_by_with<K2: Data>(
        &self,
        select: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
        grouped: Grouped<K2, V>,
    ) -> KGroupedStream<K2, V> {
        let named = Named(grouped.name.clone());
        self.select_key_with(select, named).group_by_key_with(grouped)
    }

    /// Groups the records by their key. Those whose key is null are dropped by the aggregation.
    pub fn group_by_key(&self) -> KGroupedStream<K, V>
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.group_by_key_with(Grouped::default())
    }

    /// As [`KStream::group_by_key`], with a name or serdes.
    pub fn group_by_key_with(&self, grouped: Grouped<K, V>) -> KGroupedStream<K, V> {
        KGroupedStream {
            key_to_inherit: grouped.key.to_inherit().or(self.key.clone()),
            key: grouped.key.or(&self.key),
            value: grouped.value.or(&self.value),
            name: grouped.name,
            stream: self.clone(),
            repartition: Default::default(),
        }
    }

    /// Adds an operator that is one processor.
    fn then<P: Processor<KIn = K, VIn = V>>(
        &self,
        prefix: &str,
        named: Named,
        supplier: impl Fn() -> P + Send + Sync + 'static,
        key: Option<DynSerde<P::KOut>>,
        value: Option<DynSerde<P::VOut>>,
    ) -> KStream<P::KOut, P::VOut> {
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(named.0, prefix);
        let spec = NodeSpec::processor(&name, vec![], supplier);
        let node =
            nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
        drop(nodes);
        let (graph, rekeyed) = (self.graph.clone(), self.rekeyed);
        KStream::at(graph, node, name, (key, value), rekeyed)
    }

    pub(crate) fn rekeyed(self) -> Self {
        self.graph.lock().goes(self.node, Way::ChangesKey);
        Self { rekeyed: true, ..self }
    }

    /// The stream of a node that passes records on as they are, or not at all.
    pub(crate) fn passing(self) -> Self {
        self.graph.lock().goes(self.node, Way::Passes);
        self
    }
}

impl<K: Data, V: Data> KStream<Option<K>, V> {
    /// The records that have a key; the others are dropped and counted.
    pub fn with_some_key(&self) -> KStream<K, V> {
        self.with_some_key_with(Named::default())
    }

    /// As [`KStream::with_some_key`], with a name.
    pub fn with_some_key_with(&self, named: impl Into<Named>) -> KStream<K, V> {
        let each = stateless(|record: Record<Option<K>, V>, cx| {
            let Record { key, value, timestamp, headers } = record;
            match key {
                Some(key) => cx.forward(Record { key, value, timestamp, headers }),
                None => cx.drop_record("null key"),
            }
        });
        self.then("KSTREAM-FILTER-", named.into(), each, None, self.value.clone())
    }
}

impl<K: Data, V: Data> KStream<K, Option<V>> {
    /// The records that have a value; the others are dropped and counted.
    pub fn with_some_value(&self) -> KStream<K, V> {
        self.with_some_value_with(Named::default())
    }

    /// As [`KStream::with_some_value`], with a name.
    pub fn with_some_value_with(&self, named: impl Into<Named>) -> KStream<K, V> {
        let each = stateless(|record: Record<K, Option<V>>, cx| {
            let Record { key, value, timestamp, headers } = record;
            match value {
                Some(value) => cx.forward(Record { key, value, timestamp, headers }),
                None => cx.drop_record("null value"),
            }
        });
        self.then("KSTREAM-FILTER-", named.into(), each, self.key.clone(), None)
    }
}

impl<K: Data + Eq + Hash, V: Data> KStream<K, V> {
    /// The table of the last value of each key. From a stream of `Option<T>`, `None` deletes: say
    /// `to_table::<T>()`.
    pub fn to_table<T>(&self) -> KTable<K, T>
    where
        K: HasSerde,
        T: Data + HasSerde,
        V: Into<Option<T>>,
    {
        self.to_table_with(Named::default())
    }

    /// As [`KStream::to_table`], with a name, serdes or a store.
    pub fn to_table_with<T>(&self, config: impl IntoTableConfig<K, T>) -> KTable<K, T>
    where
        T: Data,
        V: Into<Option<T>>,
    {
        let TableConfig { name, materialized, .. } = config.into_table_config();
        let inherited =
            (materialized.key.to_inherit().or(self.key.clone()), materialized.value.to_inherit());
        let key = materialized.key.clone().or(&self.key);
        let value = materialized.value.clone().or(&None);
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(name, "KSTREAM-TOTABLE-");
        let is_named = materialized.name.is_some();
        let store = materialized.store(&mut nodes, "KSTREAM-TOTABLE-", &key, &value);
        let kept_in = store.name.clone();
        let table = TableSourceNode { name: name.clone(), store, topic: None };
        let node = if self.rekeyed {
            let repartition = Repartition {
                names: Names::new(&mut nodes, &name),
                key,
                value: nullable(value),
                topic: InternalTopic::default(),
                partitioner: None,
            };
            let parent = repartition.add(&mut nodes, self.node, V::into);
            table.add::<Option<T>>(&mut nodes, parent)
        } else {
            table.add::<V>(&mut nodes, self.node)
        };
        let getter = getter::stored(&kept_in);
        nodes.is_table(node, TableKind::Source { materialized: is_named, store: kept_in });
        drop(nodes);
        KTable { graph: self.graph.clone(), node, key: inherited.0, value: inherited.1, getter }
    }
}
