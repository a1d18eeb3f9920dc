//! Joins of two streams.
//!
//! Each side keeps its records in a window store and looks for partners in the other's. Both go by
//! one stream time, which also records without a key or value advance. A record of a left or outer
//! join that finds no partner waits in a buffer until it can have none any more; it comes out, with
//! its own time, before the results of the next record that is at stream time. If so many come out at
//! once that they take several commits, that record waits in the buffer too, with its partners.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use streams_core::processor::{
    Bookmark, Context, EntryId, InitContext, OperatorTime, Processor, StoreHandle,
};
use streams_core::serde::{DynSerde, Serde};
use streams_core::state::{BufferStore, Buffered, WindowStore};
use streams_core::{BuildError, Data, Headers, ProcessError, Record, SerdeError};

use super::Nulls;
use super::letting_go::let_go_due;
use super::rest::Rest;
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

/// Records of either side, each with its partners: their results come when all unmatched records that they
/// let go have come out. The time is their number.
const LATER: u8 = 2;

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
    fn other(value: Self::Other) -> Side<L, R>;
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
    fn other(value: R) -> Side<L, R> {
        Side::Right(value)
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
    fn other(value: L) -> Side<L, R> {
        Side::Left(value)
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
    unmatched: Option<Unmatched<K, L, R>>,
    time: OperatorTime,
}

/// Where records wait that have found no partner; both sides share it.
struct Unmatched<K, L, R> {
    buffer: StoreHandle<BufferStore<K, Side<L, R>>>,
    /// What is left of those that can have none any more.
    rest: Bookmark,
    /// Those of its entries.
    ids: EntryId,
}

impl<K, L, R> Clone for Unmatched<K, L, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, L, R> Copy for Unmatched<K, L, R> {}

impl<K, L, R, V> Clone for Handles<K, L, R, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, L, R, V> Copy for Handles<K, L, R, V> {}

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

    /// Forwards the records of both sides that can have no partner any more, if this record is at stream
    /// time. Answers how many records have results that come after what is left of them; `None`: nothing is.
    fn forward_unmatched(
        &self,
        unmatched: Unmatched<K, L, R>,
        (headers, stream_time, is_newest): (&Headers, i64, bool),
        cx: &mut Context<'_, K, O>,
    ) -> Result<Option<Rest>, ProcessError> {
        let Some(rest) = Rest::at(unmatched.rest, cx)? else {
            if !is_newest {
                return Ok(None);
            }
            // Counts what waits; as long as later, when it has to fit.
            let after = Bytes::copy_from_slice(&0i64.to_be_bytes());
            let rest = Rest { until: stream_time, after, headers: headers.clone() };
            self.forward_rest(unmatched, rest, true, cx)?;
            return Rest::at(unmatched.rest, cx);
        };
        // Another one of the records that one record has become. An older one may be a partner of what is
        // left, which has been without one for too long.
        if is_newest && rest.until == stream_time && rest.headers == *headers {
            return Ok(Some(rest));
        }
        self.forward_rest(unmatched, rest, false, cx)?;
        self.forward_unmatched(unmatched, (headers, stream_time, is_newest), cx)
    }

    /// What can have no partner any more, by class.
    fn due(&self, stream_time: i64) -> [(u8, i64); 2] {
        let JoinWindows { before, after, grace } = self.join.windows;
        // A left record at t waits until stream time is beyond t + after + grace.
        let due = |wait: i64| stream_time.saturating_sub(wait).saturating_sub(grace);
        [(RIGHT, due(before)), (LEFT, due(after))]
    }

    fn without_partner(
        &self,
        waiting: Buffered<K, Side<L, R>>,
        headers: &Headers,
    ) -> Option<Record<K, O>> {
        let Buffered { key, value, timestamp, .. } = waiting;
        let value = match &value {
            Side::Left(left) => (self.join.join)(&key, Some(left), None),
            Side::Right(right) => (self.join.join)(&key, None, Some(right)),
        };
        value.map(|value| Record { key, value, timestamp, headers: headers.clone() })
    }

    /// The results of a record wait until what is left has been forwarded. What they are made of is kept:
    /// the record, then its partners.
    fn forward_later(
        &self,
        Unmatched { buffer, rest: bookmark, .. }: Unmatched<K, L, R>,
        mut rest: Rest,
        key: &K,
        values: impl Iterator<Item = (i64, Side<L, R>)>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let number = rest.after.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes));
        for (timestamp, value) in values {
            let key = key.clone();
            let entry = Buffered { time: number, class: LATER, key, value, timestamp };
            cx.store(buffer).add(&entry)?;
        }
        rest.after = Bytes::copy_from_slice(&(number + 1).to_be_bytes());
        rest.remember(bookmark, cx)
    }

    /// Forwards what has waited at one place: unmatched records, or the results of one record with its
    /// partners. Answers whether there is room for more.
    fn forward_waiting(
        &self,
        id: EntryId,
        waiting: Vec<Buffered<K, Side<L, R>>>,
        headers: &Headers,
        cx: &mut Context<'_, K, O>,
    ) -> Result<bool, ProcessError> {
        let mut has_room = true;
        if let [own, partners @ ..] = &waiting[..]
            && own.class == LATER
            && !partners.is_empty()
        {
            for (number, other) in partners.iter().enumerate() {
                let result = |_: &mut _| Ok(self.with_partner(own, other, headers));
                has_room &= cx.let_go(id.number(number), result)?;
            }
            return Ok(has_room);
        }
        for (number, own) in waiting.into_iter().enumerate() {
            let result = |_: &mut _| Ok(self.without_partner(own, headers));
            has_room &= cx.let_go(id.number(number), result)?;
        }
        Ok(has_room)
    }

    fn with_partner(
        &self,
        own: &Buffered<K, Side<L, R>>,
        other: &Buffered<K, Side<L, R>>,
        headers: &Headers,
    ) -> Option<Record<K, O>> {
        let value = match (&own.value, &other.value) {
            (Side::Left(left), Side::Right(right)) | (Side::Right(right), Side::Left(left)) => {
                (self.join.join)(&own.key, Some(left), Some(right))
            }
            _ => None, // partners are of different sides
        };
        let timestamp = own.timestamp.max(other.timestamp);
        let (key, headers) = (own.key.clone(), headers.clone());
        value.map(|value| Record { key, value, timestamp, headers })
    }

    /// Forwards what is left, as far as there is room if it `stops` for that: unmatched records, then the
    /// results of those that have let them go.
    fn forward_rest(
        &self,
        Unmatched { buffer, rest: bookmark, ids }: Unmatched<K, L, R>,
        rest: Rest,
        mut stops: bool,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let unmatched = self.due(rest.until);
        for due in [&unmatched[..], &[(LATER, i64::MAX)]] {
            let all_went = let_go_due((buffer, ids), due, cx, |id, entries, cx| {
                let has_room = self.forward_waiting(id, entries, &rest.headers, cx)?;
                if stops && !has_room {
                    stops = rest.remember_if_short(bookmark, cx)?;
                    return Ok(!stops);
                }
                Ok(true)
            })?;
            if !all_went {
                return Ok(());
            }
        }
        cx.set_bookmark(bookmark, Vec::new())
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
        let unmatched = match &self.join.buffer {
            Some(buffer) => {
                let rest = cx.bookmark(&self.join.time);
                let ids = EntryId::of(&self.join.time);
                Some(Unmatched { buffer: cx.store(buffer)?, rest, ids })
            }
            None => None,
        };
        let other = cx.store(&self.other_store)?;
        let time = cx.operator_time(&self.join.time);
        self.handles = Some(Handles { other, unmatched, time });
        Ok(())
    }

    fn go_on(&mut self, cx: &mut Context<'_, K, O>) -> Result<(), ProcessError> {
        let unmatched = self.handles.and_then(|handles| handles.unmatched);
        let Some(unmatched) = unmatched else { return Ok(()) };
        match Rest::at(unmatched.rest, cx)? {
            Some(rest) => self.forward_rest(unmatched, rest, true, cx),
            None => Ok(()),
        }
    }

    fn process(
        &mut self,
        record: Record<K, S::This>,
        cx: &mut Context<'_, K, O>,
    ) -> Result<(), ProcessError> {
        let Some(Handles { other, unmatched, time }) = self.handles else {
            return Err(ProcessError::user("a join was used before its stores were there"));
        };
        let Record { key, value, timestamp, headers } = record;
        let now = cx.operator_time(time);
        *now = timestamp.max(*now);
        let stream_time = *now;

        let null_value = self.null_values.is_null(&value);
        if self.null_keys.is_null(&key) && self.is_outer && !null_value {
            if let Some(unmatched) = unmatched
                && let Some(rest) = Rest::at(unmatched.rest, cx)?
            {
                self.forward_rest(unmatched, rest, false, cx)?; // they come first
            }
            self.forward_result(Record { key, value: &value, timestamp, headers }, None, cx);
            return Ok(());
        }
        if null_value || self.null_keys.is_null(&key) {
            cx.drop_record(if null_value { "null value" } else { "null key" });
            return Ok(());
        }
        let mut later = None;
        if let Some(unmatched) = unmatched {
            let at = (&headers, stream_time, timestamp == stream_time);
            later = self.forward_unmatched(unmatched, at, cx)?.map(|rest| (unmatched, rest));
        }
        let buffer = unmatched.map(|unmatched| unmatched.buffer);

        let JoinWindows { before, after, .. } = self.window();
        let (from, to) = (timestamp.saturating_sub(before), timestamp.saturating_add(after));
        let partners = cx.store(other).fetch(&key, from.max(0), to.max(0))?;
        let is_unmatched = partners.is_empty();
        let (class, other_class) = if S::IS_LEFT { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
        if let Some(buffer) = buffer {
            for (other_time, ..) in &partners {
                cx.store(buffer).remove(*other_time, other_class, &key)?;
            }
        }
        if is_unmatched {
            let is_open = to >= stream_time;
            match buffer.filter(|_| is_open && self.is_outer) {
                Some(buffer) => {
                    let (time, value) = (timestamp, S::side(value));
                    cx.store(buffer).add(&Buffered { time, class, key, value, timestamp })?;
                    return Ok(());
                }
                None if !self.is_outer => return Ok(()),
                None => {}
            }
        }
        if let Some((unmatched, rest)) = later {
            let own = (timestamp, S::side(value));
            let partners = partners.into_iter().map(|(time, partner, _)| (time, S::other(partner)));
            let values = [own].into_iter().chain(partners);
            return self.forward_later(unmatched, rest, &key, values, cx);
        }
        for (other_time, partner, _) in partners {
            let (key, headers) = (key.clone(), headers.clone());
            let timestamp = timestamp.max(other_time);
            let record = Record { key, value: &value, timestamp, headers };
            self.forward_result(record, Some(&partner), cx);
        }
        if is_unmatched {
            self.forward_result(Record { key, value: &value, timestamp, headers }, None, cx);
        }
        Ok(())
    }
}
