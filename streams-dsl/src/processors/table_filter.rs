//! `filter` and `filter_not` of a table.

use std::hash::Hash;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor};
use streams_core::{BuildError, Change, Data, ProcessError, Record};

use super::updates::Updates;

/// Turns rejected values into deletions. Knowing the value before, it is silent where nothing was
/// and nothing is, and nobody saw what was in between; otherwise every rejected update gives a deletion.
pub(crate) struct TableFilter<K, V, F> {
    /// Whether a value stays.
    pub(crate) keeps: Arc<F>,
    pub(crate) sends_old_values: bool,
    /// Of a versioned table every update is forwarded: one that comes out of order may matter although
    /// nothing was and nothing is.
    pub(crate) is_versioned: bool,
    /// Where its result is kept, if it is.
    pub(crate) updates: Option<Updates<K, V>>,
}

impl<K, V, F> Processor for TableFilter<K, V, F>
where
    K: Data + Eq + Hash,
    V: Data,
    F: Fn(&K, &V) -> bool + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = Change<V>;
    type KOut = K;
    type VOut = Change<V>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.updates.as_mut().map_or(Ok(()), |updates| updates.init(cx))
    }

    fn process(
        &mut self,
        record: Record<K, Change<V>>,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let filter = |value: Option<V>| value.filter(|value| (self.keeps)(&key, value));
        let Change { is_latest, was_seen, .. } = value;
        let knows_before = self.sends_old_values && !self.is_versioned;
        let new = filter(value.new);
        let Some(updates) = &self.updates else {
            let old = filter(value.old.filter(|_| self.sends_old_values));
            if !(knows_before && old.is_none() && new.is_none() && !was_seen) {
                let value = Change { new, old, is_latest, was_seen };
                cx.forward(Record { key, value, timestamp, headers });
            }
            return Ok(());
        };
        if knows_before && new.is_none() && !updates.has(&key, cx)? {
            return Ok(());
        }
        updates.put(Record { key, value: new, timestamp, headers }, cx)
    }

    fn before_seal(&mut self, cx: &mut Context<'_, K, Change<V>>) -> Result<(), ProcessError> {
        self.updates.as_ref().map_or(Ok(()), |updates| updates.drain(cx))
    }
}
