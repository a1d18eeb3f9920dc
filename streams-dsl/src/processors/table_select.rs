//! The updates of a table under another key.

use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Context, Processor};
use streams_core::{Change, Data, ProcessError, Record};

use super::Nulls;

/// Sends what a value adds to the group that it goes to, and what it took from the group that it was
/// in. Within one group this is one record; otherwise the subtraction comes first. What has a null key
/// or value after mapping is in no group.
pub(crate) struct TableSelect<K, V, K2, V2, F> {
    pub(crate) map: Arc<F>,
    pub(crate) null_keys: Nulls<K2>,
    pub(crate) null_values: Nulls<V2>,
    pub(crate) marker: PhantomData<fn(K, V)>,
}

impl<K, V, K2, V2, F> Processor for TableSelect<K, V, K2, V2, F>
where
    K: Data,
    V: Data,
    K2: Data + Eq,
    V2: Data,
    F: Fn(&K, V) -> (K2, V2) + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = Change<V>;
    type KOut = K2;
    type VOut = Change<V2>;

    fn process(
        &mut self,
        record: Record<K, Change<V>>,
        cx: &mut Context<'_, K2, Change<V2>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        if !value.is_latest {
            return Ok(()); // what is aggregated is the present
        }
        let map = |value: Option<V>| {
            let (key, value) = (self.map)(&key, value?);
            let is_null = self.null_keys.is_null(&key) || self.null_values.is_null(&value);
            (!is_null).then_some((key, value))
        };
        let mut send = |key, new, old| {
            let (value, headers) = (Change::new(new, old), headers.clone());
            cx.forward(Record { key, value, timestamp, headers });
        };
        match (map(value.new), map(value.old)) {
            (Some((key, new)), Some((old_key, old))) if key == old_key => {
                send(key, Some(new), Some(old));
            }
            (new, old) => {
                if let Some((key, old)) = old {
                    send(key, None, Some(old));
                }
                if let Some((key, new)) = new {
                    send(key, Some(new), None);
                }
            }
        }
        Ok(())
    }
}
