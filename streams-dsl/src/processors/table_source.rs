//! A stream of updates that becomes a table.

use std::hash::Hash;
use std::marker::PhantomData;

use streams_core::processor::{Context, InitContext, Processor};
use streams_core::{BuildError, Change, Data, ProcessError, Record};

use super::Nulls;
use super::updates::Updates;

/// Makes updates of records; keeps the last value of each key where something downstream needs it.
/// `X` is the value as it comes: `V` or `Option<V>`.
pub(crate) struct TableSource<K, X, V> {
    pub(crate) null_keys: Nulls<K>,
    pub(crate) updates: Option<Updates<K, V>>,
    pub(crate) marker: PhantomData<fn(X)>,
}

impl<K, X, V> Processor for TableSource<K, X, V>
where
    K: Data + Eq + Hash,
    X: Data + Into<Option<V>>,
    V: Data,
{
    type KIn = K;
    type VIn = X;
    type KOut = K;
    type VOut = Change<V>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.updates.as_mut().map_or(Ok(()), |updates| updates.init(cx))
    }

    fn process(
        &mut self,
        record: Record<K, X>,
        cx: &mut Context<'_, K, Change<V>>,
    ) -> Result<(), ProcessError> {
        if self.null_keys.is_null(&record.key) {
            cx.drop_record("null key");
            return Ok(());
        }
        let Record { key, value, timestamp, headers } = record;
        let new = value.into();
        if let Some(updates) = &self.updates {
            return updates.put(Record { key, value: new, timestamp, headers }, cx);
        }
        cx.forward(Record { key, value: Change::new(new, None), timestamp, headers });
        Ok(())
    }

    fn before_seal(&mut self, cx: &mut Context<'_, K, Change<V>>) -> Result<(), ProcessError> {
        self.updates.as_ref().map_or(Ok(()), |updates| updates.drain(cx))
    }
}
