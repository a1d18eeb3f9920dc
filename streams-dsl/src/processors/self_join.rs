//! The join of a stream with itself over one store.

use std::sync::Arc;

use streams_core::processor::{Context, InitContext, OperatorTime, Processor, StoreHandle};
use streams_core::state::WindowStore;
use streams_core::{BuildError, Data, ProcessError, Record};

use super::{JoinFn, Nulls};
use crate::windows::JoinWindows;

/// Joins each record with the earlier ones and with itself. What comes out, and in which order, is what
/// an inner join with two stores emits.
pub(crate) struct SelfJoin<K, V, O> {
    pub(crate) windows: JoinWindows,
    /// The name of its stream time.
    pub(crate) time: String,
    pub(crate) join: Arc<JoinFn<K, V, V, O>>,
    /// Where the records are kept: each after it has been here.
    pub(crate) store: String,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_values: Nulls<V>,
    pub(crate) handles: Option<(StoreHandle<WindowStore<K, V>>, OperatorTime)>,
}

impl<K: Data, V: Data, O: Data> SelfJoin<K, V, O> {
    /// Forwards a pair, of which one is `record`.
    fn forward(
        &self,
        record: &Record<K, V>,
        (left, right): (&V, &V),
        other_time: i64,
        cx: &mut Context<'_, K, O>,
    ) {
        if let Some(value) = (self.join)(&record.key, Some(left), Some(right)) {
            let (key, headers) = (record.key.clone(), record.headers.clone());
            let timestamp = record.timestamp.max(other_time);
            cx.forward(Record { key, value, timestamp, headers });
        }
    }
}

impl<K: Data, V: Data, O: Data> Processor for SelfJoin<K, V, O> {
    type KIn = K;
    type VIn = V;
    type KOut = K;
    type VOut = O;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handles = Some((cx.store(&self.store)?, cx.operator_time(&self.time)));
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let Some((store, time)) = self.handles else {
            return Err(ProcessError::user("a join was used before its store was there"));
        };
        let null_value = self.null_values.is_null(&record.value);
        if null_value || self.null_keys.is_null(&record.key) {
            cx.drop_record(if null_value { "null value" } else { "null key" });
            return Ok(());
        }
        let now = cx.operator_time(time);
        *now = record.timestamp.max(*now);
        // What has expired would not be found in a second store.
        let expired = now.saturating_sub(self.windows.retention());
        let mut with_itself = record.timestamp > expired;

        let partners = |windows: JoinWindows, cx: &mut Context<'_, K, O>| {
            let from = record.timestamp.saturating_sub(windows.before).max(0);
            let to = record.timestamp.saturating_add(windows.after).max(0);
            cx.store(store).fetch(&record.key, from, to)
        };
        for (other_time, other, _) in partners(self.windows, cx)? {
            self.forward(&record, (&record.value, &other), other_time, cx);
        }
        for (other_time, other, _) in partners(self.windows.reversed(), cx)? {
            if other_time > record.timestamp && std::mem::take(&mut with_itself) {
                self.forward(&record, (&record.value, &record.value), record.timestamp, cx);
            }
            self.forward(&record, (&other, &record.value), other_time, cx);
        }
        if with_itself {
            self.forward(&record, (&record.value, &record.value), record.timestamp, cx);
        }
        Ok(())
    }
}
