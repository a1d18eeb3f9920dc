//! What stream threads know of the global stores: where they are, and whether they may be read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::task::Globals;

/// Keeps tasks from reading global stores that are not whole.
pub(in crate::runtime) struct Gate {
    is_open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    globals: Option<Globals>,
    waiting: Vec<Waker>,
}

impl Gate {
    /// Of a topology with global stores, or without any: then it is open for ever.
    pub(in crate::runtime) fn new(has_globals: bool) -> Self {
        let globals = (!has_globals).then(Globals::default);
        let state = Mutex::new(State { globals, ..State::default() });
        Self { is_open: AtomicBool::new(!has_globals), state }
    }

    /// Where the global stores are, once that is known. Until then `waker` is woken when it is.
    pub(in crate::runtime) fn globals(&self, waker: &Waker) -> Option<Globals> {
        let mut state = self.lock();
        if state.globals.is_none() {
            state.wait(waker);
        }
        state.globals.clone()
    }

    /// Whether the stores may be read. If not, `waker` is woken when they may.
    pub(in crate::runtime) fn is_open(&self, waker: &Waker) -> bool {
        if self.is_open.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.lock();
        let is_open = self.is_open.load(Ordering::Acquire);
        if !is_open {
            state.wait(waker);
        }
        is_open
    }

    pub(super) fn is_open_now(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Tells where the stores are.
    pub(super) fn show(&self, globals: Globals) {
        let mut state = self.lock();
        state.globals = Some(globals);
        state.wake();
    }

    pub(super) fn open(&self) {
        let mut state = self.lock();
        self.is_open.store(true, Ordering::Release);
        state.wake();
    }

    pub(super) fn close(&self) {
        let _state = self.lock();
        self.is_open.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|known| known.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    fn wake(&mut self) {
        std::mem::take(&mut self.waiting).into_iter().for_each(Waker::wake);
    }
}
