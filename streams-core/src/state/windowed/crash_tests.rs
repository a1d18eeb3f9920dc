//! The stores through crashes: what is committed comes back, however much of the engine is lost, and
//! what has expired vanishes without anybody seeing it.

use std::collections::BTreeMap;
use std::path::Path;

use broker_api::{Batch, BatchBuilder, Horizon};
use proptest::prelude::*;

use super::*;
use crate::error::StateError;
use crate::serde::HasSerde;
use crate::state::{
    Changelog, ChangelogWriter, EntryBatch, Expiry, LossyEngine, Position, RestorePlan, Restorer,
    StateEngine, Store, StoreKind, engine_suite,
};
use crate::windowed::Window;

const RETENTION: Timestamp = 12;

/// The changelog goes this much later than the store.
const SLACK: Timestamp = 6;

/// For so long operators find what has expired, where they do.
const LOOK_BACK: Timestamp = 4;

/// Key, start and end.
type Key = (String, Timestamp, Timestamp);

/// What a store should know.
#[derive(Clone)]
struct Known {
    entries: BTreeMap<Key, i64>,
    time: Timestamp,
    released: Timestamp,
    /// As in `LookBack`.
    look_back: [Timestamp; 4],
}

/// Either kind of store.
trait Kind: WindowKind {
    fn open(
        engine: Arc<dyn StoreEngine>,
        options: WindowedOptions,
    ) -> WindowedStore<String, i64, Self>
    where
        Self: Sized;
    fn put(store: &mut WindowedStore<String, i64, Self>, key: &Key, value: Option<i64>) -> bool
    where
        Self: Sized;
    fn get(store: &mut WindowedStore<String, i64, Self>, key: &Key) -> Option<i64>
    where
        Self: Sized;
    fn look_up(
        store: &mut WindowedStore<String, i64, Self>,
        key: &Key,
        drains: bool,
    ) -> Option<i64>
    where
        Self: Sized;
    /// The time by which an entry expires.
    fn first(key: &Key) -> Timestamp;
}

impl Kind for Fixed {
    fn open(engine: Arc<dyn StoreEngine>, options: WindowedOptions) -> WindowStore<String, i64> {
        WindowStore::<_, _>::new("s", String::serde(), i64::serde(), engine, 0, options)
    }

    fn put(store: &mut WindowStore<String, i64>, key: &Key, value: Option<i64>) -> bool {
        store.put(&key.0, key.1, value, key.1).unwrap()
    }

    fn get(store: &mut WindowStore<String, i64>, key: &Key) -> Option<i64> {
        store.get(&key.0, key.1).unwrap().map(|(value, _)| value)
    }

    fn look_up(store: &mut WindowStore<String, i64>, key: &Key, drains: bool) -> Option<i64> {
        store.look_up(&key.0, key.1, drains).unwrap().map(|(value, _)| value)
    }

    fn first(key: &Key) -> Timestamp {
        key.1
    }
}

impl Kind for Session {
    fn open(engine: Arc<dyn StoreEngine>, options: WindowedOptions) -> SessionStore<String, i64> {
        SessionStore::<_, _>::new("s", String::serde(), i64::serde(), engine, options)
    }

    fn put(store: &mut SessionStore<String, i64>, key: &Key, value: Option<i64>) -> bool {
        store.put(&key.0, Window { start: key.1, end: key.2 }, value, key.2).unwrap()
    }

    fn get(store: &mut SessionStore<String, i64>, key: &Key) -> Option<i64> {
        store.get(&key.0, Window { start: key.1, end: key.2 }).unwrap().map(|(value, _)| value)
    }

    fn look_up(store: &mut SessionStore<String, i64>, key: &Key, drains: bool) -> Option<i64> {
        let session = Window { start: key.1, end: key.2 };
        store.look_up(&key.0, session, drains).unwrap().map(|(value, _)| value)
    }

    fn first(key: &Key) -> Timestamp {
        key.2
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(Key, Option<i64>),
    Release(Timestamp),
    /// All was told, or not. Also snapshots the store for its engine, if no snapshot is on its way.
    Seal {
        all_told: bool,
        snapshot: bool,
    },
    /// The snapshot reaches the engine.
    Apply,
    /// So many batches of the engine survive.
    Crash(usize),
    /// The directory is gone.
    Wipe,
    /// The changelog's own retention.
    Trim,
}

fn op() -> impl Strategy<Value = Op> {
    let name = prop_oneof![Just(""), Just("a"), Just("a\0\0\0\0\0\0\0\0")].prop_map(String::from);
    let key =
        (name, 0..60i64, 0..6i64).prop_map(|(name, start, length)| (name, start, start + length));
    prop_oneof![
        12 => (key, proptest::option::weighted(0.8, 0..9i64)).prop_map(|(k, v)| Op::Put(k, v)),
        2 => (0..60i64).prop_map(Op::Release),
        6 => (proptest::bool::weighted(0.7), any::<bool>())
            .prop_map(|(all_told, snapshot)| Op::Seal { all_told, snapshot }),
        5 => Just(Op::Apply),
        2 => (0..4usize).prop_map(Op::Crash),
        1 => Just(Op::Wipe),
        1 => Just(Op::Trim),
    ]
}

/// Takes changelog records.
struct Log(BatchBuilder, usize);

impl ChangelogWriter for Log {
    fn put(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.1 += 1;
        self.0.push(timestamp, Some(key), value, &[]).unwrap();
        Ok(())
    }
}

struct World<W: Kind> {
    options: WindowedOptions,
    engine: LossyEngine,
    store: WindowedStore<String, i64, W>,
    now: Known,
    committed: Known,
    log: Vec<Batch>,
    log_start: i64,
    on_its_way: Option<(EntryBatch, Position, Expiry)>,
    dir: tempfile::TempDir,
}

impl<W: Kind> World<W> {
    fn new(by_time: bool, points: bool, look_back: Timestamp) -> Self {
        let options =
            WindowedOptions { by_time, points, look_back, ..WindowedOptions::new(RETENTION) };
        let engine = LossyEngine::new();
        let known = Known { entries: BTreeMap::new(), time: -1, released: -1, look_back: [-1; 4] };
        Self {
            options,
            store: W::open(open(&engine), options),
            engine,
            now: known.clone(),
            committed: known,
            log: Vec::new(),
            log_start: 0,
            on_its_way: None,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn end(&self) -> i64 {
        self.log.last().map_or(0, Batch::next_offset)
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Put(key, value) => {
                let first = W::first(&key);
                let [_, next, mark, told] = self.now.look_back;
                if first > self.now.time && first >= mark + LOOK_BACK {
                    self.now.look_back = [next, self.now.time, first, told];
                }
                self.now.time = self.now.time.max(first);
                let taken = first > self.now.time - RETENTION;
                assert_eq!(W::put(&mut self.store, &key, value), taken);
                let key = if W::IS_SESSION { key } else { (key.0, key.1, key.1) };
                match value {
                    _ if !taken => {}
                    Some(value) => drop(self.now.entries.insert(key, value)),
                    None => drop(self.now.entries.remove(&key)),
                }
            }
            Op::Release(up_to) => {
                // As an operator does that shows what has closed: behind its time.
                let up_to = up_to.min(self.now.time);
                self.now.released = self.now.released.max(up_to);
                self.store.release(up_to);
            }
            Op::Seal { all_told, snapshot } => {
                if all_told {
                    self.store.all_told();
                    self.now.look_back[3] = self.now.look_back[0];
                }
                self.seal(snapshot);
            }
            Op::Apply => self.apply(),
            Op::Crash(survivors) => {
                self.engine.crash(|batches| batches.min(survivors));
                self.restart();
            }
            Op::Wipe => {
                self.engine = LossyEngine::new();
                self.restart();
            }
            Op::Trim => {
                let newest = self.log.iter().map(Batch::max_timestamp).max().unwrap_or(-1);
                let old = |b: &&Batch| b.max_timestamp() < newest - RETENTION - SLACK;
                let gone = self.log.iter().take_while(old).last().map_or(0, Batch::next_offset);
                self.log_start = self.log_start.max(gone);
            }
        }
    }

    fn seal(&mut self, snapshot: bool) {
        let mut log = Log(BatchBuilder::new(), 0);
        self.store.seal(&mut log).unwrap();
        if log.1 > 0 {
            self.log.push(log.0.finish().unwrap().assigned(self.end(), 1));
        }
        self.committed = self.now.clone();
        if snapshot && self.on_its_way.is_none() {
            let batch = self.store.begin_flush().unwrap();
            let position =
                Position { stream_time: self.store.time(), ..engine_suite::position(self.end()) };
            self.on_its_way = Some((batch, position, self.store.expiry().unwrap()));
        }
    }

    fn apply(&mut self) {
        let Some((mut batch, position, expiry)) = self.on_its_way.take() else { return };
        let engine = open(&self.engine);
        engine.apply(&mut batch, &position).unwrap();
        engine.expire(expiry);
        if position.next_offset % 2 == 0 {
            engine.flush().unwrap();
        }
        self.store.flushed();
    }

    fn restart(&mut self) {
        self.on_its_way = None;
        self.now = self.committed.clone();
        let engine = open(&self.engine);
        let position = engine_suite::position(0);
        let changelog = Changelog {
            cluster_id: position.cluster_id,
            topic_id: position.topic_id,
            horizon: Horizon { log_start: self.log_start, ..Horizon::default() },
            end: self.end(),
            kind: if W::IS_SESSION { StoreKind::Session } else { StoreKind::Window },
        };
        let plan = RestorePlan::decide(engine.position().unwrap().as_ref(), &changelog);
        if plan != RestorePlan::UpToDate {
            let format = WindowedStore::<String, i64, W>::changelog_format(&self.options);
            let expired = format.expiry(self.committed.time);
            let spill = self.dir.path().join("spill");
            let mut restorer =
                Restorer::new(engine.clone(), format, &plan, &changelog, 1 << 20, spill).unwrap();
            expired.into_iter().for_each(|expired| restorer.leave_out(expired).unwrap());
            let from = self.log.iter().filter(|b| b.base_offset() >= self.log_start);
            from.for_each(|batch| restorer.feed(batch, changelog.end).unwrap());
            let position = Position { stream_time: -1, ..engine_suite::position(changelog.end) };
            restorer.finish(&position).unwrap();
        }
        self.store = W::open(engine, self.options);
        self.store.advance_time(self.now.time);
        self.store.resume_further_times(&self.now.look_back);
        if self.options.by_time {
            self.store.release(self.now.released); // as its operator does
        }
    }

    /// Everything that has not expired is shown, and nothing else; by time also what was not released,
    /// as far as the changelog reaches.
    fn check(&mut self) {
        let live = |key: &Key| W::first(key) > self.now.time - RETENTION;
        let expected = self.now.entries.iter().filter(|(key, _)| live(key));
        let expected: Vec<_> = expected.map(|(key, value)| (key.clone(), *value)).collect();
        let all = self.store.all().unwrap().into_iter();
        let mut found: Vec<_> =
            all.map(|(w, v, _)| ((w.key, w.window.start, w.window.end), v)).collect();
        found.sort();
        assert_eq!(found, expected);
        for (key, value) in expected {
            assert_eq!(W::get(&mut self.store, &key), Some(value), "{key:?}");
        }
        if self.options.look_back > 0 {
            self.check_look_back();
        }
        if !self.options.by_time {
            return;
        }
        let from = (self.now.released + 1).max(self.now.time - RETENTION - SLACK);
        let found = self.store.find_by_time(from, Timestamp::MAX - 1, None, usize::MAX).unwrap();
        let row = |(w, v, _): Found<String, i64>| ((w.key, w.window.start, w.window.end), v);
        let mut found: Vec<_> = found.into_iter().map(row).collect();
        found.sort();
        let expected = self.now.entries.iter().filter(|(key, _)| W::first(key) >= from);
        let expected: Vec<_> = expected.map(|(key, value)| (key.clone(), *value)).collect();
        assert_eq!(found, expected);
    }

    /// Operators find what had not expired at some time before, whatever has vanished from the engine,
    /// and nothing older; while caches are drained, by that time as of the last seal before which all was
    /// told. What was trimmed from the changelog may be missing.
    fn check_look_back(&mut self) {
        let trimmed = self.now.time - RETENTION - SLACK;
        for (drains, time) in [(false, self.now.look_back[0]), (true, self.now.look_back[3])] {
            for (key, value) in &self.now.entries {
                let first = W::first(key);
                let found = W::look_up(&mut self.store, key, drains);
                let is_seen = first > time - RETENTION;
                assert!(found.is_none() || is_seen, "{key:?} {drains}");
                if is_seen && (first >= trimmed || self.log_start == 0) {
                    assert_eq!(found, Some(*value), "{key:?} {drains}");
                }
            }
        }
    }
}

fn open(engine: &LossyEngine) -> Arc<dyn StoreEngine> {
    engine.open(Path::new("0_0"), &["s"]).unwrap().remove(0)
}

fn run<W: Kind>(
    ops: Vec<Op>,
    (by_time, points): (bool, bool),
    look_back: Timestamp,
    budget: usize,
) {
    let mut world = World::<W>::new(by_time, points, look_back);
    for op in ops {
        world.store.set_budget(budget);
        world.act(op);
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..ProptestConfig::default()
    })]

    #[test]
    fn windows_survive_crashes(
        ops in proptest::collection::vec(op(), 0..120),
        by_time: bool,
        points: bool,
        look_back in prop_oneof![Just(0), Just(LOOK_BACK)],
        budget in prop_oneof![Just(0usize), Just(1 << 20)],
    ) {
        run::<Fixed>(ops, (by_time, points), look_back, budget);
    }

    #[test]
    fn sessions_survive_crashes(
        ops in proptest::collection::vec(op(), 0..120),
        by_time: bool,
        look_back in prop_oneof![Just(0), Just(LOOK_BACK)],
    ) {
        run::<Session>(ops, (by_time, false), look_back, 1 << 20);
    }
}
