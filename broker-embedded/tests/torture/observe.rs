//! Reading all that a broker holds.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use broker_api::{
    Broker, Error, Fetched, FetcherConfig, Isolation, Offset, OffsetSpec, Start, TopicPartition,
    View,
};

use crate::model::{PartitionState, Rec, State, TopicState};

pub(crate) const GROUP: &str = "the-group";

/// The result of a future that is ready at once: the simulated broker drives itself for the admin.
pub(crate) fn now<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the admin waits for something that nobody does"),
    }
}

/// All that readers of this view see.
pub(crate) fn observe(broker: &dyn Broker, view: View) -> Result<State, Error> {
    let admin = broker.admin();
    let mut state = State::default();
    for topic in now(admin.topics())? {
        let mut partitions = Vec::new();
        for i in 0..topic.partitions {
            let tp = TopicPartition::new(topic.name.clone(), i);
            partitions.push(partition(broker, &tp, view)?);
        }
        state
            .topics
            .insert(topic.name.to_string(), TopicState { config: topic.config, partitions });
    }
    state.offsets = now(admin.group_offsets(GROUP))?.into_iter().collect();
    Ok(state)
}

fn partition(
    broker: &dyn Broker,
    tp: &TopicPartition,
    view: View,
) -> Result<PartitionState, Error> {
    let mut horizon = now(broker.admin().horizon(tp))?;
    let spec = if view == View::Durable { OffsetSpec::Stable } else { OffsetSpec::Latest };
    let end = now(broker.admin().offsets(&[(tp.clone(), spec)]))?[0];
    let found = read(broker, tp, view)?;
    assert_eq!(found.end, end, "{tp}: where reading ends");
    assert!(found.log_start == horizon.log_start || view == View::Applied, "{tp}: the start");
    horizon.log_start = found.log_start;
    Ok(PartitionState { horizon, end, records: found.records })
}

/// What a reader found between the start and the end of a partition.
pub(crate) struct Found {
    pub(crate) log_start: Offset,
    pub(crate) end: Offset,
    pub(crate) records: Vec<Rec>,
}

/// Reads all of a partition, in pieces.
pub(crate) fn read(broker: &dyn Broker, tp: &TopicPartition, view: View) -> Result<Found, Error> {
    let config = FetcherConfig { view, isolation: Isolation::ReadCommitted };
    let mut fetcher = broker.fetcher(config, Waker::noop().clone())?;
    fetcher.assign(&[(tp.clone(), Start::Earliest)])?;
    let mut records: Vec<Rec> = Vec::new();
    let mut position = None;
    loop {
        let Poll::Ready(found) = fetcher.poll(3_000) else {
            panic!("{tp}: a reader waits at {position:?} and was not told that this is the end");
        };
        for fetched in found? {
            assert_eq!(fetched.partition, *tp);
            let from = position.unwrap_or(fetched.log_start);
            take(&fetched, from, &mut records);
            assert!(fetched.position >= from, "{tp}: the position went back");
            position = Some(fetched.position);
            if fetched.at_end {
                let (log_start, end) = (fetched.log_start, fetched.position);
                return Ok(Found { log_start, end, records });
            }
        }
    }
}

fn take(fetched: &Fetched, position: Offset, records: &mut Vec<Rec>) {
    for batch in &fetched.batches {
        for record in batch.records() {
            let record = record.expect("a broker hands out good batches only");
            if record.offset < position {
                continue;
            }
            assert!(records.last().is_none_or(|last| last.offset < record.offset));
            assert!(record.offset < fetched.position);
            records.push(Rec {
                offset: record.offset,
                timestamp: record.timestamp,
                append_time: batch.append_time(),
                key: record.key.map(Vec::from),
                value: record.value.map(Vec::from),
            });
        }
    }
}

/// The durable end of every partition.
pub(crate) fn stable_ends(broker: &dyn Broker) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
    let admin = broker.admin();
    let mut ends = BTreeMap::new();
    for topic in now(admin.topics())? {
        for i in 0..topic.partitions {
            let tp = TopicPartition::new(topic.name.clone(), i);
            let end = now(admin.offsets(&[(tp.clone(), OffsetSpec::Stable)]))?[0];
            ends.insert(tp, end);
        }
    }
    Ok(ends)
}
