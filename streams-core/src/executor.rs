//! Where asynchronous calls of operators run.

use std::sync::OnceLock;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Runs the calls of async operators. Each is handed over once and must be polled until it ends;
/// it tells by itself when it has.
pub trait Executor: Send + Sync + 'static {
    /// Runs a call, now or soon.
    fn spawn(&self, call: BoxFuture<'static, ()>);
}

/// Runs calls on a tokio runtime.
#[derive(Clone, Debug)]
pub struct TokioExecutor(Handle);

impl TokioExecutor {
    /// On this runtime, which must outlive the application.
    pub fn new(handle: Handle) -> Self {
        Self(handle)
    }

    /// On the runtime that this is called in; `None` outside of one.
    pub fn current() -> Option<Self> {
        Handle::try_current().ok().map(Self)
    }
}

impl Executor for TokioExecutor {
    fn spawn(&self, call: BoxFuture<'static, ()>) {
        // It tells by itself when it has ended.
        drop(self.0.spawn(call));
    }
}

/// Runs each call to its end where it is handed over, one after the other, on a small tokio runtime in
/// a thread of its own: for tests, which are deterministic then. The thread begins with the first call
/// and ends with the executor.
///
/// A call that is not back within the patience, by real time, is left to run: whoever waits for it
/// finds it missing. So it is with one that waits for the thread that hands it over, for instance for a
/// task of the runtime that this thread drives.
#[derive(Debug)]
pub struct RunToEnd {
    patience: Duration,
    runtime: OnceLock<Option<OwnRuntime>>,
}

/// Its thread ends when this is dropped.
#[derive(Debug)]
struct OwnRuntime {
    handle: Handle,
    _open: oneshot::Sender<()>,
}

impl Default for RunToEnd {
    /// With a patience of 30 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

impl RunToEnd {
    /// Waits so long for a call.
    pub fn new(patience: Duration) -> Self {
        Self { patience, runtime: OnceLock::new() }
    }
}

impl OwnRuntime {
    /// `None` if the system has no thread to give.
    fn start() -> Option<Self> {
        // All: timers and sockets are there if the crate that makes the calls has them.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        let (open, closed) = oneshot::channel();
        let thread = std::thread::Builder::new().name("vltava-calls".into());
        thread.spawn(move || runtime.block_on(closed)).ok()?;
        Some(Self { handle, _open: open })
    }
}

impl Executor for RunToEnd {
    fn spawn(&self, call: BoxFuture<'static, ()>) {
        // Without a runtime the call is dropped, which it tells.
        let Some(runtime) = self.runtime.get_or_init(OwnRuntime::start) else { return };
        let (running, ended) = std::sync::mpsc::channel::<()>();
        drop(runtime.handle.spawn(async move {
            let _running = running; // disconnects when the call has ended, also if it panics
            call.await;
        }));
        let _ = ended.recv_timeout(self.patience);
    }
}
