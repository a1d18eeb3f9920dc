//! Topics, settings, offsets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use broker_api::types::check_topic_name;
use broker_api::{
    Admin, CommittedOffset, Error, Horizon, NewTopic, Offset, OffsetSpec, TopicConfig,
    TopicDescription, TopicId, TopicPartition, View,
};

use crate::broker::Client;
use crate::journal::entry::Entry;
use crate::journal::writer::Step;
use crate::membership;
use crate::sequencer::partition::Partition;
use crate::sequencer::{Haste, Health, Need, Notify, Sequencer};

/// The most partitions that a topic may have: each costs memory, and a folder once it has segments.
pub const MAX_PARTITIONS: u32 = 100_000;

/// The admin of the embedded broker.
pub(crate) struct EmbeddedAdmin {
    pub(crate) client: Client,
}

impl EmbeddedAdmin {
    /// Makes a change and waits until it is synced.
    async fn change<T>(
        &self,
        need: Need,
        change: impl FnOnce(&mut Sequencer) -> Result<(Entry, T), Error> + Send,
    ) -> Result<T, Error> {
        let (lsn, answer) = self.client.core().with(|sequencer, wakes| {
            sequencer.admit(need)?;
            let (entry, answer) = change(sequencer)?;
            let topics = !matches!(entry, Entry::DeleteRecords { .. });
            let names = matches!(entry, Entry::TopicCreate { .. } | Entry::TopicDelete { .. });
            let lsn = sequencer.push(entry, Notify::Nobody, Haste::Now, wakes);
            if topics {
                sequencer.topics_lsn = lsn;
            }
            if names {
                membership::topics_changed(sequencer, wakes);
            }
            Ok::<_, Error>((lsn, answer))
        })?;
        self.synced(lsn).await?;
        Ok(answer)
    }

    /// Reads the state when all that is known of topics is synced.
    async fn read<T>(
        &self,
        read: impl FnOnce(&Sequencer) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let lsn = self.client.core().lock().topics_lsn;
        self.synced(lsn).await?;
        let sequencer = self.client.core().lock();
        match &sequencer.health {
            Health::Stopped(Error::Closed) => Err(Error::Closed),
            _ => read(&sequencer),
        }
    }

    fn synced(&self, lsn: u64) -> Synced<'_> {
        Synced { client: &self.client, lsn }
    }
}

/// Waits until the entries below a number are synced.
struct Synced<'a> {
    client: &'a Client,
    lsn: u64,
}

impl Synced<'_> {
    fn look(&self, waker: &Waker) -> Poll<Result<(), Error>> {
        let mut sequencer = self.client.core().lock();
        if sequencer.synced_lsn >= self.lsn {
            return Poll::Ready(Ok(()));
        }
        match &sequencer.health {
            // On closing, what is queued is still written.
            Health::Stopped(error) if *error != Error::Closed => Poll::Ready(Err(error.clone())),
            _ => {
                sequencer.wait_for(self.lsn, waker);
                Poll::Pending
            }
        }
    }
}

impl Future for Synced<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let core = self.client.core();
        if core.stepped {
            // Nobody else drives the journal while the simulation waits for this answer.
            while self.look(Waker::noop()).is_pending() && core.step_journal(false) == Step::Worked
            {
            }
        }
        self.look(cx.waker())
    }
}

#[async_trait]
impl Admin for EmbeddedAdmin {
    async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, Error> {
        check_topic_name(&topic.name)?;
        if topic.partitions == 0 || topic.partitions > MAX_PARTITIONS {
            return Err(Error::InvalidConfig {
                name: "partitions".into(),
                value: topic.partitions.to_string(),
                expected: format!("1 to {MAX_PARTITIONS}"),
            });
        }
        let core = self.client.core();
        let id = TopicId((u128::from(core.random()) << 64) | u128::from(core.random()));
        self.change(Need::New, move |sequencer| {
            if sequencer.state.topics.contains_key(topic.name.as_str()) {
                return Err(Error::TopicExists { topic: topic.name });
            }
            let (name, partitions, config) = (topic.name.into(), topic.partitions, topic.config);
            Ok((Entry::TopicCreate { id, name, partitions, config }, id))
        })
        .await
    }

    async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.change(Need::Reserve, |sequencer| {
            let id = sequencer.state.topic(name)?.id;
            Ok((Entry::TopicDelete { id }, ()))
        })
        .await?;
        self.client.core().topic_deleted();
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<TopicDescription>, Error> {
        self.read(|sequencer| Ok(sequencer.state.describe())).await
    }

    async fn topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let key: Arc<str> = name.into();
        self.read(|sequencer| Ok(sequencer.state.topic(name)?.describe(&key))).await
    }

    async fn configure_topic(&self, name: &str, config: TopicConfig) -> Result<(), Error> {
        self.change(Need::Reserve, |sequencer| {
            let id = sequencer.state.topic(name)?.id;
            Ok((Entry::TopicConfigure { id, config }, ()))
        })
        .await
    }

    async fn offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<Offset>, Error> {
        let found = self
            .read(|sequencer| {
                let find = |(tp, _): &(TopicPartition, OffsetSpec)| {
                    Ok(sequencer.state.find(tp)?.1.clone())
                };
                partitions.iter().map(find).collect::<Result<Vec<_>, Error>>()
            })
            .await?;
        let answer = |(partition, (_, spec)): (Arc<Partition>, &(TopicPartition, OffsetSpec))| {
            Ok(match spec {
                OffsetSpec::Earliest => partition.horizon().log_start,
                OffsetSpec::Stable => partition.bounds(View::Durable).view_end,
                OffsetSpec::Latest => partition.bounds(View::Applied).view_end,
                OffsetSpec::AppendedAfter(time) => partition.appended_after(*time)?,
            })
        };
        found.into_iter().zip(partitions).map(answer).collect()
    }

    async fn groups(&self) -> Result<Vec<String>, Error> {
        self.read(|sequencer| Ok(sequencer.state.group_names())).await
    }

    async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, Error> {
        self.read(|sequencer| Ok(sequencer.state.group_offsets(group))).await
    }

    async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, Error> {
        self.change(Need::Reserve, |sequencer| {
            let found = sequencer.state.find(partition)?.1.clone();
            let bounds = found.bounds(View::Applied);
            if before > bounds.end || before < 0 {
                return Err(Error::OffsetOutOfRange {
                    partition: partition.clone(),
                    offset: before,
                    log_start: bounds.log_start,
                    end: bounds.end,
                });
            }
            let before = before.max(bounds.log_start);
            Ok((Entry::DeleteRecords { partition: found, before }, before))
        })
        .await
    }

    async fn sync(&self) -> Result<(), Error> {
        let lsn = self.client.core().with(|sequencer, _| {
            sequencer.urgent |= !sequencer.queue.is_empty();
            sequencer.state.next_lsn
        });
        self.synced(lsn).await
    }

    async fn horizon(&self, partition: &TopicPartition) -> Result<Horizon, Error> {
        self.read(|sequencer| Ok(sequencer.state.find(partition)?.1.horizon())).await
    }

    async fn cluster_id(&self) -> Result<String, Error> {
        Ok(self.client.core().cluster_id.clone())
    }
}
