//! Grouped streams.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use streams_core::Data;
use streams_core::serde::{DynSerde, HasSerde};
use streams_core::topology::{InternalTopic, NodeSpec};

use crate::config::{IntoTableConfig, TableConfig, TableParts};
use crate::getter;
use crate::graph::{NodeId, Nodes, Plan, TableKind, Way};
use crate::optional::Optional;
use crate::processors::{Aggregate, Nulls, TableStore};
use crate::repartition::{Names, Repartition};
use crate::steps;
use crate::stream::KStream;
use crate::table::KTable;
use crate::windows::Windows;

/// A stream whose records are grouped by key, to be aggregated. Records with a null key or a null
/// value are dropped and counted.
pub struct KGroupedStream<K, V> {
    pub(crate) stream: KStream<K, V>,
    pub(crate) name: Option<String>,
    pub(crate) key: DynSerde<K>,
    pub(crate) value: DynSerde<V>,
    pub(crate) key_to_inherit: Option<DynSerde<K>>,
    /// The repartition of a named grouping, which its aggregations share.
    pub(crate) repartition: Arc<OnceLock<NodeId>>,
}

impl<K, V> Clone for KGroupedStream<K, V> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            name: self.name.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            key_to_inherit: self.key_to_inherit.clone(),
            repartition: self.repartition.clone(),
        }
    }
}

impl<K: Data + Eq + Hash, V: Data> KGroupedStream<K, V> {
    /// How many records each key has had.
    pub fn count(&self) -> KTable<K, i64> {
        self.add_count(None)
    }

    /// As [`KGroupedStream::count`], with a name, serdes or a store.
    pub fn count_with(&self, config: impl IntoTableConfig<K, i64>) -> KTable<K, i64> {
        self.add_count(Some(config.into_table_config()))
    }

    fn add_count(&self, config: Option<TableConfig<K, i64>>) -> KTable<K, i64> {
        TableConfig::waste_number(config.as_ref(), &mut self.stream.graph.lock());
        let nulls = Nulls::of(&self.value);
        let (table, node) = self.add(AGGREGATE, config, i64::serde(), move |plan, fold| {
            if plan.values_are_skipped() {
                fold.spec(&Nulls::of(&Option::<()>::serde()), &Arc::new(steps::count_one))
            } else {
                fold.spec(&nulls, &Arc::new(steps::count_one))
            }
        });
        self.stream.graph.lock().ignores_values(node);
        table
    }

    /// Combines the values of each key, two at a time; the first one stands for itself.
    pub fn reduce(&self, combine: impl Fn(V, V) -> V + Send + Sync + 'static) -> KTable<K, V> {
        self.add_reduce(combine, None)
    }

    /// As [`KGroupedStream::reduce`], with a name, serdes or a store.
    pub fn reduce_with(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
        config: impl IntoTableConfig<K, V>,
    ) -> KTable<K, V> {
        self.add_reduce(combine, Some(config.into_table_config()))
    }

    fn add_reduce(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
        config: Option<TableConfig<K, V>>,
    ) -> KTable<K, V> {
        let nulls = Nulls::of(&self.value);
        let step = Arc::new(steps::reduce(combine));
        let add = move |_: &Plan<'_>, fold: &Fold<'_, K, V>| fold.spec(&nulls, &step);
        self.add(REDUCE, config, self.value.clone(), add).0
    }

    /// The same in windows: each aggregation then has a result for each key and window. Null values are
    /// dropped by sliding windows only; the aggregators of other windows see them, as in Kafka.
    pub fn windowed_by<W: Windows>(&self, windows: W) -> W::Stream<K, V> {
        windows.window(self.clone())
    }

    /// Folds the values of each key into an aggregate that begins with `initial`. `fold` may answer
    /// an aggregate or an `Option` of one; `None` deletes it.
    pub fn aggregate<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> KTable<K, A>
    where
        A: Data + HasSerde,
        R: Optional<A>,
    {
        self.add_aggregate(initial, fold, None, A::serde())
    }

    /// As [`KGroupedStream::aggregate`], with a name, serdes or a store.
    pub fn aggregate_with<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        config: impl IntoTableConfig<K, A>,
    ) -> KTable<K, A>
    where
        A: Data,
        R: Optional<A>,
    {
        let config = config.into_table_config();
        let value = config.materialized.value.clone().or(&None);
        self.add_aggregate(initial, fold, Some(config), value)
    }

    fn add_aggregate<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
    ) -> KTable<K, A>
    where
        A: Data,
        R: Optional<A>,
    {
        let nulls = Nulls::of(&self.value);
        let step = Arc::new(steps::fold(initial, fold));
        let add = move |_: &Plan<'_>, fold: &Fold<'_, K, A>| fold.spec(&nulls, &step);
        self.add(AGGREGATE, config, value, add).0
    }

    /// Adds an aggregation, behind a repartition where the key may have changed. `make` makes its
    /// processor when the topology is written; `value` is the serde of results unless one is given.
    fn add<A: Data>(
        &self,
        prefix: &str,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
        make: impl Fn(&Plan<'_>, &Fold<'_, K, A>) -> NodeSpec + Send + Sync + 'static,
    ) -> (KTable<K, A>, NodeId) {
        let mut nodes = self.stream.graph.lock();
        let Declared { name, store, parent, key, value } =
            self.declare(&mut nodes, prefix, config, value);
        let output = name.clone();
        let kept_in = store.name.clone();
        let node = nodes.add(vec![parent], &output, move |plan, builder| {
            let fold = Fold { name: &name, parents: plan.parents(), store: &store };
            builder.add(make(plan, &fold))?;
            builder.add_state_store(store.spec(plan.sends_old_values()), &[&name])
        });
        let getter = getter::stored(&kept_in);
        nodes.is_table(node, TableKind::Stored(kept_in));
        drop(nodes);
        (KTable { graph: self.stream.graph.clone(), node, key, value, getter }, node)
    }

    /// Takes the names of an aggregation: of its store, of itself, of its repartition, in this order.
    pub(crate) fn declare<A: Data>(
        &self,
        nodes: &mut Nodes,
        prefix: &str,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
    ) -> Declared<K, A> {
        let upstream = (&self.key, &self.key_to_inherit, value);
        let TableParts { name, store, inherited } =
            TableConfig::parts(config, nodes, prefix, upstream);
        let name = nodes.name_or(name, prefix);
        let parent = match self.stream.rekeyed {
            true => self.repartitioned(nodes, &store.name),
            false => self.stream.node,
        };
        let (key, value) = inherited;
        Declared { name, store, parent, key, value }
    }

    /// The repartition of this grouping for the aggregation with this store: each has its own,
    /// unless the grouping has a name.
    pub(crate) fn repartitioned(&self, nodes: &mut Nodes, store: &str) -> NodeId {
        let names = Names::new(nodes, self.name.as_deref().unwrap_or(store));
        if let Some(&shared) = self.repartition.get() {
            nodes.use_again(shared);
            return shared;
        }
        let repartition = Repartition {
            names,
            key: self.key.clone(),
            value: self.value.clone(),
            topic: InternalTopic::default(),
            partitioner: None,
        };
        let node = repartition.add(nodes, self.stream.node, |value: V| value);
        nodes.goes(node, Way::Repartitions);
        if self.name.is_some() {
            self.repartition.get_or_init(|| node);
        }
        node
    }
}

/// What an aggregation has come to.
pub(crate) struct Declared<K, A> {
    pub(crate) name: String,
    pub(crate) store: TableStore<K, A>,
    pub(crate) parent: NodeId,
    /// Serdes for what follows to inherit.
    pub(crate) key: Option<DynSerde<K>>,
    pub(crate) value: Option<DynSerde<A>>,
}

pub(crate) const AGGREGATE: &str = "KSTREAM-AGGREGATE-";
pub(crate) const REDUCE: &str = "KSTREAM-REDUCE-";

/// What the processor of an aggregation is made of, apart from its step.
pub(crate) struct Fold<'a, K, A> {
    pub(crate) name: &'a str,
    pub(crate) parents: Vec<String>,
    pub(crate) store: &'a TableStore<K, A>,
}

impl<K: Data + Eq + Hash, A: Data> Fold<'_, K, A> {
    pub(crate) fn spec<V: Data, F>(&self, null_values: &Nulls<V>, step: &Arc<F>) -> NodeSpec
    where
        F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
    {
        let (null_keys, null_results) = (Nulls::of(&self.store.key), Nulls::of(&self.store.value));
        let (null_values, step, updates) =
            (null_values.clone(), step.clone(), self.store.updates());
        NodeSpec::processor(self.name, self.parents.clone(), move || Aggregate {
            step: step.clone(),
            null_keys: null_keys.clone(),
            null_values: null_values.clone(),
            null_results: null_results.clone(),
            updates: updates.clone(),
            marker: PhantomData,
        })
    }
}
