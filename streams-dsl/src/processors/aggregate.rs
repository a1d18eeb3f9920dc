//! Aggregates of a grouped stream: count, reduce, aggregate.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor};
use streams_core::{BuildError, Change, Data, ProcessError, Record};

use super::Nulls;
use super::updates::Updates;

/// Folds the values of each key. `step` gets the key, a value and the aggregate so far; what it
/// leaves is the new one, and `None` deletes.
pub(crate) struct Aggregate<K, V, A, F> {
    pub(crate) step: Arc<F>,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_values: Nulls<V>,
    pub(crate) null_results: Nulls<A>,
    pub(crate) updates: Updates<K, A>,
    pub(crate) marker: PhantomData<fn(V)>,
}

impl<K, V, A, F> Processor for Aggregate<K, V, A, F>
where
    K: Data + Eq + Hash,
    V: Data,
    A: Data,
    F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = V;
    type KOut = K;
    type VOut = Change<A>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.updates.init(cx)
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, Change<A>>,
    ) -> Result<(), ProcessError> {
        if self.null_keys.is_null(&record.key) {
            cx.drop_record("null key");
            return Ok(());
        }
        if self.null_values.is_null(&record.value) {
            cx.drop_record("null value");
            return Ok(());
        }
        let own = record.timestamp;
        let (step, nulls, updates) = (&*self.step, &self.null_results, &self.updates);
        let change = |key: &K, value, slot: &mut Option<A>, time: Option<i64>| {
            let result = time.map_or(own, |time| time.max(own));
            *slot = step(key, value, slot.take()).filter(|new| !nulls.is_null(new));
            updates.time(slot.is_none(), own, result)
        };
        updates.update(record, change, cx)
    }

    fn before_seal(&mut self, cx: &mut Context<'_, K, Change<A>>) -> Result<(), ProcessError> {
        self.updates.drain(cx)
    }
}
