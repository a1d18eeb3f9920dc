//! Budgets of memory that all threads of an application share evenly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts those who share a budget, in whatever thread.
#[derive(Clone, Default)]
pub(super) struct Shares(Arc<AtomicUsize>);

/// A part in a budget; given back when it is dropped.
pub(super) struct Share {
    of: Shares,
    count: usize,
}

impl Shares {
    /// Takes part, `count` times.
    pub(super) fn take(&self, count: usize) -> Share {
        self.0.fetch_add(count, Ordering::Relaxed);
        Share { of: self.clone(), count }
    }

    /// What each of those who share `total` may have now.
    pub(super) fn each(&self, total: usize) -> usize {
        total / self.0.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_budget() {
        let shares = Shares::default();
        assert_eq!(shares.each(100), 100);
        let (three, one) = (shares.take(3), shares.take(1));
        assert_eq!(shares.each(100), 25);
        drop(three);
        assert_eq!(shares.each(100), 100);
        drop(one);
    }
}
