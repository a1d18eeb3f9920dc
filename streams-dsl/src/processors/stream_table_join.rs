//! The join of a stream with a table.

use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor};
use streams_core::{BuildError, Data, ProcessError, Record};

use super::{Nulls, TableJoinFn};
use crate::getter::LookUp;

/// Looks the key of each record up, and joins what it finds.
pub(crate) struct JoinWithTable<K, V, T, O> {
    pub(crate) table: LookUp<K, T>,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_values: Nulls<V>,
    pub(crate) join: Arc<TableJoinFn<K, V, T, O>>,
    /// Whether records without a match come out too.
    pub(crate) is_left: bool,
}

impl<K: Data, V: Data, T: Data, O: Data> Processor for JoinWithTable<K, V, T, O> {
    type KIn = K;
    type VIn = V;
    type KOut = K;
    type VOut = O;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.table.init(cx)
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let has_key = !self.null_keys.is_null(&key);
        if self.null_values.is_null(&value) {
            cx.drop_record("null value");
            return Ok(());
        }
        if !has_key && !self.is_left {
            cx.drop_record("null key");
            return Ok(());
        }
        let found = if has_key { self.table.get(&key, cx)? } else { None };
        let found = found.as_ref().map(|(value, _)| value);
        if let Some(value) = (self.join)(&key, &value, found) {
            cx.forward(Record { key, value, timestamp, headers });
        }
        Ok(())
    }
}
