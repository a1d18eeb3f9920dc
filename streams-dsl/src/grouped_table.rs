//! Grouped tables.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use streams_core::serde::{DynSerde, HasSerde};
use streams_core::topology::{InternalTopic, NodeSpec};
use streams_core::{Change, Data};

use crate::config::{Grouped, IntoTableConfig, TableConfig, TableParts};
use crate::getter;
use crate::graph::{Graph, NodeId, Nodes, TableKind};
use crate::grouped::Fold;
use crate::optional::Optional;
use crate::processors::{Nulls, TableSelect, changes};
use crate::steps;
use crate::table::KTable;

/// A table whose entries are grouped by another key, to be aggregated. An entry that changes is taken
/// out of its old group and put into its new one.
pub struct KGroupedTable<K, V> {
    graph: Graph,
    node: NodeId,
    name: Option<String>,
    key: DynSerde<K>,
    value: DynSerde<V>,
    key_to_inherit: Option<DynSerde<K>>,
    /// The repartition of a named grouping, which its aggregations share.
    repartition: Arc<OnceLock<NodeId>>,
}

impl<K, V> Clone for KGroupedTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            node: self.node,
            name: self.name.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            key_to_inherit: self.key_to_inherit.clone(),
            repartition: self.repartition.clone(),
        }
    }
}

impl<K: Data + Eq + Hash, V: Data> KTable<K, V> {
    /// Groups the entries by what `map` makes of them: a key, and the value to be aggregated. Entries
    /// for which one of them is null are in no group. `map` must answer the same for the same entry:
    /// its answer for the value before says what has to be taken away.
    pub fn group_by<K2, V2>(
        &self,
        map: impl Fn(&K, V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KGroupedTable<K2, V2>
    where
        K2: Data + Eq + Hash + HasSerde,
        V2: Data + HasSerde,
    {
        self.group_by_with(map, Grouped::default())
    }

    /// As [`KTable::group_by`], with a name or serdes.
    pub fn group_by_with<K2: Data + Eq + Hash, V2: Data>(
        &self,
        map: impl Fn(&K, V) -> (K2, V2) + Send + Sync + 'static,
        grouped: Grouped<K2, V2>,
    ) -> KGroupedTable<K2, V2> {
        let key_to_inherit = grouped.key.to_inherit();
        let (key, value) = (grouped.key.or(&None), grouped.value.or(&None));
        let (null_keys, null_values) = (Nulls::of(&key), Nulls::of(&value));
        let map = Arc::new(map);
        let select = move || TableSelect {
            map: map.clone(),
            null_keys: null_keys.clone(),
            null_values: null_values.clone(),
            marker: PhantomData,
        };
        let mut nodes = self.graph.lock();
        let select_name = nodes.name_or(grouped.name.clone(), "KTABLE-SELECT-");
        let spec = NodeSpec::processor(&select_name, vec![], select);
        let node = nodes.add(vec![self.node], &select_name, move |plan, builder| {
            builder.add(plan.below(&spec))
        });
        nodes.send_old_values(self.node, true);
        drop(nodes);
        let (graph, name, repartition) = (self.graph.clone(), grouped.name, Arc::default());
        KGroupedTable { graph, node, name, key, value, key_to_inherit, repartition }
    }
}

impl<K: Data + Eq + Hash, V: Data> KGroupedTable<K, V> {
    /// How many entries each group has. A group that has had some and has none any more has 0.
    pub fn count(&self) -> KTable<K, i64> {
        self.add_count(None)
    }

    /// As [`KGroupedTable::count`], with a name, serdes or a store.
    pub fn count_with(&self, config: impl IntoTableConfig<K, i64>) -> KTable<K, i64> {
        self.add_count(Some(config.into_table_config()))
    }

    fn add_count(&self, config: Option<TableConfig<K, i64>>) -> KTable<K, i64> {
        let subtract = |_: &K, _, count| Some(count - 1);
        self.add(AGGREGATE, config, i64::serde(), steps::count_one, subtract)
    }

    /// Combines the values of each group: `adder` takes a value in, `subtractor` takes one out again.
    /// Both get what was combined so far first. The first value of a group stands for itself.
    pub fn reduce(
        &self,
        adder: impl Fn(V, V) -> V + Send + Sync + 'static,
        subtractor: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> KTable<K, V> {
        self.add_reduce(adder, subtractor, None)
    }

    /// As [`KGroupedTable::reduce`], with a name, serdes or a store.
    pub fn reduce_with(
        &self,
        adder: impl Fn(V, V) -> V + Send + Sync + 'static,
        subtractor: impl Fn(V, V) -> V + Send + Sync + 'static,
        config: impl IntoTableConfig<K, V>,
    ) -> KTable<K, V> {
        self.add_reduce(adder, subtractor, Some(config.into_table_config()))
    }

    fn add_reduce(
        &self,
        adder: impl Fn(V, V) -> V + Send + Sync + 'static,
        subtractor: impl Fn(V, V) -> V + Send + Sync + 'static,
        config: Option<TableConfig<K, V>>,
    ) -> KTable<K, V> {
        let add = steps::reduce(adder);
        let subtract = move |_: &K, value, so_far| Some(subtractor(so_far, value));
        self.add(REDUCE, config, self.value.clone(), add, subtract)
    }

    /// Folds the values of each group into an aggregate that begins with `initial`: `adder` takes a
    /// value in, `subtractor` takes one out again. Both may answer an aggregate or an `Option` of one;
    /// `None` deletes it.
    pub fn aggregate<A, R, S>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        adder: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        subtractor: impl Fn(&K, V, A) -> S + Send + Sync + 'static,
    ) -> KTable<K, A>
    where
        A: Data + HasSerde,
        R: Optional<A>,
        S: Optional<A>,
    {
        let adder = steps::fold(initial, adder);
        let subtract = move |key: &K, value, so_far| subtractor(key, value, so_far).into_option();
        self.add(AGGREGATE, None, A::serde(), adder, subtract)
    }

    /// As [`KGroupedTable::aggregate`], with a name, serdes or a store.
    pub fn aggregate_with<A, R, S>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        adder: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        subtractor: impl Fn(&K, V, A) -> S + Send + Sync + 'static,
        config: impl IntoTableConfig<K, A>,
    ) -> KTable<K, A>
    where
        A: Data,
        R: Optional<A>,
        S: Optional<A>,
    {
        let config = config.into_table_config();
        let value = config.materialized.value.clone().or(&None);
        let adder = steps::fold(initial, adder);
        let subtract = move |key: &K, value, so_far| subtractor(key, value, so_far).into_option();
        self.add(AGGREGATE, Some(config), value, adder, subtract)
    }

    /// Adds an aggregation behind its repartition; `value` is the serde of results unless one is given.
    fn add<A: Data>(
        &self,
        prefix: &str,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
        add: impl Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
        subtract: impl Fn(&K, V, A) -> Option<A> + Send + Sync + 'static,
    ) -> KTable<K, A> {
        let mut nodes = self.graph.lock();
        let upstream = (&self.key, &self.key_to_inherit, value);
        // The store of a reduction is called as that of an aggregation too.
        let TableParts { name, store, inherited: (key, value) } =
            TableConfig::parts(config, &mut nodes, AGGREGATE, upstream);
        let parent = self.repartitioned(&mut nodes, name.as_deref(), &store.name);
        let name = nodes.name_or(name, prefix);
        let nulls = Nulls::of(&store.value);
        let step = Arc::new(move |key: &K, change: Change<V>, so_far: Option<A>| {
            let left = match (change.old, so_far) {
                (Some(old), Some(so_far)) => {
                    subtract(key, old, so_far).filter(|left| !nulls.is_null(left))
                }
                (_, so_far) => so_far,
            };
            match change.new {
                Some(new) => add(key, new, left),
                None => left,
            }
        });
        let kept_in = store.name.clone();
        let no_nulls = Nulls::of(&changes(self.value.clone()));
        let output = name.clone();
        let node = nodes.add(vec![parent], &output, move |plan, builder| {
            let fold = Fold { name: &name, parents: plan.parents(), store: &store };
            builder.add(fold.spec(&no_nulls, &step))?;
            builder.add_state_store(store.spec(plan.sends_old_values()), &[&name])
        });
        let getter = getter::stored(&kept_in);
        nodes.is_table(node, TableKind::Stored(kept_in));
        drop(nodes);
        KTable { graph: self.graph.clone(), node, key, value, getter }
    }

    /// The repartition of this grouping for the aggregation with this name and store: each has its own,
    /// unless the grouping has a name.
    fn repartitioned(&self, nodes: &mut Nodes, name: Option<&str>, store: &str) -> NodeId {
        let suffixed = |suffix: &str| name.map(|name| format!("{name}{suffix}"));
        let sink = nodes.name_or(suffixed("-sink"), "KSTREAM-SINK-");
        let source = nodes.name_or(suffixed("-source"), "KSTREAM-SOURCE-");
        if let Some(&shared) = self.repartition.get() {
            nodes.use_again(shared);
            return shared;
        }
        let topic = format!("{}-repartition", self.name.as_deref().unwrap_or(store));
        let (key, value) = (self.key.clone(), changes(self.value.clone()));
        let (output, to) = (source.clone(), topic.clone());
        let node = nodes.add(vec![self.node], &output, move |plan, builder| {
            let (key, value) = (key.clone(), value.clone());
            builder.add_internal_topic(&to, InternalTopic::default());
            let parents = plan.parents();
            builder.add(NodeSpec::sink(&sink, parents, &to, key.clone(), value.clone(), None))?;
            builder.add(NodeSpec::source(&source, vec![to.clone()], key, value))
        });
        nodes.is_repartition(node, &topic);
        if self.name.is_some() {
            self.repartition.get_or_init(|| node);
        }
        node
    }
}

const AGGREGATE: &str = "KTABLE-AGGREGATE-";
const REDUCE: &str = "KTABLE-REDUCE-";
