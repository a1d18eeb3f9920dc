//! Reading: a fetcher holds its partitions and polls them fairly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use broker_api::{
    Batch, Error, Fetched, Fetcher, FetcherConfig, Offset, Start, TopicPartition, View,
};

use crate::broker::Client;
use crate::sequencer::partition::{Bounds, Found, Partition, Subscriber};

/// The reader of the embedded broker.
pub(crate) struct EmbeddedFetcher {
    client: Client,
    view: View,
    waker: Waker,
    slots: Vec<Slot>,
    /// Which partition comes first in the next poll.
    turn: usize,
}

/// An assigned partition.
struct Slot {
    partition: Arc<Partition>,
    position: Position,
    paused: bool,
    /// What was said last: nothing yet, or whether the position was at the end.
    reported: Option<bool>,
    subscriber: Arc<Subscriber>,
}

#[derive(Clone, Copy)]
enum Position {
    /// The start of the log, wherever it is by the first poll.
    Earliest,
    At(Offset),
}

impl EmbeddedFetcher {
    pub(crate) fn new(client: Client, config: FetcherConfig, waker: Waker) -> Self {
        Self { client, view: config.view, waker, slots: Vec::new(), turn: 0 }
    }

    fn slots_of(&mut self, partitions: &[TopicPartition]) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().filter(|slot| partitions.contains(&slot.partition.name))
    }

    /// What there is to report of all partitions, in turn.
    fn collect(&mut self, max_bytes: usize) -> Result<Vec<Fetched>, Error> {
        let count = self.slots.len();
        let view = self.view;
        let ready = self.slots.iter().filter(|slot| slot.has_data(view)).count();
        let share = max_bytes / ready.max(1);
        let (mut found, mut left) = (Vec::new(), max_bytes);
        let first = self.turn;
        for i in 0..count {
            let at = (first + i) % count;
            let slot = &mut self.slots[at];
            if slot.paused {
                continue;
            }
            // Nothing left: what remains is only told that it reached its end.
            let limit = if left == 0 { None } else { Some(share.min(left)) };
            match slot.poll(view, limit) {
                Ok(None) => {}
                Ok(Some(fetched)) => {
                    let bytes: usize = fetched.batches.iter().map(|b| b.bytes().len()).sum();
                    left = left.saturating_sub(bytes);
                    found.push(fetched);
                }
                // The others' batches are not held up: the error comes first in the next poll.
                Err(_) if !found.is_empty() => {
                    self.turn = at;
                    return Ok(found);
                }
                Err(error) => {
                    self.turn = (at + 1) % count;
                    return Err(error);
                }
            }
        }
        self.turn = if count == 0 { 0 } else { (first + 1) % count };
        Ok(found)
    }
}

impl Fetcher for EmbeddedFetcher {
    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), Error> {
        let found = {
            let sequencer = self.client.core().lock();
            partitions
                .iter()
                .map(|(tp, start)| Ok((sequencer.state.find(tp)?.1.clone(), *start)))
                .collect::<Result<Vec<_>, Error>>()?
        };
        for (partition, start) in found {
            let moved = std::slice::from_ref(&partition.name);
            let paused = self.slots_of(moved).any(|slot| slot.paused);
            self.unassign(moved);
            let position = match start {
                Start::Earliest => Position::Earliest,
                Start::Latest => Position::At(partition.bounds(self.view).view_end),
                Start::At(offset) => Position::At(offset),
            };
            let subscriber = Arc::new(Subscriber {
                view: self.view,
                armed: AtomicBool::new(false),
                waker: self.waker.clone(),
            });
            partition.subscribe(subscriber.clone());
            self.slots.push(Slot { partition, position, paused, reported: None, subscriber });
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        self.slots.retain(|slot| {
            let stays = !partitions.contains(&slot.partition.name);
            if !stays {
                slot.partition.unsubscribe(&slot.subscriber);
            }
            stays
        });
        self.turn = 0;
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.slots_of(partitions).for_each(|slot| slot.paused = true);
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.slots_of(partitions).for_each(|slot| slot.paused = false);
    }

    fn poll(&mut self, max_bytes: usize) -> Poll<Result<Vec<Fetched>, Error>> {
        loop {
            match self.collect(max_bytes) {
                Ok(found) if found.is_empty() => {}
                result => return Poll::Ready(result),
            }
            // First ask to be woken, then look again: nothing slips in between.
            let view = self.view;
            for slot in self.slots.iter().filter(|slot| !slot.paused) {
                slot.subscriber.armed.store(true, Ordering::SeqCst);
            }
            if !self.slots.iter().any(|slot| slot.has_data(view)) {
                let stopped = self.client.core().stopped();
                return stopped.map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
            }
        }
    }
}

impl Drop for EmbeddedFetcher {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.partition.unsubscribe(&slot.subscriber);
        }
    }
}

impl Slot {
    /// Whether a poll would find batches, or an error.
    fn has_data(&self, view: View) -> bool {
        let bounds = self.partition.bounds(view);
        let position = self.position.resolve(&bounds);
        !self.paused
            && (position < bounds.view_end || position < bounds.log_start || bounds.deleted)
    }

    /// What is new here; `max_bytes` of batches, or only the news that the end is reached.
    fn poll(&mut self, view: View, max_bytes: Option<usize>) -> Result<Option<Fetched>, Error> {
        let asked = self.position;
        let (bounds, found) = match max_bytes {
            Some(max_bytes) => self.partition.find(|bounds| asked.resolve(bounds), view, max_bytes),
            None => (self.partition.bounds(view), Found::Nothing),
        };
        let name = &self.partition.name;
        if bounds.deleted {
            return Err(Error::UnknownTopic { topic: name.topic.to_string() });
        }
        let position = asked.resolve(&bounds);
        if position < bounds.log_start || position > bounds.end {
            return Err(Error::OffsetOutOfRange {
                partition: name.clone(),
                offset: position,
                log_start: bounds.log_start,
                end: bounds.end,
            });
        }
        let (batches, position) = match (found, max_bytes) {
            (Found::Batches(batches), _) => {
                let next = batches.last().map_or(position, Batch::next_offset);
                (batches, next)
            }
            // Compaction may have left nothing up to where reading goes on.
            (Found::OnDisk(read), _) => match read.read(name) {
                // Its files went with the topic.
                Err(_) if self.partition.bounds(view).deleted => {
                    return Err(Error::UnknownTopic { topic: name.topic.to_string() });
                }
                read => read?,
            },
            (Found::Nothing, Some(_)) => (Vec::new(), position.max(bounds.view_end)),
            (Found::Nothing, None) => (Vec::new(), position),
        };
        let moved = matches!(asked, Position::At(from) if from != position);
        let at_end = position >= bounds.view_end;
        if batches.is_empty() && !moved && self.reported.is_some_and(|last| last || !at_end) {
            return Ok(None);
        }
        self.position = Position::At(position);
        self.reported = Some(at_end);
        Ok(Some(Fetched {
            partition: name.clone(),
            batches,
            position,
            stable_end: bounds.view_end,
            log_start: bounds.log_start,
            at_end,
        }))
    }
}

impl Position {
    fn resolve(self, bounds: &Bounds) -> Offset {
        match self {
            Self::Earliest => bounds.log_start,
            Self::At(offset) => offset,
        }
    }
}
