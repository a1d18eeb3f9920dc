//! An admin that lies about how far something is.

use std::sync::Arc;

use async_trait::async_trait;
use broker_api::{
    Admin, CommittedOffset, Error, Horizon, NewTopic, Offset, OffsetSpec, TopicConfig,
    TopicDescription, TopicId, TopicPartition,
};

pub(crate) struct BrokenAdmin {
    pub(crate) inner: Arc<dyn Admin>,
    /// Whether everything is said to be synced at once, or else every partition to be empty.
    pub(crate) about_syncs: bool,
}

#[async_trait]
impl Admin for BrokenAdmin {
    async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, Error> {
        self.inner.create_topic(topic).await
    }

    async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.inner.delete_topic(name).await
    }

    async fn topics(&self) -> Result<Vec<TopicDescription>, Error> {
        self.inner.topics().await
    }

    async fn topic(&self, name: &str) -> Result<TopicDescription, Error> {
        self.inner.topic(name).await
    }

    async fn configure_topic(&self, name: &str, config: TopicConfig) -> Result<(), Error> {
        self.inner.configure_topic(name, config).await
    }

    async fn offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<Vec<Offset>, Error> {
        let mut offsets = self.inner.offsets(partitions).await?;
        let asked = partitions.iter().map(|(_, spec)| *spec);
        for (offset, spec) in offsets.iter_mut().zip(asked) {
            if !self.about_syncs && spec == OffsetSpec::Stable {
                *offset = 0;
            }
        }
        Ok(offsets)
    }

    async fn groups(&self) -> Result<Vec<String>, Error> {
        self.inner.groups().await
    }

    async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, Error> {
        self.inner.group_offsets(group).await
    }

    async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, Error> {
        self.inner.delete_records(partition, before).await
    }

    async fn sync(&self) -> Result<(), Error> {
        if self.about_syncs { Ok(()) } else { self.inner.sync().await }
    }

    async fn horizon(&self, partition: &TopicPartition) -> Result<Horizon, Error> {
        self.inner.horizon(partition).await
    }

    async fn cluster_id(&self) -> Result<String, Error> {
        self.inner.cluster_id().await
    }
}
