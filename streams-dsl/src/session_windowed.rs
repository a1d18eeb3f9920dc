//! Grouped streams in sessions.

use std::hash::Hash;
use std::sync::Arc;

use streams_core::serde::{DynSerde, HasSerde, session_windowed};
use streams_core::topology::NodeSpec;
use streams_core::{BuildError, Data, Windowed};

use crate::config::{IntoTableConfig, TableConfig};
use crate::getter;
use crate::graph::{NodeId, Plan, TableKind};
use crate::grouped::{AGGREGATE, Declared, KGroupedStream, REDUCE};
use crate::optional::Optional;
use crate::processors::Merge;
use crate::session_fold::SessionFold;
use crate::steps;
use crate::table::KTable;
use crate::window_fold::WindowNode;
use crate::windows::{EmitStrategy, SessionWindows};

/// A grouped stream in sessions. Records with a null key and late records are dropped and counted. When
/// sessions merge, or one is prolonged, the old ones are deleted: their tombstones come first, with the
/// time of their ends.
///
/// ```
/// use std::time::Duration;
/// use streams_dsl::{SessionWindows, StreamsBuilder};
/// let builder = StreamsBuilder::new();
/// builder
///     .stream::<String, String>("clicks")
///     .group_by_key()
///     .windowed_by(SessionWindows::of(Duration::from_secs(30 * 60)))
///     .count();
/// # builder.build()?;
/// # Ok::<(), streams_core::BuildError>(())
/// ```
pub struct SessionWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: SessionWindows,
    emit: EmitStrategy,
}

impl<K, V> Clone for SessionWindowedKStream<K, V> {
    fn clone(&self) -> Self {
        Self { grouped: self.grouped.clone(), ..*self }
    }
}

impl<K: Data + Eq + Hash, V: Data> SessionWindowedKStream<K, V> {
    pub(crate) fn new(grouped: KGroupedStream<K, V>, windows: SessionWindows) -> Self {
        Self { grouped, windows, emit: EmitStrategy::default() }
    }

    /// The same with this time of results: at every update, or once for each session.
    pub fn emit_strategy(self, emit: EmitStrategy) -> Self {
        Self { emit, ..self }
    }

    /// How many records each key has had in each session.
    pub fn count(&self) -> KTable<Windowed<K>, i64> {
        self.add_count(None)
    }

    /// As [`SessionWindowedKStream::count`], with a name, serdes or a store.
    pub fn count_with(&self, config: impl IntoTableConfig<K, i64>) -> KTable<Windowed<K>, i64> {
        self.add_count(Some(config.into_table_config()))
    }

    fn add_count(&self, config: Option<TableConfig<K, i64>>) -> KTable<Windowed<K>, i64> {
        TableConfig::waste_number(config.as_ref(), &mut self.grouped.stream.graph.lock());
        let merge = |_: &K, so_far: Option<i64>, session| Some(so_far.unwrap_or(0) + session);
        let make = |plan: &Plan<'_>, name: &str, fold: &SessionFold<K, i64>| {
            let node = WindowNode::below(name, plan);
            if plan.values_are_skipped() {
                fold.spec(node, &Arc::new(steps::count_one::<K, Option<()>>))
            } else {
                fold.spec(node, &Arc::new(steps::count_one::<K, V>))
            }
        };
        let (table, node) = self.add(AGGREGATE, config, i64::serde(), Arc::new(merge), make);
        self.grouped.stream.graph.lock().ignores_values(node);
        table
    }

    /// Combines the values of each key in each session, two at a time; the first one stands for itself.
    /// What sessions have come to is combined in the same way when they merge.
    pub fn reduce(
        &self,
        combine: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, V> {
        self.add_reduce(combine, None)
    }

    /// As [`SessionWindowedKStream::reduce`], with a name, serdes or a store.
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
        let combine = step.clone();
        let merge = move |key: &K, so_far, session| combine(key, session, so_far);
        let make = move |plan: &Plan<'_>, name: &str, fold: &SessionFold<K, V>| {
            fold.spec(WindowNode::below(name, plan), &step)
        };
        let value = self.grouped.value.clone();
        self.add(REDUCE, config, value, Arc::new(merge), make).0
    }

    /// Folds the values of each key in each session into an aggregate that begins with `initial`. `fold`
    /// may answer an aggregate or an `Option` of one; `None` deletes it. When sessions become one, `merge`
    /// makes one aggregate of two: of the earlier sessions (first of all of `initial`), and of the next.
    pub fn aggregate<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A>
    where
        A: Data + HasSerde,
        R: Optional<A>,
    {
        self.add_aggregate(initial, fold, merge, None, A::serde())
    }

    /// As [`SessionWindowedKStream::aggregate`], with a name, serdes or a store.
    pub fn aggregate_with<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
        config: impl IntoTableConfig<K, A>,
    ) -> KTable<Windowed<K>, A>
    where
        A: Data,
        R: Optional<A>,
    {
        let config = config.into_table_config();
        let value = config.materialized.value.clone().or(&None);
        self.add_aggregate(initial, fold, merge, Some(config), value)
    }

    fn add_aggregate<A, R>(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
        merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
    ) -> KTable<Windowed<K>, A>
    where
        A: Data,
        R: Optional<A>,
    {
        let initial = Arc::new(initial);
        let merge = merging(initial.clone(), merge);
        let step = Arc::new(steps::fold(move || initial(), fold));
        let make = move |plan: &Plan<'_>, name: &str, fold: &SessionFold<K, A>| {
            fold.spec(WindowNode::below(name, plan), &step)
        };
        self.add(AGGREGATE, config, value, merge, make).0
    }

    /// Adds an aggregation; `make` makes its processor when the topology is written.
    fn add<A: Data>(
        &self,
        prefix: &str,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
        merge: Arc<Merge<K, A>>,
        make: impl Fn(&Plan<'_>, &str, &SessionFold<K, A>) -> NodeSpec + Send + Sync + 'static,
    ) -> (KTable<Windowed<K>, A>, NodeId) {
        let graph = &self.grouped.stream.graph;
        let mut nodes = graph.lock();
        let Declared { name, store, parent, value, .. } =
            self.grouped.declare(&mut nodes, prefix, config, value);
        let key = session_windowed(store.key.clone());
        let kept_in = store.name.clone();
        let fold = SessionFold { store, windows: self.windows, emit: self.emit, merge };
        if let Some(reason) = fold.mistake() {
            nodes.fail(BuildError::Invalid { node: name.clone(), reason });
        }
        let output = name.clone();
        let node = nodes.add(vec![parent], &output, move |plan, builder| {
            builder.add(make(plan, &name, &fold))?;
            builder.add_state_store(fold.store_spec(plan), &[&name])
        });
        let getter = getter::in_sessions(&kept_in);
        nodes.is_table(node, TableKind::Stored(kept_in));
        nodes.closes_after(node, self.windows.closes_after());
        drop(nodes);
        (KTable { graph: graph.clone(), node, key: Some(key), value, getter }, node)
    }
}

/// Merges sessions one after the other, beginning with the initial aggregate.
pub(crate) fn merging<K: 'static, A: 'static>(
    initial: Arc<impl Fn() -> A + Send + Sync + ?Sized + 'static>,
    merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
) -> Arc<Merge<K, A>> {
    Arc::new(move |key: &K, so_far: Option<A>, session| {
        Some(merge(key, so_far.unwrap_or_else(|| initial()), session))
    })
}
