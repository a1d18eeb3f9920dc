//! Locking as tests see it: they count it, and let things happen just before it.

use std::cell::{Cell, RefCell};

type Event = Box<dyn FnOnce()>;

thread_local! {
    static LOCKS: Cell<u64> = const { Cell::new(0) };
    static EVENT: RefCell<Option<(u64, Event)>> = const { RefCell::new(None) };
}

/// How often this thread has locked partitions.
pub(crate) fn locks() -> u64 {
    LOCKS.get()
}

/// Lets something happen before this thread locks a partition for the `n`th time from now,
/// instead of what was to happen before.
pub(crate) fn before_lock(n: u64, event: impl FnOnce() + 'static) {
    EVENT.set(Some((LOCKS.get() + n, Box::new(event))));
}

pub(crate) fn locking() {
    LOCKS.set(LOCKS.get() + 1);
    let due = EVENT.with_borrow_mut(|event| event.take_if(|(at, _)| *at == LOCKS.get()));
    if let Some((_, happens)) = due {
        happens();
    }
}
