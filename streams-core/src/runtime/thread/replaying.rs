//! Replaying changelogs into stores that lag, part by part.
//!
//! A part counts only if the changelog has forgotten no deletion that was still to be read, which the broker
//! is asked at the end of each. Where compaction or retention was faster, the replay begins anew with what
//! is left.

use std::sync::Arc;
use std::task::{Context, Poll};

use broker_api::{Error, Horizon, Offset, Start, TaskId, TopicPartition};
use futures::future::BoxFuture;

use super::super::metrics::add;
use super::super::shares::Share;
use super::super::{RestoreEvent, RestoreStage};
use super::{StreamThread, StreamsError};
use crate::error::StateError;
use crate::state::{Changelog, Expiry, RestorePlan, Restorer, StoreEngine};

/// A store that is being brought up to date with its changelog.
pub(super) struct Replay {
    pub(super) store: usize,
    restorer: Restorer,
    /// Where it, or its present part, began.
    pub(super) from: Offset,
    pub(super) changelog: Changelog,
    /// What has expired by the commit to which it leads.
    expired: Option<Expiry>,
    at_end: bool,
    /// At its end, and that of a part: what the changelog has forgotten by then.
    checking: Option<BoxFuture<'static, Result<Horizon, Error>>>,
    _share: Share,
}

impl StreamThread {
    /// Replays what was fetched; answers whether there was anything.
    pub(super) fn replay_more(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        let mut replays = self.restoring.values().flat_map(|r| r.replays.values());
        if replays.any(|replay| replay.checking.is_none())
            && let Poll::Ready(fetched) = self.restore_fetcher.poll(8 << 20)
        {
            busy = true;
            match fetched {
                Err(Error::OffsetOutOfRange { partition, log_start, .. }) => {
                    self.replay_what_is_left(partition, log_start)?;
                }
                fetched => fetched?.iter().try_for_each(|part| self.replay(part))?,
            }
        }
        Ok(self.check_replays()? || busy)
    }

    pub(super) fn replay_of(
        &self,
        id: TaskId,
        store: usize,
        engine: Arc<dyn StoreEngine>,
        plan: &RestorePlan,
        changelog: Changelog,
        expired: Option<Expiry>,
    ) -> Result<Replay, StreamsError> {
        let topology = &self.env.topology;
        let name = &topology.subtopologies()[id.subtopology as usize].stores[store];
        let spec = self.env.spec_of(name)?;
        let share = self.env.restores.take(1);
        let memory = self.env.restores.each(self.env.settings.restore_memory_bytes);
        let spill = self.env.state_dir.join(id.to_string()).join(format!("{name}.restore"));
        let mut restorer =
            Restorer::new(engine, spec.format.clone(), plan, &changelog, memory, spill)?;
        if let Some(expired) = expired {
            restorer.leave_out(expired)?;
        }
        let from = restorer.next_offset();
        let (at_end, checking) = (false, None);
        Ok(Replay { store, from, restorer, changelog, expired, at_end, checking, _share: share })
    }

    fn replay(&mut self, part: &broker_api::Fetched) -> Result<(), StreamsError> {
        let memory = self.env.restores.each(self.env.settings.restore_memory_bytes);
        let all = self.restoring.iter_mut();
        let mut replays = all.flat_map(|(id, r)| r.replays.iter_mut().map(|(tp, r)| (*id, tp, r)));
        let Some((id, partition, replay)) = replays.find(|(_, tp, _)| **tp == part.partition)
        else {
            return Ok(());
        };
        replay.restorer.set_memory(memory);
        for batch in &part.batches {
            replay.restorer.feed(batch, replay.changelog.end).map_err(|error| match error {
                StateError::ChangelogRecord { reason } => {
                    let part = &self.env.topology.subtopologies()[id.subtopology as usize];
                    StreamsError::ChangelogUnreadable {
                        application: self.env.settings.application_id.to_string(),
                        store: part.stores[replay.store].clone(),
                        changelog: partition.clone(),
                        reason,
                    }
                }
                error => error.into(),
            })?;
        }
        replay.at_end = part.position >= replay.changelog.end;
        if replay.at_end || replay.restorer.is_full() {
            self.restore_fetcher.unassign(std::slice::from_ref(partition));
            let (admin, partition) = (self.env.broker.admin(), partition.clone());
            replay.checking = Some(Box::pin(async move { admin.horizon(&partition).await }));
        }
        let (store, position) = (replay.store, part.position.min(replay.changelog.end));
        self.tell(id, store, &part.partition, RestoreStage::Restored { position });
        Ok(())
    }

    fn check_replays(&mut self) -> Result<bool, StreamsError> {
        let mut ended = Vec::new();
        for (id, restoring) in &mut self.restoring {
            for (partition, replay) in &mut restoring.replays {
                if let Some(checking) = &mut replay.checking
                    && let Poll::Ready(horizon) =
                        checking.as_mut().poll(&mut Context::from_waker(&self.waker))
                {
                    ended.push((*id, partition.clone(), horizon?));
                }
            }
        }
        let busy = !ended.is_empty();
        for (id, partition, horizon) in ended {
            self.end_replay(id, partition, horizon)?;
        }
        Ok(busy)
    }

    /// Ends a replay that has come to its end, or applies its part, unless the changelog was
    /// compacted meanwhile: a deletion that was still to be read may be gone. Then it begins anew.
    fn end_replay(
        &mut self,
        id: TaskId,
        partition: TopicPartition,
        horizon: Horizon,
    ) -> Result<(), StreamsError> {
        let Some(restoring) = self.restoring.get_mut(&id) else {
            return Ok(());
        };
        let Some(mut replay) = restoring.replays.remove(&partition) else {
            return Ok(());
        };
        let position = &restoring.stores[replay.store].position;
        let known = replay.changelog.horizon.tombstones_gone_below;
        if horizon.tombstones_gone_below <= replay.from.max(known) {
            if !replay.at_end {
                replay.restorer.apply_part()?;
                (replay.from, replay.checking) = (replay.restorer.next_offset(), None);
                self.restore_fetcher.assign(&[(partition.clone(), Start::At(replay.from))])?;
                restoring.replays.insert(partition, replay);
                return Ok(());
            }
            let stats = replay.restorer.finish(position)?;
            add(&self.env.counters.restored, stats.records);
            tracing::info!(task = %id, changelog = %partition, records = stats.records, "store restored");
            let stage = RestoreStage::Ended { records: stats.records };
            self.tell(id, replay.store, &partition, stage);
            return Ok(());
        }
        let reason = "its changelog was compacted meanwhile";
        self.replay_anew(id, partition, replay, horizon, reason)
    }

    /// Begins a replay anew that retention, or who deletes records, was faster than.
    fn replay_what_is_left(
        &mut self,
        partition: TopicPartition,
        log_start: Offset,
    ) -> Result<(), StreamsError> {
        self.restore_fetcher.unassign(std::slice::from_ref(&partition));
        let mut all = self.restoring.iter_mut();
        let found = all.find_map(|(id, r)| Some((*id, r.replays.remove(&partition)?)));
        let Some((id, replay)) = found else { return Ok(()) };
        let horizon = Horizon { log_start, ..replay.changelog.horizon };
        self.replay_anew(id, partition, replay, horizon, "its changelog was cut meanwhile")
    }

    fn replay_anew(
        &mut self,
        id: TaskId,
        partition: TopicPartition,
        replay: Replay,
        horizon: Horizon,
        reason: &'static str,
    ) -> Result<(), StreamsError> {
        tracing::warn!(task = %id, changelog = %partition, %reason, "a store is rebuilt that was being restored");
        let Some(restoring) = self.restoring.get(&id) else { return Ok(()) };
        add(&self.env.counters.rebuilt, 1);
        add(&self.env.counters.overtaken, 1);
        let Replay { store, changelog, expired, restorer, .. } = replay;
        let engine = restoring.stores[store].engine.clone();
        drop(restorer); // and with it what it has spilled
        let plan = RestorePlan::Rebuild { reason };
        let changelog = Changelog { horizon, ..changelog };
        let replay = self.replay_of(id, store, engine, &plan, changelog, expired)?;
        self.restore_fetcher.assign(&[(partition.clone(), Start::At(replay.from))])?;
        if let Some(restoring) = self.restoring.get_mut(&id) {
            restoring.replays.insert(partition, replay);
        }
        Ok(())
    }

    pub(super) fn tell(
        &self,
        task: TaskId,
        store: usize,
        changelog: &TopicPartition,
        stage: RestoreStage,
    ) {
        if let Some(listener) = &self.env.settings.restore_listener {
            let part = &self.env.topology.subtopologies()[task.subtopology as usize];
            let (store, changelog) = (part.stores[store].clone(), changelog.clone());
            listener(&RestoreEvent { task, store, changelog, stage });
        }
    }
}
