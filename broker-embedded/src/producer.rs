//! Plain appends, without a transaction.

use std::sync::Arc;
use std::task::{Poll, Waker};

use broker_api::{Batch, Error, Producer, ProducerEvent, SubmitError, Ticket, TopicPartition};

use crate::broker::Client;
use crate::core::Core;
use crate::journal::entry::{Entry, Placed};
use crate::mailbox::Mailbox;
use crate::sequencer::{Haste, Need, Notify, Sequencer};
use crate::transactor::room;

/// Appends of one producer that may wait for the disk or for their events to be fetched.
const APPENDS_IN_FLIGHT: usize = 16 << 10;

/// The plain writer of the embedded broker.
pub(crate) struct EmbeddedProducer {
    client: Client,
    next_ticket: u64,
    mailbox: Arc<Mailbox<ProducerEvent>>,
}

impl EmbeddedProducer {
    pub(crate) fn new(client: Client, waker: Waker) -> Self {
        Self { client, next_ticket: 0, mailbox: Arc::new(Mailbox::new(waker)) }
    }

    fn try_append(
        &self,
        core: &Core,
        sequencer: &mut Sequencer,
        tp: &TopicPartition,
        batch: &Batch,
        wakes: &mut Vec<Waker>,
    ) -> Result<Ticket, Error> {
        sequencer.admit(Need::New)?;
        let (topic, partition) = sequencer.state.find(tp)?;
        topic.config.check_batch(tp, batch)?;
        let partition = partition.clone();
        let base = partition.lock().end;
        let now = sequencer.stamp(core.clock.now());
        let batch = Placed { partition, batch: batch.clone().assigned(base, now) };
        let entry = Entry::Append { now, batch };
        room(core, sequencer, &entry, &self.mailbox, APPENDS_IN_FLIGHT)?;
        let ticket = Ticket(self.next_ticket);
        self.mailbox.open(None, wakes);
        let notify = Notify::Append(self.mailbox.clone(), ticket, base);
        sequencer.push(entry, notify, Haste::Now, wakes);
        Ok(ticket)
    }
}

impl Producer for EmbeddedProducer {
    fn append(
        &mut self,
        partition: &TopicPartition,
        batch: Batch,
    ) -> Result<Ticket, SubmitError<Batch>> {
        let core = self.client.core();
        let result = core
            .with(|sequencer, wakes| self.try_append(core, sequencer, partition, &batch, wakes));
        match result {
            Ok(ticket) => {
                self.next_ticket += 1;
                Ok(ticket)
            }
            Err(error) => Err(SubmitError { error, submitted: Box::new(batch) }),
        }
    }

    fn poll(&mut self) -> Poll<ProducerEvent> {
        self.mailbox.poll()
    }
}
