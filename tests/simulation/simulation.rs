//! The whole under power cuts, kills and every fault of the contract, driven by one seed.
//!
//! A run is an application (a [`subject`]) on a broker, with stores that lose what was not flushed. One
//! loop picks what happens next: a step of the broker, of a stream thread, of the producer, a store
//! flush, some time, a thread that comes or goes, the end of the process or of the power. What a
//! durable reader has seen is the history; [`oracle`] says what must be true of it.
//!
//! `VLTAVA_SIM_SEEDS` says how many seeds are tried (default 1,000), `VLTAVA_SIM_SEED` which is the
//! first; a seed that fails is printed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod applications;
mod broken;
mod broken_admin;
mod cached;
mod failing;
mod few_keys;
mod foreign_keys;
mod globals;
mod grouped;
mod history;
mod host;
mod in_the_end;
mod joined_windows;
mod oracle;
mod replayed;
mod self_joined;
mod source_topics;
mod subject;
mod threads;
mod words;
mod world;

use std::sync::Arc;

use broker_api::sim::{Dice, Faults};
use broker_api::{Broker, Error, ManualClock};
use broker_embedded::Durability;
use streams_core::runtime::StreamsError;
use streams_core::test_driver::TestDriverError;
use streams_core::{BuildError, StateError};

use crate::applications::{Application, Cacheable};
use crate::broken::{Broken, Promise};
use crate::cached::Cached;
use crate::few_keys::LookedUp;
use crate::foreign_keys::ForeignKeys;
use crate::globals::Globals;
use crate::grouped::Grouped;
use crate::host::{Embedded, Fickle, Host};
use crate::joined_windows::{JoinedWindows, Of};
use crate::replayed::Replayed;
use crate::self_joined::SelfJoined;
use crate::subject::Make;
use crate::words::Words;
use crate::world::{Summary, World};

/// Why a run ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that must be true is not.
    Violation(String),
    /// Somebody gave up, which is right when the disk fails.
    Broke(#[allow(dead_code)] String), // read by Debug
}

impl Failure {
    pub(crate) fn violation(what: String) -> Self {
        Self::Violation(what)
    }
}

macro_rules! broke {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Broke(error.to_string())
            }
        })*
    };
}

broke!(Error, StreamsError, StateError, BuildError);

impl From<TestDriverError> for Failure {
    fn from(error: TestDriverError) -> Self {
        Self::violation(error.to_string())
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Runs the seeds; the first one that fails ends it.
fn all_seeds(name: &str, share: u64, run: impl Fn(u64) -> Result<Summary, Failure>) {
    let first = setting("VLTAVA_SIM_SEED", 0);
    let count = setting("VLTAVA_SIM_SEEDS", 1_000) / share;
    let mut all = Summary::default();
    for seed in first..first + count {
        match run(seed) {
            Ok(one) => {
                all.lines += one.lines;
                all.ends += one.ends;
                all.restored += one.restored;
            }
            Err(failure) => panic!("{name}, VLTAVA_SIM_SEED={seed}: {failure:?}"),
        }
    }
    println!("{name}: {count} seeds, {all:?}");
}

fn nothing_between(broker: Arc<dyn Broker>, _: &mut Dice) -> Arc<dyn Broker> {
    broker
}

fn synced(clock: Arc<ManualClock>, dice: &mut Dice) -> Box<dyn Host> {
    Box::new(Embedded::new(clock, dice, Durability::Synced))
}

/// Acknowledges before it syncs.
fn early(clock: Arc<ManualClock>, dice: &mut Dice) -> Box<dyn Host> {
    Box::new(Embedded::new(clock, dice, Durability::Os))
}

#[test]
fn the_embedded_broker_and_its_application_survive_everything() {
    all_seeds("embedded", 1, |seed| {
        World::new(seed, &Words::subject, nothing_between, synced)?.run()
    });
}

/// A power cut takes back what was acknowledged and not synced: then everything is as if that had
/// never been, in all partitions, offsets and stores.
#[test]
fn what_is_acknowledged_before_it_is_synced_is_lost_as_a_whole() {
    all_seeds("acknowledged early", 2, |seed| {
        World::new(seed, &Words::subject, nothing_between, early)?.run()
    });
}

/// The faults that a seed has.
fn some_faults(dice: &mut Dice) -> Faults {
    let all = Faults::all();
    let mut some = |n: u32| if dice.one_in(2) { n } else { 0 };
    Faults {
        apply_delay: some(all.apply_delay),
        durable_delay: some(all.durable_delay),
        sync_delay: some(all.sync_delay),
        fetch_delay: some(all.fetch_delay),
        admin_delay: some(all.admin_delay),
        gaps: some(all.gaps),
        redelivery: some(all.redelivery),
        short_fetches: some(all.short_fetches),
        doubt: some(all.doubt),
        failed_appends: some(all.failed_appends),
        full: some(all.full),
        lost_members: some(all.lost_members),
        slow_stable_end: some(all.slow_stable_end),
        compaction: if dice.one_in(4) { all.compaction } else { 0 },
    }
}

#[test]
fn the_application_survives_all_that_the_contract_allows_a_broker() {
    all_seeds("contract", 2, |seed| {
        let host = |clock, dice: &mut Dice| {
            let faults = some_faults(dice);
            Box::new(Fickle::new(clock, dice, faults)) as Box<dyn Host>
        };
        World::new(seed, &Words::subject, nothing_between, host)?.run()
    });
}

/// Applications under power cuts, with acknowledgements after the sync and before.
fn survive(name: &str, applications: &[Application]) {
    survives(name, &|dice| Replayed::one_of(applications, dice));
}

/// The same, with caches.
fn survive_cached(name: &str, applications: &[Cacheable]) {
    survives(name, &|dice| Cached::one_of(applications, dice));
}

fn survives(name: &str, subject: Make<'_>) {
    all_seeds(name, 8, |seed| World::new(seed, subject, nothing_between, synced)?.run());
    all_seeds(name, 8, |seed| World::new(seed, subject, nothing_between, early)?.run());
}

#[test]
fn windowed_counts_survive_everything() {
    survive("windowed count", &[applications::every_count, applications::last_count]);
}

#[test]
fn sliding_windows_survive_everything() {
    survive("sliding windows", &[applications::every_slide, applications::last_slide]);
}

#[test]
fn sessions_survive_everything() {
    survive("sessions", &[applications::every_session, applications::last_session]);
}

#[test]
fn cached_windows_survive_everything() {
    survive_cached("cached windows", &[applications::counts, applications::slides]);
}

#[test]
fn cached_sessions_survive_everything() {
    survive_cached("cached sessions", &[applications::sessions]);
}

#[test]
fn final_results_behind_a_cache_survive_everything() {
    survive_cached("final results", &[applications::final_values]);
}

#[test]
fn what_is_held_back_survives_everything() {
    survive("suppressed", &[applications::some_updates]);
}

#[test]
fn tables_that_are_looked_into_and_processors_written_by_hand_survive_everything() {
    survive("looked up", &[applications::as_last_said, applications::every_report]);
}

#[test]
fn versioned_tables_survive_everything() {
    survive("versions", &[applications::as_of, applications::as_of_a_little_later]);
}

#[test]
fn a_left_join_of_streams_and_suppressed_results_survive_everything() {
    survive("left join", &[applications::every_pair, applications::last_pairs]);
}

/// Records that are left out leave nothing behind but one dead letter.
#[test]
fn records_that_fail_survive_everything() {
    survive("records that fail", &[failing::some_fail]);
}

#[test]
fn calls_survive_everything() {
    survive("calls", &[applications::some_calls]);
}

#[test]
fn an_outer_join_of_tables_survives_everything() {
    survive("outer join of tables", &[applications::every_row]);
}

#[test]
fn tables_of_a_few_keys_survive_everything() {
    survives("a few keys", &|dice| match dice.one_in(2) {
        true => few_keys::collected(),
        false => Box::new(LookedUp),
    });
}

#[test]
fn a_table_that_is_restored_from_its_topic_survives_everything() {
    survives("restored from its topic", &source_topics::filtered);
}

#[test]
fn a_stream_joined_with_itself_survives_everything() {
    survives("joined with itself", &SelfJoined::subject);
}

#[test]
fn joins_of_windows_survive_everything() {
    survives("joined windows", &|dice| JoinedWindows::subject(Of::Windows, dice));
}

#[test]
fn joins_of_sessions_survive_everything() {
    survives("joined sessions", &|dice| JoinedWindows::subject(Of::Sessions, dice));
}

#[test]
fn joins_of_cached_windows_survive_everything() {
    survives("joined cached windows", &|dice| JoinedWindows::cached(Of::Windows, dice));
}

#[test]
fn joins_of_cached_sessions_survive_everything() {
    survives("joined cached sessions", &|dice| JoinedWindows::cached(Of::Sessions, dice));
}

/// Stages of two sub-topologies that answer each other.
#[test]
fn rows_and_those_that_they_refer_to_survive_everything() {
    let subject = &ForeignKeys::subject;
    all_seeds("foreign keys", 4, |seed| World::new(seed, subject, nothing_between, synced)?.run());
    all_seeds("foreign keys", 4, |seed| World::new(seed, subject, nothing_between, early)?.run());
}

#[test]
fn global_tables_that_change_survive_everything() {
    survives("global tables", &Globals::subject);
}

#[test]
fn groups_of_a_table_survive_everything() {
    survives("grouped table", &Grouped::subject);
}

/// Nothing goes wrong at all: the first thing to try when something does.
#[test]
fn a_calm_broker() {
    all_seeds("calm", 20, |seed| {
        let host = |clock, dice: &mut Dice| {
            Box::new(Fickle::new(clock, dice, Faults::default())) as Box<dyn Host>
        };
        World::new(seed, &Words::subject, nothing_between, host)?.run()
    });
}

/// Runs seeds with a broken promise until an oracle notices, and says `what`.
fn must_turn_red(
    what: &str,
    subject: Make<'_>,
    host: fn(Arc<ManualClock>, &mut Dice) -> Box<dyn Host>,
    wrap: crate::world::Wrap,
) {
    for seed in 0..300 {
        let run = World::new(seed, subject, wrap, host).and_then(World::run);
        if let Err(Failure::Violation(noticed)) = run {
            assert!(noticed.contains(what), "seed {seed}: {noticed}");
            println!("seed {seed}: {noticed}");
            return;
        }
    }
    panic!("nobody noticed: {what}");
}

#[test]
fn acknowledging_before_durable_is_noticed() {
    must_turn_red("the acknowledged line", &Words::subject, synced, |broker, _| {
        Broken::between(broker, Promise::AcknowledgedIsDurable)
    });
}

#[test]
fn flushing_stores_before_durable_is_noticed() {
    must_turn_red("its changelog is durable up to", &Words::subject, synced, |broker, _| {
        Broken::between(broker, Promise::FlushedIsDurable)
    });
}

#[test]
fn flushing_stores_before_synced_is_noticed() {
    must_turn_red("its changelog is durable up to", &Words::subject, early, |broker, _| {
        Broken::between(broker, Promise::SyncedIsSynced)
    });
}

#[test]
fn a_lost_entry_in_the_middle_is_noticed() {
    must_turn_red("", &Words::subject, synced, |broker, _| {
        Broken::between(broker, Promise::NothingIsLost)
    });
}

#[test]
fn outputs_and_offsets_in_two_entries_are_noticed() {
    must_turn_red("", &Words::subject, synced, |broker, _| {
        Broken::between(broker, Promise::CommitsAreAtomic)
    });
}

#[test]
fn a_join_whose_outputs_and_offsets_are_two_entries_is_noticed() {
    let subject = |dice: &mut Dice| Replayed::one_of(&[applications::every_pair], dice);
    must_turn_red("of partition", &subject, synced, |broker, _| {
        Broken::between(broker, Promise::CommitsAreAtomic)
    });
}

#[test]
fn cached_windows_whose_outputs_and_offsets_are_two_entries_are_noticed() {
    let cached = |dice: &mut Dice| Cached::one_of(&[applications::counts], dice);
    must_turn_red("without caches it is", &cached, synced, |broker, _| {
        Broken::between(broker, Promise::CommitsAreAtomic)
    });
}

#[test]
fn a_lost_entry_of_cached_sessions_is_noticed() {
    let cached = |dice: &mut Dice| Cached::one_of(&[applications::sessions], dice);
    must_turn_red("of partition", &cached, synced, |broker, _| {
        Broken::between(broker, Promise::NothingIsLost)
    });
}

#[test]
fn a_lost_entry_of_final_results_behind_a_cache_is_noticed() {
    let cached = |dice: &mut Dice| Cached::one_of(&[applications::final_values], dice);
    must_turn_red("of partition", &cached, synced, |broker, _| {
        Broken::between(broker, Promise::NothingIsLost)
    });
}

#[test]
fn a_lost_entry_of_a_join_and_suppressed_results_is_noticed() {
    let subject = |dice: &mut Dice| Replayed::one_of(&[applications::last_pairs], dice);
    must_turn_red("of partition", &subject, synced, |broker, _| {
        Broken::between(broker, Promise::NothingIsLost)
    });
}

#[test]
fn a_lost_entry_of_joined_windows_is_noticed() {
    let subject = |dice: &mut Dice| JoinedWindows::subject(Of::Windows, dice);
    must_turn_red("", &subject, synced, |broker, _| {
        Broken::between(broker, Promise::NothingIsLost)
    });
}

#[test]
fn looking_into_a_global_table_that_is_not_whole_is_noticed() {
    must_turn_red("were there at the beginning", &Globals::subject, synced, |broker, _| {
        Broken::between(broker, Promise::EndsAreEnds)
    });
}

#[test]
fn flushing_a_global_store_before_its_topic_is_synced_is_noticed() {
    must_turn_red("its changelog is durable up to", &Globals::subject, early, |broker, _| {
        Broken::between(broker, Promise::SyncIsSynced)
    });
}

#[test]
fn groups_whose_changes_and_offsets_are_two_entries_are_noticed() {
    must_turn_red("that of the whole input", &Grouped::subject, synced, |broker, _| {
        Broken::between(broker, Promise::CommitsAreAtomic)
    });
}

#[test]
fn a_lost_entry_of_a_join_by_a_foreign_key_is_noticed() {
    must_turn_red("", &ForeignKeys::subject, synced, |broker, _| {
        Broken::between(broker, Promise::NothingIsLost)
    });
}
