//! What a function may answer where there may be nothing.

/// A value, or an `Option` of one: what aggregators answer (`None` deletes the aggregate), and functions that
/// tell the key to join with (`None`: there is none).
#[diagnostic::on_unimplemented(
    message = "a function answers `{Self}` where `{T}` belongs",
    label = "needs a function that answers `{T}`, or `Option<{T}>`",
    note = "an aggregator answers the type that the aggregate begins with",
    note = "a function that tells which row to join with answers the type of that table's keys"
)]
pub trait Optional<T> {
    /// The value, if there is one.
    fn into_option(self) -> Option<T>;
}

impl<T> Optional<T> for T {
    fn into_option(self) -> Option<T> {
        Some(self)
    }
}

impl<T> Optional<T> for Option<T> {
    fn into_option(self) -> Option<T> {
        self
    }
}
