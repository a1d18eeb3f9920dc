//! Writes on their way: accepted, then applied, then durable, then synced, in one order.

use super::state::State;
use crate::{
    Batch, FetcherConfig, GroupCommit, Offset, ProducerEvent, Ticket, TopicId, TopicPartition,
    TransactorEvent, View,
};

/// Who is told of an entry's fate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Committer(u64, Ticket),
    Writer(u64, Ticket),
    Nobody,
}

/// One write: a commit, an append or a gap.
pub(super) struct Entry {
    source: Source,
    batches: Vec<(TopicPartition, TopicId, Batch)>,
    group: Option<GroupCommit>,
    gap: Option<(TopicPartition, TopicId, u32)>,
    /// An append that fails; whether it takes effect all the same.
    failing: Option<bool>,
    /// Its place among all that were accepted.
    number: u64,
    /// The step at which it is applied; when that is done, durable; at last, synced.
    due: u64,
    base_offsets: Vec<Offset>,
    /// Where the partitions that it has written end after it.
    ends: Vec<(TopicPartition, TopicId, Offset)>,
}

impl Entry {
    pub(super) fn new(
        source: Source,
        batches: Vec<(TopicPartition, TopicId, Batch)>,
        group: Option<GroupCommit>,
    ) -> Self {
        Self {
            source,
            batches,
            group,
            gap: None,
            failing: None,
            number: 0,
            due: 0,
            base_offsets: Vec::new(),
            ends: Vec::new(),
        }
    }

    pub(super) fn gap(tp: TopicPartition, id: TopicId, length: u32) -> Self {
        let gap = Some((tp, id, length));
        Self { gap, ..Self::new(Source::Nobody, Vec::new(), None) }
    }

    pub(super) fn failing(self, taken: Option<bool>) -> Self {
        Self { failing: taken, ..self }
    }
}

impl State {
    pub(super) fn accept(&mut self, mut entry: Entry) {
        entry.due = self.steps + 1 + self.random.up_to(self.faults.apply_delay);
        self.accepted_count += 1;
        entry.number = self.accepted_count;
        self.accepted.push_back(entry);
    }

    /// Whether the entries up to this number have their place, or never will have one.
    pub(super) fn is_placed(&self, number: u64) -> bool {
        self.accepted.front().is_none_or(|entry| entry.number > number)
    }

    /// Whether the entries up to this number are synced, or never will be.
    pub(super) fn is_synced(&self, number: u64) -> bool {
        let waiting = [&self.durable, &self.applied, &self.accepted];
        let mut waiting = waiting.into_iter().filter_map(|entries| entries.front());
        waiting.all(|entry| entry.number > number)
    }

    pub(super) fn settle_applied(&mut self) {
        while self.accepted.front().is_some_and(|entry| entry.due <= self.steps) {
            if let Some(mut entry) = self.accepted.pop_front() {
                self.apply(&mut entry);
                entry.due = self.steps + 1 + self.random.up_to(self.faults.durable_delay);
                self.applied.push_back(entry);
            }
        }
    }

    fn apply(&mut self, entry: &mut Entry) {
        if entry.failing != Some(false) {
            let now = self.clock.now();
            for (tp, id, batch) in std::mem::take(&mut entry.batches) {
                self.skip_offsets(&tp, id);
                // A topic that was deleted meanwhile has no place for it.
                let base = self.log_mut(&tp, id).map_or(-1, |log| log.append(batch, now));
                self.skip_offsets(&tp, id);
                entry.base_offsets.push(base);
                self.note_end(entry, tp, id);
            }
            if let Some((tp, id, length)) = entry.gap.take() {
                if let Some(log) = self.log_mut(&tp, id) {
                    log.end += Offset::from(length);
                }
                self.note_end(entry, tp, id);
            }
            if let Some(commit) = &entry.group {
                let group = self.groups.entry(commit.group.clone()).or_default();
                let exists = |(tp, _): &&(TopicPartition, _)| self.topics.contains_key(&tp.topic);
                group.applied.extend(commit.offsets.iter().filter(exists).cloned());
            }
        }
        if let Source::Committer(key, ticket) = entry.source
            && let Some(committer) = self.committers.get_mut(&key)
        {
            let base_offsets = entry.base_offsets.clone();
            committer.events.push_back(TransactorEvent::Applied { ticket, base_offsets });
            self.to_wake.push(committer.waker.clone());
        }
    }

    fn skip_offsets(&mut self, tp: &TopicPartition, id: TopicId) {
        if self.random.happens(self.faults.gaps) {
            let length = 1 + self.random.up_to(2) as Offset;
            if let Some(log) = self.log_mut(tp, id) {
                log.end += length;
            }
        }
    }

    fn note_end(&mut self, entry: &mut Entry, tp: TopicPartition, id: TopicId) {
        if let Some(log) = self.log_mut(&tp, id) {
            let end = log.end;
            self.wake_readers(&tp, |config| config.view == View::Applied);
            entry.ends.push((tp, id, end));
        }
    }

    pub(super) fn settle_durable(&mut self) {
        while self.applied.front().is_some_and(|entry| entry.due <= self.steps) {
            if let Some(mut entry) = self.applied.pop_front() {
                self.make_durable(&entry);
                entry.due = self.steps + self.random.up_to(self.faults.sync_delay);
                self.durable.push_back(entry);
            }
        }
    }

    pub(super) fn settle_synced(&mut self) {
        while self.durable.front().is_some_and(|entry| entry.due <= self.steps) {
            if let Some(entry) = self.durable.pop_front() {
                self.make_synced(entry);
            }
        }
    }

    fn make_synced(&mut self, entry: Entry) {
        for (tp, id, end) in entry.ends {
            if let Some(log) = self.log_mut(&tp, id) {
                log.synced = log.synced.max(end);
            }
        }
        if let Some(commit) = entry.group {
            let group = self.groups.entry(commit.group).or_default();
            let exists = |(tp, _): &(TopicPartition, _)| self.topics.contains_key(&tp.topic);
            group.synced.extend(commit.offsets.into_iter().filter(exists));
        }
        if let Source::Committer(key, ticket) = entry.source
            && let Some(committer) = self.committers.get_mut(&key)
        {
            committer.synced = Some(ticket);
            self.to_wake.push(committer.waker.clone());
        }
    }

    fn make_durable(&mut self, entry: &Entry) {
        for (tp, id, end) in &entry.ends {
            if let Some(log) = self.log_mut(tp, *id) {
                log.durable = log.durable.max(*end);
                self.wake_readers(tp, |config| config.view == View::Durable);
            }
        }
        match entry.source {
            Source::Committer(key, ticket) => {
                if let Some(committer) = self.committers.get_mut(&key) {
                    committer.resolve(TransactorEvent::Durable { ticket });
                    self.to_wake.push(committer.waker.clone());
                }
            }
            Source::Writer(key, ticket) => {
                if let Some(writer) = self.writers.get_mut(&key) {
                    let base_offset = entry.base_offsets.first().copied();
                    writer.resolve(match (entry.failing, base_offset) {
                        (None, Some(base_offset)) if base_offset >= 0 => {
                            ProducerEvent::Appended { ticket, base_offset }
                        }
                        _ => super::producer::failed(ticket),
                    });
                    self.to_wake.push(writer.waker.clone());
                }
            }
            Source::Nobody => {}
        }
    }

    /// Loses the outcome of all commits that a transactor has in flight: of those that are not yet
    /// applied, only the first `taken` will be. False if it has none in flight.
    pub(super) fn put_in_doubt(&mut self, key: u64, taken: usize) -> bool {
        let Some(committer) = self.committers.get_mut(&key).filter(|c| !c.tickets.is_empty())
        else {
            return false;
        };
        let is_its = |entry: &Entry| matches!(entry.source, Source::Committer(k, _) if k == key);
        self.applied.iter_mut().filter(|e| is_its(e)).for_each(|e| e.source = Source::Nobody);
        let mut left = taken;
        self.accepted.retain_mut(|entry| {
            if !is_its(entry) {
                return true;
            }
            entry.source = Source::Nobody;
            let stays = left > 0;
            left = left.saturating_sub(1);
            stays
        });
        committer.doubt_all();
        self.to_wake.push(committer.waker.clone());
        true
    }

    pub(super) fn wake_readers(
        &mut self,
        tp: &TopicPartition,
        sees: impl Fn(FetcherConfig) -> bool,
    ) {
        let concerned = |r: &&super::fetcher::Reader| sees(r.config) && r.reads(tp);
        let woken = self.readers.values().filter(concerned).map(|r| r.waker.clone());
        self.to_wake.extend(woken);
    }

    /// Wakes those whose time has come: delayed fetches, and writers that were told to try again.
    pub(super) fn wake_delayed(&mut self) {
        let Self { readers, committers, writers, to_wake, steps, .. } = self;
        let ready = readers.values().filter(|r| r.ready_at == *steps);
        to_wake.extend(ready.map(|r| r.waker.clone()));
        for committer in committers.values_mut() {
            if std::mem::take(&mut committer.told_full) {
                to_wake.push(committer.waker.clone());
            }
        }
        for writer in writers.values_mut() {
            if std::mem::take(&mut writer.told_full) {
                to_wake.push(writer.waker.clone());
            }
        }
    }
}
