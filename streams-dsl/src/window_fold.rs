//! An aggregation in windows of a fixed size, as nodes and stores of a topology.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::Data;
use streams_core::state::WindowedOptions;
use streams_core::topology::{NodeSpec, StoreSpec};

use crate::graph::Plan;
use crate::processors::{
    AlignedWindows, Forwards, IdleClock, Nulls, SlidingAggregate, TableStore, WindowAggregate,
    WindowUpdates,
};
use crate::windows::{EmitStrategy, FixedWindows};

/// What the processor and the store of an aggregation in windows are made of, apart from its step.
pub(crate) struct WindowFold<K, A> {
    pub(crate) store: TableStore<K, A>,
    pub(crate) windows: FixedWindows,
    pub(crate) emit: EmitStrategy,
}

/// Where a processor stands in the topology.
pub(crate) struct WindowNode<'a> {
    pub(crate) name: &'a str,
    pub(crate) parents: Vec<String>,
    /// What its stream time is called after. Processors of one store share it.
    pub(crate) times: &'a str,
    pub(crate) sends_old_values: bool,
}

impl<'a> WindowNode<'a> {
    /// Behind the parents of what is being written.
    pub(crate) fn below(name: &'a str, plan: &Plan<'_>) -> Self {
        Self {
            name,
            parents: plan.parents(),
            times: name,
            sends_old_values: plan.sends_old_values(),
        }
    }
}

impl<K: Data + Eq + Hash, A: Data> WindowFold<K, A> {
    /// What is wrong with it, if something is.
    pub(crate) fn mistake(&self) -> Option<String> {
        let needed = self.windows.retention();
        let unfit = self.store.unfit_for_windows().map(String::from);
        match self.store.retention {
            _ if self.windows.mistake().is_some() => self.windows.mistake(),
            _ if unfit.is_some() => unfit,
            Some(given) if given < needed => Some(format!(
                "its store keeps windows for {given} ms, but records can fall into them for \
                 {needed} ms; give it a retention of {needed} ms or more, or windows with less grace"
            )),
            _ if self.emit.on_close && matches!(self.windows, FixedWindows::Unlimited(_)) => {
                Some("an unlimited window never closes; let it emit on updates".into())
            }
            _ => self.emit.mistake(),
        }
    }

    /// The processor.
    pub(crate) fn spec<V: Data, F>(
        &self,
        node: WindowNode<'_>,
        null_values: &Nulls<V>,
        step: &Arc<F>,
    ) -> NodeSpec
    where
        F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
    {
        let (null_keys, null_results) = (Nulls::of(&self.store.key), Nulls::of(&self.store.value));
        let updates = WindowUpdates {
            times: node.times.into(),
            store: self.store.name.clone(),
            size: self.windows.size(),
            span: self.windows.size().saturating_add(self.windows.closes_after()),
            forwards: self.forwards(),
            sends_old_values: node.sends_old_values,
            idle: self.emit.after_idle.map(IdleClock::new),
            handles: None,
        };
        let WindowNode { name, parents, .. } = node;
        let (step, null_values) = (step.clone(), null_values.clone());
        let windows = match self.windows {
            FixedWindows::Time(windows) => AlignedWindows::Time(windows),
            FixedWindows::Unlimited(windows) => AlignedWindows::Unlimited(windows),
            FixedWindows::Sliding(_) => {
                return NodeSpec::processor(name, parents, move || SlidingAggregate {
                    step: step.clone(),
                    null_keys: null_keys.clone(),
                    null_values: null_values.clone(),
                    null_results: null_results.clone(),
                    updates: updates.clone(),
                    marker: PhantomData,
                });
            }
        };
        NodeSpec::processor(name, parents, move || WindowAggregate {
            windows,
            step: step.clone(),
            null_keys: null_keys.clone(),
            null_results: null_results.clone(),
            updates: updates.clone(),
            marker: PhantomData,
        })
    }

    /// The store.
    pub(crate) fn store_spec(&self, plan: &Plan<'_>) -> StoreSpec {
        let TableStore { name, key, value, logging, retention, .. } = &self.store;
        let retention = retention.unwrap_or(self.windows.retention());
        let options = WindowedOptions {
            logged: *logging,
            forward_on_seal: self.forwards() == Forwards::AtSeal,
            keep_old: plan.sends_old_values(),
            look_back: plan.look_back(retention),
            by_time: self.emit.on_close,
            // Sliding windows are found by the ones before them.
            points: !matches!(self.windows, FixedWindows::Sliding(_)),
            ..WindowedOptions::new(retention)
        };
        let (key, value) = (key.clone(), value.clone());
        self.store.kept(StoreSpec::window(name, key, value, self.windows.size(), options))
    }

    fn forwards(&self) -> Forwards {
        Forwards::of(self.emit, self.store.caching)
    }
}
