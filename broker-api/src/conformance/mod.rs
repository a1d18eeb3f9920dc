//! The suite that every broker is run through: one check per promise of [`crate::broker`].
//!
//! An implementation depends on this crate with the feature `conformance` (for its tests only),
//! writes a [`Harness`] and calls [`run_all`]. The checks use topics, groups and applications named
//! after themselves, so one broker may serve them all, but each check runs only once on it.
//!
//! Nothing in here sleeps. A check tries, and if it has to wait it calls [`Harness::progress`]: a
//! broker that is driven by steps makes one there, a broker with threads waits on the [`Alarm`],
//! which is behind every waker that the check hands out.
//!
//! ```
//! use std::sync::Arc;
//! use broker_api::conformance::{Alarm, Harness, run_all};
//! use broker_api::sim::{SimBroker, SimConfig};
//! use broker_api::Broker;
//!
//! struct Stepped(SimBroker);
//!
//! impl Harness for Stepped {
//!     fn broker(&self) -> Arc<dyn Broker> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     fn progress(&self, _: &Alarm) {
//!         self.0.step(); // one with threads: alarm.wait()
//!     }
//! }
//!
//! run_all(&Stepped(SimBroker::new(SimConfig::default())));
//! ```
//!
//! A broken promise panics, as an assertion in a test does, with the name of the check.

// This is test code that is compiled outside tests: what fails shall panic.
#![allow(clippy::expect_used)]

mod alarm;
mod check;
mod commits;
mod crashes;
mod deletion;
mod fencing;
mod limits;
mod members;
mod offsets;
mod reader;
mod reading;
mod reporting;
mod topics;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use alarm::Alarm;
use check::Check;

use crate::Broker;

/// How the suite gets at a broker.
pub trait Harness {
    /// The broker, as it is now: the same one at every call, or a new and empty one for every check
    /// (the suite asks once per check, and again after [`Harness::reopen`]).
    fn broker(&self) -> Arc<dyn Broker>;

    /// Lets the broker make some progress: makes a step of a broker that is driven by steps; for
    /// one with threads, calls [`Alarm::wait`].
    fn progress(&self, alarm: &Alarm);

    /// Stops the broker that [`Harness::broker`] gave last and opens its data again; that one is
    /// given from then on. Returns false, having done nothing, if this broker cannot do it: then
    /// the checks that need it are left out. The suite has dropped all handles before.
    fn reopen(&self, stop: Stop) -> bool {
        let _ = stop;
        false
    }
}

/// How a broker is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In good order.
    Clean,
    /// As by a power cut.
    Crash,
}

/// A named check.
pub type NamedCheck = (&'static str, fn(&dyn Harness));

macro_rules! checks {
    ($($module:ident: $($name:ident),+ $(,)?;)+) => {
        $($(
            #[doc = concat!("Checks one promise: `", stringify!($name), "`.")]
            pub fn $name(harness: &dyn Harness) {
                $module::$name(&mut Check::new(harness, stringify!($name)));
            }
        )+)+

        /// All checks, by name, for runners that want a test for each.
        pub const CHECKS: &[NamedCheck] = &[$($((stringify!($name), $name)),+),+];
    };
}

checks! {
    topics:
        topics_are_created_described_and_listed,
        impossible_topics_are_refused,
        unknown_topics_and_partitions_are_refused,
        settings_are_replaced,
        a_topic_made_again_is_another_topic,
        the_cluster_id_stays;
    reading:
        records_come_in_offset_order_as_they_were_written,
        reading_starts_where_it_is_asked_to,
        reading_from_the_middle_of_a_batch,
        paused_partitions_keep_their_place,
        unassigned_partitions_are_left_out,
        every_partition_gets_its_turn,
        a_batch_above_the_budget_is_still_read,
        positions_outside_the_log_are_out_of_range;
    reporting:
        an_empty_partition_is_reported_once,
        the_end_is_reported,
        a_waiting_reader_is_woken,
        durable_readers_see_a_prefix_of_applied_ones;
    commits:
        a_commit_takes_effect_as_a_whole,
        batches_of_a_commit_keep_their_order,
        an_empty_commit_is_legal,
        offsets_may_commit_alone,
        what_is_not_submitted_leaves_nothing,
        tickets_resolve_in_order_and_once,
        commits_are_synced_in_order_after_they_are_durable,
        appends_resolve_in_order_and_once,
        a_dropped_transactor_leaves_whole_commits;
    fencing:
        a_newer_transactor_fences_the_older,
        a_delayed_commit_of_a_fenced_transactor_is_whole_or_nothing,
        other_transactional_ids_are_left_alone;
    limits:
        a_commit_above_the_limit_is_refused,
        a_batch_above_the_topics_limit_is_refused,
        a_record_without_a_key_is_refused_by_a_compacted_topic,
        one_bad_batch_refuses_the_whole_commit,
        a_full_queue_refuses_and_recovers;
    offsets:
        offsets_are_found_by_specification,
        groups_keep_offsets_and_metadata,
        the_longest_text_of_an_offset_is_kept;
    deletion:
        deleted_records_are_gone,
        a_log_may_be_emptied,
        purged_records_go_some_time;
    members:
        a_single_member_owns_all_tasks,
        tasks_are_handed_over_and_never_owned_twice,
        members_that_leave_free_their_tasks,
        stale_members_are_refused,
        a_member_that_keeps_its_tasks_keeps_committing,
        all_members_are_told_to_stop_and_later_ones_are_not,
        tasks_of_followed_topics_come_and_go_and_the_others_stay,
        members_with_other_tasks_are_refused;
    crashes:
        what_is_synced_survives_a_crash,
        settings_that_were_replaced_survive_a_crash,
        what_was_accepted_before_a_sync_survives_a_crash,
        a_crash_keeps_or_drops_whole_commits,
        a_clean_stop_keeps_everything;
}

/// Runs every check, the failed ones too, and panics at the end with the names of those.
///
/// # Panics
/// If the broker breaks a promise.
pub fn run_all(harness: &dyn Harness) {
    let failed: Vec<&str> = CHECKS
        .iter()
        .filter(|(_, check)| catch_unwind(AssertUnwindSafe(|| check(harness))).is_err())
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "{} of {} checks failed: {failed:#?}", failed.len(), CHECKS.len());
}
