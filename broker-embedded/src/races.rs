//! What happens between two looks at a partition does not confuse who looks.

use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::{
    BatchBuilder, Broker, FetcherConfig, ManualClock, NewTopic, Offset, OffsetSpec, Start,
    TopicConfig, TopicPartition,
};
use futures::executor::block_on;

use crate::sequencer::watched::{before_lock, locks};
use crate::vfs::SimVfs;
use crate::{Settings, SimulatedBroker, Step};

/// So many records of 1 KiB, each appended a second after the one before, the first at 1 s.
fn broker_with(records: u64) -> (SimulatedBroker, TopicPartition) {
    let settings = Settings {
        journal_file_bytes: 8 << 10,
        retired_journal_files: 0,
        memory_tail_bytes: 0,
        reserve_bytes: 0,
        ..Settings::default()
    };
    let (vfs, clock) = (Arc::new(SimVfs::new(1)), Arc::new(ManualClock::new(1_000)));
    let broker =
        SimulatedBroker::open(vfs, clock.clone(), Path::new("/data"), settings, 7).unwrap();
    let topic = NewTopic { name: "t".into(), partitions: 1, config: TopicConfig::default() };
    block_on(broker.admin().create_topic(topic)).unwrap();
    let tp = TopicPartition::new("t", 0);
    let mut producer = broker.producer(Waker::noop().clone()).unwrap();
    for _ in 0..records {
        let mut builder = BatchBuilder::new();
        builder.push(0, None, Some(&[1; 1_000]), &[]).unwrap();
        producer.append(&tp, builder.finish().unwrap()).unwrap();
        while broker.step_journal() == Step::Worked {}
        clock.advance(Duration::from_secs(1));
    }
    (broker, tp)
}

/// Runs `look` once for each of its locks of a partition, with `event` just before that one.
fn at_every_lock<T>(
    event: impl Fn(&SimulatedBroker, &TopicPartition) + Clone + 'static,
    look: impl Fn(&SimulatedBroker, &TopicPartition) -> T,
    check: impl Fn(u64, T),
) {
    let (broker, tp) = broker_with(10);
    let before = locks();
    look(&broker, &tp);
    for n in 1..=locks() - before {
        let (broker, tp) = broker_with(10);
        let (event, on, of) = (event.clone(), broker.clone(), tp.clone());
        before_lock(n, move || event(&on, &of));
        check(n, look(&broker, &tp));
    }
}

#[test]
fn a_reader_from_the_start_does_not_jump_to_the_end_when_records_are_deleted_meanwhile() {
    let delete = |broker: &SimulatedBroker, tp: &TopicPartition| {
        block_on(broker.admin().delete_records(tp, 5)).unwrap();
    };
    let read = |broker: &SimulatedBroker, tp: &TopicPartition| -> Option<Offset> {
        let config = FetcherConfig::default();
        let mut fetcher = broker.fetcher(config, Waker::noop().clone()).unwrap();
        fetcher.assign(&[(tp.clone(), Start::Earliest)]).unwrap();
        let Poll::Ready(Ok(found)) = fetcher.poll(1 << 20) else { panic!("nothing to read") };
        found[0].batches.first().map(|batch| batch.base_offset())
    };
    at_every_lock(delete, read, |n, first| {
        assert!(matches!(first, Some(0 | 5)), "deleted before lock {n}: it began with {first:?}");
    });
}

#[test]
fn a_time_is_found_while_its_records_move_to_a_segment() {
    let settle = |broker: &SimulatedBroker, _: &TopicPartition| {
        while broker.step_housekeeping() == Step::Worked || broker.step_journal() == Step::Worked {}
    };
    for second in [0, 1, 4, 9] {
        let ask = move |broker: &SimulatedBroker, tp: &TopicPartition| {
            let asked = [(tp.clone(), OffsetSpec::AppendedAfter(second * 1_000))];
            block_on(broker.admin().offsets(&asked)).unwrap()[0]
        };
        at_every_lock(settle, ask, |n, found| {
            assert_eq!(found, second, "after second {second}, moved before lock {n}");
        });
    }
}
