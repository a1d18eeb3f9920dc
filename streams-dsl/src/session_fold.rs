//! An aggregation in sessions, as nodes and stores of a topology.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::Data;
use streams_core::state::WindowedOptions;
use streams_core::topology::{NodeSpec, StoreSpec};

use crate::graph::Plan;
use crate::processors::{Forwards, IdleClock, Merge, Nulls, SessionAggregate, TableStore};
use crate::window_fold::WindowNode;
use crate::windows::{EmitStrategy, SessionWindows};

/// What the processor and the store of an aggregation in sessions are made of, apart from its step.
pub(crate) struct SessionFold<K, A> {
    pub(crate) store: TableStore<K, A>,
    pub(crate) windows: SessionWindows,
    pub(crate) emit: EmitStrategy,
    pub(crate) merge: Arc<Merge<K, A>>,
}

impl<K: Data + Eq + Hash, A: Data> SessionFold<K, A> {
    /// What is wrong with it, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        let needed = self.windows.open_for();
        let unfit = self.store.unfit_for_windows().map(String::from);
        self.windows.mistake().or(self.emit.mistake()).or(unfit).or_else(|| {
            let given = self.store.retention.filter(|given| *given < needed)?;
            Some(format!(
                "its store keeps sessions for {given} ms, but records can fall into them for \
                 {needed} ms; give it a retention of {needed} ms or more, or sessions with less grace"
            ))
        })
    }

    /// The processor.
    pub(crate) fn spec<V: Data, F>(&self, node: WindowNode<'_>, step: &Arc<F>) -> NodeSpec
    where
        F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
    {
        let (null_keys, null_results) = (Nulls::of(&self.store.key), Nulls::of(&self.store.value));
        let (store, times) = (self.store.name.clone(), node.times.to_string());
        let (windows, forwards) = (self.windows, self.forwards());
        let idle = self.emit.after_idle.map(IdleClock::new);
        let (step, merge) = (step.clone(), self.merge.clone());
        let WindowNode { name, parents, sends_old_values, .. } = node;
        NodeSpec::processor(name, parents, move || SessionAggregate {
            windows,
            step: step.clone(),
            merge: merge.clone(),
            null_keys: null_keys.clone(),
            null_results: null_results.clone(),
            store: store.clone(),
            times: times.clone(),
            forwards,
            sends_old_values,
            idle,
            handles: None,
            marker: PhantomData,
        })
    }

    /// The store.
    pub(crate) fn store_spec(&self, plan: &Plan<'_>) -> StoreSpec {
        let TableStore { name, key, value, logging, retention, .. } = &self.store;
        // What is as old as that is still open: it goes a millisecond later.
        let retention = retention.unwrap_or(self.windows.open_for()).saturating_add(1);
        let options = WindowedOptions {
            logged: *logging,
            forward_on_seal: self.forwards() == Forwards::AtSeal,
            keep_old: plan.sends_old_values(),
            look_back: plan.look_back(retention),
            by_time: self.emit.on_close,
            ..WindowedOptions::new(retention)
        };
        self.store.kept(StoreSpec::session(name, key.clone(), value.clone(), options))
    }

    fn forwards(&self) -> Forwards {
        Forwards::of(self.emit, self.store.caching)
    }
}
