//! A stream thread on the simulated broker, driven step by step: what its tests share.
#![allow(dead_code, unreachable_pub)] // each test uses its part

pub mod processors;

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use broker_api::sim::{SimBroker, SimConfig};
use broker_api::{
    BatchBuilder, Broker, Commit, CommittedOffset, Error, Fetcher, FetcherConfig, GroupCommit,
    ManualClock, NewTopic, Start, Timestamp, TopicConfig, TopicPartition,
};
use streams_core::runtime::{
    Inline, Metrics, Next, Plan, Settings, StreamThread, Streams, StreamsError, ThreadEnv,
};
use streams_core::state::{LossyEngine, StoreOptions};
use streams_core::topology::Topology;

pub const CHANGELOG: &str = "app-counts-changelog";

pub struct World {
    pub broker: SimBroker,
    pub clock: Arc<ManualClock>,
    pub engine: LossyEngine,
    pub settings: Settings,
    pub topology: Arc<Topology>,
    metrics: RefCell<Option<ThreadEnv>>,
}

impl World {
    pub fn new(max_commit_bytes: usize) -> Self {
        let clock = Arc::new(ManualClock::new(1_000));
        let mut config = SimConfig { clock: clock.clone(), ..SimConfig::default() };
        config.capabilities.max_commit_bytes = max_commit_bytes;
        let broker = SimBroker::new(config);
        let settings = Settings::new("app", "state");
        let topology = Arc::new(processors::counting(StoreOptions::default()));
        let world = Self {
            broker,
            clock,
            engine: LossyEngine::new(),
            settings,
            topology,
            metrics: RefCell::default(),
        };
        ["in", "out"].iter().for_each(|topic| world.create_topic(topic, 1));
        world
    }

    /// An instance of the application, with threads of its own.
    pub fn start(&self) -> Streams {
        let starting = Streams::start(
            self.topology.clone(),
            Arc::new(self.broker.clone()),
            Arc::new(self.engine.clone()),
            self.clock.clone(),
            self.settings.clone(),
        );
        self.block_on(starting).unwrap()
    }

    pub fn thread(&self) -> StreamThread {
        self.try_thread().unwrap()
    }

    pub fn try_thread(&self) -> Result<StreamThread, StreamsError> {
        let admin = self.broker.admin();
        let following = Plan::follow(&self.topology, "app", &*admin, None);
        let (topology, mut plan) = now(&self.broker, following)?;
        if let Some(topic) = &self.settings.dead_letter_topic {
            plan.add_topic(now(&self.broker, admin.topic(topic))?);
        }
        let env = ThreadEnv::new(
            topology,
            Arc::new(plan),
            Arc::new(self.settings.clone()),
            Arc::new(self.broker.clone()),
            Arc::new(self.engine.clone()),
            self.clock.clone(),
            Arc::new(Inline),
        );
        self.metrics.replace(Some(env.clone()));
        StreamThread::new(env, "p", 0, Waker::noop().clone())
    }

    /// The environment of the last thread.
    pub fn env(&self) -> ThreadEnv {
        self.metrics.borrow().as_ref().unwrap().clone()
    }

    /// What the last thread has counted.
    pub fn metrics(&self) -> Metrics {
        self.metrics.borrow().as_ref().unwrap().metrics()
    }

    pub fn write(&self, records: &[(&str, &[u8])]) {
        self.write_to(TopicPartition::new("in", 0), records);
    }

    pub fn write_to(&self, partition: TopicPartition, records: &[(&str, &[u8])]) {
        let records: Vec<_> = records.iter().map(|(key, value)| (*key, Some(*value))).collect();
        self.write_at(5, partition, &records);
    }

    /// The same at another time, and with deletions.
    pub fn write_at(
        &self,
        time: Timestamp,
        partition: TopicPartition,
        records: &[(&str, Option<&[u8]>)],
    ) {
        let mut producer = self.broker.producer(Waker::noop().clone()).unwrap();
        for (key, value) in records {
            let mut batch = BatchBuilder::new();
            batch.push(time, Some(key.as_bytes()), *value, &[]).unwrap();
            let batch = batch.finish().unwrap();
            while let Err(refused) = producer.append(&partition, batch.clone()) {
                assert_eq!(refused.error, Error::Full); // now and then
            }
        }
        self.broker.settle(1_000);
    }

    /// Runs a future while the broker makes steps and threads run.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            self.broker.step();
            let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(answer) = polled {
                return answer;
            }
            std::thread::yield_now();
        }
    }

    /// Starts the application, lets it process what there is, and stops it.
    pub fn run_once(&self) {
        let mut thread = self.thread();
        self.run(&mut thread).unwrap();
        thread.stop();
        assert_eq!(self.run(&mut thread).unwrap(), Next::Stopped);
    }

    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.create_topic_with(name, partitions, TopicConfig::default());
    }

    pub fn create_topic_with(&self, name: &str, partitions: u32, config: TopicConfig) {
        let topic = NewTopic { name: name.into(), partitions, config };
        now(&self.broker, self.broker.admin().create_topic(topic)).unwrap();
    }

    pub fn delete_topic(&self, name: &str) {
        now(&self.broker, self.broker.admin().delete_topic(name)).unwrap();
    }

    /// Sets what the application has consumed to nothing, as a reset does.
    pub fn forget_group(&self, group: &str) {
        let offsets = now(&self.broker, self.broker.admin().group_offsets(group)).unwrap();
        let offsets = offsets.into_iter().map(|(tp, _)| (tp, CommittedOffset::default()));
        let group = GroupCommit { group: group.into(), token: None, offsets: offsets.collect() };
        let mut transactor = self.broker.transactor("reset", Waker::noop().clone()).unwrap();
        transactor.submit(Commit { batches: Vec::new(), group: Some(group) }).unwrap();
        self.broker.settle(1_000);
    }

    pub fn topics(&self) -> Vec<String> {
        let topics = now(&self.broker, self.broker.admin().topics()).unwrap();
        topics.iter().map(|topic| topic.name.to_string()).collect()
    }

    /// Keys and values of a topic, which are text and numbers.
    pub fn read(&self, topic: &str) -> Vec<(String, i64)> {
        let number =
            |value: Option<Vec<u8>>| i64::from_be_bytes(value.unwrap().try_into().unwrap());
        self.records(topic).into_iter().map(|(key, value)| (key, number(value))).collect()
    }

    /// Keys and values of a topic; the keys are text.
    pub fn records(&self, topic: &str) -> Vec<(String, Option<Vec<u8>>)> {
        let config = FetcherConfig::default();
        let mut reader: Box<dyn Fetcher> =
            self.broker.fetcher(config, Waker::noop().clone()).unwrap();
        reader.assign(&[(TopicPartition::new(topic, 0), Start::Earliest)]).unwrap();
        let mut found = Vec::new();
        while let Poll::Ready(fetched) = reader.poll(1 << 20) {
            for batch in fetched.unwrap().iter().flat_map(|part| &part.batches) {
                for record in batch.records() {
                    let record = record.unwrap();
                    let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                    found.push((key, record.value.map(<[u8]>::to_vec)));
                }
            }
        }
        found
    }

    /// How many records a topic has.
    pub fn count(&self, topic: &str) -> usize {
        let config = FetcherConfig::default();
        let mut reader = self.broker.fetcher(config, Waker::noop().clone()).unwrap();
        reader.assign(&[(TopicPartition::new(topic, 0), Start::Earliest)]).unwrap();
        let mut count = 0;
        while let Poll::Ready(fetched) = reader.poll(1 << 20) {
            count +=
                fetched.unwrap().iter().flat_map(|p| &p.batches).map(|b| b.count()).sum::<usize>();
        }
        count
    }

    /// Steps broker and thread until neither has anything to do.
    pub fn run(&self, thread: &mut StreamThread) -> Result<Next, StreamsError> {
        let mut idle = 0;
        for _ in 0..10_000 {
            let busy = self.broker.step();
            let next = thread.step()?;
            idle = if busy || next == Next::Again { 0 } else { idle + 1 };
            if idle > 3 || next == Next::Stopped {
                return Ok(next);
            }
        }
        panic!("it never comes to rest: {thread:?}");
    }
}

pub fn now<T>(broker: &SimBroker, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    loop {
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => broker.step(),
        };
    }
}

pub fn counts(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    of.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}
