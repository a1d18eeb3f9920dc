//! Topics, settings, offsets.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;

use super::Shared;
use super::log::Log;
use super::state::{State, Topic};
use crate::types::check_topic_name;
use crate::{
    Admin, CommittedOffset, Error, Horizon, NewTopic, Offset, OffsetSpec, TopicConfig,
    TopicDescription, TopicId, TopicPartition,
};

pub(super) struct SimAdmin {
    pub(super) shared: Shared,
}

impl SimAdmin {
    /// Waits until `ready`, asking again at every step.
    async fn until(&self, mut ready: impl FnMut(&State) -> bool) -> Result<(), Error> {
        poll_fn(|context| {
            self.shared.with(|state| {
                if state.closed {
                    return Poll::Ready(Err(Error::Closed));
                }
                if ready(state) {
                    return Poll::Ready(Ok(()));
                }
                state.waiting_admins.push(context.waker().clone());
                Poll::Pending
            })
        })
        .await
    }

    /// Waits until what was accepted before the call has its place.
    async fn placed(&self) -> Result<(), Error> {
        let accepted = self.call(|state| Ok(state.accepted_count)).await?;
        self.until(|state| state.is_placed(accepted)).await
    }

    /// Answers after the delay that the faults ask for.
    async fn call<T>(
        &self,
        answer: impl FnOnce(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let due =
            self.shared.with(|state| state.steps + state.random.up_to(state.faults.admin_delay));
        self.until(|state| state.steps >= due).await?;
        self.shared.with(answer)
    }
}

fn describe(name: &Arc<str>, topic: &Topic) -> TopicDescription {
    TopicDescription {
        name: name.clone(),
        id: topic.id,
        partitions: topic.logs.len() as u32,
        config: topic.config.clone(),
    }
}

impl State {
    fn create(&mut self, topic: NewTopic) -> Result<TopicId, Error> {
        check_topic_name(&topic.name)?;
        if topic.partitions == 0 {
            return Err(Error::InvalidConfig {
                name: "partitions".into(),
                value: "0".into(),
                expected: "at least 1".into(),
            });
        }
        let NewTopic { name, partitions, config } = topic;
        if self.topics.contains_key(name.as_str()) {
            return Err(Error::TopicExists { topic: name });
        }
        let id = TopicId(u128::from(self.number()));
        let logs = vec![Log::default(); partitions as usize];
        self.topics.insert(name.into(), Topic { id, config, logs });
        Ok(id)
    }

    fn delete(&mut self, name: &str) -> Result<(), Error> {
        let partitions = self.topic(name)?.logs.len();
        self.topics.remove(name);
        for group in self.groups.values_mut() {
            group.applied.retain(|tp, _| *tp.topic != *name);
            group.synced.retain(|tp, _| *tp.topic != *name);
        }
        for p in 0..partitions {
            self.wake_readers(&TopicPartition::new(name, p as u32), |_| true);
        }
        Ok(())
    }

    /// Whether the records below `before` may be deleted; gives the topic's identity.
    fn check_deletion(&self, tp: &TopicPartition, before: Offset) -> Result<TopicId, Error> {
        let log = self.log(tp)?;
        let (log_start, end) = (log.horizon.log_start, log.end);
        if !(0..=end).contains(&before) {
            let (partition, offset) = (tp.clone(), before);
            return Err(Error::OffsetOutOfRange { partition, offset, log_start, end });
        }
        Ok(self.topic(&tp.topic)?.id)
    }

    fn offset(&self, tp: &TopicPartition, spec: OffsetSpec) -> Result<Offset, Error> {
        let log = self.log(tp)?;
        Ok(match spec {
            OffsetSpec::Earliest => log.horizon.log_start,
            OffsetSpec::Stable => log.stable(),
            OffsetSpec::Latest => log.end,
            OffsetSpec::AppendedAfter(time) => log.appended_after(time),
        })
    }
}

#[async_trait]
impl Admin for SimAdmin {
    async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, Error> {
        self.call(|state| state.create(topic)).await
    }

    async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.call(|state| state.delete(name)).await
    }

    async fn topics(&self) -> Result<Vec<TopicDescription>, Error> {
        self.call(|state| Ok(state.topics.iter().map(|(n, t)| describe(n, t)).collect())).await
    }

    async fn topic(&self, name: &str) -> Result<TopicDescription, Error> {
        self.call(|state| Ok(describe(&name.into(), state.topic(name)?))).await
    }

    async fn configure_topic(&self, name: &str, config: TopicConfig) -> Result<(), Error> {
        self.call(|state| {
            state.topic(name)?;
            state.topics.entry(name.into()).and_modify(|topic| topic.config = config);
            Ok(())
        })
        .await
    }

    async fn offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<Offset>, Error> {
        self.call(|state| partitions.iter().map(|(tp, spec)| state.offset(tp, *spec)).collect())
            .await
    }

    async fn groups(&self) -> Result<Vec<String>, Error> {
        self.placed().await?;
        self.shared.with(|state| {
            let committed = state.groups.iter().filter(|(_, group)| !group.applied.is_empty());
            Ok(committed.map(|(name, _)| name.to_string()).collect())
        })
    }

    async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, Error> {
        self.placed().await?;
        self.shared.with(|state| {
            let group = state.groups.get(group);
            Ok(group.map(|g| g.applied.clone().into_iter().collect()).unwrap_or_default())
        })
    }

    async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, Error> {
        let id = self.call(|state| state.check_deletion(partition, before)).await?;
        // What is not synced cannot be deleted yet.
        let settled = |log: &Log| log.synced >= before;
        self.until(|state| state.log(partition).map_or(true, settled)).await?;
        self.shared.with(|state| {
            state.wake_readers(partition, |_| true);
            if let Some(log) = state.log_mut(partition, id) {
                log.delete_below(before);
            }
            Ok(state.log(partition)?.horizon.log_start)
        })
    }

    async fn sync(&self) -> Result<(), Error> {
        let accepted = self.call(|state| Ok(state.accepted_count)).await?;
        self.until(|state| state.is_synced(accepted)).await
    }

    async fn horizon(&self, partition: &TopicPartition) -> Result<Horizon, Error> {
        self.call(|state| Ok(state.log(partition)?.horizon)).await
    }

    async fn cluster_id(&self) -> Result<String, Error> {
        self.call(|state| Ok(state.cluster_id.clone())).await
    }
}
