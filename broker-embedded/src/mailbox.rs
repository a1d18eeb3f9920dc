//! Events on their way from the journal writer to the handle that waits for them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use broker_api::Ticket;

/// The events of one handle. The handle bounds them: it has only so many tickets out at a time.
pub(crate) struct Mailbox<E> {
    inner: Mutex<Inner<E>>,
    waker: Waker,
}

struct Inner<E> {
    events: VecDeque<E>,
    /// Tickets that wait for their last event.
    in_flight: usize,
    /// The last ticket whose data survives a power cut.
    synced: Option<Ticket>,
    /// The handle has looked at that and is to be woken when it rises.
    watched: bool,
    /// Comes after the last ticket has resolved, once.
    farewell: Option<E>,
    /// The handle has seen all and is to be woken.
    parked: bool,
}

impl<E> Mailbox<E> {
    pub(crate) fn new(waker: Waker) -> Self {
        let inner = Inner {
            events: VecDeque::new(),
            in_flight: 0,
            synced: None,
            watched: false,
            farewell: None,
            parked: true,
        };
        Self { inner: Mutex::new(inner), waker }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<E>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket was given out, perhaps with a first event.
    pub(crate) fn open(&self, event: Option<E>, wakes: &mut Vec<Waker>) {
        let mut inner = self.lock();
        inner.in_flight += 1;
        if let Some(event) = event {
            inner.events.push_back(event);
            self.unpark(&mut inner, wakes);
        }
    }

    /// The last event of a ticket.
    pub(crate) fn resolve(&self, event: E, wakes: &mut Vec<Waker>) {
        let mut inner = self.lock();
        inner.in_flight -= 1;
        inner.events.push_back(event);
        self.unpark(&mut inner, wakes);
    }

    /// The tickets up to this one survive a power cut.
    pub(crate) fn sync(&self, ticket: Ticket, wakes: &mut Vec<Waker>) {
        let mut inner = self.lock();
        inner.synced = Some(ticket);
        if std::mem::take(&mut inner.watched) {
            wakes.push(self.waker.clone());
        }
    }

    pub(crate) fn synced(&self) -> Option<Ticket> {
        let mut inner = self.lock();
        inner.watched = true;
        inner.synced
    }

    /// Nothing new comes; `event` says why, after all tickets have resolved.
    pub(crate) fn farewell(&self, event: E, wakes: &mut Vec<Waker>) {
        let mut inner = self.lock();
        inner.farewell = Some(event);
        self.unpark(&mut inner, wakes);
    }

    /// How many tickets are unresolved or have events that nobody has fetched.
    pub(crate) fn load(&self) -> usize {
        let inner = self.lock();
        inner.in_flight + inner.events.len()
    }

    pub(crate) fn poll(&self) -> Poll<E> {
        let mut inner = self.lock();
        if let Some(event) = inner.events.pop_front() {
            return Poll::Ready(event);
        }
        if inner.in_flight == 0
            && let Some(event) = inner.farewell.take()
        {
            return Poll::Ready(event);
        }
        inner.parked = true;
        Poll::Pending
    }

    /// The waker of the handle.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    fn unpark(&self, inner: &mut Inner<E>, wakes: &mut Vec<Waker>) {
        if std::mem::take(&mut inner.parked) {
            wakes.push(self.waker.clone());
        }
    }
}
