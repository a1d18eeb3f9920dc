//! The join of a stream with a table.

use std::sync::Arc;

use streams_core::processor::{
    Context, EntryId, InitContext, OperatorTime, Processor, StoreHandle,
};
use streams_core::state::{BufferStore, Buffered};
use streams_core::{BuildError, Data, Headers, ProcessError, Record};

use super::letting_go::let_go_due;
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
    /// How long records wait for the table, if they do.
    pub(crate) grace: Option<Grace<K, V>>,
}

/// Records that wait for late updates of a versioned table.
pub(crate) struct Grace<K, V> {
    /// The store that they wait in.
    pub(crate) store: String,
    /// The name of the newest time of a record that has waited.
    time: String,
    millis: i64,
    handles: Option<Waiting<K, V>>,
    /// Records wait that have waited long enough, as there was no room for their results.
    unended: bool,
}

impl<K, V> Clone for Grace<K, V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), time: self.time.clone(), ..*self }
    }
}

struct Waiting<K, V> {
    buffer: StoreHandle<BufferStore<K, (V, Headers)>>,
    time: OperatorTime,
    millis: i64,
    /// Those of its entries.
    ids: EntryId,
}

impl<K, V> Clone for Waiting<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Waiting<K, V> {}

impl<K, V> Grace<K, V> {
    /// That of the join with this name, in milliseconds.
    pub(crate) fn new(join: &str, millis: i64) -> Self {
        let (store, time) = (format!("{join}-Buffer"), format!("{join}-time"));
        Self { store, time, millis, handles: None, unended: false }
    }

    /// What is wrong with it for a table with this history, if something is.
    pub(crate) fn mistake(&self, history: Option<i64>) -> Option<String> {
        match history {
            None => Some(
                "only a versioned table knows what was at a time that has passed; keep it with \
                 Materialized::versioned, or join without grace"
                    .into(),
            ),
            Some(history) if history < self.millis => Some(format!(
                "its records wait {} ms, but the table's history is only {history} ms long; give it a \
                 longer history, or the join a shorter grace",
                self.millis
            )),
            Some(_) => None,
        }
    }
}

impl<K: Data, V: Data, T: Data, O: Data> JoinWithTable<K, V, T, O> {
    /// Joins a record with what the table had at its time.
    fn joined(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<Option<Record<K, O>>, ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let found = match self.null_keys.is_null(&key) {
            true => None,
            false => self.table.get_as_of(&key, Some(timestamp), cx)?,
        };
        let found = found.as_ref().map(|(value, _)| value);
        let value = (self.join)(&key, &value, found);
        Ok(value.map(|value| Record { key, value, timestamp, headers }))
    }

    fn forward_joined(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        if let Some(result) = self.joined(record, cx)? {
            cx.forward(result);
        }
        Ok(())
    }

    /// Keeps a record, and joins those that have waited long enough. One that is too late to wait is
    /// joined at once.
    fn wait(
        &mut self,
        record: Record<K, V>,
        waiting: Waiting<K, V>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let Waiting { buffer, time, millis, .. } = waiting;
        let newest = *cx.operator_time(time);
        let is_unended = self.grace.as_ref().is_some_and(|grace| grace.unended);
        if is_unended && record.timestamp <= newest.saturating_sub(millis) {
            self.forward_ready(waiting, false, cx)?; // they come before it
        }
        if record.timestamp < newest.saturating_sub(millis) {
            return self.forward_joined(record, cx);
        }
        *cx.operator_time(time) = record.timestamp.max(newest);
        let Record { key, value, timestamp, headers } = record;
        let value = (value, headers);
        cx.store(buffer).add(&Buffered { time: timestamp, class: 0, key, value, timestamp })?;
        self.forward_ready(waiting, true, cx)
    }

    /// Joins those that have waited long enough, as far as there is room if it `stops` for that.
    fn forward_ready(
        &mut self,
        waiting: Waiting<K, V>,
        stops: bool,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let Waiting { buffer, time, millis, ids } = waiting;
        let due = cx.operator_time(time).saturating_sub(millis).saturating_add(1);
        let all_went = let_go_due((buffer, ids), &[(0, due)], cx, |id, waited, cx| {
            let mut has_room = true;
            for (number, waited) in waited.into_iter().enumerate() {
                let Buffered { key, value: (value, headers), timestamp, .. } = waited;
                let record = Record { key, value, timestamp, headers };
                has_room &= cx.let_go(id.number(number), |cx| self.joined(record, cx))?;
            }
            Ok(has_room || !stops)
        })?;
        if let Some(grace) = &mut self.grace {
            grace.unended = !all_went;
        }
        Ok(())
    }
}

impl<K: Data, V: Data, T: Data, O: Data> Processor for JoinWithTable<K, V, T, O> {
    type KIn = K;
    type VIn = V;
    type KOut = K;
    type VOut = O;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        if let Some(grace) = &mut self.grace {
            let (buffer, time) = (cx.store(&grace.store)?, cx.operator_time(&grace.time));
            let ids = EntryId::of(&grace.time);
            grace.handles = Some(Waiting { buffer, time, millis: grace.millis, ids });
        }
        self.table.init(cx)
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let has_key = !self.null_keys.is_null(&record.key);
        if self.null_values.is_null(&record.value) {
            cx.drop_record("null value");
            return Ok(());
        }
        if !has_key && !self.is_left {
            cx.drop_record("null key");
            return Ok(());
        }
        match self.grace.as_ref().and_then(|grace| grace.handles) {
            Some(waiting) if has_key => self.wait(record, waiting, cx),
            _ => self.forward_joined(record, cx),
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_, K, O>) -> Result<(), ProcessError> {
        match self.grace.as_ref().and_then(|grace| grace.handles) {
            Some(waiting) => self.forward_ready(waiting, true, cx),
            None => Ok(()),
        }
    }
}
