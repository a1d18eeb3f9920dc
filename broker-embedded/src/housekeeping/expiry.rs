//! Forgetting transactional ids and consumer groups that nobody has used for long, as Kafka does.
//!
//! It is decided through the journal, so that a recovery forgets the same. What is forgotten leaves
//! one number behind: ids and groups that come back go on above it, so that nobody who has slept for
//! long is taken for them.

use std::sync::Arc;
use std::time::Duration;

use broker_api::Timestamp;

use crate::core::Core;
use crate::journal::entry::Entry;
use crate::journal::writer::Step;
use crate::sequencer::{Haste, Health, Notify, Sequencer};

/// Nothing is forgotten before the broker has been open for so long: who used it before it was closed
/// may come back first.
pub(super) const GRACE: Duration = Duration::from_secs(60 * 60);
/// So many are forgotten under one lock.
const AT_ONCE: usize = 1_000;

/// Forgets some, if there are any.
pub(super) fn expire(core: &Core) -> Step {
    core.with(|sequencer, wakes| {
        if matches!(sequencer.health, Health::Stopped(_)) {
            return Step::Idle;
        }
        let gone = unused(sequencer, core);
        let step = if gone.is_empty() { Step::Idle } else { Step::Worked };
        for entry in gone {
            sequencer.push(entry, Notify::Nobody, Haste::Lazy, wakes);
        }
        step
    })
}

/// What was not used for longer than the settings say, and has no live handle or member. (An open
/// transaction is one that a live handle has not submitted yet.)
fn unused(sequencer: &Sequencer, core: &Core) -> Vec<Entry> {
    let now = core.clock.now();
    let ids = oldest(now, core.settings.transactional_id_expiration);
    let groups = oldest(now, core.settings.offsets_retention);
    let state = &sequencer.state;
    let ids = state.producers.iter().filter(|(id, known)| {
        known.used < ids && !sequencer.transactors.contains_key::<Arc<str>>(id)
    });
    let groups = state.groups.iter().filter(|(name, group)| {
        group.used < groups && !sequencer.coordinators.contains_key::<Arc<str>>(name)
    });
    let ids = ids.map(|(id, _)| Entry::ProducerExpired { id: id.clone() });
    let groups = groups.map(|(name, _)| Entry::GroupExpired { group: name.clone() });
    ids.chain(groups).take(AT_ONCE).collect()
}

/// What was last used before has expired.
fn oldest(now: Timestamp, after: Duration) -> Timestamp {
    now.saturating_sub(Timestamp::try_from(after.as_millis()).unwrap_or(Timestamp::MAX))
}
