//! Operators that look at one record at a time.

use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Context, Processor};
use streams_core::{Data, ProcessError, Record};

type Marker<K, V, K2, V2> = PhantomData<fn(K, V) -> (K2, V2)>;

/// Calls a function for each record.
pub(crate) struct Stateless<K, V, K2, V2, F> {
    each: Arc<F>,
    marker: Marker<K, V, K2, V2>,
}

/// Makes the processors of a stateless operator, which share its function.
pub(crate) fn stateless<K, V, K2, V2, F>(
    each: F,
) -> impl Fn() -> Stateless<K, V, K2, V2, F> + Send + Sync + 'static
where
    K: Data,
    V: Data,
    K2: Data,
    V2: Data,
    F: Fn(Record<K, V>, &mut Context<'_, K2, V2>) + Send + Sync + 'static,
{
    let each = Arc::new(each);
    move || Stateless { each: each.clone(), marker: PhantomData }
}

impl<K, V, K2, V2, F> Processor for Stateless<K, V, K2, V2, F>
where
    K: Data,
    V: Data,
    K2: Data,
    V2: Data,
    F: Fn(Record<K, V>, &mut Context<'_, K2, V2>) + Send + Sync + 'static,
{
    type KIn = K;
    type VIn = V;
    type KOut = K2;
    type VOut = V2;

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K2, V2>,
    ) -> Result<(), ProcessError> {
        (self.each)(record, cx);
        Ok(())
    }
}
