//! Whose code panicked: the innermost node on the way of the record. It costs nothing while nobody
//! panics.

use std::cell::RefCell;

thread_local! {
    static BLAMED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Stands while a node's code runs. Dropped by a panic, it notes the node's name.
pub(super) struct Blame<'a>(&'a str);

impl<'a> Blame<'a> {
    pub(super) fn on(node: &'a str) -> Self {
        Self(node)
    }

    /// The code has returned.
    #[inline]
    pub(super) fn lift(self) {
        std::mem::forget(self);
    }
}

impl Drop for Blame<'_> {
    #[cold]
    fn drop(&mut self) {
        BLAMED.with_borrow_mut(|blamed| {
            blamed.get_or_insert_with(|| self.0.to_owned());
        });
    }
}

/// The node whose code made this thread panic, if it was a node's.
pub(crate) fn take_blamed() -> Option<String> {
    BLAMED.with_borrow_mut(Option::take)
}
