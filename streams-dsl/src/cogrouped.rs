//! Several grouped streams, aggregated together.

use std::hash::Hash;
use std::sync::Arc;

use streams_core::serde::{DynSerde, HasSerde};
use streams_core::{BuildError, Data};

use crate::cogroup_fold::{CogroupFold, CogroupedStream, Initial, WithAggregator};
use crate::config::{IntoTableConfig, TableConfig, TableParts};
use crate::getter;
use crate::graph::{Graph, NodeId, Nodes, TableKind};
use crate::grouped::KGroupedStream;
use crate::optional::Optional;
use crate::processors::TableStore;
use crate::table::KTable;
use crate::window_fold::WindowNode;
use crate::windows::Windows;

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
    key_to_inherit: Option<DynSerde<K>>,
    streams: Vec<Arc<dyn CogroupedStream<K, A>>>,
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
    pub fn cogroup<A: Data, R: Optional<A>>(
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
    pub fn cogroup<V: Data, R: Optional<A>>(
        &self,
        grouped: &KGroupedStream<K, V>,
        aggregator: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> Self {
        let aggregator = move |key: &K, value, so_far| aggregator(key, value, so_far).into_option();
        let mut cogrouped = self.clone();
        let with = WithAggregator::new(grouped.clone(), aggregator);
        cogrouped.streams.push(Arc::new(with));
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
        config: impl IntoTableConfig<K, A>,
    ) -> KTable<K, A> {
        let config = config.into_table_config();
        let value = config.materialized.value.clone().or(&None);
        self.add_aggregate(Arc::new(initial), Some(config), value)
    }

    fn add_aggregate(
        &self,
        initial: Arc<Initial<A>>,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
    ) -> KTable<K, A> {
        let (node, store, (key, value)) = self.add(initial, config, value, CogroupFold::Plain);
        KTable { graph: self.graph.clone(), node, key, value, getter: getter::stored(&store) }
    }

    /// The same in windows: the aggregate then is one for each key and window. Its streams share one
    /// stream time.
    pub fn windowed_by<W: Windows>(&self, windows: W) -> W::Cogrouped<K, A> {
        windows.window_cogrouped(self.clone())
    }

    /// Adds an aggregate: a node for each stream, and one where their updates meet. `fold` says what is
    /// done with the store. Answers the store's name and the serdes for what follows, too.
    pub(crate) fn add(
        &self,
        initial: Arc<Initial<A>>,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
        fold: impl FnOnce(TableStore<K, A>) -> CogroupFold<K, A>,
    ) -> (NodeId, String, Inherited<K, A>) {
        let mut nodes = self.graph.lock();
        let upstream = (&self.key, &self.key_to_inherit, value);
        let TableParts { name, store, inherited } =
            TableConfig::parts(config, &mut nodes, AGGREGATE, upstream);
        let CogroupNames { parents, aggregates, merge } =
            self.add_names(&mut nodes, name.as_deref(), &store.name);
        let kept_in = store.name.clone();
        let fold = fold(store);
        if let Some(reason) = fold.mistake() {
            nodes.fail(BuildError::Invalid { node: merge.clone(), reason });
        }
        let (streams, closes_after) = (self.streams.clone(), fold.closes_after());
        let output = merge.clone();
        let node = nodes.add(parents, &output, move |plan, builder| {
            builder.copartition(plan.topics());
            let sends_old_values = plan.sends_old_values();
            for ((stream, name), parent) in streams.iter().zip(&aggregates).zip(plan.parents()) {
                let node =
                    WindowNode { name, parents: vec![parent], times: &merge, sends_old_values };
                builder.add(stream.spec(node, &fold, &initial))?;
            }
            builder.add(fold.merge_spec(&merge, aggregates.clone()))?;
            let users: Vec<_> = aggregates.iter().map(String::as_str).collect();
            builder.add_state_store(fold.store_spec(plan), &users)
        });
        nodes.is_table(node, TableKind::Stored(kept_in.clone()));
        if let Some(millis) = closes_after {
            nodes.closes_after(node, millis);
        }
        (node, kept_in, inherited)
    }

    /// Adds the repartitions that the streams need, and names the nodes of an aggregate.
    fn add_names(&self, nodes: &mut Nodes, name: Option<&str>, store: &str) -> CogroupNames {
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
            nodes.fail_for_two_builders(&merge, "it cogroups streams");
        }
        let unnamed = self.streams.iter().filter(|stream| stream.takes_the_stores_name()).count();
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

const AGGREGATE: &str = "COGROUPKSTREAM-AGGREGATE-";

/// Serdes for what follows.
type Inherited<K, A> = (Option<DynSerde<K>>, Option<DynSerde<A>>);

/// The names of an aggregate's nodes, and what they hang on.
struct CogroupNames {
    parents: Vec<NodeId>,
    aggregates: Vec<String>,
    merge: String,
}
