use futures::StreamExt;

use super::*;
use crate::sim::Fault;
use crate::{Isolation, Start, TopicPartition};

fn send(world: &World, words: &[&str]) {
    let producer = world.producer();
    for word in words {
        let record = Record::of_value(word.to_string()).to_partition(0);
        world.sim.block_on(producer.send("topic", record)).unwrap();
    }
}

fn words(records: Vec<ConsumedRecord>) -> Vec<String> {
    records.iter().map(word).collect()
}

#[test]
fn every_record_comes_once_and_in_order() {
    for seed in 0..30 {
        let world = World::new(3, rough(seed));
        let producer = world.producer();
        let sends = (0..200).map(|i| producer.send("topic", numbered(&i.to_string(), i)));
        let sent = world.sim.block_on(futures::future::join_all(sends));
        let read = world.read(world.consumer().until_end().fetch_bytes(500)).unwrap();
        let mut places: Vec<_> = read.iter().map(|r| (r.partition.clone(), r.offset)).collect();
        for p in 0..3 {
            let offsets = read.iter().filter(|r| r.partition.partition == p).map(|r| r.offset);
            assert!(offsets.is_sorted(), "seed {seed}");
        }
        let mut sent: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
        // A held back end is the end as well: some of the last may be missing.
        sent.retain(|place| places.contains(place));
        places.sort();
        sent.sort();
        assert_eq!(places, sent, "seed {seed}");
        world.calm();
        assert_eq!(world.contents().len(), 200, "seed {seed}");
    }
}

#[test]
fn reading_starts_where_it_is_asked_to() {
    let world = World::steady(2);
    send(&world, &["a", "b", "c"]);
    let from = |start| words(world.read(world.consumer().until_end().from(start)).unwrap());
    assert_eq!(from(Start::Earliest), ["a", "b", "c"]);
    assert_eq!(from(Start::At(0)), ["a", "b", "c"]);
    assert_eq!(from(Start::Latest), Vec::<String>::new());
    let one = || Consumer::builder(world.broker.clone()).until_end();
    let tp = |p| TopicPartition::new("topic", p);
    let from = one().partition_from(tp(0), Start::At(2)).partition(tp(1));
    assert_eq!(words(world.read(from).unwrap()), ["c"]);
    assert_eq!(words(world.read(one().partition(tp(1))).unwrap()), Vec::<String>::new());
}

/// So a consumer goes on where a group's offsets say, and reads partitions without one from the beginning.
#[test]
fn a_start_of_its_own_counts_beside_the_topic() {
    let world = World::steady(2);
    send(&world, &["a", "b", "c"]);
    let from = world.consumer().partition_from(TopicPartition::new("topic", 0), Start::At(2));
    assert_eq!(words(world.read(from.until_end()).unwrap()), ["c"]);
}

#[test]
fn a_stream_goes_on_with_what_is_written_later() {
    let world = World::steady(1);
    send(&world, &["a"]);
    let mut consumer = world.sim.block_on(world.consumer().build()).unwrap();
    let mut latest = world.sim.block_on(world.consumer().from(Start::Latest).build()).unwrap();
    assert_eq!(word(&world.sim.block_on(consumer.next()).unwrap().unwrap()), "a");
    assert_eq!(consumer.offsets()[0].1.offset, 1);
    let producer = world.producer();
    let both = async {
        let next = async { (consumer.next().await, latest.next().await) };
        futures::future::join(next, producer.send("topic", Record::of_value("b"))).await
    };
    let ((next, latest), _) = world.sim.block_on(both);
    assert_eq!(
        (word(&next.unwrap().unwrap()), word(&latest.unwrap().unwrap())),
        ("b".into(), "b".into())
    );
}

#[test]
fn the_end_is_the_one_at_the_start() {
    let world = World::steady(1);
    send(&world, &["a", "b"]);
    let consumer = world.sim.block_on(world.consumer().until_end().build()).unwrap();
    send(&world, &["c"]);
    let read: Vec<_> = world.sim.block_on(consumer.try_collect()).unwrap();
    assert_eq!(words(read), ["a", "b"]);
}

#[test]
fn an_end_behind_a_gap_is_reached() {
    let world = World::steady(1);
    send(&world, &["a"]);
    let partition = TopicPartition::new("topic", 0);
    world.sim.inject(Fault::Gap { partition, length: 7 });
    world.sim.settle(100);
    let mut consumer = world.sim.block_on(world.consumer().until_end().build()).unwrap();
    while let Some(record) = world.sim.block_on(consumer.next()) {
        record.unwrap();
    }
    assert_eq!(consumer.offsets()[0].1.offset, 8);
}

#[test]
fn deleted_records_at_the_front_of_a_batch_are_not_given() {
    let world = World::steady(1);
    let producer = world.producer();
    let sends = (0..10).map(|i| producer.send("topic", numbered("key", i)));
    world.sim.block_on(futures::future::join_all(sends));
    let admin = world.broker.admin();
    let partition = TopicPartition::new("topic", 0);
    world.sim.block_on(admin.delete_records(&partition, 5)).unwrap();
    assert_eq!(world.words(), ["5", "6", "7", "8", "9"]);
}

#[test]
fn the_first_error_ends_the_stream() {
    let world = World::steady(1);
    let mut consumer = world.sim.block_on(world.consumer().from(Start::At(99)).build()).unwrap();
    let first = world.sim.block_on(consumer.next());
    assert!(matches!(first, Some(Err(Error::OffsetOutOfRange { .. }))), "{first:?}");
    assert_eq!(world.sim.block_on(consumer.next()), None);
    let unknown = Consumer::builder(world.broker.clone()).topic("other");
    assert!(matches!(world.read(unknown), Err(Error::UnknownTopic { .. })));
}

#[test]
fn uncommitted_readers_pass_an_open_transaction() {
    let world = World::steady(1);
    let partition = TopicPartition::new("topic", 0);
    world.sim.inject(Fault::Hold { partition, steps: 1_000 });
    send(&world, &["a"]);
    assert_eq!(world.words(), Vec::<String>::new());
    let uncommitted = world.consumer().until_end().isolation(Isolation::ReadUncommitted);
    assert_eq!(words(world.read(uncommitted).unwrap()), ["a"]);
}
