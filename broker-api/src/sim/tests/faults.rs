//! Each fault happens, on demand or by chance, and stays within the contract.

use std::future::Future;
use std::task::{Poll, Waker};

use crate::sim::{Fault, Faults, SimBroker, SimConfig};
use crate::{
    Batch, BatchBuilder, Broker, Commit, CommittedOffset, Error, Fetched, Fetcher, FetcherConfig,
    GroupCommit, Membership, MembershipConfig, MembershipEvent, NewTopic, Offset, Producer,
    ProducerEvent, Start, TaskId, TopicConfig, TopicPartition, Transactor, TransactorEvent, View,
};

struct World {
    broker: SimBroker,
    tp: TopicPartition,
}

impl World {
    fn new(faults: Faults) -> Self {
        Self::with(SimConfig { faults, ..SimConfig::default() })
    }

    fn with(config: SimConfig) -> Self {
        let broker = SimBroker::new(config);
        let topic =
            NewTopic { name: "topic".into(), partitions: 1, config: TopicConfig::compacted() };
        let world = Self { broker, tp: TopicPartition::new("topic", 0) };
        world.run(world.broker.admin().create_topic(topic)).unwrap();
        world
    }

    fn run<T>(&self, call: impl Future<Output = T>) -> T {
        self.broker.block_on(call)
    }

    fn producer(&self) -> Box<dyn Producer> {
        self.broker.producer(Waker::noop().clone()).unwrap()
    }

    fn transactor(&self) -> Box<dyn Transactor> {
        self.broker.transactor("id", Waker::noop().clone()).unwrap()
    }

    fn member(&self) -> Box<dyn Membership> {
        let tasks = vec![TaskId { subtopology: 0, partition: 0 }];
        let config = MembershipConfig {
            application: "app".into(),
            tasks,
            following: Vec::new(),
            warm: Vec::new(),
        };
        self.broker.membership(config, Waker::noop().clone()).unwrap()
    }

    fn reader(&self, view: View) -> Box<dyn Fetcher> {
        let config = FetcherConfig { view, ..FetcherConfig::default() };
        let mut fetcher = self.broker.fetcher(config, Waker::noop().clone()).unwrap();
        fetcher.assign(&[(self.tp.clone(), Start::Earliest)]).unwrap();
        fetcher
    }

    fn commit(&self, word: &str) -> Commit {
        Commit { batches: vec![(self.tp.clone(), batch(word, Some(word)))], group: None }
    }

    fn append(&self, word: &str) {
        self.producer().append(&self.tp, batch(word, Some(word))).unwrap();
        self.broker.settle(100);
    }

    /// (offset, value) of all that a durable reader sees.
    fn contents(&self) -> Vec<(Offset, String)> {
        let mut fetcher = self.reader(View::Durable);
        let mut found = Vec::new();
        loop {
            match fetcher.poll(1 << 20) {
                Poll::Ready(fetched) => {
                    let fetched = fetched.unwrap();
                    found.extend(fetched.iter().flat_map(words));
                    if fetched[0].at_end {
                        return found;
                    }
                }
                Poll::Pending => {
                    self.broker.step();
                }
            }
        }
    }
}

fn batch(key: &str, value: Option<&str>) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(0, Some(key.as_bytes()), value.map(str::as_bytes), &[]).unwrap();
    builder.finish().unwrap()
}

fn words(fetched: &Fetched) -> Vec<(Offset, String)> {
    let records = fetched.batches.iter().flat_map(Batch::records).map(Result::unwrap);
    records
        .map(|r| (r.offset, String::from_utf8_lossy(r.value.unwrap_or_default()).into()))
        .collect()
}

fn now<T>(polled: Poll<Result<Vec<Fetched>, T>>) -> Vec<Fetched> {
    match polled {
        Poll::Ready(Ok(fetched)) => fetched,
        _ => Vec::new(),
    }
}

#[test]
fn a_gap_moves_the_position_without_records() {
    let world = World::new(Faults::default());
    world.append("a");
    let mut reader = world.reader(View::Durable);
    assert_eq!(now(reader.poll(1000))[0].position, 1);
    assert!(world.broker.inject(Fault::Gap { partition: world.tp.clone(), length: 5 }));
    world.broker.settle(100);
    let fetched = now(reader.poll(1000));
    assert!(fetched[0].batches.is_empty() && fetched[0].at_end);
    assert_eq!(fetched[0].position, 6);
    world.append("b");
    assert_eq!(words(&now(reader.poll(1000))[0]), [(6, "b".into())]);
}

#[test]
fn gaps_come_by_chance() {
    let world = World::new(Faults { gaps: 500, ..Faults::default() });
    (0..20).for_each(|_| world.append("x"));
    let contents = world.contents();
    assert_eq!(contents.len(), 20);
    assert!(contents[19].0 > 25, "{contents:?}");
}

#[test]
fn a_slow_stable_end_holds_back_committed_readers() {
    let world = World::new(Faults::default());
    world.append("a");
    assert!(world.broker.inject(Fault::Hold { partition: world.tp.clone(), steps: 10 }));
    let mut transactor = world.transactor();
    let ticket = transactor.submit(world.commit("b")).unwrap();
    for _ in 0..5 {
        world.broker.step();
    }
    let base_offsets = vec![1];
    assert_eq!(transactor.poll(), Poll::Ready(TransactorEvent::Applied { ticket, base_offsets }));
    assert_eq!(transactor.poll(), Poll::Ready(TransactorEvent::Durable { ticket }));
    let (mut durable, mut applied) = (world.reader(View::Durable), world.reader(View::Applied));
    for reader in [&mut durable, &mut applied] {
        let fetched = now(reader.poll(1000));
        assert_eq!((fetched[0].stable_end, fetched[0].at_end), (1, true));
        assert!(reader.poll(1000).is_pending());
    }
    world.broker.settle(100);
    for reader in [&mut durable, &mut applied] {
        assert_eq!(words(&now(reader.poll(1000))[0]), [(1, "b".into())]);
    }
}

#[test]
fn durability_comes_later_than_application() {
    let world = World::new(Faults::default());
    let mut transactor = world.transactor();
    transactor.submit(world.commit("a")).unwrap();
    assert!(transactor.poll().is_pending(), "nothing happens by itself");
    world.broker.step();
    assert!(matches!(transactor.poll(), Poll::Ready(TransactorEvent::Applied { .. })));
    assert!(transactor.poll().is_pending());
    assert_eq!(words(&now(world.reader(View::Applied).poll(1000))[0]).len(), 1);
    assert_eq!(words(&now(world.reader(View::Durable).poll(1000))[0]).len(), 0);
    world.broker.step();
    assert!(matches!(transactor.poll(), Poll::Ready(TransactorEvent::Durable { .. })));
    assert_eq!(words(&now(world.reader(View::Durable).poll(1000))[0]).len(), 1);
}

#[test]
fn delays_take_their_steps() {
    let slowest = |faults| {
        let world = World::new(faults);
        let mut transactor = world.transactor();
        let mut slowest = 0;
        for _ in 0..20 {
            transactor.submit(world.commit("a")).unwrap();
            let before = world.broker.steps();
            world.broker.settle(100);
            slowest = slowest.max(world.broker.steps() - before);
        }
        slowest
    };
    assert_eq!(slowest(Faults::default()), 2);
    assert!(slowest(Faults { apply_delay: 10, ..Faults::default() }) > 5);
    assert!(slowest(Faults { durable_delay: 10, ..Faults::default() }) > 5);
}

#[test]
fn a_fetch_may_take_steps_and_wakes() {
    let world = World::new(Faults { fetch_delay: 5, ..Faults::default() });
    world.append("a");
    let mut pending = 0;
    for _ in 0..20 {
        let mut reader = world.reader(View::Durable);
        while reader.poll(1000).is_pending() {
            pending += 1;
            world.broker.step();
        }
    }
    assert!(pending > 5, "{pending}");
}

#[test]
fn an_admin_call_may_take_steps() {
    let world = World::new(Faults { admin_delay: 5, ..Faults::default() });
    let before = world.broker.steps();
    for _ in 0..20 {
        world.run(world.broker.admin().topics()).unwrap();
    }
    assert!(world.broker.steps() > before + 20);
}

#[test]
fn a_batch_below_the_position_may_come_again() {
    let world = World::new(Faults { redelivery: 500, short_fetches: 500, ..Faults::default() });
    (0..20).for_each(|_| world.append("x"));
    let mut reader = world.reader(View::Durable);
    let (mut position, mut again) = (0, 0);
    while position < 20 {
        let fetched = now(reader.poll(200)).remove(0);
        again += usize::from(fetched.batches[0].next_offset() <= position);
        position = fetched.position;
    }
    assert!(again > 0);
}

fn doubt(taken: bool) {
    let world = World::new(Faults { apply_delay: 5, ..Faults::default() });
    let mut transactor = world.transactor();
    let first = transactor.submit(world.commit("a")).unwrap();
    while transactor.poll().is_pending() {
        world.broker.step();
    }
    let second = transactor.submit(world.commit("b")).unwrap();
    assert!(world.broker.inject(Fault::Doubt { id: "id".into(), taken }));
    assert_eq!(transactor.poll(), Poll::Ready(TransactorEvent::Doubt { ticket: first }));
    assert_eq!(transactor.poll(), Poll::Ready(TransactorEvent::Doubt { ticket: second }));
    assert!(transactor.poll().is_pending());
    let refused = transactor.submit(world.commit("c")).unwrap_err();
    assert!(matches!(refused.error, Error::Failed { .. }));
    world.broker.settle(100);
    assert_eq!(world.contents().len(), 1 + usize::from(taken));
}

#[test]
fn a_commit_in_doubt_may_have_taken_effect() {
    doubt(true);
}

#[test]
fn a_commit_in_doubt_may_not_have_taken_effect() {
    doubt(false);
}

#[test]
fn the_groups_offsets_settle_a_doubt() {
    for seed in 0..50 {
        let faults = Faults { doubt: 300, apply_delay: 5, durable_delay: 5, ..Faults::default() };
        let world = World::with(SimConfig { seed, faults, ..SimConfig::default() });
        let mut transactor = world.transactor();
        for offset in 1..=3 {
            let offsets =
                vec![(world.tp.clone(), CommittedOffset { offset, ..Default::default() })];
            let group = Some(GroupCommit { group: "group".into(), token: None, offsets });
            transactor.submit(Commit { group, ..world.commit("x") }).unwrap();
        }
        while !matches!(transactor.poll(), Poll::Ready(TransactorEvent::Doubt { .. }))
            && world.broker.step()
        {}
        let _new = world.transactor();
        let found = world.run(world.broker.admin().group_offsets("group")).unwrap();
        world.broker.set_faults(Faults::default());
        world.broker.settle(100);
        let taken = found.first().map_or(0, |(_, committed)| committed.offset);
        assert_eq!(world.contents().len() as i64, taken, "seed {seed}");
    }
}

#[test]
fn a_failed_append_may_have_taken_effect() {
    for taken in [true, false] {
        let world = World::new(Faults::default());
        assert!(world.broker.inject(Fault::FailAppends { count: 1, taken }));
        let mut producer = world.producer();
        producer.append(&world.tp, batch("a", Some("a"))).unwrap();
        producer.append(&world.tp, batch("b", Some("b"))).unwrap();
        world.broker.settle(100);
        let failed = producer.poll();
        assert!(matches!(
            failed,
            Poll::Ready(ProducerEvent::Failed { error: Error::Failed { .. }, .. })
        ));
        assert!(matches!(producer.poll(), Poll::Ready(ProducerEvent::Appended { .. })));
        assert_eq!(world.contents().len(), 1 + usize::from(taken));
    }
}

#[test]
fn a_submission_may_be_refused_for_a_while() {
    let world = World::new(Faults { full: 500, ..Faults::default() });
    let mut transactor = world.transactor();
    let (mut accepted, mut full) = (0, 0);
    while accepted < 20 {
        match transactor.submit(world.commit("x")) {
            Ok(_) => accepted += 1,
            Err(refused) => {
                assert_eq!(refused.error, Error::Full);
                full += 1;
            }
        }
        world.broker.settle(100);
    }
    assert!(full > 5);
    assert_eq!(world.contents().len(), 20);
}

#[test]
fn a_lost_member_hears_it_and_is_refused() {
    let world = World::new(Faults::default());
    let mut member = world.member();
    world.broker.step();
    let Poll::Ready(MembershipEvent::Assigned { token, .. }) = member.poll() else { panic!() };
    assert!(world.broker.inject(Fault::LoseMembers { application: "app".into() }));
    let group = GroupCommit { group: "app".into(), token: Some(token), offsets: Vec::new() };
    let commit = Commit { group: Some(group), ..world.commit("stale") };
    let refused = world.transactor().submit(commit).unwrap_err();
    assert!(matches!(refused.error, Error::StaleMember { .. }));
    assert_eq!(member.poll(), Poll::Ready(MembershipEvent::Lost));
    assert!(member.poll().is_pending());
    let mut anew = world.member();
    world.broker.step();
    assert!(matches!(anew.poll(), Poll::Ready(MembershipEvent::Assigned { .. })));
    assert_eq!(world.contents(), []);
}

#[test]
fn compaction_moves_the_horizon_and_leaves_gaps() {
    let world = World::new(Faults::default());
    ["a", "b", "a"].iter().for_each(|word| world.append(word));
    world.producer().append(&world.tp, batch("b", None)).unwrap();
    world.broker.settle(100);
    assert!(world.broker.inject(Fault::Compact { partition: world.tp.clone() }));
    assert_eq!(world.contents(), [(2, "a".into())]);
    let horizon = world.run(world.broker.admin().horizon(&world.tp)).unwrap();
    assert_eq!((horizon.tombstones_gone_below, horizon.compacted_below), (4, 4));
    assert_eq!(horizon.log_start, 0);
}

#[test]
fn a_crash_closes_the_old_handles() {
    let world = World::new(Faults::default());
    let (mut producer, mut transactor) = (world.producer(), world.transactor());
    let (mut reader, mut member) = (world.reader(View::Durable), world.member());
    producer.append(&world.tp, batch("a", None)).unwrap();
    transactor.submit(world.commit("b")).unwrap();
    let survivor = world.broker.crash();
    assert!(matches!(producer.poll(), Poll::Ready(ProducerEvent::Failed { .. })));
    assert_eq!(transactor.poll(), Poll::Ready(TransactorEvent::Failed(Error::Closed)));
    assert!(matches!(reader.poll(1000), Poll::Ready(Err(Error::Closed))));
    assert_eq!(member.poll(), Poll::Ready(MembershipEvent::Lost));
    assert!(matches!(world.run(world.broker.admin().topics()), Err(Error::Closed)));
    let world = World { broker: survivor, tp: world.tp };
    assert_eq!(world.contents(), []);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let faults = Faults { doubt: 0, failed_appends: 0, ..Faults::all() };
        let world = World::with(SimConfig { seed, faults, ..SimConfig::default() });
        let mut producer = world.producer();
        let mut log = Vec::new();
        for _ in 0..100 {
            log.push(format!("{:?}", producer.append(&world.tp, batch("k", Some("v")))));
            log.push(format!("{} {:?}", world.broker.step(), producer.poll()));
        }
        log.push(format!("{:?}", world.contents()));
        log
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
