//! Readers.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};

use super::Shared;
use super::log::Log;
use super::state::State;
use crate::{Error, Fetched, Fetcher, FetcherConfig, Offset, Start, TopicId, TopicPartition, View};

/// An assigned partition.
struct Assigned {
    topic: TopicId,
    position: Offset,
    paused: bool,
    /// What was last reported of it; nothing since it was assigned.
    reported: Option<(Offset, bool)>,
}

/// A fetcher as the broker knows it.
pub(super) struct Reader {
    pub(super) config: FetcherConfig,
    pub(super) waker: Waker,
    assigned: BTreeMap<TopicPartition, Assigned>,
    /// Whose turn it is to be read first.
    turn: usize,
    /// A fetch is under way until this step.
    pub(super) ready_at: u64,
}

impl Reader {
    pub(super) fn reads(&self, tp: &TopicPartition) -> bool {
        self.assigned.get(tp).is_some_and(|assigned| !assigned.paused)
    }
}

/// The handle.
pub(super) struct SimFetcher {
    shared: Shared,
    key: u64,
}

impl SimFetcher {
    pub(super) fn open(
        shared: &Shared,
        config: FetcherConfig,
        waker: Waker,
    ) -> Result<Self, Error> {
        let key = shared.with(|state| {
            state.check_open()?;
            if config.view == View::Applied && !state.capabilities.applied_view {
                return Err(Error::InvalidConfig {
                    name: "view".into(),
                    value: "applied".into(),
                    expected: "durable, because this broker has no applied view".into(),
                });
            }
            let assigned = BTreeMap::new();
            let reader = Reader { config, waker, assigned, turn: 0, ready_at: 0 };
            let key = state.number();
            state.readers.insert(key, reader);
            Ok(key)
        })?;
        Ok(Self { shared: shared.clone(), key })
    }

    fn change(&self, partitions: &[TopicPartition], change: impl Fn(&mut Reader, &TopicPartition)) {
        self.shared.with(|state| {
            if let Some(reader) = state.readers.get_mut(&self.key) {
                partitions.iter().for_each(|tp| change(reader, tp));
                // Whoever waits may have something to read now.
                state.to_wake.push(reader.waker.clone());
            }
        });
    }
}

impl State {
    fn assign(&mut self, key: u64, partitions: &[(TopicPartition, Start)]) -> Result<(), Error> {
        let config = self.readers.get(&key).ok_or(Error::Closed)?.config;
        let place = |(tp, start): &(TopicPartition, Start)| {
            let log = self.log(tp)?;
            let position = match *start {
                Start::Earliest => log.horizon.log_start,
                Start::Latest => log.visible(config),
                Start::At(offset) => offset,
            };
            let topic = self.topic(&tp.topic)?.id;
            let assigned = Assigned { topic, position, paused: false, reported: None };
            Ok((tp.clone(), assigned))
        };
        let places = partitions.iter().map(place).collect::<Result<Vec<_>, Error>>()?;
        if let Some(reader) = self.readers.get_mut(&key) {
            for (tp, mut assigned) in places {
                assigned.paused = reader.assigned.get(&tp).is_some_and(|before| before.paused);
                reader.assigned.insert(tp, assigned);
            }
            self.to_wake.push(reader.waker.clone());
        }
        Ok(())
    }

    fn fetch(&mut self, key: u64, max_bytes: usize) -> Poll<Result<Vec<Fetched>, Error>> {
        if let Err(error) = self.check_open() {
            return Poll::Ready(Err(error));
        }
        let Some(mut reader) = self.readers.remove(&key) else {
            return Poll::Ready(Err(Error::Closed));
        };
        let fetched = self.fetch_for(&mut reader, max_bytes);
        self.readers.insert(key, reader);
        match fetched {
            Ok(fetched) if fetched.is_empty() => Poll::Pending,
            other => Poll::Ready(other),
        }
    }

    fn fetch_for(&mut self, reader: &mut Reader, max_bytes: usize) -> Result<Vec<Fetched>, Error> {
        let delay = self.random.up_to(self.faults.fetch_delay);
        if delay > 0 && self.steps > reader.ready_at {
            reader.ready_at = self.steps + delay;
        }
        if self.steps < reader.ready_at {
            return Ok(Vec::new());
        }
        let readable = reader.assigned.iter().filter(|(_, assigned)| !assigned.paused);
        readable.clone().try_for_each(|(tp, assigned)| self.check_position(tp, assigned))?;
        let mut order: Vec<TopicPartition> = readable.map(|(tp, _)| tp.clone()).collect();
        if order.is_empty() {
            return Ok(Vec::new());
        }
        let turn = reader.turn % order.len();
        order.rotate_left(turn);
        reader.turn = turn + 1;
        let (mut fetched, mut used) = (Vec::new(), 0);
        for tp in order {
            if let Some(assigned) = reader.assigned.get_mut(&tp)
                && let Some(found) = self.read(&tp, assigned, reader.config, max_bytes, &mut used)
            {
                fetched.push(found);
            }
        }
        Ok(fetched)
    }

    fn check_position(&self, tp: &TopicPartition, assigned: &Assigned) -> Result<(), Error> {
        let log = self.log(tp)?;
        if self.topic(&tp.topic)?.id != assigned.topic {
            return Err(Error::UnknownTopic { topic: tp.topic.to_string() });
        }
        let (log_start, end, offset) = (log.horizon.log_start, log.end, assigned.position);
        if offset < log_start || offset > end {
            return Err(Error::OffsetOutOfRange { partition: tp.clone(), offset, log_start, end });
        }
        Ok(())
    }

    /// What there is to report of one partition.
    fn read(
        &mut self,
        tp: &TopicPartition,
        assigned: &mut Assigned,
        config: FetcherConfig,
        max_bytes: usize,
        used: &mut usize,
    ) -> Option<Fetched> {
        let stop_early = self.random.happens(self.faults.short_fetches);
        let redeliver = self.random.happens(self.faults.redelivery);
        let log: &Log = self.topics.get(&tp.topic)?.logs.get(tp.partition as usize)?;
        let visible = log.visible(config);
        let first = log.find(assigned.position);
        let mut batches = Vec::new();
        let mut position = assigned.position.max(visible);
        for batch in log.batches[first..].iter().take_while(|b| b.next_offset() <= visible) {
            let size = batch.bytes().len();
            let over = *used > 0 && *used + size > max_bytes;
            if over || (stop_early && !batches.is_empty()) {
                position = batches.last().map_or(assigned.position, crate::Batch::next_offset);
                break;
            }
            *used += size;
            batches.push(batch.clone());
        }
        if redeliver && !batches.is_empty() && first > 0 && assigned.reported.is_some() {
            let again = log.batches[first - 1].clone();
            *used += again.bytes().len();
            batches.insert(0, again);
        }
        let at_end = position >= visible;
        let news = match assigned.reported {
            None => true,
            Some((before, was_at_end)) => position != before || (at_end && !was_at_end),
        };
        assigned.position = position;
        news.then(|| {
            assigned.reported = Some((position, at_end));
            Fetched {
                partition: tp.clone(),
                batches,
                position,
                stable_end: visible,
                log_start: log.horizon.log_start,
                at_end,
            }
        })
    }
}

impl Fetcher for SimFetcher {
    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), Error> {
        self.shared.with(|state| state.assign(self.key, partitions))
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        self.change(partitions, |reader, tp| reader.assigned.retain(|assigned, _| assigned != tp));
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.change(partitions, |reader, tp| {
            reader.assigned.entry(tp.clone()).and_modify(|assigned| assigned.paused = true);
        });
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.change(partitions, |reader, tp| {
            reader.assigned.entry(tp.clone()).and_modify(|assigned| assigned.paused = false);
        });
    }

    fn poll(&mut self, max_bytes: usize) -> Poll<Result<Vec<Fetched>, Error>> {
        self.shared.with(|state| state.fetch(self.key, max_bytes))
    }
}

impl Drop for SimFetcher {
    fn drop(&mut self) {
        self.shared.with(|state| state.readers.remove(&self.key));
    }
}
