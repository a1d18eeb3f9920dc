//! The steps of aggregations: how a value goes into what those before it have come to.

use crate::optional::Optional;

/// One more.
pub(crate) fn count_one<K, V>(_: &K, _: V, count: Option<i64>) -> Option<i64> {
    Some(count.unwrap_or(0) + 1)
}

/// Two values become one; the first one stands for itself.
pub(crate) fn reduce<K, V>(
    combine: impl Fn(V, V) -> V + Send + Sync + 'static,
) -> impl Fn(&K, V, Option<V>) -> Option<V> + Send + Sync + 'static {
    move |_, value, so_far| match so_far {
        Some(so_far) => Some(combine(so_far, value)),
        None => Some(value),
    }
}

/// A value goes into an aggregate, which begins with `initial`.
pub(crate) fn fold<K, V, A, R: Optional<A>>(
    initial: impl Fn() -> A + Send + Sync + 'static,
    fold: impl Fn(&K, V, A) -> R + Send + Sync + 'static,
) -> impl Fn(&K, V, Option<A>) -> Option<A> + Send + Sync + 'static {
    move |key, value, so_far| fold(key, value, so_far.unwrap_or_else(&initial)).into_option()
}
