use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::join_all;

use super::*;
use crate::partitioner::partition_of;
use crate::sim::Fault;
use crate::{FetcherConfig, Start, TopicPartition};

fn batches(world: &World) -> usize {
    let mut fetcher = world.broker.fetcher(FetcherConfig::default(), noop()).unwrap();
    fetcher.assign(&[(TopicPartition::new("topic", 0), Start::Earliest)]).unwrap();
    match fetcher.poll(1 << 20) {
        std::task::Poll::Ready(fetched) => fetched.unwrap()[0].batches.len(),
        std::task::Poll::Pending => 0,
    }
}

fn noop() -> std::task::Waker {
    std::task::Waker::noop().clone()
}

#[test]
fn records_sent_at_once_travel_together() {
    let world = World::steady(1);
    let producer = world.producer();
    let sends = join_all((0..100).map(|i| producer.send("topic", numbered("key", i))));
    let sent = world.sim.block_on(sends);
    for (i, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent, Ok((TopicPartition::new("topic", 0), i as i64)));
    }
    assert_eq!(batches(&world), 2, "the first one alone, then all that had gathered");
    let read = world.contents();
    let values: Vec<usize> = read.iter().map(|r| word(r).parse().unwrap()).collect();
    assert_eq!(values, (0..100).collect::<Vec<_>>());
    assert!(read.iter().all(|r| r.timestamp == 1_000));
}

#[test]
fn keys_choose_partitions_as_in_kafka() {
    let world = World::steady(7);
    let producer = world.producer();
    for key in ["", "a", "foobar", "21"] {
        let (partition, _) = world.sim.block_on(producer.send("topic", numbered(key, 0))).unwrap();
        assert_eq!(partition.partition, partition_of(key.as_bytes(), 7));
    }
    let record = numbered("a", 0).to_partition(6);
    assert_eq!(world.sim.block_on(producer.send("topic", record)).unwrap().0.partition, 6);
}

#[test]
fn records_without_a_key_are_spread() {
    let world = World::steady(3);
    let producer = world.producer();
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        let sent = world.sim.block_on(producer.send("topic", Record::of_value("x"))).unwrap();
        *counts.entry(sent.0.partition).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn everything_of_a_record_arrives() {
    let world = World::steady(1);
    let record = Record {
        value: None,
        ..Record::new(&b"\xff\x00"[..], "").at(5).with_header("name", "value")
    };
    world.sim.block_on(world.producer().send("topic", record.clone())).unwrap();
    let read = world.contents().remove(0);
    assert_eq!((read.key, read.value, read.headers), (record.key, None, record.headers));
    assert_eq!((read.timestamp, read.offset), (5, 0));
}

#[test]
fn senders_wait_for_room_and_every_record_arrives_once_in_order() {
    for seed in 0..30 {
        let world = World::new(2, SimConfig { appends_in_flight: 2, ..rough(seed) });
        let config = ProducerConfig { buffer_bytes: 1_000, batch_bytes: 300, ..World::config() };
        let producer = Producer::with_config(world.broker.clone(), config).unwrap();
        let sends = join_all(
            (0..100).map(|i| producer.send("topic", numbered("key", i).to_partition(i as u32 % 2))),
        );
        let sent = world.sim.block_on(sends);
        world.calm();
        let mut read = world.contents();
        for (i, sent) in sent.into_iter().enumerate() {
            let (partition, offset) = sent.unwrap();
            let place = read.iter().position(|r| word(r) == i.to_string()).unwrap();
            let found = read.remove(place);
            assert_eq!((found.partition, found.offset), (partition, offset), "seed {seed}");
        }
        assert_eq!(read, [], "seed {seed}: more than was sent");
    }
}

#[test]
fn a_record_that_is_too_large_fails_alone() {
    let world = World::steady(1);
    let admin = world.broker.admin();
    let config = TopicConfig { max_message_bytes: 2_000, ..TopicConfig::default() };
    world.sim.block_on(admin.configure_topic("topic", config)).unwrap();
    let config = ProducerConfig { batch_bytes: 1_000, ..World::config() };
    let producer = Producer::with_config(world.broker.clone(), config).unwrap();
    let sizes = [10, 10, 3_000, 10];
    let sends =
        join_all(sizes.map(|size| producer.send("topic", Record::of_value(vec![b'x'; size]))));
    let sent = world.sim.block_on(sends);
    let good: Vec<bool> = sent.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, true, false, true]);
    assert!(matches!(sent[2], Err(Error::TooLarge { .. })));
    assert_eq!(world.contents().len(), 3);
}

#[test]
fn a_failed_append_fails_its_sends_and_no_other() {
    let world = World::steady(1);
    let producer = world.producer();
    world.sim.inject(Fault::FailAppends { count: 1, taken: true });
    let first = world.sim.block_on(producer.send("topic", numbered("key", 1)));
    assert!(matches!(first, Err(Error::Failed { .. })), "{first:?}");
    world.sim.block_on(producer.send("topic", numbered("key", 1))).unwrap();
    assert_eq!(world.words(), ["1", "1"], "sent again: the duplicate that was warned of");
}

#[test]
fn unknown_topics_and_partitions_are_errors() {
    let world = World::steady(2);
    let producer = world.producer();
    let sent = world.sim.block_on(producer.send("other", numbered("key", 1)));
    assert!(matches!(sent, Err(Error::UnknownTopic { .. })), "{sent:?}");
    let sent = world.sim.block_on(producer.send("topic", numbered("key", 1).to_partition(2)));
    assert!(matches!(sent, Err(Error::UnknownPartition { .. })), "{sent:?}");
}

#[test]
fn a_topic_made_again_with_fewer_partitions_is_noticed() {
    let world = World::steady(50);
    let producer = world.producer();
    let partition =
        world.sim.block_on(producer.send("topic", numbered("key", 1))).unwrap().0.partition;
    assert!(partition > 0);
    world.sim.block_on(world.broker.admin().delete_topic("topic")).unwrap();
    world.create(1, TopicConfig::default());
    assert!(world.sim.block_on(producer.send("topic", numbered("key", 2))).is_err());
    world.sim.block_on(producer.send("topic", numbered("key", 3))).unwrap();
    assert_eq!(world.words(), ["3"]);
}

#[test]
fn flush_brings_home_what_nobody_waits_for() {
    let world = World::steady(1);
    let producer = world.producer();
    world.sim.block_on(producer.send("topic", numbered("key", 0))).unwrap();
    for i in 1..10 {
        // Polled once, then dropped.
        assert!(producer.send("topic", numbered("key", i)).now_or_never().is_none());
    }
    world.sim.block_on(producer.flush());
    assert_eq!(world.words().len(), 10);
    world.sim.block_on(producer.flush());
}

#[test]
fn a_broker_that_goes_away_ends_the_waiting() {
    let world = World::steady(1);
    let producer = world.producer();
    world.sim.block_on(producer.send("topic", numbered("key", 0))).unwrap();
    let mut send = Box::pin(producer.send("topic", numbered("key", 1)));
    assert!(send.as_mut().now_or_never().is_none());
    world.sim.crash();
    assert!(world.sim.block_on(send).is_err());
    let sent = world.sim.block_on(producer.send("topic", numbered("key", 2)));
    assert_eq!(sent, Err(Error::Closed));
}

#[test]
fn a_time_before_the_epoch_is_refused() {
    let world = World::steady(1);
    let record = || Record::new("k", "v").at(-7);
    let error = world.sim.block_on(world.producer().send("topic", record())).unwrap_err();
    assert!(matches!(error, Error::NegativeTimestamp { timestamp: -7, .. }), "{error}");
    assert_eq!(world.words(), Vec::<String>::new());
}
