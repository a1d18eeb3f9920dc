//! `map_values` of a table.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor};
use streams_core::{BuildError, Change, Data, ProcessError, Record};

use super::updates::Updates;

/// Maps the value of each update; deletions stay deletions.
pub(crate) struct TableMapValues<K, V, V2, F> {
    pub(crate) map: Arc<F>,
    pub(crate) sends_old_values: bool,
    /// Where its result is kept, if it is.
    pub(crate) updates: Option<Updates<K, V2>>,
    pub(crate) marker: PhantomData<fn(V)>,
}

impl<K, V, V2, F> Processor for TableMapValues<K, V, V2, F>
where
    K: Data + Eq + Hash,
    V: Data,
    V2: Data,
    F: Fn(&K, V) -> V2 + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = Change<V>;
    type KOut = K;
    type VOut = Change<V2>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.updates.as_mut().map_or(Ok(()), |updates| updates.init(cx))
    }

    fn process(
        &mut self,
        record: Record<K, Change<V>>,
        cx: &mut Context<'_, K, Change<V2>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let Change { is_latest, was_seen, .. } = value;
        let new = value.new.map(|value| (self.map)(&key, value));
        if let Some(updates) = &self.updates {
            return updates.put(Record { key, value: new, timestamp, headers }, cx);
        }
        let old = value.old.filter(|_| self.sends_old_values);
        let old = old.map(|value| (self.map)(&key, value));
        let value = Change { new, old, is_latest, was_seen };
        cx.forward(Record { key, value, timestamp, headers });
        Ok(())
    }

    fn before_seal(&mut self, cx: &mut Context<'_, K, Change<V2>>) -> Result<(), ProcessError> {
        self.updates.as_ref().map_or(Ok(()), |updates| updates.drain(cx))
    }
}
