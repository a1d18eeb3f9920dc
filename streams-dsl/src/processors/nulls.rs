//! Which keys or values count as null.

use streams_core::serde::DynSerde;

/// Tells the nulls of a type. Most types have none, and then nothing is asked for a record.
pub(crate) struct Nulls<T>(Option<DynSerde<T>>);

impl<T> Clone for Nulls<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> Nulls<T> {
    /// The nulls as this serde writes them.
    pub(crate) fn of(serde: &DynSerde<T>) -> Self {
        Self(serde.null().map(|_| serde.clone()))
    }

    /// Whether this is one.
    pub(crate) fn is_null(&self, value: &T) -> bool {
        self.0.as_ref().is_some_and(|serde| serde.is_null(value))
    }
}
