//! Finding the topics that are chosen for records: the broker is asked when one is needed for the first
//! time, and what it has found is known from then on.
//!
//! Processing does not wait for an answer. If it is not there at once, the generation is given up, and
//! processed again when it is. That there is no such topic is taken for granted until the generation is
//! sealed only: else a record that chooses several such topics would never get past them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use broker_api::{Error, TaskId, TopicDescription};
use futures::future::BoxFuture;

use super::{StreamThread, StreamsError, ThreadEnv};
use crate::error::ProcessError;
use crate::failure::{LeftOut, Place};
use crate::task::{OutputTopic, TopicLookup, no_topic};
use crate::topology::NodeKind;

/// What is known of topics that records choose. All tasks of a thread share it.
#[derive(Clone, Default)]
pub(super) struct Finder(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// At most what the broker has.
    found: BTreeMap<Arc<str>, TopicDescription>,
    /// By the last answer; forgotten when the generation is sealed.
    missing: BTreeSet<String>,
    asking: Option<(String, Asking)>,
}

type Asking = BoxFuture<'static, Result<TopicDescription, Error>>;

impl Finder {
    pub(super) fn new(env: &ThreadEnv) -> Self {
        let found = env.plan.others().map(|topic| (topic.name.clone(), topic.clone()));
        let known = Known { found: found.collect(), ..Known::default() };
        Self(Arc::new(Mutex::new(known)))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds topics for a task: those that the topology names; all, if it chooses for each record.
    pub(super) fn lookup(&self, env: &ThreadEnv) -> TopicLookup {
        let (finder, plan, broker) = (self.clone(), env.plan.clone(), env.broker.clone());
        let mut kinds = env.topology.nodes().iter().map(|node| &node.kind);
        let chooses = kinds.any(|kind| matches!(kind, NodeKind::DynamicSink { .. }));
        Arc::new(move |name: &str| match plan.output(name) {
            Err(_) if chooses => finder.find(name, || {
                let (admin, name) = (broker.admin(), name.to_owned());
                Box::pin(async move { admin.topic(&name).await })
            }),
            named => named,
        })
    }

    fn find(&self, name: &str, ask: impl FnOnce() -> Asking) -> Result<OutputTopic, ProcessError> {
        let mut known = self.lock();
        if let Some(found) = known.found.get(name) {
            return Ok(found.into());
        }
        if known.missing.contains(name) {
            return Err(no_topic(name));
        }
        let mut asking = ask();
        match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(found)) => {
                let topic = OutputTopic::from(&found);
                known.found.insert(found.name.clone(), found);
                return Ok(topic);
            }
            Poll::Ready(Err(Error::UnknownTopic { .. })) => return Err(no_topic(name)),
            Poll::Ready(Err(error)) => {
                known.asking = Some((name.into(), Box::pin(ready(Err(error)))))
            }
            Poll::Pending => known.asking = Some((name.into(), asking)),
        }
        Err(ProcessError::TopicAsked { topic: name.into() })
    }

    /// A topic is not what it was.
    pub(super) fn forget(&self, name: &str) {
        self.lock().found.remove(name);
    }

    /// The generation is sealed.
    pub(super) fn sealed(&self) {
        self.lock().missing.clear();
    }

    /// Whether an answer is to be waited for.
    pub(super) fn is_asking(&self) -> bool {
        self.lock().asking.is_some()
    }

    fn poll(&self, waker: &Waker) -> Result<bool, Error> {
        let mut known = self.lock();
        let Some((name, mut asking)) = known.asking.take() else { return Ok(false) };
        match asking.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Pending => known.asking = Some((name, asking)),
            Poll::Ready(Ok(found)) => drop(known.found.insert(found.name.clone(), found)),
            Poll::Ready(Err(Error::UnknownTopic { .. })) => drop(known.missing.insert(name)),
            Poll::Ready(Err(error)) => return Err(error),
        }
        Ok(known.asking.is_none())
    }
}

impl StreamThread {
    /// Takes the broker's answer about a topic.
    pub(super) fn poll_finder(&mut self) -> Result<bool, StreamsError> {
        Ok(self.finder.poll(&self.waker)?)
    }

    /// Whether it is known to which topics the dead letters go that a task writes as soon as it runs.
    pub(super) fn knows_letters(&self, task: TaskId) -> bool {
        let written = |(its, what): &&(_, LeftOut)| *its == task && what.place == Place::WallClock;
        let letters = self.left_out.iter().filter(written).flat_map(|(_, what)| &what.letters);
        let mut topics = letters.filter_map(|letter| letter.topic.as_deref()).peekable();
        if topics.peek().is_none() {
            return true;
        }
        let find = self.finder.lookup(&self.env);
        let is_asked = |topic| matches!(find(topic), Err(ProcessError::TopicAsked { .. }));
        !self.finder.is_asking() && !topics.any(is_asked)
    }

    /// Gives the generation up, of which a task needs the answer, until the broker has given it. What
    /// came before the record is committed first then, so that it is not given up for every topic again.
    pub(super) fn wait_for_topic(&mut self, task: TaskId) {
        self.generation_limit = self.generation.causes().max(1);
        self.start_tasks_over(task);
    }
}
