//! Records that say what could not be handled.

use broker_api::{Header, Timestamp};
use bytes::Bytes;

use super::Failure;
use crate::error::ProcessError;

/// A record to be written instead of what was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where to: the `dead_letter_topic` (`None`), or another topic that the topology names.
    pub topic: Option<String>,
    /// The encoded key, which chooses the partition.
    pub key: Option<Bytes>,
    /// The encoded value.
    pub value: Option<Bytes>,
    /// The timestamp.
    pub timestamp: Timestamp,
    /// The headers.
    pub headers: Vec<Header>,
}

impl DeadLetter {
    /// The usual dead letter, as Kafka Streams writes it: key, value, timestamp and headers of the
    /// input record, then six headers `__streams.errors.*` with the error (`exception`, `message`,
    /// `stacktrace`) and the place (`topic`, `partition`, `offset`), all text. A punctuation, and a
    /// result that was held back, have neither key nor value, nor a topic, and -1 as partition and
    /// offset.
    pub fn of(failure: &Failure) -> Self {
        let record = failure.record.as_ref();
        let mut headers = record.map_or_else(Vec::new, |record| record.headers.clone());
        let partition = record.map_or(-1, |r| i64::from(r.partition.partition));
        let offset = record.map_or(-1, |r| r.offset);
        let fields = [
            ("exception", Some(failure.error.kind().to_owned())),
            ("message", Some(failure.error.to_string())),
            ("stacktrace", Some(trace(failure))),
            ("topic", record.map(|r| r.partition.topic.to_string())),
            ("partition", Some(partition.to_string())),
            ("offset", Some(offset.to_string())),
        ];
        headers.extend(fields.map(|(name, value)| Header {
            name: format!("__streams.errors.{name}"),
            value: value.map(Bytes::from),
        }));
        Self {
            topic: None,
            key: record.and_then(|r| r.key.clone()),
            value: record.and_then(|r| r.value.clone()),
            timestamp: record.map_or(failure.wall_clock, |r| r.timestamp.max(0)),
            headers,
        }
    }

    /// The same for another topic, which the topology must name as a source or a sink.
    pub fn to(self, topic: impl Into<String>) -> Self {
        Self { topic: Some(topic.into()), ..self }
    }
}

/// Where it happened: the error, the node where it is known, the task, the record.
fn trace(failure: &Failure) -> String {
    let mut lines = vec![format!("{}: {}", failure.error.kind(), failure.error)];
    if let ProcessError::User { node, .. } | ProcessError::Panic { node: Some(node), .. } =
        &failure.error
    {
        lines.push(format!("at node {node}"));
    }
    lines.push(format!("in task {}", failure.task));
    lines.push(match &failure.record {
        Some(record) => format!("with {record}"),
        None if failure.held_back => "with a result that was held back".into(),
        None if matches!(failure.error, ProcessError::Commit { .. }) => "in a commit".into(),
        None => "in a punctuation".into(),
    });
    lines.join("\n  ")
}
