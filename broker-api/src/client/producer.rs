//! The async producer.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use super::hub::Hub;
use super::outbox::{Outbox, Outcome};
use super::record::Record;
use crate::clock::{Clock, SystemClock};
use crate::{Broker, Error};

/// Settings of a [`Producer`] or [`super::TransactionalProducer`].
#[derive(Clone)]
pub struct ProducerConfig {
    /// How many bytes a batch has at most, unless a single record is larger. A full batch is sent
    /// without waiting for the one before. Default: 256 KiB; a topic whose `max.message.bytes` is
    /// smaller needs it smaller.
    pub batch_bytes: usize,
    /// How much may be taken and not yet written, in bytes; sending waits for room. Default:
    /// 32 MiB (Kafka's `buffer.memory`).
    pub buffer_bytes: usize,
    /// Where the time of records without a timestamp comes from. Default: the system's clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self { batch_bytes: 256 << 10, buffer_bytes: 32 << 20, clock: Arc::new(SystemClock::new()) }
    }
}

/// Sends records. Clones share their batches and buffer.
///
/// Whoever awaits drives: records that were sent by futures that are not polled any more move on
/// with the next call of `send` or [`Producer::flush`] on this producer or a clone.
#[derive(Clone)]
pub struct Producer {
    broker: Arc<dyn Broker>,
    hub: Arc<Hub>,
    outbox: Arc<Mutex<Outbox>>,
}

impl Producer {
    /// A producer with the default settings.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn new(broker: Arc<dyn Broker>) -> Result<Self, Error> {
        Self::with_config(broker, ProducerConfig::default())
    }

    /// A producer with these settings.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn with_config(broker: Arc<dyn Broker>, config: ProducerConfig) -> Result<Self, Error> {
        let hub = Arc::new(Hub::default());
        let producer = broker.producer(hub.waker())?;
        let outbox = Arc::new(Mutex::new(Outbox::new(config, producer)));
        Ok(Self { broker, hub, outbox })
    }

    /// Sends a record; gives its partition and offset when it is durable. Records that are sent
    /// while others of their partition are on their way travel together. Records of one partition
    /// are written in the order in which their futures were first polled.
    ///
    /// Nothing is retried: after [`Error::Failed`] the record may have been written all the same.
    /// Dropping the future does not take back what it has handed over.
    ///
    /// # Errors
    /// Those of [`crate::Producer::append`], except [`Error::Full`], which is waited out, and
    /// [`Error::NegativeTimestamp`].
    pub async fn send(&self, topic: &str, record: Record) -> Outcome {
        let partitions = self.partitions(topic).await?;
        let topic: Arc<str> = topic.into();
        let weight = record.weight();
        let seat = self.hub.seat();
        let mut outcome = None;
        poll_fn(|context| {
            seat.wait(context.waker());
            let mut outbox = self.outbox();
            if outcome.is_none() {
                // Room may come from what the broker has finished.
                outbox.drive();
                if !outbox.has_room(weight) {
                    return Poll::Pending;
                }
                match outbox.take(&topic, partitions, &record) {
                    Ok(receiver) => outcome = Some(receiver),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            outbox.drive();
            drop(outbox);
            let Some(receiver) = &mut outcome else { return Poll::Pending };
            let outcome = Pin::new(receiver).poll(context);
            outcome.map(|outcome| outcome.unwrap_or(Err(Error::Closed)))
        })
        .await
    }

    /// Waits until everything that was handed over has come to its end, well or not: the senders
    /// hear how.
    pub async fn flush(&self) {
        let seat = self.hub.seat();
        poll_fn(|context| {
            seat.wait(context.waker());
            let mut outbox = self.outbox();
            outbox.drive();
            if outbox.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn partitions(&self, topic: &str) -> Result<u32, Error> {
        if let Some(known) = self.outbox().partitions(topic) {
            return Ok(known);
        }
        let topic = self.broker.admin().topic(topic).await?;
        self.outbox().learn(topic.name, topic.partitions);
        Ok(topic.partitions)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}
