//! `transform_values` of a table.

use std::hash::Hash;

use streams_core::processor::{Context, InitContext, Processor, StoreAccess};
use streams_core::{BuildError, Change, Data, ProcessError, Record};

use super::updates::Updates;
use crate::getter::{Found, Getter};
use crate::transform::ValueTransformer;

/// Hands the values of each update to a transformer, deletions too.
pub(crate) struct TableTransform<T: ValueTransformer> {
    pub(crate) transformer: T,
    pub(crate) sends_old_values: bool,
    /// Where its result is kept, if it is.
    pub(crate) updates: Option<Updates<T::Key, T::VOut>>,
}

impl<T: ValueTransformer> Processor for TableTransform<T>
where
    T::Key: Eq + Hash,
{
    type KIn = T::Key;
    type VIn = Change<T::VIn>;
    type KOut = T::Key;
    type VOut = Change<T::VOut>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.transformer.init(cx)?;
        self.updates.as_mut().map_or(Ok(()), |updates| updates.init(cx))
    }

    fn process(
        &mut self,
        record: Record<T::Key, Change<T::VIn>>,
        cx: &mut Context<'_, T::Key, Change<T::VOut>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let Change { is_latest, was_seen, .. } = value;
        let new = self.transformer.transform(&key, value.new, &mut cx.stores())?;
        if let Some(updates) = &self.updates {
            return updates.put(Record { key, value: new, timestamp, headers }, cx);
        }
        let old = match self.sends_old_values {
            true => self.transformer.transform(&key, value.old, &mut cx.stores())?,
            false => None,
        };
        let value = Change { new, old, is_latest, was_seen };
        cx.forward(Record { key, value, timestamp, headers });
        Ok(())
    }

    fn before_seal(
        &mut self,
        cx: &mut Context<'_, T::Key, Change<T::VOut>>,
    ) -> Result<(), ProcessError> {
        self.updates.as_ref().map_or(Ok(()), |updates| updates.drain(cx))
    }
}

/// Looks the values of a transformed table up that is not kept: by a transformer of its own.
pub(crate) struct Transformed<T: ValueTransformer> {
    pub(crate) parent: Box<dyn Getter<T::Key, T::VIn>>,
    pub(crate) transformer: T,
}

impl<T: ValueTransformer> Getter<T::Key, T::VOut> for Transformed<T>
where
    T::VIn: Data,
{
    fn get(
        &mut self,
        key: &T::Key,
        as_of: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<T::VOut>, ProcessError> {
        let found = self.parent.get(key, as_of, stores)?;
        self.transform(key, found, stores)
    }

    fn told(
        &mut self,
        key: &T::Key,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Found<T::VOut>>, ProcessError> {
        let told = self.parent.told(key, stores)?;
        told.map(|found| self.transform(key, found, stores)).transpose()
    }
}

impl<T: ValueTransformer> Transformed<T> {
    fn transform(
        &mut self,
        key: &T::Key,
        found: Found<T::VIn>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<T::VOut>, ProcessError> {
        // Where nothing is, a transformer may answer something all the same; when is not known then.
        let (value, time) = match found {
            Some((value, time)) => (Some(value), time),
            None => (None, -1),
        };
        Ok(self.transformer.transform(key, value, stores)?.map(|value| (value, time)))
    }
}
