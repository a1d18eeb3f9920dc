//! Aggregates in tumbling, hopping and unlimited windows.

use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor, Schedule};
use streams_core::{BuildError, Change, Data, ProcessError, Record, Windowed};

use super::Nulls;
use super::window_updates::WindowUpdates;
use crate::windows::{TimeWindows, UnlimitedWindows};

/// Windows that a time alone decides, not the other records of its key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AlignedWindows {
    Time(TimeWindows),
    Unlimited(UnlimitedWindows),
}

impl AlignedWindows {
    /// Where the windows begin that a time belongs to.
    fn starts(&self, time: i64) -> impl Iterator<Item = i64> + use<> {
        let (aligned, unlimited) = match self {
            Self::Time(windows) => (Some(windows.starts(time)), None),
            Self::Unlimited(UnlimitedWindows { start }) => {
                (None, (time >= *start).then_some(*start))
            }
        };
        aligned.into_iter().flatten().chain(unlimited)
    }

    /// They begin at multiples of this.
    fn aligned_to(&self) -> i64 {
        match self {
            Self::Time(windows) => windows.advance,
            Self::Unlimited(_) => 1,
        }
    }
}

/// Folds the values of each key in each window. `step` is as that of
/// [`Aggregate`](super::Aggregate); it sees null values too, as in Kafka.
pub(crate) struct WindowAggregate<K, V, A, F> {
    pub(crate) windows: AlignedWindows,
    pub(crate) step: Arc<F>,
    pub(crate) null_keys: Nulls<K>,
    pub(crate) null_results: Nulls<A>,
    pub(crate) updates: WindowUpdates<K, A>,
    pub(crate) marker: PhantomData<fn(V)>,
}

impl<K, V, A, F> Processor for WindowAggregate<K, V, A, F>
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
        let Record { key, value, timestamp, headers } = record;
        let record = Record { key, value: (), timestamp, headers };
        let stream_time = self.updates.stream_time(timestamp, cx)?;
        let mut starts = self.windows.starts(timestamp).peekable();
        let mut value = Some(value);
        while let Some(start) = starts.next() {
            if self.updates.is_closed(start, stream_time) {
                cx.drop_record("closed window");
                continue;
            }
            let value = if starts.peek().is_some() { value.clone() } else { value.take() };
            let Some(value) = value else { continue };
            let step = |so_far| {
                let new = (self.step)(&record.key, value, so_far);
                new.filter(|new| !self.null_results.is_null(new))
            };
            self.updates.update(&record, start, step, cx)?;
        }
        let aligned = self.windows.aligned_to();
        self.updates.emit_closed(stream_time, aligned, &record.headers, cx)
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
