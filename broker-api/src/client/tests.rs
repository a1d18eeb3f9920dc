//! The client on the simulated broker.

mod consumer;
mod producer;
mod transactional;

use std::sync::Arc;

use futures::TryStreamExt;

use super::{ConsumedRecord, Consumer, ConsumerBuilder, Producer, ProducerConfig, Record};
use crate::clock::ManualClock;
use crate::sim::{Faults, SimBroker, SimConfig};
use crate::{Broker, Error, NewTopic, TopicConfig};

struct World {
    sim: SimBroker,
    broker: Arc<dyn Broker>,
}

impl World {
    /// A broker with a topic `topic`.
    fn new(partitions: u32, config: SimConfig) -> Self {
        let sim = SimBroker::new(config);
        let world = Self { broker: Arc::new(sim.clone()), sim };
        world.create(partitions, TopicConfig::default());
        world
    }

    fn steady(partitions: u32) -> Self {
        Self::new(partitions, SimConfig::default())
    }

    fn create(&self, partitions: u32, config: TopicConfig) {
        let topic = NewTopic { name: "topic".into(), partitions, config };
        self.sim.block_on(self.broker.admin().create_topic(topic)).unwrap();
    }

    fn config() -> ProducerConfig {
        ProducerConfig { clock: Arc::new(ManualClock::new(1_000)), ..ProducerConfig::default() }
    }

    /// Ends the faults, and what they have left behind.
    fn calm(&self) {
        self.sim.set_faults(Faults::default());
        self.sim.settle(1_000);
    }

    fn producer(&self) -> Producer {
        Producer::with_config(self.broker.clone(), Self::config()).unwrap()
    }

    fn consumer(&self) -> ConsumerBuilder {
        Consumer::builder(self.broker.clone()).topic("topic")
    }

    fn read(&self, builder: ConsumerBuilder) -> Result<Vec<ConsumedRecord>, Error> {
        self.sim.block_on(async { builder.build().await?.try_collect().await })
    }

    fn contents(&self) -> Vec<ConsumedRecord> {
        self.read(self.consumer().until_end()).unwrap()
    }

    fn words(&self) -> Vec<String> {
        self.contents().iter().map(word).collect()
    }
}

fn word(record: &ConsumedRecord) -> String {
    String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()
}

/// Everything that costs time but no handle.
fn rough(seed: u64) -> SimConfig {
    SimConfig { seed, faults: Faults::harmless(), ..SimConfig::default() }
}

fn numbered(key: &str, i: usize) -> Record {
    Record::new(key.to_owned(), i.to_string())
}
