//! An operator whose function is asynchronous. How it works with its task: see the calls of a task.

use std::any::Any;
use std::hash::{BuildHasher, Hash};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker_api::Timestamp;
use foldhash::fast::FixedState;
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};

use super::in_flight::{Cancel, InFlight, Waits};
use super::{Child, Children, Push, Signal};
use crate::error::{BuildError, ProcessError};
use crate::executor::Executor;
use crate::record::{Data, Record};
use crate::task::{Bell, TaskCore, panic_message};

/// An asynchronous function of key and value; an error is told in words.
pub type AsyncCall<K, V, K2, V2> =
    Arc<dyn Fn(K, V) -> BoxFuture<'static, Result<(K2, V2), String>> + Send + Sync>;

/// How an async operator calls.
pub struct AsyncOptions<K> {
    /// How many calls run at once in a task. With so many records in flight the task takes no further
    /// one; what it has taken may still become any number of them. Default: 100.
    pub concurrency: usize,
    /// How long a call may take before it counts as failed. Default: 30 s.
    pub timeout: Duration,
    /// A hash of the key if results are in order for each key only (and for those that share a hash);
    /// `None` (the default): in the order of the records.
    pub hash: Option<fn(&K) -> u64>,
}

impl<K: Hash> AsyncOptions<K> {
    /// Results are in order for each key only.
    #[must_use]
    pub fn ordered_by_key(self) -> Self {
        Self { hash: Some(|key| FixedState::default().hash_one(key)), ..self }
    }
}

impl<K> Clone for AsyncOptions<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for AsyncOptions<K> {}

impl<K> Default for AsyncOptions<K> {
    fn default() -> Self {
        Self { concurrency: 100, timeout: Duration::from_secs(30), hash: None }
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

/// The operator at work in a task.
pub struct AsyncNode<K, V, K2, V2> {
    name: String,
    call: AsyncCall<K, V, K2, V2>,
    options: AsyncOptions<K>,
    executor: Arc<dyn Executor>,
    children: Children<K2, V2>,
    in_flight: InFlight<K, V, K2, V2>,
    ended: Ended<K2, V2>,
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
            in_flight: InFlight::new(),
            ended: Ended::default(),
            full: false,
        })
    }

    /// Starts what waits, as far as the bound allows.
    fn start(&mut self, task: &mut TaskCore) {
        while self.in_flight.running() < self.options.concurrency {
            let Some(number) = self.in_flight.first_waiting() else { break };
            let due = task.wall_clock().saturating_add(millis(self.options.timeout));
            let (handle, registration) = AbortHandle::new_pair();
            let Some((key, value)) = self.in_flight.begin(Cancel(handle), due) else { break };
            let (call, ended, bell) = (self.call.clone(), self.ended.clone(), task.bell());
            let report = Report { number, outcome: None, ended, bell };
            let run = async move {
                let outcome = AssertUnwindSafe(async { call(key, value).await }).catch_unwind();
                report.tell(outcome.await);
            };
            task.call_due_at(due);
            let run = Abortable::new(run, registration);
            self.executor.spawn(run.map(|_| ()).boxed());
        }
    }

    /// Notes what has ended, and what is overdue.
    fn collect(&mut self, task: &mut TaskCore) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        let node = || self.name.clone();
        for (number, outcome) in ended {
            self.in_flight.end(number, || match outcome {
                Some(Ok(Ok(result))) => Ok(result),
                Some(Ok(Err(reason))) => Err(ProcessError::User { node: node(), reason }),
                Some(Err(panic)) => {
                    let message = panic_message(&*panic);
                    Err(ProcessError::Panic { node: Some(node()), message })
                }
                None => Err(ProcessError::CallDropped { node: node() }),
            });
        }
        let (now, timeout) = (task.wall_clock(), self.options.timeout);
        while let Some((due, number)) = self.in_flight.first_due() {
            if due > now {
                task.call_due_at(due);
                break;
            }
            let reason = format!("the call was not back after {timeout:?}");
            self.in_flight.end(number, || Err(ProcessError::User { node: node(), reason }));
        }
    }

    fn release(&mut self, task: &mut TaskCore) {
        self.collect(task);
        self.start(task);
        while let Some((Waits { held, timestamp, headers, .. }, outcome)) = self.in_flight.release()
        {
            if task.resume_record(held) {
                match outcome {
                    Ok((key, value)) => {
                        let record = Record { key, value, timestamp, headers };
                        self.children.forward(record, task);
                    }
                    Err(error) => task.fail(error),
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
        let full = self.in_flight.len() >= self.options.concurrency;
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
        let turn = self.options.hash.map_or(0, |hash| hash(&key));
        self.in_flight.push(Waits { held, timestamp, headers, turn }, key, value);
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
