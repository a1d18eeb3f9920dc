//! Joins of two tables by their keys.

use std::hash::Hash;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, Processor};
use streams_core::{BuildError, Change, Data, ProcessError, Record};

use super::updates::Updates;
use crate::getter::{JoinTables, LookUp};

/// Why an update is left out that changes the past of a versioned table alone.
pub(crate) const OUT_OF_ORDER: &str = "out-of-order update of a versioned table";

/// Joins the updates of one table, `T`, with the values of the other one, `X`.
pub(crate) struct TableJoin<K, T, X, O> {
    pub(crate) join: Arc<JoinTables<K, T, X, O>>,
    pub(crate) other: LookUp<K, X>,
    /// Without a value of the other table there neither is nor was a result.
    pub(crate) needs_other: bool,
    /// The tables stand in the same store: a row of one goes with that of the other, in silence as in
    /// Kafka.
    pub(crate) is_with_itself: bool,
    pub(crate) sends_old_values: bool,
}

impl<K, T, X, O> TableJoin<K, T, X, O> {
    /// Whether it has to tell of a row that both tables deleted at once.
    fn tells_deletions(&self) -> bool {
        self.needs_other && !self.is_with_itself
    }
}

impl<K: Data, T: Data, X: Data, O: Data> Processor for TableJoin<K, T, X, O> {
    type KIn = K;
    type VIn = Change<T>;
    type KOut = K;
    type VOut = Change<O>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.other.init(cx)
    }

    fn process(
        &mut self,
        record: Record<K, Change<T>>,
        cx: &mut Context<'_, K, Change<O>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value: Change { new, old, is_latest }, mut timestamp, headers } = record;
        if !is_latest {
            cx.drop_record(OUT_OF_ORDER);
            return Ok(());
        }
        let other = match self.other.get(&key, cx)? {
            Some((value, time)) => {
                timestamp = timestamp.max(time);
                Some(value)
            }
            // Neither side finds the other any more, and there may be a result of both.
            None if new.is_none()
                && self.tells_deletions()
                && self.other.is_deleted_too(&key, cx)? =>
            {
                None
            }
            None if self.needs_other || (new.is_none() && old.is_none()) => return Ok(()),
            None => None,
        };
        let join = |this: Option<T>| (self.join)(&key, this.as_ref(), other.as_ref());
        let new = join(new);
        let old = if self.sends_old_values { join(old) } else { None };
        cx.forward(Record { key, value: Change::new(new, old), timestamp, headers });
        Ok(())
    }
}

/// Where the results of both sides meet, and are kept if the table is.
pub(crate) struct KeepJoined<K, O> {
    pub(crate) updates: Updates<K, O>,
}

impl<K: Data + Eq + Hash, O: Data> Processor for KeepJoined<K, O> {
    type KIn = K;
    type VIn = Change<O>;
    type KOut = K;
    type VOut = Change<O>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.updates.init(cx)
    }

    fn process(
        &mut self,
        record: Record<K, Change<O>>,
        cx: &mut Context<'_, K, Change<O>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        self.updates.put(Record { key, value: value.new, timestamp, headers }, cx)
    }

    fn before_seal(&mut self, cx: &mut Context<'_, K, Change<O>>) -> Result<(), ProcessError> {
        self.updates.drain(cx)
    }
}
