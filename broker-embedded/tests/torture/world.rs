//! A broker on a simulated disk, the script that it goes through, and the history that it must not
//! contradict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::sim::Dice;
use broker_api::{
    BatchBuilder, Broker, CleanupPolicy, Clock, Commit, CommittedOffset, Error, GroupCommit,
    ManualClock, NewTopic, Offset, Producer, ProducerEvent, RetentionBy, Ticket, TopicConfig,
    TopicPartition, Transactor, TransactorEvent, View,
};
use broker_embedded::vfs::SimVfs;
use broker_embedded::{Settings, SimulatedBroker, Step};

use crate::model::{PartitionState, Rec, State, TopicState};
use crate::observe::{GROUP, now, observe, stable_ends};

pub(crate) const DIR: &str = "/data";

pub(crate) struct World {
    pub(crate) vfs: SimVfs,
    pub(crate) dice: Dice,
    /// Whether the broker gets to do its housekeeping.
    pub(crate) tidies: bool,
    /// Only a compacted topic, so that compaction has enough to do.
    tables_only: bool,
    clock: Arc<ManualClock>,
    settings: Settings,
    pub(crate) session: Option<Session>,
    /// The states that the history went through since the last restart; the last one is now.
    history: Vec<State>,
    /// The states after operations of which nobody knows whether they were accepted. At most one
    /// of them was: had it been, and failed, nothing later would have been accepted.
    maybe: Vec<State>,
    /// What comes back after a restart must not be older than this one of the history.
    acknowledged: usize,
    /// Offsets below were seen by durable readers.
    seen: BTreeMap<TopicPartition, Offset>,
    written: u64,
    /// Restarts that found something compacted, and without its tombstones.
    pub(crate) compacted: u32,
    pub(crate) tombstones_gone: u32,
}

/// An open broker with its handles.
pub(crate) struct Session {
    pub(crate) broker: SimulatedBroker,
    producer: Box<dyn Producer>,
    transactor: Box<dyn Transactor>,
    /// For each open ticket, the place in the history and the base offsets.
    appends: BTreeMap<Ticket, (usize, Offset)>,
    commits: BTreeMap<Ticket, (usize, Vec<Offset>)>,
}

/// Small files, so that a short script sees them retire.
pub(crate) fn settings() -> Settings {
    Settings {
        journal_file_bytes: 24 << 10,
        retired_journal_files: 1,
        memory_tail_bytes: 4 << 10,
        segment_bytes: 4 << 10,
        compaction_memory_bytes: 256,
        reserve_bytes: 8 << 10,
        ..Settings::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::on(SimVfs::new(seed), seed, settings())
    }

    pub(crate) fn on(vfs: SimVfs, seed: u64, settings: Settings) -> Self {
        Self {
            vfs,
            dice: Dice::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d)),
            tidies: true,
            tables_only: seed % 3 == 1,
            clock: Arc::new(ManualClock::new(1_000_000)),
            settings,
            session: None,
            history: vec![State::default()],
            maybe: Vec::new(),
            acknowledged: 0,
            seen: BTreeMap::new(),
            written: 0,
            compacted: 0,
            tombstones_gone: 0,
        }
    }

    /// The latest state of the history.
    pub(crate) fn state(&self) -> &State {
        &self.history[self.history.len() - 1]
    }

    /// Opens the broker.
    pub(crate) fn open(&mut self) -> Result<(), Error> {
        self.settings.segment_bytes = self.dice.pick(&[1 << 10, 2 << 10, 4 << 10, 8 << 10]);
        let vfs = Arc::new(self.vfs.clone());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let broker = SimulatedBroker::open(
            vfs,
            clock,
            DIR,
            self.settings.clone(),
            self.dice.within(0..u64::MAX),
        )?;
        let producer = broker.producer(Waker::noop().clone())?;
        let transactor = broker.transactor("the-transactor", Waker::noop().clone())?;
        self.session = Some(Session {
            broker,
            producer,
            transactor,
            appends: BTreeMap::new(),
            commits: BTreeMap::new(),
        });
        Ok(())
    }

    /// Opens the broker after a crash and checks that what is there is a state that the history
    /// went through, and not one before the last acknowledgement.
    pub(crate) fn reopen_and_check(&mut self) -> Result<(), Error> {
        self.session = None;
        self.open()?;
        let found = observe(self.broker(), View::Durable)?;
        let candidates = self.history[self.acknowledged..].iter().chain(&self.maybe);
        let reasons: Vec<_> = candidates.clone().map(|state| state.differs(&found)).collect();
        let Some(at) = reasons.iter().rposition(Option::is_none) else {
            panic!(
                "the state after the restart is none of the {} since the last acknowledgement: {reasons:#?}",
                reasons.len()
            );
        };
        let state = candidates.clone().nth(at).cloned().expect("it was found there");
        for (tp, end) in &self.seen {
            let topic = found.topics.get(&*tp.topic);
            let now = topic.map(|topic| topic.partitions[tp.partition as usize].end);
            assert!(
                now.is_none_or(|now| now >= *end),
                "{tp} ends at {now:?}, was read up to {end}"
            );
        }
        let horizons = found.topics.values().flat_map(|t| &t.partitions).map(|p| p.horizon);
        self.compacted += u32::from(horizons.clone().any(|h| h.compacted_below > 0));
        self.tombstones_gone += u32::from(horizons.clone().any(|h| h.tombstones_gone_below > 0));
        // What the broker has removed by itself stays removed.
        let mut state = state;
        for tp in state.partitions() {
            let kept = found.topics[&*tp.topic].partitions[tp.partition as usize].clone();
            let mine = state.partition(&tp);
            mine.horizon.log_start = kept.horizon.log_start;
            mine.records.retain(|record| record.offset >= kept.horizon.log_start);
        }
        self.history = vec![state];
        self.maybe.clear();
        self.acknowledged = 0;
        Ok(())
    }

    pub(crate) fn broker(&self) -> &SimulatedBroker {
        &self.session.as_ref().expect("the broker is open").broker
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("the broker is open")
    }

    /// Runs so many random operations; the first error ends it.
    pub(crate) fn run(&mut self, operations: u64) -> Result<(), Error> {
        (0..operations).try_for_each(|_| self.operation())
    }

    /// Runs so many random operations whatever comes of them; returns the errors.
    pub(crate) fn run_through(&mut self, operations: u64) -> Vec<Error> {
        (0..operations).filter_map(|_| self.operation().err()).collect()
    }

    /// One random operation, some steps of the broker, and a look at what became of all.
    pub(crate) fn operation(&mut self) -> Result<(), Error> {
        self.clock.advance(Duration::from_millis(self.dice.within(0..30)));
        let done = self.any_operation();
        for _ in 0..self.dice.within(0..4) {
            self.step();
        }
        self.take_events();
        if self.dice.one_in(12) {
            let seen = stable_ends(self.broker())?;
            self.seen = seen;
        }
        done
    }

    pub(crate) fn step(&mut self) -> Step {
        let housekeeping_first = self.dice.one_in(2);
        let broker = self.broker();
        if !self.tidies {
            return broker.step_journal();
        }
        if housekeeping_first && broker.step_housekeeping() == Step::Worked {
            return Step::Worked;
        }
        match broker.step_journal() {
            Step::Worked => Step::Worked,
            Step::Idle => broker.step_housekeeping(),
        }
    }

    /// Until there is nothing left to do.
    pub(crate) fn settle(&mut self) {
        // Long enough that the housekeeping looks around for what has grown old.
        let long = if self.dice.one_in(2) { 10 } else { 400 };
        self.clock.advance(Duration::from_secs(long));
        for _ in 0..10_000 {
            if self.step() == Step::Idle {
                return self.take_events();
            }
        }
        panic!("the broker never comes to rest");
    }

    /// After [`World::settle`] nobody waits for anything any more.
    pub(crate) fn all_is_acknowledged(&mut self) {
        let session = self.session();
        assert!(session.appends.is_empty() && session.commits.is_empty());
        self.acknowledged = self.history.len() - 1;
    }

    /// What the broker shows is the newest state of the history.
    pub(crate) fn check_live(&self) -> Result<(), Error> {
        let found = observe(self.broker(), View::Applied)?;
        assert_eq!(self.state().differs(&found), None);
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Result<(), Error> {
        let closed = self.broker().close();
        self.take_events();
        self.session = None;
        if closed.is_ok() {
            self.acknowledged = self.history.len() - 1;
        }
        closed
    }

    fn any_operation(&mut self) -> Result<(), Error> {
        match self.dice.within(0..20) {
            _ if self.state().topics.is_empty() => self.create_topic(),
            0 => self.create_topic(),
            1 if !self.tables_only && self.dice.one_in(3) => self.delete_topic(),
            2 if !self.tables_only || self.dice.one_in(5) => self.delete_records(),
            3 if !self.tables_only => self.purge(),
            4..=9 => self.append(),
            _ => self.commit(),
        }
    }

    fn create_topic(&mut self) -> Result<(), Error> {
        let topics = [
            ("table", CleanupPolicy::Compact, 2),
            ("events", CleanupPolicy::Delete, 2),
            ("short", CleanupPolicy::Delete, 1),
            ("brief", CleanupPolicy::Delete, 1),
            ("window", CleanupPolicy::CompactDelete, 1),
            ("other", CleanupPolicy::Delete, 3),
        ];
        let known = if self.tables_only { &topics[..1] } else { &topics };
        let (name, policy, partitions) = self.dice.pick(known);
        // Some topics by size, by age, with a lag: the script takes seconds, settling takes minutes.
        let retention_bytes = (name == "short").then_some(8_000);
        let retention_ms = matches!(name, "brief" | "window").then_some(1_000);
        let min_compaction_lag_ms = if self.dice.one_in(2) { 0 } else { 300 };
        let config = TopicConfig {
            cleanup_policy: policy,
            retention_bytes,
            retention_ms,
            retention_by: self.dice.pick(&[RetentionBy::WallClock, RetentionBy::StreamTime]),
            min_compaction_lag_ms,
            ..TopicConfig::default()
        };
        let mut after = self.state().clone();
        let exists = after.topics.contains_key(name);
        let empty = TopicState {
            config: config.clone(),
            partitions: vec![PartitionState::default(); partitions],
        };
        let topic = NewTopic { name: name.into(), partitions: partitions as u32, config };
        let result = now(self.broker().admin().create_topic(topic)).map(|_| ());
        if exists {
            assert!(result.is_err(), "{name} exists");
            let refused = matches!(result, Err(Error::TopicExists { .. }));
            return if refused { Ok(()) } else { result };
        }
        self.seen.retain(|tp, _| *tp.topic != *name);
        after.topics.insert(name.into(), empty);
        self.changed_durably(after, result)
    }

    fn delete_topic(&mut self) -> Result<(), Error> {
        let mut after = self.state().clone();
        let name = self.dice.pick(&after.topics.keys().cloned().collect::<Vec<_>>());
        after.topics.remove(&name);
        after.offsets.retain(|tp, _| *tp.topic != *name);
        self.seen.retain(|tp, _| *tp.topic != *name);
        let result = now(self.broker().admin().delete_topic(&name));
        self.changed_durably(after, result)
    }

    fn delete_records(&mut self) -> Result<(), Error> {
        let (mut after, tp, before) = self.truncation();
        truncate(after.partition(&tp), before);
        let result = now(self.broker().admin().delete_records(&tp, before)).map(|_| ());
        self.changed_durably(after, result)
    }

    fn purge(&mut self) -> Result<(), Error> {
        let (mut after, tp, before) = self.truncation();
        self.session().transactor.purge(&tp, before);
        // Nobody says whether it was accepted; it was if the broker still accepts anything.
        let accepts = self.broker().producer(Waker::noop().clone()).is_ok();
        if accepts {
            truncate(after.partition(&tp), before);
            self.changed(after);
        }
        Ok(())
    }

    fn truncation(&mut self) -> (State, TopicPartition, Offset) {
        let mut after = self.state().clone();
        let tp = self.dice.pick(&after.partitions());
        let partition = after.partition(&tp);
        let (start, end) = (partition.horizon.log_start, partition.end);
        let before = self.dice.within(start as u64..end as u64 + 1) as Offset;
        (after, tp, before)
    }

    fn append(&mut self) -> Result<(), Error> {
        let mut after = self.state().clone();
        let tp = self.dice.pick(&after.partitions());
        let batch = self.records(&mut after, &tp);
        let base = after.partition(&tp).records.last().map_or(0, |r| r.offset + 1)
            - batch.count() as Offset;
        match self.session().producer.append(&tp, batch) {
            Ok(ticket) => {
                let place = self.changed(after);
                self.session().appends.insert(ticket, (place, base));
                Ok(())
            }
            Err(e) => Err(e.error),
        }
    }

    fn commit(&mut self) -> Result<(), Error> {
        let mut after = self.state().clone();
        let mut commit = Commit::default();
        let mut bases = Vec::new();
        for _ in 0..self.dice.within(0..4) {
            let tp = self.dice.pick(&after.partitions());
            bases.push(after.partition(&tp).end);
            commit.batches.push((tp.clone(), self.records(&mut after, &tp)));
        }
        if self.dice.one_in(2) {
            let tp = self.dice.pick(&after.partitions());
            let offset = self.dice.within(0..1_000) as Offset;
            let committed = CommittedOffset { offset, metadata: format!("m{offset}") };
            after.offsets.insert(tp.clone(), committed.clone());
            let offsets = vec![(tp, committed)];
            commit.group = Some(GroupCommit { group: GROUP.into(), token: None, offsets });
        }
        match self.session().transactor.submit(commit) {
            Ok(ticket) => {
                let place = self.changed(after);
                self.session().commits.insert(ticket, (place, bases));
                Ok(())
            }
            Err(e) => Err(e.error),
        }
    }

    /// A batch for a partition, whose records are in the model already.
    fn records(&mut self, after: &mut State, tp: &TopicPartition) -> broker_api::Batch {
        let append_time = self.clock.now().max(after.last_time);
        after.last_time = append_time;
        let compacted = after.topics[&*tp.topic].config.cleanup_policy.compacts();
        let keys = if self.tables_only { 30 } else { 8 };
        let partition = after.partition(tp);
        let mut builder = BatchBuilder::new();
        for _ in 0..self.dice.within(1..6) {
            self.written += 1;
            let key = format!("key {}", self.dice.within(0..keys));
            let length = if self.dice.one_in(20) { 9_000 } else { self.dice.within(0..400) };
            let value = format!("{:>1$}", self.written, length as usize);
            let key = (compacted || !self.dice.one_in(5)).then(|| key.into_bytes());
            let value = (!self.dice.one_in(6)).then(|| value.into_bytes());
            let timestamp = append_time - self.dice.within(0..200) as i64;
            builder.push(timestamp, key.as_deref(), value.as_deref(), &[]).expect("it is small");
            partition.records.push(Rec {
                offset: partition.end,
                timestamp,
                append_time,
                key,
                value,
            });
            partition.end += 1;
        }
        builder.finish().expect("it has records")
    }

    /// The history goes on; returns the place of the new state.
    fn changed(&mut self, after: State) -> usize {
        self.maybe.clear();
        self.history.push(after);
        self.history.len() - 1
    }

    /// As [`World::changed`], for what is durable when it succeeds and may be when it does not.
    fn changed_durably(&mut self, after: State, result: Result<(), Error>) -> Result<(), Error> {
        match &result {
            Ok(()) => self.acknowledged = self.changed(after),
            Err(_) => self.maybe.push(after),
        }
        result
    }

    /// Notes what was acknowledged, and checks what is said about it.
    fn take_events(&mut self) {
        let mut acknowledged = self.acknowledged;
        let session = self.session();
        while let Poll::Ready(event) = session.producer.poll() {
            match event {
                ProducerEvent::Appended { ticket, base_offset } => {
                    let (place, base) = session.appends.remove(&ticket).expect("an open ticket");
                    assert_eq!(base_offset, base);
                    acknowledged = acknowledged.max(place);
                }
                ProducerEvent::Failed { ticket, .. } => {
                    session.appends.remove(&ticket).expect("an open ticket");
                }
            }
        }
        while let Poll::Ready(event) = session.transactor.poll() {
            match event {
                TransactorEvent::Applied { ticket, base_offsets } => {
                    assert_eq!(base_offsets, session.commits[&ticket].1);
                }
                TransactorEvent::Durable { ticket } => {
                    let (place, _) = session.commits.remove(&ticket).expect("an open ticket");
                    acknowledged = acknowledged.max(place);
                }
                TransactorEvent::Doubt { ticket } => {
                    session.commits.remove(&ticket).expect("an open ticket");
                }
                TransactorEvent::Fenced => panic!("nobody fences"),
                TransactorEvent::Failed(_) => break,
            }
        }
        self.acknowledged = acknowledged;
    }
}

fn truncate(partition: &mut PartitionState, before: Offset) {
    partition.horizon.log_start = partition.horizon.log_start.max(before);
    partition.records.retain(|record| record.offset >= before);
}
