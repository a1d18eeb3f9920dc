//! An aggregation of several streams, as nodes and stores of a topology.

use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use streams_core::topology::{NodeSpec, StoreSpec};
use streams_core::{Change, Data, Record, Windowed};

use crate::graph::{Graph, NodeId, Nodes, Plan};
use crate::grouped::{Fold, KGroupedStream};
use crate::processors::{Nulls, TableStore, stateless};
use crate::repartition::Names;
use crate::session_fold::SessionFold;
use crate::window_fold::{WindowFold, WindowNode};

/// Makes an aggregate to begin with.
pub(crate) type Initial<A> = dyn Fn() -> A + Send + Sync;

/// What the processors and the store are made of, apart from the aggregators.
pub(crate) enum CogroupFold<K, A> {
    Plain(TableStore<K, A>),
    Windows(WindowFold<K, A>),
    Sessions(SessionFold<K, A>),
}

impl<K: Data + Eq + Hash, A: Data> CogroupFold<K, A> {
    /// What is wrong with it, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Windows(fold) => fold.mistake(),
            Self::Sessions(fold) => fold.mistake(),
        }
    }

    /// How long after their end windows are closed, if there are any.
    pub(crate) fn closes_after(&self) -> Option<i64> {
        match self {
            Self::Plain(_) => None,
            Self::Windows(fold) => Some(fold.windows.closes_after()),
            Self::Sessions(fold) => Some(fold.windows.closes_after()),
        }
    }

    /// The store.
    pub(crate) fn store_spec(&self, plan: &Plan<'_>) -> StoreSpec {
        match self {
            Self::Plain(store) => store.spec(plan.sends_old_values()),
            Self::Windows(fold) => fold.store_spec(plan),
            Self::Sessions(fold) => fold.store_spec(plan),
        }
    }

    /// The node where the updates by all streams meet.
    pub(crate) fn merge_spec(&self, name: &str, parents: Vec<String>) -> NodeSpec {
        match self {
            Self::Plain(_) => {
                let pass = stateless(|update: Record<K, Change<A>>, cx| cx.forward(update));
                NodeSpec::processor(name, parents, pass)
            }
            Self::Windows(_) | Self::Sessions(_) => {
                let pass =
                    stateless(|update: Record<Windowed<K>, Change<A>>, cx| cx.forward(update));
                NodeSpec::processor(name, parents, pass)
            }
        }
    }
}

/// A grouped stream and its aggregator, whatever the type of its values.
pub(crate) trait CogroupedStream<K, A>: Send + Sync {
    /// Whether it belongs to this graph.
    fn is_of(&self, graph: &Graph) -> bool;

    /// Whether it is read through a repartition topic that is named after the store.
    fn takes_the_stores_name(&self) -> bool;

    /// The node that its aggregation hangs on: a repartition where its key may have changed. All
    /// aggregates of a cogrouped stream share it.
    fn add_parent(&self, nodes: &mut Nodes, store: &str) -> NodeId;

    /// The processor of its part of an aggregate.
    fn spec(
        &self,
        node: WindowNode<'_>,
        fold: &CogroupFold<K, A>,
        initial: &Arc<Initial<A>>,
    ) -> NodeSpec;
}

/// See [`CogroupedStream`].
pub(crate) struct WithAggregator<K, V, F> {
    grouped: KGroupedStream<K, V>,
    aggregator: Arc<F>,
    repartition: OnceLock<NodeId>,
}

impl<K, V, F> WithAggregator<K, V, F> {
    pub(crate) fn new(grouped: KGroupedStream<K, V>, aggregator: F) -> Self {
        Self { grouped, aggregator: Arc::new(aggregator), repartition: OnceLock::new() }
    }
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

    fn takes_the_stores_name(&self) -> bool {
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

    fn spec(
        &self,
        node: WindowNode<'_>,
        fold: &CogroupFold<K, A>,
        initial: &Arc<Initial<A>>,
    ) -> NodeSpec {
        let (aggregator, initial) = (self.aggregator.clone(), initial.clone());
        let step = Arc::new(move |key: &K, value: V, so_far: Option<A>| {
            aggregator(key, value, so_far.unwrap_or_else(&*initial))
        });
        let null_values = Nulls::of(&self.grouped.value);
        match fold {
            CogroupFold::Plain(store) => {
                let WindowNode { name, parents, .. } = node;
                Fold { name, parents, store }.spec(&null_values, &step)
            }
            CogroupFold::Windows(fold) => fold.spec(node, &null_values, &step),
            CogroupFold::Sessions(fold) => fold.spec(node, &step),
        }
    }
}
