//! Grouped streams in windows of a fixed size.

use std::hash::Hash;
use std::sync::Arc;

use streams_core::serde::{DynSerde, HasSerde, time_windowed};
use streams_core::topology::NodeSpec;
use streams_core::{BuildError, Data, Windowed};

use crate::config::{IntoTableConfig, TableConfig};
use crate::getter;
use crate::graph::{NodeId, Plan, TableKind};
use crate::grouped::{AGGREGATE, Declared, KGroupedStream, REDUCE};
use crate::optional::Optional;
use crate::processors::Nulls;
use crate::steps;
use crate::table::KTable;
use crate::window_fold::{WindowFold, WindowNode};
use crate::windows::{EmitStrategy, FixedWindows};

/// A grouped stream in tumbling, hopping, sliding or unlimited windows. Records with a null key are
/// dropped and counted, as is each closed window that a late record would have fallen into.
pub struct TimeWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: FixedWindows,
    emit: EmitStrategy,
}

impl<K, V> Clone for TimeWindowedKStream<K, V> {
    fn clone(&self) -> Self {
        Self { grouped: self.grouped.clone(), ..*self }
    }
}

impl<K: Data + Eq + Hash, V: Data> TimeWindowedKStream<K, V> {
    pub(crate) fn new(grouped: KGroupedStream<K, V>, windows: FixedWindows) -> Self {
        Self { grouped, windows, emit: EmitStrategy::default() }
    }

    /// The same with this time of results: at every update, or once for each window.
    pub fn emit_strategy(self, emit: EmitStrategy) -> Self {
        Self { emit, ..self }
    }

    /// How many records each key has had in each window.
    pub fn count(&self) -> KTable<Windowed<K>, i64> {
        self.add_count(None)
    }

    /// As [`TimeWindowedKStream::count`], with a name, serdes or a store.
    pub fn count_with(&self, config: impl IntoTableConfig<K, i64>) -> KTable<Windowed<K>, i64> {
        self.add_count(Some(config.into_table_config()))
    }

    fn add_count(&self, config: Option<TableConfig<K, i64>>) -> KTable<Windowed<K>, i64> {
        let is_sliding = matches!(self.windows, FixedWindows::Sliding(_));
        if !is_sliding {
            TableConfig::waste_number(config.as_ref(), &mut self.grouped.stream.graph.lock());
        }
        let nulls = Nulls::of(&self.grouped.value);
        let make = move |plan: &Plan<'_>, name: &str, fold: &WindowFold<K, i64>| {
            if plan.values_are_skipped() {
                fold.spec(
                    WindowNode::below(name, plan),
                    &Nulls::of(&Option::<()>::serde()),
                    &Arc::new(steps::count_one),
                )
            } else {
                fold.spec(WindowNode::below(name, plan), &nulls, &Arc::new(steps::count_one))
            }
        };
        let (table, node) = self.add(AGGREGATE, config, i64::serde(), make);
        self.grouped.stream.graph.lock().ignores_values(node);
        table
    }

    /// Combines the values of each key in each window, two at a time; the first one stands for itself.
    pub fn reduce(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, V> {
        self.add_reduce(combine, None)
    }

    /// As [`TimeWindowedKStream::reduce`], with a name, serdes or a store.
    pub fn reduce_with(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
        config: impl IntoTableConfig<K, V>,
    ) -> KTable<Windowed<K>, V> {
        self.add_reduce(combine, Some(config.into_table_config()))
    }

    fn add_reduce(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
        config: Option<TableConfig<K, V>>,
    ) -> KTable<Windowed<K>, V> {
        let step = Arc::new(steps::reduce(combine));
        let nulls = Nulls::of(&self.grouped.value);
        let make = move |plan: &Plan<'_>, name: &str, fold: &WindowFold<K, V>| {
            fold.spec(WindowNode::below(name, plan), &nulls, &step)
        };
        self.add(REDUCE, config, self.grouped.value.clone(), make).0
    }

    /// Folds the values of each key in each window into an aggregate that begins with `initial`. `fold`
    /// may answer an aggregate or an `Option` of one; `None` deletes it.
    pub fn aggregate<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A>
    where
        A: Data + HasSerde,
        R: Optional<A>,
    {
        self.add_aggregate(initial, fold, None, A::serde())
    }

    /// As [`TimeWindowedKStream::aggregate`], with a name, serdes or a store.
    pub fn aggregate_with<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        config: impl IntoTableConfig<K, A>,
    ) -> KTable<Windowed<K>, A>
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
    ) -> KTable<Windowed<K>, A>
    where
        A: Data,
        R: Optional<A>,
    {
        let step = Arc::new(steps::fold(initial, fold));
        let nulls = Nulls::of(&self.grouped.value);
        let make = move |plan: &Plan<'_>, name: &str, fold: &WindowFold<K, A>| {
            fold.spec(WindowNode::below(name, plan), &nulls, &step)
        };
        self.add(AGGREGATE, config, value, make).0
    }

    /// Adds an aggregation; `make` makes its processor when the topology is written.
    fn add<A: Data>(
        &self,
        prefix: &str,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
        make: impl Fn(&Plan<'_>, &str, &WindowFold<K, A>) -> NodeSpec + Send + Sync + 'static,
    ) -> (KTable<Windowed<K>, A>, NodeId) {
        let graph = &self.grouped.stream.graph;
        let mut nodes = graph.lock();
        let Declared { name, store, parent, value, .. } =
            self.grouped.declare(&mut nodes, prefix, config, value);
        let key = time_windowed(store.key.clone(), self.windows.size());
        let kept_in = store.name.clone();
        let fold = WindowFold { store, windows: self.windows, emit: self.emit };
        if let Some(reason) = fold.mistake() {
            nodes.fail(BuildError::Invalid { node: name.clone(), reason });
        }
        let output = name.clone();
        let node = nodes.add(vec![parent], &output, move |plan, builder| {
            builder.add(make(plan, &name, &fold))?;
            builder.add_state_store(fold.store_spec(plan), &[&name])
        });
        let getter = getter::in_windows(&kept_in);
        nodes.is_table(node, TableKind::Stored(kept_in));
        nodes.closes_after(node, self.windows.closes_after());
        drop(nodes);
        (KTable { graph: graph.clone(), node, key: Some(key), value, getter }, node)
    }
}
