//! Joins of two streams.
//!
//! Each side keeps its records in a window store and looks for partners in the other's. Both go by
//! one stream time, which also records without a key or value advance. A record of a left or outer
//! join that finds no partner waits in a buffer until it can have none any more; it comes out, with
//! its own time, before the results of the next record that is at stream time.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use streams_core::processor::{Context, InitContext, OperatorTime, Processor, StoreHandle};
use streams_core::serde::{DynSerde, Serde};
use streams_core::state::{BufferStore, Buffered, WindowStore};
use streams_core::{BuildError, Data, Headers, ProcessError, Record, SerdeError};

use super::Nulls;
use crate::windows::JoinWindows;

/// Keeps the records of one side for the other.
pub(crate) struct KeepForJoin<K, V> {
    pub(crate) store: String,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_values: Nulls<V>,
    /// Each after it was joined, where the join looks into the same store.
    pub(crate) afterwards: bool,
    pub(crate) handle: Option<StoreHandle<WindowStore<K, V>>>,
}

impl<K: Data, V: Data> Processor for KeepForJoin<K, V> {
    type KIn = K;
    type VIn = V;
    type KOut = K;
    type VOut = V;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handle = Some(cx.store(&self.store)?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, V>,
    ) -> Result<(), ProcessError> {
        let is_null =
            self.null_keys.is_null(&record.key) || self.null_values.is_null(&record.value);
        let Some(handle) = self.handle.filter(|_| !is_null) else {
            cx.forward(record);
            return Ok(());
        };
        let (value, time) = (record.value.clone(), record.timestamp);
        if self.afterwards {
            let key = record.key.clone();
            cx.forward(record);
            cx.store(handle).add(&key, time, value, time)?;
            return Ok(());
        }
        cx.store(handle).add(&record.key, time, value, time)?;
        cx.forward(record);
        Ok(())
    }
}

/// A value of one of the two sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side<L, R> {
    Left(L),
    Right(R),
}

/// Right before left: that is the order in which records of one time come out.
pub(crate) const RIGHT: u8 = 0;
pub(crate) const LEFT: u8 = 1;

/// A byte for the side, then the value.
pub(crate) struct SideSerde<L, R> {
    pub(crate) left: DynSerde<L>,
    pub(crate) right: DynSerde<R>,
}

impl<L: 'static, R: 'static> Serde<Side<L, R>> for SideSerde<L, R> {
    fn put(&self, value: &Side<L, R>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        match value {
            Side::Left(value) => {
                out.push(LEFT);
                self.left.put(value, out)
            }
            Side::Right(value) => {
                out.push(RIGHT);
                self.right.put(value, out)
            }
        }
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Side<L, R>, SerdeError> {
        match bytes.split_first() {
            Some((&LEFT, value)) => self.left.get(value, owner).map(Side::Left),
            Some((&RIGHT, value)) => self.right.get(value, owner).map(Side::Right),
            _ => Err(SerdeError::new("the value belongs to neither side of the join")),
        }
    }
}

/// What both sides of a join have in common.
pub(crate) struct Join<K, L, R, O> {
    pub(crate) windows: JoinWindows,
    /// The name of the stream time that both sides share.
    pub(crate) time: String,
    pub(crate) join: Arc<JoinFn<K, L, R, O>>,
    /// Where unmatched records wait, if any side's do.
    pub(crate) buffer: Option<String>,
}

/// Makes a result of a key and the values of the sides that the kind of join asks for.
pub(crate) type JoinFn<K, L, R, O> = dyn Fn(&K, Option<&L>, Option<&R>) -> Option<O> + Send + Sync;

impl<K, L, R, O> Clone for Join<K, L, R, O> {
    fn clone(&self) -> Self {
        Self {
            time: self.time.clone(),
            join: self.join.clone(),
            buffer: self.buffer.clone(),
            windows: self.windows,
        }
    }
}

/// Which side a processor is.
pub(crate) trait JoinSide<L, R>: Send + 'static {
    /// The values of this side.
    type This: Data;
    /// The values of the other side.
    type Other: Data;
    const IS_LEFT: bool;
    fn pair<'a>(
        this: &'a Self::This,
        other: Option<&'a Self::Other>,
    ) -> (Option<&'a L>, Option<&'a R>);
    fn side(value: Self::This) -> Side<L, R>;
}

/// The left side.
pub(crate) struct LeftSide;

impl<L: Data, R: Data> JoinSide<L, R> for LeftSide {
    type This = L;
    type Other = R;
    const IS_LEFT: bool = true;
    fn pair<'a>(this: &'a L, other: Option<&'a R>) -> (Option<&'a L>, Option<&'a R>) {
        (Some(this), other)
    }
    fn side(value: L) -> Side<L, R> {
        Side::Left(value)
    }
}

/// The right side.
pub(crate) struct RightSide;

impl<L: Data, R: Data> JoinSide<L, R> for RightSide {
    type This = R;
    type Other = L;
    const IS_LEFT: bool = false;
    fn pair<'a>(this: &'a R, other: Option<&'a L>) -> (Option<&'a L>, Option<&'a R>) {
        (other, Some(this))
    }
    fn side(value: R) -> Side<L, R> {
        Side::Right(value)
    }
}

/// Joins the records of one side with those that the other has kept.
pub(crate) struct JoinWithKept<K, L, R, O, S: JoinSide<L, R>> {
    pub(crate) join: Join<K, L, R, O>,
    pub(crate) other_store: String,
    /// Whether this side's records come out without a partner too.
    pub(crate) is_outer: bool,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_values: Nulls<S::This>,
    pub(crate) handles: Option<Handles<K, L, R, S::Other>>,
    pub(crate) marker: PhantomData<fn() -> S>,
}

/// What a side finds in its task.
pub(crate) struct Handles<K, L, R, V> {
    other: StoreHandle<WindowStore<K, V>>,
    buffer: Option<StoreHandle<BufferStore<K, Side<L, R>>>>,
    time: OperatorTime,
}

impl<K, L, R, V> Clone for Handles<K, L, R, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, L, R, V> Copy for Handles<K, L, R, V> {}

/// How many waiting keys are taken out of the buffer at once.
const AT_ONCE: usize = 1024;

impl<K, L, R, O, S> JoinWithKept<K, L, R, O, S>
where
    K: Data,
    L: Data,
    R: Data,
    O: Data,
    S: JoinSide<L, R>,
{
    /// This side's window: how much earlier and later its partners may be.
    fn window(&self) -> JoinWindows {
        if S::IS_LEFT { self.join.windows } else { self.join.windows.reversed() }
    }

    /// Forwards what a record of this side gives with a partner, or without one.
    fn forward_result(
        &self,
        record: Record<K, &S::This>,
        partner: Option<&S::Other>,
        cx: &mut Context<'_, K, O>,
    ) {
        let (left, right) = S::pair(record.value, partner);
        if let Some(value) = (self.join.join)(&record.key, left, right) {
            cx.forward(record.with_value(value));
        }
    }

    /// Forwards the records of both sides that can have no partner any more.
    fn forward_unmatched(
        &self,
        buffer: StoreHandle<BufferStore<K, Side<L, R>>>,
        stream_time: i64,
        headers: &Headers,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let JoinWindows { before, after, grace } = self.join.windows;
        // A left record at t waits until stream time is beyond t + after + grace.
        let due = |wait: i64| stream_time.saturating_sub(wait).saturating_sub(grace);
        let due = [(RIGHT, due(before)), (LEFT, due(after))];
        loop {
            let unmatched = cx.store(buffer).drain(&due, AT_ONCE)?;
            if unmatched.is_empty() {
                return Ok(());
            }
            for Buffered { key, value, timestamp, .. } in unmatched {
                let value = match &value {
                    Side::Left(left) => (self.join.join)(&key, Some(left), None),
                    Side::Right(right) => (self.join.join)(&key, None, Some(right)),
                };
                if let Some(value) = value {
                    cx.forward(Record { key, value, timestamp, headers: headers.clone() });
                }
            }
        }
    }
}

impl<K, L, R, O, S> Processor for JoinWithKept<K, L, R, O, S>
where
    K: Data,
    L: Data,
    R: Data,
    O: Data,
    S: JoinSide<L, R>,
{
    type KIn = K;
    type VIn = S::This;
    type KOut = K;
    type VOut = O;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handles = Some(Handles {
            other: cx.store(&self.other_store)?,
            buffer: self.join.buffer.as_ref().map(|buffer| cx.store(buffer)).transpose()?,
            time: cx.operator_time(&self.join.time),
        });
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<K, S::This>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let Some(Handles { other, buffer, time }) = self.handles else {
            return Err(ProcessError::user("a join was used before its stores were there"));
        };
        let Record { key, value, timestamp, headers } = record;
        let now = cx.operator_time(time);
        *now = timestamp.max(*now);
        let stream_time = *now;

        let null_value = self.null_values.is_null(&value);
        if self.null_keys.is_null(&key) && self.is_outer && !null_value {
            self.forward_result(Record { key, value: &value, timestamp, headers }, None, cx);
            return Ok(());
        }
        if null_value || self.null_keys.is_null(&key) {
            cx.drop_record(if null_value { "null value" } else { "null key" });
            return Ok(());
        }
        if let Some(buffer) = buffer.filter(|_| timestamp == stream_time) {
            self.forward_unmatched(buffer, stream_time, &headers, cx)?;
        }

        let JoinWindows { before, after, .. } = self.window();
        let (from, to) = (timestamp.saturating_sub(before), timestamp.saturating_add(after));
        let partners = cx.store(other).fetch(&key, from.max(0), to.max(0))?;
        let is_unmatched = partners.is_empty();
        let (class, other_class) = if S::IS_LEFT { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
        for (other_time, partner, _) in partners {
            if let Some(buffer) = buffer {
                cx.store(buffer).remove(other_time, other_class, &key)?;
            }
            let (key, headers) = (key.clone(), headers.clone());
            let record =
                Record { key, value: &value, timestamp: timestamp.max(other_time), headers };
            self.forward_result(record, Some(&partner), cx);
        }
        if !is_unmatched || !self.is_outer {
            return Ok(());
        }
        match buffer {
            // Its window is still open.
            Some(buffer) if to >= stream_time => {
                let (time, value) = (timestamp, S::side(value));
                cx.store(buffer).add(&Buffered { time, class, key, value, timestamp })?;
            }
            _ => {
                self.forward_result(Record { key, value: &value, timestamp, headers }, None, cx);
            }
        }
        Ok(())
    }
}
