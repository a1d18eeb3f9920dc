//! An operator whose function is asynchronous. How it works with its task: see the calls of a task.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker_api::Timestamp;
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};

use super::{Child, Children, Push, Signal};
use crate::error::{BuildError, ProcessError};
use crate::executor::Executor;
use crate::record::{Data, Headers, Record};
use crate::task::{Bell, Held, TaskCore, panic_message};

/// An asynchronous function of key and value; an error is told in words.
pub type AsyncCall<K, V, K2, V2> =
    Arc<dyn Fn(K, V) -> BoxFuture<'static, Result<(K2, V2), String>> + Send + Sync>;

/// How an async operator calls.
pub struct AsyncOptions<K> {
    /// How many calls run at once in a task, and how many records wait for results that are not due.
    /// Default: 100.
    pub concurrency: usize,
    /// How long a call may take before it counts as failed. Default: 30 s.
    pub timeout: Duration,
    /// Tells keys apart if results are in order for each key only; `None` (the default): in the order
    /// of the records.
    pub same_key: Option<fn(&K, &K) -> bool>,
}

impl<K> Clone for AsyncOptions<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for AsyncOptions<K> {}

impl<K> Default for AsyncOptions<K> {
    fn default() -> Self {
        Self { concurrency: 100, timeout: Duration::from_secs(30), same_key: None }
    }
}

/// What became of a call.
type Outcome<K2, V2> = Result<Result<(K2, V2), String>, Box<dyn Any + Send>>;

/// Calls that have ended, by number; `None`: the executor has dropped the call.
type Ended<K2, V2> = Arc<Mutex<Vec<(u64, Option<Outcome<K2, V2>>)>>>;

/// Tells what became of a call, however it ends.
struct Report<K2, V2> {
    number: u64,
    outcome: Option<Outcome<K2, V2>>,
    ended: Ended<K2, V2>,
    bell: Bell,
}

impl<K2, V2> Report<K2, V2> {
    fn tell(mut self, outcome: Outcome<K2, V2>) {
        self.outcome = Some(outcome);
    }
}

impl<K2, V2> Drop for Report<K2, V2> {
    fn drop(&mut self) {
        let outcome = (self.number, self.outcome.take());
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        self.bell.news.store(true, Ordering::Release);
        self.bell.waker.wake_by_ref();
    }
}

/// A record in flight.
struct Entry<K, V, K2, V2> {
    number: u64,
    held: Held,
    /// For the order by key.
    key: Option<K>,
    timestamp: Timestamp,
    headers: Headers,
    state: State<K, V, K2, V2>,
}

enum State<K, V, K2, V2> {
    Waiting(K, V),
    Running(#[allow(dead_code)] Cancel, Timestamp), // kept for its end
    Done(Result<(K2, V2), ProcessError>),
}

/// Cancels a call when it is dropped.
struct Cancel(AbortHandle);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The operator at work in a task.
pub struct AsyncNode<K, V, K2, V2> {
    name: String,
    call: AsyncCall<K, V, K2, V2>,
    options: AsyncOptions<K>,
    executor: Arc<dyn Executor>,
    children: Children<K2, V2>,
    entries: VecDeque<Entry<K, V, K2, V2>>,
    ended: Ended<K2, V2>,
    next: u64,
    running: usize,
    full: bool,
}

impl<K: Data, V: Data, K2: Data, V2: Data> AsyncNode<K, V, K2, V2> {
    /// An operator that calls on the executor of the task.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] without an executor, or if no call may run;
    /// [`BuildError::TypeMismatch`] for children that take other records.
    pub fn new(
        name: &str,
        call: AsyncCall<K, V, K2, V2>,
        options: AsyncOptions<K>,
        children: Vec<Child>,
        task: &mut TaskCore,
    ) -> Result<Self, BuildError> {
        let invalid =
            |reason: &str| BuildError::Invalid { node: name.into(), reason: reason.into() };
        if options.concurrency == 0 {
            return Err(invalid("its concurrency must be at least 1"));
        }
        let Some(executor) = task.settings().executor.clone() else {
            return Err(invalid("an async operator needs an executor; set `executor`"));
        };
        task.set_asynchronous();
        Ok(Self {
            name: name.into(),
            call,
            options,
            executor,
            children: Children::new(name, children)?,
            entries: VecDeque::new(),
            ended: Ended::default(),
            next: 0,
            running: 0,
            full: false,
        })
    }

    /// Starts what waits, as far as the bound allows.
    fn start(&mut self, task: &mut TaskCore) {
        let waiting = |state: &State<K, V, K2, V2>| matches!(state, State::Waiting(..));
        while self.running < self.options.concurrency {
            let Some(entry) = self.entries.iter_mut().find(|entry| waiting(&entry.state)) else {
                break;
            };
            let (number, call) = (entry.number, self.call.clone());
            let (ended, bell) = (self.ended.clone(), task.bell());
            let report = Report { number, outcome: None, ended, bell };
            let due = task.wall_clock().saturating_add(millis(self.options.timeout));
            let (handle, registration) = AbortHandle::new_pair();
            let begun = State::Running(Cancel(handle), due);
            let State::Waiting(key, value) = std::mem::replace(&mut entry.state, begun) else {
                break;
            };
            let run = async move {
                let outcome = AssertUnwindSafe(async { call(key, value).await }).catch_unwind();
                report.tell(outcome.await);
            };
            task.call_due_at(due);
            self.running += 1;
            let run = Abortable::new(run, registration);
            self.executor.spawn(run.map(|_| ()).boxed());
        }
    }

    /// Notes what has ended, and what is overdue.
    fn collect(&mut self, task: &mut TaskCore) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, outcome) in ended {
            let running = |e: &&mut Entry<K, V, K2, V2>| {
                e.number == number && matches!(e.state, State::Running(..))
            };
            if let Some(entry) = self.entries.iter_mut().find(running) {
                let node = &self.name;
                entry.state = State::Done(match outcome {
                    Some(Ok(Ok(result))) => Ok(result),
                    Some(Ok(Err(reason))) => Err(ProcessError::User { node: node.clone(), reason }),
                    Some(Err(panic)) => {
                        let message = panic_message(&*panic);
                        Err(ProcessError::Panic { node: Some(node.clone()), message })
                    }
                    None => Err(ProcessError::CallDropped { node: node.clone() }),
                });
                self.running -= 1;
            }
        }
        let now = task.wall_clock();
        for entry in &mut self.entries {
            match entry.state {
                State::Running(_, due) if due <= now => {
                    let timeout = self.options.timeout;
                    let reason = format!("the call was not back after {timeout:?}");
                    let node = self.name.clone();
                    entry.state = State::Done(Err(ProcessError::User { node, reason }));
                    self.running -= 1;
                }
                State::Running(_, due) => task.call_due_at(due),
                _ => {}
            }
        }
    }

    /// The first record whose result may go on.
    fn releasable(&self) -> Option<usize> {
        let done = |e: &Entry<K, V, K2, V2>| matches!(e.state, State::Done(_));
        let Some(same) = self.options.same_key else {
            return self.entries.front().is_some_and(done).then_some(0);
        };
        let free = |index: usize, entry: &Entry<K, V, K2, V2>| {
            let earlier = self.entries.iter().take(index);
            let mut earlier = earlier.filter_map(|e| Some((e.key.as_ref()?, entry.key.as_ref()?)));
            !earlier.any(|(one, other)| same(one, other))
        };
        (0..self.entries.len()).find(|&i| done(&self.entries[i]) && free(i, &self.entries[i]))
    }

    fn release(&mut self, task: &mut TaskCore) {
        self.collect(task);
        self.start(task);
        while let Some(index) = self.releasable() {
            let Some(Entry { held, timestamp, headers, state, .. }) = self.entries.remove(index)
            else {
                break;
            };
            if task.resume_record(held) {
                match state {
                    State::Done(Ok((key, value))) => {
                        let record = Record { key, value, timestamp, headers };
                        self.children.forward(record, task);
                    }
                    State::Done(Err(error)) => task.fail(error),
                    State::Waiting(..) | State::Running(..) => {}
                }
            }
            task.release_record(held);
            if task.has_failed() {
                break;
            }
        }
        self.note_full(task);
    }

    fn note_full(&mut self, task: &mut TaskCore) {
        let full = self.entries.len() >= self.options.concurrency;
        task.set_full(self.full, full);
        self.full = full;
    }
}

fn millis(duration: Duration) -> Timestamp {
    Timestamp::try_from(duration.as_millis()).unwrap_or(Timestamp::MAX)
}

impl<K: Data, V: Data, K2: Data, V2: Data> Push<K, V> for AsyncNode<K, V, K2, V2> {
    fn push(&mut self, record: Record<K, V>, task: &mut TaskCore) {
        if task.has_failed() {
            return;
        }
        let Record { key, value, timestamp, headers } = record;
        let held = task.hold_record();
        let number = self.next;
        self.next += 1;
        let own = self.options.same_key.map(|_| key.clone());
        let state = State::Waiting(key, value);
        self.entries.push_back(Entry { number, held, key: own, timestamp, headers, state });
        self.start(task);
        self.note_full(task);
    }

    fn signal(&mut self, signal: &Signal, task: &mut TaskCore) {
        if *signal == Signal::Release && !task.has_failed() {
            self.release(task);
        }
        self.children.signal(signal, task);
    }
}
