//! Several grouped streams in windows, aggregated together.

use std::hash::Hash;
use std::sync::Arc;

use streams_core::serde::{DynSerde, HasSerde, session_windowed, time_windowed};
use streams_core::{Data, Windowed};

use crate::cogroup_fold::{CogroupFold, Initial};
use crate::cogrouped::CogroupedKStream;
use crate::config::{IntoTableConfig, TableConfig};
use crate::getter;
use crate::processors::Merge;
use crate::session_fold::SessionFold;
use crate::session_windowed::merging;
use crate::table::KTable;
use crate::window_fold::WindowFold;
use crate::windows::{EmitStrategy, FixedWindows, SessionWindows};

/// Cogrouped streams in tumbling, hopping, sliding or unlimited windows.
pub struct TimeWindowedCogroupedKStream<K, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: FixedWindows,
}

impl<K, A> Clone for TimeWindowedCogroupedKStream<K, A> {
    fn clone(&self) -> Self {
        Self { cogrouped: self.cogrouped.clone(), ..*self }
    }
}

impl<K: Data + Eq + Hash, A: Data> TimeWindowedCogroupedKStream<K, A> {
    pub(crate) fn new(cogrouped: CogroupedKStream<K, A>, windows: FixedWindows) -> Self {
        Self { cogrouped, windows }
    }

    /// Folds the values of all streams into an aggregate for each key and window, which begins with
    /// `initial`.
    pub fn aggregate(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A>
    where
        A: HasSerde,
    {
        self.add_aggregate(Arc::new(initial), None, A::serde())
    }

    /// As [`TimeWindowedCogroupedKStream::aggregate`], with a name, serdes or a store.
    pub fn aggregate_with(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        config: impl IntoTableConfig<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let config = config.into_table_config();
        let value = config.materialized.value.clone().or(&None);
        self.add_aggregate(Arc::new(initial), Some(config), value)
    }

    fn add_aggregate(
        &self,
        initial: Arc<Initial<A>>,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
    ) -> KTable<Windowed<K>, A> {
        let windows = self.windows;
        let fold = |store| {
            CogroupFold::Windows(WindowFold { store, windows, emit: EmitStrategy::default() })
        };
        let (node, store, (key, value)) = self.cogrouped.add(initial, config, value, fold);
        let key = time_windowed(key.unwrap_or(self.cogrouped.key.clone()), windows.size());
        let (graph, getter) = (self.cogrouped.graph.clone(), getter::in_windows(&store));
        KTable { graph, node, key: Some(key), value, getter }
    }
}

/// Cogrouped streams in sessions.
pub struct SessionWindowedCogroupedKStream<K, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: SessionWindows,
}

impl<K, A> Clone for SessionWindowedCogroupedKStream<K, A> {
    fn clone(&self) -> Self {
        Self { cogrouped: self.cogrouped.clone(), ..*self }
    }
}

impl<K: Data + Eq + Hash, A: Data> SessionWindowedCogroupedKStream<K, A> {
    pub(crate) fn new(cogrouped: CogroupedKStream<K, A>, windows: SessionWindows) -> Self {
        Self { cogrouped, windows }
    }

    /// Folds the values of all streams into an aggregate for each key and session, which begins with
    /// `initial`. When sessions become one, `merge` makes one aggregate of two: of the earlier sessions
    /// (first of all of `initial`), and of the next.
    pub fn aggregate(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A>
    where
        A: HasSerde,
    {
        let initial: Arc<Initial<A>> = Arc::new(initial);
        let merge = merging(initial.clone(), merge);
        self.add_aggregate(initial, merge, None, A::serde())
    }

    /// As [`SessionWindowedCogroupedKStream::aggregate`], with a name, serdes or a store.
    pub fn aggregate_with(
        &self,
        initial: impl Fn() -> A + Send + Sync + 'static,
        merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
        config: impl IntoTableConfig<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let config = config.into_table_config();
        let value = config.materialized.value.clone().or(&None);
        let initial: Arc<Initial<A>> = Arc::new(initial);
        let merge = merging(initial.clone(), merge);
        self.add_aggregate(initial, merge, Some(config), value)
    }

    fn add_aggregate(
        &self,
        initial: Arc<Initial<A>>,
        merge: Arc<Merge<K, A>>,
        config: Option<TableConfig<K, A>>,
        value: DynSerde<A>,
    ) -> KTable<Windowed<K>, A> {
        let (windows, emit) = (self.windows, EmitStrategy::default());
        let fold = |store| CogroupFold::Sessions(SessionFold { store, windows, emit, merge });
        let (node, store, (key, value)) = self.cogrouped.add(initial, config, value, fold);
        let key = session_windowed(key.unwrap_or(self.cogrouped.key.clone()));
        let (graph, getter) = (self.cogrouped.graph.clone(), getter::in_sessions(&store));
        KTable { graph, node, key: Some(key), value, getter }
    }
}
