//! Where asynchronous calls of operators run.

use futures::future::BoxFuture;

use crate::runtime::park_until_ready;

/// Runs the calls of async operators. Each is handed over once and must be polled until it ends;
/// it tells by itself when it has.
pub trait Executor: Send + Sync + 'static {
    /// Runs a call, now or soon.
    fn spawn(&self, call: BoxFuture<'static, ()>);
}

/// Runs calls on a tokio runtime.
#[derive(Clone, Debug)]
pub struct TokioExecutor(tokio::runtime::Handle);

impl TokioExecutor {
    /// On this runtime, which must outlive the application.
    pub fn new(handle: tokio::runtime::Handle) -> Self {
        Self(handle)
    }

    /// On the runtime that this is called in; `None` outside of one.
    pub fn current() -> Option<Self> {
        tokio::runtime::Handle::try_current().ok().map(Self)
    }
}

impl Executor for TokioExecutor {
    fn spawn(&self, call: BoxFuture<'static, ()>) {
        // It tells by itself when it has ended.
        drop(self.0.spawn(call));
    }
}

/// Runs each call to its end where it is handed over, one after the other: for tests, which are
/// deterministic then. A call that waits for something else, as a timer of an async runtime, waits for
/// ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunToEnd;

impl Executor for RunToEnd {
    fn spawn(&self, call: BoxFuture<'static, ()>) {
        park_until_ready(call);
    }
}
