//! Several grouped streams, aggregated together.

use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use streams_core::serde::{DynSerde, HasSerde};
use streams_core::topology::NodeSpec;
use streams_core::{BuildError, Change, Data, Record, TopologyBuilder};

use crate::config::{TableConfig, TableParts};
use crate::graph::{Graph, NodeId, Nodes, TableKind};
use crate::grouped::{Fold, KGroupedStream};
use crate::processors::{Nulls, stateless};
use crate::repartition::Names;
use crate::table::KTable;

/// Grouped streams, possibly of different types, whose records go into one aggregate for each key: each
/// stream has an aggregator of its own. Their topics must have equal numbers of partitions.
///
/// ```
/// use streams_dsl::StreamsBuilder;
/// let builder = StreamsBuilder::new();
/// let paid_in = builder.stream::<String, i64>("paid-in").group_by_key();
/// let paid_out = builder.stream::<String, i64>("paid-out").group_by_key();
/// paid_in
///     .cogroup(|_, cents, balance: i64| balance + cents)
///     .cogroup(&paid_out, |_, cents, balance| balance - cents)
///     .aggregate(|| 0)
///     .to_stream()
///     .to("balances");
/// # builder.build()?;
/// # Ok::<(), streams_core::BuildError>(())
/// ```
pub struct CogroupedKStream<K, A> {
    pub(crate) graph: Graph,
    pub(crate) key: DynSerde<K>,
    pub(crate) key_to_inherit: Option<DynSerde<K>>,
    pub(crate) streams: Vec<Arc<dyn CogroupedStream<K, A>>>,
}

impl<K, A> Clone for CogroupedKStream<K, A> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            key: self.key.clone(),
            key_to_inherit: self.key_to_inherit.clone(),
            streams: self.streams.clone(),
        }
    }
}

impl<K: Data + Eq + Hash, V: Data> KGroupedStream<K, V> {
    /// Begins an aggregate that other grouped streams go into too: see [`CogroupedKStream`]. The
    /// aggregator may answer an aggregate or an `Option` of one; `None` deletes it.
    pub fn cogroup<A: Data, R: Into<Option<A>>>(
        &self,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> CogroupedKStream<K, A> {
        let first = CogroupedKStream {
            graph: self.stream.graph.clone(),
            key: self.key.clone(),
            key_to_inherit: self.key_to_inherit.clone(),
            streams: Vec::new(),
        };
        first.cogroup(self, aggregator)
    }
}

impl<K: Data + Eq + Hash, A: Data> CogroupedKStream<K, A> {
    /// The same with a further stream, and its aggregator.
    pub fn cogroup<V: Data, R: Into<Option<A>>>(
        &self,
        grouped: &KGroupedStream<K, V>,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> Self {
        let aggregator = move |key: &K, value, so_far| aggregator(key, value, so_far).into();
        let mut cogrouped = self.clone();
        cogrouped.streams.push(Arc::new(WithAggregator {
            grouped: grouped.clone(),
            aggregator: Arc::new(aggregator),
            repartition: OnceLock::new(),
        }));
        cogrouped
    }

    /// Folds the values of all streams into an aggregate for each key, which begins with `initial`.
    /// Records with a null key or a null value are dropped and counted.
    pub fn aggregate(&self, initial: impl Fn() -> A + Send + Sync + 'static) -> KTable<K, A>
    where
        A: HasSerde,
    {
        self.add_aggregate(Arc::new(initial), None, A::serde())
    }

    /// As [`CogroupedKStream::aggregate`], with a name, serdes or a store.
    pub fn aggregate_with(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        config: impl Into<TableConfig<K, A>>,
    ) -> KTable<K, A> {
        let config = config.into();
        let value = config.materialized.value.clone().or(&None);
        self.add_aggregate(Arc::new(initial), Some(config), value)
    }

    fn add_aggregate(
        &self,
        initial: Arc<Initial<A>>,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
    ) -> KTable<K, A> {
        let mut nodes = self.graph.lock();
        let upstream = (&self.key, &self.key_to_inherit, value);
        let TableParts { name, store, inherited } =
            TableConfig::parts(config, &mut nodes, AGGREGATE, upstream);
        let names = self.add_names(&mut nodes, name.as_deref(), &store.name);
        let (streams, merge) = (self.streams.clone(), names.merge.clone());
        let node = nodes.add(names.parents.clone(), &merge, move |plan, builder| {
            builder.copartition(plan.topics());
            for ((stream, name), parent) in
                streams.iter().zip(&names.aggregates).zip(plan.parents())
            {
                let fold = Fold { name, parents: vec![parent], store: &store };
                builder.add(stream.aggregate(&fold, &initial))?;
            }
            names.add_merge::<K, A>(builder)?;
            builder.add_state_store(store.spec(plan.sends_old_values()), &names.aggregates())
        });
        nodes.is_table(node, TableKind::Stored);
        drop(nodes);
        let (graph, (key, value)) = (self.graph.clone(), inherited);
        KTable { graph, node, key, value }
    }

    /// Adds the repartitions that the streams need, and names the nodes of an aggregate.
    pub(crate) fn add_names(
        &self,
        nodes: &mut Nodes,
        name: Option<&str>,
        store: &str,
    ) -> CogroupNames {
        let parents = self.streams.iter().map(|stream| stream.add_parent(nodes, store)).collect();
        let mut numbered = |suffix: &str, prefix: &str| {
            let given = name.map(|name| format!("{name}{suffix}"));
            nodes.name_or(given, prefix)
        };
        let aggregates = (0..self.streams.len())
            .map(|n| numbered(&format!("-cogroup-agg-{n}"), AGGREGATE))
            .collect();
        let merge = numbered("-cogroup-merge", "COGROUPKSTREAM-MERGE-");
        if self.streams.iter().any(|stream| !stream.is_of(&self.graph)) {
            nodes.fail(BuildError::Invalid {
                node: merge.clone(),
                reason: "it cogroups streams of two builders; make all with the same one".into(),
            });
        }
        let unnamed = self.streams.iter().filter(|stream| stream.shares_no_topic()).count();
        if unnamed > 1 {
            nodes.fail(BuildError::Invalid {
                node: merge.clone(),
                reason:
                    "several of its streams need a repartition topic; give all but one of their \
                         groupings a name (Grouped::named), so that each has its own"
                        .into(),
            });
        }
        CogroupNames { parents, aggregates, merge }
    }
}

pub(crate) const AGGREGATE: &str = "COGROUPKSTREAM-AGGREGATE-";

/// Makes an aggregate to begin with.
pub(crate) type Initial<A> = dyn Fn() -> A + Send + Sync;

/// The names of an aggregate's nodes, and what they hang on.
#[derive(Clone)]
pub(crate) struct CogroupNames {
    pub(crate) parents: Vec<NodeId>,
    pub(crate) aggregates: Vec<String>,
    pub(crate) merge: String,
}

impl CogroupNames {
    /// The nodes that use the store.
    pub(crate) fn aggregates(&self) -> Vec<&str> {
        self.aggregates.iter().map(String::as_str).collect()
    }

    /// Adds the node where the updates by all streams meet.
    pub(crate) fn add_merge<K: Data, A: Data>(
        &self,
        builder: &mut TopologyBuilder,
    ) -> Result<(), BuildError> {
        let pass = stateless(|update: Record<K, Change<A>>, cx| cx.forward(update));
        builder.add(NodeSpec::processor(&self.merge, self.aggregates.clone(), pass))
    }
}

/// A grouped stream and its aggregator, whatever the type of its values.
pub(crate) trait CogroupedStream<K, A>: Send + Sync {
    /// Whether it belongs to this graph.
    fn is_of(&self, graph: &Graph) -> bool;

    /// Whether it is read through a repartition topic that is named after the store.
    fn shares_no_topic(&self) -> bool;

    /// The node that its aggregation hangs on: a repartition where its key may have changed. All
    /// aggregates of a cogrouped stream share it.
    fn add_parent(&self, nodes: &mut Nodes, store: &str) -> NodeId;

    /// The node of its plain aggregation.
    fn aggregate(&self, fold: &Fold<'_, K, A>, initial: &Arc<Initial<A>>) -> NodeSpec;
}

struct WithAggregator<K, V, F> {
    grouped: KGroupedStream<K, V>,
    aggregator: Arc<F>,
    repartition: OnceLock<NodeId>,
}

impl<K, V, A, F> CogroupedStream<K, A> for WithAggregator<K, V, F>
where
    K: Data + Eq + Hash,
    V: Data,
    A: Data,
    F: Fn(&K, V, A) -> Option<A> + Send + Sync + 'static,
{
    fn is_of(&self, graph: &Graph) -> bool {
        self.grouped.stream.graph.is(graph)
    }

    fn shares_no_topic(&self) -> bool {
        self.grouped.stream.rekeyed && self.grouped.name.is_none()
    }

    fn add_parent(&self, nodes: &mut Nodes, store: &str) -> NodeId {
        if !self.grouped.stream.rekeyed {
            return self.grouped.stream.node;
        }
        if let Some(&shared) = self.repartition.get() {
            Names::new(nodes, store); // used up in Kafka too
            return shared;
        }
        let added = self.grouped.repartitioned(nodes, store);
        *self.repartition.get_or_init(|| added)
    }

    fn aggregate(&self, fold: &Fold<'_, K, A>, initial: &Arc<Initial<A>>) -> NodeSpec {
        let (aggregator, initial) = (self.aggregator.clone(), initial.clone());
        let step = move |key: &K, value: V, so_far: Option<A>| {
            aggregator(key, value, so_far.unwrap_or_else(|| initial()))
        };
        fold.spec(&Nulls::of(&self.grouped.value), &Arc::new(step))
    }
}
