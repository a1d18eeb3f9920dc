//! For people: an async producer, transactions, and a consumer that is a [`Stream`].
//!
//! A thin layer over the polled traits of [`crate::broker`]. It needs no runtime: the futures are
//! driven by whoever awaits them, on any executor, and no task runs behind one's back.
//!
//! ```
//! use std::sync::Arc;
//! use broker_api::client::{Consumer, Producer, Record};
//! use broker_api::{Broker, NewTopic, TopicConfig, sim::{SimBroker, SimConfig}};
//! use futures::TryStreamExt;
//!
//! let sim = SimBroker::new(SimConfig::default());
//! let broker: Arc<dyn Broker> = Arc::new(sim.clone());
//! sim.block_on(async {
//!     let config = TopicConfig::default();
//!     let topic = NewTopic { name: "words".into(), partitions: 3, config };
//!     broker.admin().create_topic(topic).await?;
//!
//!     let producer = Producer::new(broker.clone())?;
//!     let (partition, offset) = producer.send("words", Record::new("key", "value")).await?;
//!
//!     let consumer = Consumer::builder(broker).topic("words").until_end().build().await?;
//!     let records: Vec<_> = consumer.try_collect().await?;
//!     assert_eq!((&records[0].partition, records[0].offset), (&partition, offset));
//!     assert_eq!(records[0].value.as_deref(), Some(&b"value"[..]));
//!     Ok::<(), broker_api::Error>(())
//! })?;
//! # Ok::<(), broker_api::Error>(())
//! ```
//!
//! [`Stream`]: futures::Stream

mod consumer;
mod hub;
mod outbox;
mod producer;
mod record;
mod transactional;

#[cfg(test)]
mod tests;

pub use consumer::{ConsumedRecord, Consumer, ConsumerBuilder};
pub use producer::{Producer, ProducerConfig};
pub use record::Record;
pub use transactional::{Transaction, TransactionalProducer};
