//! How long commits take. Not a test: `cargo test --test measure -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use broker_api::{
    BatchBuilder, Broker, Clock, Commit, FetcherConfig, NewTopic, Start, SystemClock, TopicConfig,
    TopicPartition, TransactorEvent, View,
};
use broker_embedded::{EmbeddedBroker, Settings};
use futures::executor::block_on;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

fn batch(records: usize, bytes: usize) -> broker_api::Batch {
    let mut builder = BatchBuilder::new();
    let value = vec![7; bytes];
    for i in 0..records {
        builder.push(0, Some(&i.to_be_bytes()), Some(&value), &[]).unwrap();
    }
    builder.finish().unwrap()
}

fn open(partitions: u32) -> (tempfile::TempDir, EmbeddedBroker, Vec<TopicPartition>) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let broker = EmbeddedBroker::open(dir.path(), Settings::default()).unwrap();
    let topic = NewTopic { name: "t".into(), partitions, config: TopicConfig::default() };
    block_on(broker.admin().create_topic(topic)).unwrap();
    let tps = (0..partitions).map(|i| TopicPartition::new("t", i)).collect();
    (dir, broker, tps)
}

#[test]
#[ignore = "measures"]
fn one_commit_at_a_time() {
    let (_dir, broker, tps) = open(3);
    let clock = SystemClock::new();
    let mut transactor = broker.transactor("id", waker()).unwrap();
    let small = batch(1, 100);
    let (mut submits, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..5_000 {
        let batches = tps.iter().map(|tp| (tp.clone(), small.clone())).collect();
        let before = clock.monotonic();
        transactor.submit(Commit { batches, group: None }).unwrap();
        submits.push(clock.monotonic() - before);
        loop {
            match transactor.poll() {
                Poll::Ready(TransactorEvent::Durable { .. }) => break,
                Poll::Ready(_) => {}
                Poll::Pending => thread::park(),
            }
        }
        waits.push(clock.monotonic() - before);
    }
    let show = |name: &str, times: &mut Vec<Duration>| {
        times.sort_unstable();
        let at = |q: usize| times[times.len() * q / 1000];
        println!("{name}: p50 {:?} p99 {:?} p99.9 {:?}", at(500), at(990), at(999));
    };
    show("submit of 3 batches", &mut submits);
    show("commit to durable", &mut waits);
}

#[test]
#[ignore = "measures"]
fn many_commits_in_flight() {
    let (dir, broker, tps) = open(4);
    let clock = SystemClock::new();
    let mut transactor = broker.transactor("id", waker()).unwrap();
    let large = batch(1_000, 100);
    let size = large.bytes().len() * tps.len();
    let reader = thread::spawn({
        let (broker, tps) = (broker.clone(), tps.clone());
        move || {
            let config = FetcherConfig { view: View::Applied, ..Default::default() };
            let mut fetcher = broker.fetcher(config, waker()).unwrap();
            let starts: Vec<_> = tps.iter().map(|tp| (tp.clone(), Start::Earliest)).collect();
            fetcher.assign(&starts).unwrap();
            let mut records = 0;
            while records < 2_000 * 4_000 {
                match fetcher.poll(1 << 20) {
                    Poll::Ready(found) => {
                        let found = found.unwrap();
                        let batches = found.iter().flat_map(|f| &f.batches);
                        records += batches.map(|b| b.count()).sum::<usize>();
                    }
                    Poll::Pending => thread::park(),
                }
            }
        }
    });
    let before = clock.monotonic();
    let (mut durable, mut submitting) = (0, Duration::ZERO);
    let mut submitted = 0;
    while durable < 2_000 {
        if submitted < 2_000 {
            let batches = tps.iter().map(|tp| (tp.clone(), large.clone())).collect();
            let start = clock.monotonic();
            let answer = transactor.submit(Commit { batches, group: None });
            submitting += clock.monotonic() - start;
            submitted += usize::from(answer.is_ok());
            if answer.is_err() {
                thread::park();
            }
        }
        while let Poll::Ready(event) = transactor.poll() {
            durable += usize::from(matches!(event, TransactorEvent::Durable { .. }));
        }
        if submitted == 2_000 && durable < 2_000 {
            thread::park();
        }
    }
    let took = clock.monotonic() - before;
    let mib = (size * 2_000) >> 20;
    println!("{mib} MiB in {took:?}: {:.0} MiB/s", mib as f64 / took.as_secs_f64());
    println!("submit: {:?} each", submitting / 2_000);
    reader.join().unwrap();
    broker.close().unwrap();
    let before = clock.monotonic();
    let broker = EmbeddedBroker::open(dir.path(), Settings::default()).unwrap();
    println!("open: {:?}", clock.monotonic() - before);
    let before = clock.monotonic();
    let mut fetcher = broker.fetcher(FetcherConfig::default(), waker()).unwrap();
    fetcher.assign(&[(tps[0].clone(), Start::Earliest)]).unwrap();
    let mut bytes = 0;
    loop {
        let Poll::Ready(found) = fetcher.poll(1 << 20) else { break };
        let found = found.unwrap().remove(0);
        bytes += found.batches.iter().map(|b| b.bytes().len()).sum::<usize>();
        if found.at_end {
            break;
        }
    }
    println!(
        "read {} MiB of one partition from disk in {:?}",
        bytes >> 20,
        clock.monotonic() - before
    );
}
