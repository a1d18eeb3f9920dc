//! The time from a record to its result: produce, update a table, read what is durable.

use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::{
    BatchBuilder, Broker, Clock, Error, FetcherConfig, ProducerEvent, RecordRef, Start,
    SystemClock, TopicPartition,
};
use broker_embedded::EmbeddedBroker;
use futures::executor::block_on;
use streams_core::runtime::Settings;

use crate::place::{INPUT, OUTPUT, Place};
use crate::process::waker;
use crate::{Result, apps};

/// How many keys there are.
const KEYS: u64 = 1_000;
/// How many bytes one fetch asks for.
const FETCH_BYTES: usize = 1 << 20;

/// Sends `rate` records a second, each in a batch of its own, and prints how long it took until
/// their results were there for a reader that sees only what is durable.
pub(crate) fn measure(place: &Place, rate: u64, seconds: u64) -> Result<()> {
    let records = rate * seconds;
    let streams = place.start(place.settings("latency"), apps::last_value()?)?;
    block_on(streams.running())?;
    let (broker, clock) = (place.broker.clone(), place.clock.clone());
    let reader = std::thread::spawn(move || read(&broker, &clock, records));
    send(place, rate, records)?;
    block_on(streams.caught_up())?;
    let mut latencies = reader.join().map_err(|_| "the reader panicked")??;
    block_on(streams.close())?;

    latencies.drain(..latencies.len() / 4); // warming up
    latencies.sort_unstable();
    let n = latencies.len();
    let at = |part: f64| {
        let rank = ((n as f64 * part) as usize).min(n.saturating_sub(1));
        latencies.get(rank).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    let commit = Settings::new("latency", "").commit_interval.as_millis();
    println!(
        "{{\"latency\":\"eos\",\"commit_ms\":{commit},\"rate\":{rate},\"n\":{n},\
         \"p50_ms\":{:.2},\"p99_ms\":{:.2},\"p999_ms\":{:.2},\"max_ms\":{:.2}}}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(())
}

/// Sends records on time; the value of each is when it was sent.
fn send(place: &Place, rate: u64, records: u64) -> Result<()> {
    let mut producer = place.broker.producer(Waker::noop().clone())?;
    let partition = TopicPartition::new(INPUT, 0);
    let mut batch = BatchBuilder::new();
    let start = place.clock.monotonic();
    for i in 0..records {
        let due = start + Duration::from_nanos(i * 1_000_000_000 / rate);
        loop {
            let early = due.saturating_sub(place.clock.monotonic());
            if early.is_zero() {
                break;
            }
            std::thread::park_timeout(early);
        }
        let sent = i64::try_from(place.clock.monotonic().as_nanos())?;
        let key = (i % KEYS).to_be_bytes();
        batch.push(place.clock.now(), Some(&key), Some(&sent.to_be_bytes()), &[])?;
        producer.append(&partition, batch.finish()?).map_err(|refused| refused.error)?;
        while let Poll::Ready(event) = producer.poll() {
            if let ProducerEvent::Failed { error, .. } = event {
                return Err(error.into());
            }
        }
    }
    Ok(())
}

/// Reads so many results; answers how old each was.
fn read(
    broker: &EmbeddedBroker,
    clock: &SystemClock,
    results: u64,
) -> std::result::Result<Vec<Duration>, Error> {
    let mut fetcher = broker.fetcher(FetcherConfig::default(), waker())?;
    fetcher.assign(&[(TopicPartition::new(OUTPUT, 0), Start::Earliest)])?;
    let mut latencies = Vec::new();
    while (latencies.len() as u64) < results {
        let Poll::Ready(fetched) = fetcher.poll(FETCH_BYTES) else {
            std::thread::park();
            continue;
        };
        let now = clock.monotonic();
        for batch in fetched?.iter().flat_map(|fetched| &fetched.batches) {
            for record in batch.records() {
                latencies.push(now.saturating_sub(sent(&record?)));
            }
        }
    }
    Ok(latencies)
}

fn sent(record: &RecordRef<'_>) -> Duration {
    let value = record.value.and_then(|value| value.try_into().ok());
    Duration::from_nanos(value.map_or(0, u64::from_be_bytes))
}
