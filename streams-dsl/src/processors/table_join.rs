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
    /// Unless the other one has just lost it and not told that yet: then neither side will find the other
    /// any more, and whichever tells first that it has no value deletes the result.
    pub(crate) tells_both_gone: bool,
    pub(crate) sends_old_values: bool,
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
        let Record { key, value, mut timestamp, headers } = record;
        let Change { new, old, is_latest, mut was_seen } = value;
        if !is_latest {
            cx.drop_record(OUT_OF_ORDER);
            return Ok(());
        }
        let (mut other, mut other_before) = (None, None);
        if let Some((value, time)) = self.other.get(&key, cx)? {
            timestamp = timestamp.max(time);
            other = Some(value);
        } else if new.is_none() && self.tells_both_gone {
            let Some(told) = self.other.told(&key, cx)? else { return Ok(()) };
            (other_before, was_seen) = (told, true);
        } else if self.needs_other || (new.is_none() && old.is_none() && !was_seen) {
            return Ok(());
        }
        let join = |this: Option<T>, other| (self.join)(&key, this.as_ref(), other);
        let new = join(new, other.as_ref());
        let old = match self.sends_old_values {
            true => join(old, other.as_ref().or(other_before.as_ref())),
            false => None,
        };
        let value = Change { new, old, is_latest, was_seen };
        cx.forward(Record { key, value, timestamp, headers });
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
