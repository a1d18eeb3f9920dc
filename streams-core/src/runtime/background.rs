//! Where slow work on store files goes.

/// Runs jobs away from the stream threads, in any order.
pub trait Background: Send + Sync + 'static {
    /// Runs a job some time.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

/// Runs each job at once, where it is handed over: for simulations and tests.
#[derive(Debug, Default)]
pub struct Inline;

impl Background for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

/// One thread that runs jobs in order; it ends when this is dropped.
pub(super) struct Worker {
    jobs: Option<std::sync::mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(name: String) -> std::io::Result<Self> {
        let (jobs, queue) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            while let Ok(job) = queue.recv() {
                job();
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }
}

impl Background for Worker {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        if let Some(jobs) = &self.jobs {
            // Bounded by one flush in flight for each store.
            if jobs.send(job).is_err() {
                tracing::error!("the worker for store flushes has died");
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the worker for store flushes panicked");
        }
    }
}
