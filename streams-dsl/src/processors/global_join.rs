//! The join of a stream with a global table.

use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor};
use streams_core::state::KeyValueStore;
use streams_core::task::GlobalStore;
use streams_core::{BuildError, Data, ProcessError, Record};

use super::Nulls;

/// How a record and what was found for it become a result; `None`: there is none.
pub(crate) type TableJoinFn<K, V, T, O> = dyn Fn(&K, &V, Option<&T>) -> Option<O> + Send + Sync;

/// Looks the mapped key of each record up, and joins what it finds.
pub(crate) struct GlobalJoin<K, V, K2, T, O, F> {
    pub(crate) store: String,
    pub(crate) handle: Option<GlobalStore<KeyValueStore<K2, T>>>,
    pub(crate) null_values: Nulls<V>,
    pub(crate) null_keys: Nulls<K2>,
    /// Finds the key in the table; `None` is no key.
    pub(crate) select: Arc<F>,
    pub(crate) join: Arc<TableJoinFn<K, V, T, O>>,
    /// Whether records without a match come out too.
    pub(crate) is_left: bool,
    pub(crate) marker: PhantomData<fn(K2)>,
}

impl<K, V, K2, T, O, F> Processor for GlobalJoin<K, V, K2, T, O, F>
where
    K: Data,
    V: Data,
    K2: Data + Eq + Hash,
    T: Data,
    O: Data,
    F: Fn(&K, &V) -> Option<K2> + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = V;
    type KOut = K;
    type VOut = O;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handle = Some(cx.global_store(&self.store)?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let mapped = (self.select)(&key, &value).filter(|key| !self.null_keys.is_null(key));
        if self.null_values.is_null(&value) {
            cx.drop_record("null value");
            return Ok(());
        }
        let found = match (&mapped, &self.handle) {
            (Some(mapped), Some(table)) => table.get(mapped)?,
            (None, _) if !self.is_left => {
                cx.drop_record("null key");
                return Ok(());
            }
            _ => None,
        };
        let found = found.as_ref().map(|(value, _)| value);
        if let Some(value) = (self.join)(&key, &value, found) {
            cx.forward(Record { key, value, timestamp, headers });
        }
        Ok(())
    }
}
