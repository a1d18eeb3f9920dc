//! Where reading of an input begins: at the committed offset, or where `auto_offset_reset` says.

use broker_api::{
    Admin, CommittedOffset, Error, Offset, OffsetSpec, Start, TaskId, TopicPartition,
};

use super::super::AutoOffsetReset;
use super::{StreamsError, ThreadEnv};

/// What the log of an input held when its task was opened.
#[derive(Clone, Copy)]
pub(in crate::runtime) struct Range {
    pub(in crate::runtime) log_start: Offset,
    /// The end that a durable reader sees.
    pub(in crate::runtime) stable: Offset,
    end: Offset,
}

/// Where reading of an input begins.
#[derive(Clone, Copy)]
pub(super) struct Beginning {
    pub(super) offset: Offset,
    /// Whether that was the end of its log, which will be another one when somebody asks again.
    pub(super) is_end: bool,
}

/// An input of a task.
pub(in crate::runtime) struct Input {
    pub(in crate::runtime) partition: TopicPartition,
    pub(in crate::runtime) range: Range,
}

impl ThreadEnv {
    /// The inputs of a task, as the broker has them.
    pub(in crate::runtime) async fn inputs(
        &self,
        id: TaskId,
        admin: &dyn Admin,
    ) -> Result<Vec<Input>, StreamsError> {
        self.ranges(self.partitions(id), admin).await
    }

    /// What the logs of inputs hold. A topic that is followed may be gone.
    pub(super) async fn ranges(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        admin: &dyn Admin,
    ) -> Result<Vec<Input>, StreamsError> {
        let mut inputs = Vec::new();
        for partition in partitions {
            let specs = [OffsetSpec::Earliest, OffsetSpec::Stable, OffsetSpec::Latest];
            let found = match admin.offsets(&specs.map(|spec| (partition.clone(), spec))).await {
                Err(Error::UnknownTopic { topic }) if self.topology.follows(&topic) => continue,
                found => found?,
            };
            if let [log_start, stable, end] = found[..] {
                inputs.push(Input { partition, range: Range { log_start, stable, end } });
            }
        }
        Ok(inputs)
    }

    /// The inputs of a task: a partition of each topic that has so many. (Repartition topics are not
    /// there before the topics are from which they are fed.)
    pub(super) fn partitions(&self, id: TaskId) -> impl Iterator<Item = TopicPartition> {
        let part = &self.topology.subtopologies()[id.subtopology as usize];
        let topics = part.sources.iter().filter_map(|topic| self.plan.topic(topic).ok());
        let has = topics.filter(move |topic| id.partition < topic.partitions);
        has.map(move |topic| TopicPartition::new(topic.name.clone(), id.partition))
    }

    /// The first offset to be processed of an input.
    pub(super) fn start_of(
        &self,
        input: &Input,
        committed: Option<&CommittedOffset>,
    ) -> Result<Beginning, StreamsError> {
        let Input { partition, range } = input;
        let at = |offset| Ok(Beginning { offset, is_end: false });
        let at_end = Ok(Beginning { offset: range.stable, is_end: true });
        let owned = self.plan.is_repartition(&partition.topic);
        let Some(committed) = committed else {
            let reset = self.settings.auto_offset_reset;
            return match if owned { AutoOffsetReset::Earliest } else { reset } {
                AutoOffsetReset::Earliest => at(range.log_start),
                AutoOffsetReset::Latest => at_end,
                AutoOffsetReset::None => Err(StreamsError::NoOffset {
                    application: self.settings.application_id.to_string(),
                    partition: partition.clone(),
                }),
            };
        };
        let offset = committed.offset;
        if (range.log_start..=range.end).contains(&offset) {
            return at(offset);
        }
        match self.reset(partition, offset, (range.log_start, range.end))? {
            Start::Latest => at_end,
            _ => at(range.log_start),
        }
    }

    /// Where to go on after an offset that is not in the log.
    pub(super) fn reset(
        &self,
        partition: &TopicPartition,
        offset: Offset,
        (log_start, end): (Offset, Offset),
    ) -> Result<Start, StreamsError> {
        let owned = self.plan.is_repartition(&partition.topic);
        let start = match self.settings.auto_offset_reset {
            AutoOffsetReset::Earliest if !owned => Start::Earliest,
            AutoOffsetReset::Latest if !owned => Start::Latest,
            _ => {
                return Err(StreamsError::OffsetLost {
                    application: self.settings.application_id.to_string(),
                    partition: partition.clone(),
                    offset,
                    log_start,
                    end,
                });
            }
        };
        tracing::warn!(%partition, offset, log_start, end, ?start, "the offset is not in the log any more; reading goes on elsewhere");
        Ok(start)
    }
}
