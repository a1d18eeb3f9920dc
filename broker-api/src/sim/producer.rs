//! Plain writers.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use super::Shared;
use super::entries::{Entry, Source};
use super::state::State;
use crate::{Batch, Error, Producer, ProducerEvent, SubmitError, Ticket, TopicId, TopicPartition};

/// A producer as the broker knows it.
pub(super) struct Writer {
    pub(super) waker: Waker,
    events: VecDeque<ProducerEvent>,
    /// In flight, in their order.
    tickets: VecDeque<Ticket>,
    next_ticket: u64,
    pub(super) told_full: bool,
}

impl Writer {
    /// The event of the ticket that is the next to end.
    pub(super) fn resolve(&mut self, event: ProducerEvent) {
        self.tickets.pop_front();
        self.events.push_back(event);
    }

    pub(super) fn close(&mut self) {
        self.events.extend(self.tickets.drain(..).map(failed));
    }
}

/// The append may have taken effect, or not.
pub(super) fn failed(ticket: Ticket) -> ProducerEvent {
    let reason = "the answer to an append was lost".into();
    ProducerEvent::Failed { ticket, error: Error::Failed { reason } }
}

/// The handle.
pub(super) struct SimProducer {
    shared: Shared,
    key: u64,
}

impl SimProducer {
    pub(super) fn open(shared: &Shared, waker: Waker) -> Result<Self, Error> {
        let key = shared.with(|state| {
            state.check_open()?;
            let writer = Writer {
                waker,
                events: VecDeque::new(),
                tickets: VecDeque::new(),
                next_ticket: 0,
                told_full: false,
            };
            let key = state.number();
            state.writers.insert(key, writer);
            Ok(key)
        })?;
        Ok(Self { shared: shared.clone(), key })
    }
}

impl State {
    fn check_append(
        &mut self,
        key: u64,
        tp: &TopicPartition,
        batch: &Batch,
    ) -> Result<(Ticket, TopicId), Error> {
        let id = self.check_batch(tp, batch)?;
        let full = self.random.happens(self.faults.full);
        let writer = self.writers.get_mut(&key).ok_or(Error::Closed)?;
        if full || writer.tickets.len() >= self.appends_in_flight {
            writer.told_full = true;
            return Err(Error::Full);
        }
        let ticket = Ticket(writer.next_ticket);
        writer.next_ticket += 1;
        writer.tickets.push_back(ticket);
        Ok((ticket, id))
    }

    /// Whether the next append fails, and if so, whether it takes effect all the same.
    fn fails(&mut self) -> Option<bool> {
        match &mut self.fail_appends {
            Some((count, taken)) if *count > 0 => {
                *count -= 1;
                Some(*taken)
            }
            _ => {
                let fails = self.random.happens(self.faults.failed_appends);
                fails.then(|| self.random.happens(500))
            }
        }
    }
}

impl Producer for SimProducer {
    fn append(
        &mut self,
        partition: &TopicPartition,
        batch: Batch,
    ) -> Result<Ticket, SubmitError<Batch>> {
        self.shared.with(|state| match state.check_append(self.key, partition, &batch) {
            Ok((ticket, id)) => {
                let failing = state.fails();
                let source = Source::Writer(self.key, ticket);
                let batches = vec![(partition.clone(), id, batch)];
                state.accept(Entry::new(source, batches, None).failing(failing));
                Ok(ticket)
            }
            Err(error) => Err(SubmitError { error, submitted: Box::new(batch) }),
        })
    }

    fn poll(&mut self) -> Poll<ProducerEvent> {
        let event = self
            .shared
            .with(|state| state.writers.get_mut(&self.key).and_then(|w| w.events.pop_front()));
        event.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for SimProducer {
    fn drop(&mut self) {
        self.shared.with(|state| state.writers.remove(&self.key));
    }
}
