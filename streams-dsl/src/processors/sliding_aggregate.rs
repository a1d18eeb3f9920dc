//! Aggregates in sliding windows.
//!
//! A key has a window that ends with each of its records (the record's *left* window) and one that
//! begins right after it (its *right* window), the latter as far as something falls into it. No window
//! begins before 0: records that are closer to 0 than a window is long share the one that begins there.

use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor, Schedule};
use streams_core::{BuildError, Change, Data, ProcessError, Record, Windowed};

use super::Nulls;
use super::window_updates::WindowUpdates;

/// Folds the values of each key in each window. `step` is as that of [`Aggregate`](super::Aggregate).
pub(crate) struct SlidingAggregate<K, V, A, F> {
    pub(crate) step: Arc<F>,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_values: Nulls<V>,
    pub(crate) null_results: Nulls<A>,
    pub(crate) updates: WindowUpdates<K, A>,
    pub(crate) marker: PhantomData<fn(V)>,
}

/// A record at its stream time.
struct Arrived<K, V> {
    record: Record<K, ()>,
    value: V,
    stream_time: i64,
}

impl<K, V, A, F> SlidingAggregate<K, V, A, F>
where
    K: Data,
    V: Data,
    A: Data,
    F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
{
    /// Adds a record to the aggregate of the window that begins at `start`, unless that is closed.
    fn add(
        &self,
        arrived: &Arrived<K, V>,
        start: i64,
        so_far: Option<(A, i64)>,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let Arrived { record, value, stream_time } = arrived;
        if self.updates.is_closed(start, *stream_time) {
            cx.drop_record("closed window");
            return Ok(());
        }
        let step = |so_far| {
            let new = (self.step)(&record.key, value.clone(), so_far);
            new.filter(|new| !self.null_results.is_null(new))
        };
        self.updates.change(record, start, so_far, step, cx)
    }

    /// Makes the right window of a record, of what other windows already have of it.
    fn add_right(
        &self,
        arrived: &Arrived<K, V>,
        (aggregate, time): (A, i64),
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let record = &arrived.record;
        self.updates.put(record, record.timestamp + 1, Some(aggregate), time, cx)
    }

    /// A record of at least the time that a window is long.
    fn process_usual(
        &self,
        arrived: &Arrived<K, V>,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let (size, own) = (self.updates.size, arrived.record.timestamp);
        let from = own.saturating_sub(size).saturating_sub(size).max(0);
        let after_own = own.saturating_add(1);
        let windows = self.updates.fetch(&arrived.record.key, from, after_own, cx)?;
        let starts: Vec<i64> = windows.iter().map(|window| window.0).collect();
        let left_start = own - size;
        // The time of the record before this one, and what it ends a window with.
        let (mut previous, mut before) = (None, None);
        // What a right window would be made of: the window that begins last has it.
        let mut after = None;
        for (start, aggregate, time) in windows.into_iter().rev() {
            if start > own {
                continue;
            }
            if start > left_start {
                after.get_or_insert_with(|| (time > own).then(|| (aggregate.clone(), time)));
                self.add(arrived, start, Some((aggregate, time)), cx)?;
            } else if start == left_start {
                self.add(arrived, start, Some((aggregate, time)), cx)?;
                if time == own {
                    return Ok(()); // another record of the same time has made all windows
                }
                previous = Some(time);
            } else {
                // As in Kafka also if the left window knows of a later record. (That happens where the
                // later one was late itself, so that its own left window was closed.)
                previous = Some(time);
                before = Some(aggregate);
                break;
            }
        }
        if let Some(right_start) = previous.map(|previous| previous + 1)
            && right_start >= left_start
            && !starts.contains(&right_start)
        {
            self.add(arrived, right_start, None, cx)?;
        }
        if !starts.contains(&left_start) {
            let so_far = before.filter(|_| previous.is_some_and(|time| time >= left_start));
            self.add(arrived, left_start, so_far.map(|so_far| (so_far, own)), cx)?;
        }
        match after.flatten() {
            Some(after) if !starts.contains(&after_own) => self.add_right(arrived, after, cx),
            _ => Ok(()),
        }
    }

    /// A record so close to 0 that its left window is the one that begins there.
    fn process_early(
        &self,
        arrived: &Arrived<K, V>,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let own = arrived.record.timestamp;
        let windows = self.updates.fetch(&arrived.record.key, 0, own + 1, cx)?;
        let starts: Vec<i64> = windows.iter().map(|window| window.0).collect();
        let (mut first, mut after) = (None, None);
        for (start, aggregate, time) in windows {
            if start == 0 {
                first = Some((aggregate, time));
            } else if start <= own {
                after = Some((aggregate.clone(), time));
                self.add(arrived, start, Some((aggregate, time)), cx)?;
            }
        }
        let after = after.or_else(|| first.clone()).filter(|(_, time)| *time > own);
        if let Some(after) = after.filter(|_| !starts.contains(&(own + 1))) {
            self.add_right(arrived, after, cx)?;
        }
        // A later record would have made the right window of the one before.
        let previous = first.as_ref().map(|(_, time)| *time).filter(|time| *time < own);
        if let Some(previous) = previous
            && !starts.contains(&(previous + 1))
        {
            self.add(arrived, previous + 1, None, cx)?;
        }
        self.add(arrived, 0, first, cx)
    }
}

impl<K, V, A, F> Processor for SlidingAggregate<K, V, A, F>
where
    K: Data,
    V: Data,
    A: Data,
    F: Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = V;
    type KOut = Windowed<K>;
    type VOut = Change<A>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.updates.init(cx)
    }

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        if self.null_keys.is_null(&record.key) {
            cx.drop_record("null key");
            return Ok(());
        }
        if self.null_values.is_null(&record.value) {
            cx.drop_record("null value");
            return Ok(());
        }
        let Record { key, value, timestamp, headers } = record;
        let stream_time = self.updates.stream_time(timestamp, cx)?;
        // Not even the window that begins with it is open.
        if self.updates.is_closed(timestamp, stream_time) {
            cx.drop_record("closed window");
            return Ok(());
        }
        let record = Record { key, value: (), timestamp, headers };
        let arrived = Arrived { record, value, stream_time };
        if timestamp < self.updates.size {
            self.process_early(&arrived, cx)?;
        } else {
            self.process_usual(&arrived, cx)?;
        }
        self.updates.emit_closed(stream_time, 1, &arrived.record.headers, cx)
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        self.updates.emit_idle(now, cx)
    }

    fn go_on(&mut self, cx: &mut Context<'_, Windowed<K>, Change<A>>) -> Result<(), ProcessError> {
        self.updates.go_on(cx)
    }

    fn before_seal(
        &mut self,
        cx: &mut Context<'_, Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        self.updates.drain(cx)
    }
}
