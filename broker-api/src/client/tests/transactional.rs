use futures::FutureExt;

use super::*;
use crate::client::TransactionalProducer;
use crate::sim::Fault;
use crate::{CommittedOffset, TopicPartition};

fn producer(world: &World) -> TransactionalProducer {
    TransactionalProducer::with_config(world.broker.clone(), "id", World::config()).unwrap()
}

fn at(offset: i64) -> [(TopicPartition, CommittedOffset); 1] {
    [(TopicPartition::new("topic", 0), CommittedOffset { offset, ..CommittedOffset::default() })]
}

fn committed(world: &World) -> Vec<(TopicPartition, CommittedOffset)> {
    world.sim.block_on(world.broker.admin().group_offsets("group")).unwrap()
}

#[test]
fn a_transaction_commits_records_and_offsets() {
    for seed in 0..20 {
        let world = World::new(3, rough(seed));
        let mut producer = producer(&world);
        for round in 0..5 {
            let mut transaction = producer.begin();
            for i in 0..10 {
                transaction.send("topic", numbered(&i.to_string(), 10 * round + i)).unwrap();
            }
            transaction.send_offsets("group", at(round as i64)).unwrap();
            transaction.send_offsets("group", at(round as i64 + 1)).unwrap();
            world.sim.block_on(transaction.commit()).unwrap();
            assert_eq!(committed(&world), at(round as i64 + 1));
        }
        world.calm();
        let mut found: Vec<usize> =
            world.words().iter().map(|word| word.parse().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, (0..50).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn an_aborted_transaction_leaves_nothing() {
    let world = World::steady(1);
    let mut producer = producer(&world);
    let mut transaction = producer.begin();
    transaction.send("topic", numbered("key", 1)).unwrap();
    transaction.send_offsets("group", at(1)).unwrap();
    transaction.abort();
    let mut transaction = producer.begin();
    transaction.send("topic", numbered("key", 2)).unwrap();
    drop(transaction);
    world.sim.block_on(producer.begin().commit()).unwrap();
    assert_eq!(world.words(), Vec::<String>::new());
    assert_eq!(committed(&world), []);
}

#[test]
fn the_newer_producer_fences_the_older() {
    let world = World::steady(1);
    let mut older = producer(&world);
    let mut newer = producer(&world);
    let refused = world.sim.block_on(older.begin().commit());
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    world.sim.block_on(newer.begin().commit()).unwrap();
}

#[test]
fn a_lost_outcome_is_told_and_the_group_knows_it() {
    for taken in [true, false] {
        let world = World::new(
            1,
            SimConfig {
                faults: Faults { apply_delay: 9, ..Faults::default() },
                seed: 3,
                ..SimConfig::default()
            },
        );
        let mut producer = producer(&world);
        world.sim.block_on(producer.begin().commit()).unwrap();
        let mut transaction = producer.begin();
        transaction.send("topic", numbered("key", 1)).unwrap();
        transaction.send_offsets("group", at(1)).unwrap();
        let mut commit = Box::pin(transaction.commit());
        // The topic has to be looked up first.
        assert!(commit.as_mut().now_or_never().is_none());
        assert!(world.sim.inject(Fault::Doubt { id: "id".into(), taken }));
        let outcome = world.sim.block_on(commit);
        assert!(matches!(outcome, Err(Error::InDoubt { .. })), "{outcome:?}");
        let mut next = self::producer(&world);
        assert_eq!(committed(&world).len(), usize::from(taken));
        world.sim.block_on(next.begin().commit()).unwrap();
        assert_eq!(world.words().len(), usize::from(taken));
    }
}

#[test]
fn a_commit_whose_future_is_dropped_takes_its_course() {
    let world = World::steady(1);
    let mut producer = producer(&world);
    let mut transaction = producer.begin();
    transaction.send("topic", numbered("key", 1)).unwrap();
    assert!(transaction.commit().now_or_never().is_none());
    let mut transaction = producer.begin();
    transaction.send("topic", numbered("key", 2)).unwrap();
    world.sim.block_on(transaction.commit()).unwrap();
    assert_eq!(world.words(), ["1", "2"]);
}

#[test]
fn limits_are_told_before_anything_is_written() {
    let world = World::steady(1);
    let config = ProducerConfig { buffer_bytes: 1_000, ..World::config() };
    let mut small =
        TransactionalProducer::with_config(world.broker.clone(), "small", config).unwrap();
    let mut transaction = small.begin();
    let large = Record::of_value(vec![b'x'; 1_000]);
    assert!(matches!(transaction.send("topic", large), Err(Error::TooLarge { .. })));
    transaction.send_offsets("group", at(1)).unwrap();
    assert!(transaction.send_offsets("other", at(1)).is_err());
    drop(transaction);

    let mut producer = producer(&world);
    let mut transaction = producer.begin();
    for _ in 0..3 {
        transaction.send("topic", Record::of_value(vec![b'x'; 500_000])).unwrap();
    }
    let refused = world.sim.block_on(transaction.commit());
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let mut transaction = producer.begin();
    transaction.send("other", numbered("key", 1)).unwrap();
    let refused = world.sim.block_on(transaction.commit());
    assert!(matches!(refused, Err(Error::UnknownTopic { .. })), "{refused:?}");
    assert_eq!(world.words(), Vec::<String>::new());
}
