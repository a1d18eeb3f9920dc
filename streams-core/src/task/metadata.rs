//! The text that rides with every committed offset: times that must survive a restart.
//!
//! Layout, version 1: `1;<partition time>;<stream time>`, both in decimal.

use broker_api::Timestamp;

/// What is remembered of a partition besides its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetMetadata {
    /// The highest timestamp read from the partition; -1: none yet.
    pub partition_time: Timestamp,
    /// The stream time of the task; -1: none yet.
    pub stream_time: Timestamp,
}

impl OffsetMetadata {
    /// Nothing was read yet.
    pub const NONE: Self = Self { partition_time: -1, stream_time: -1 };

    /// As text.
    pub fn encode(self) -> String {
        format!("1;{};{}", self.partition_time, self.stream_time)
    }

    /// From text. What is not understood counts as nothing: times are then learnt anew.
    pub fn decode(text: &str) -> Self {
        let mut parts = text.split(';');
        let mut next = || parts.next()?.parse::<Timestamp>().ok();
        match (next(), next(), next()) {
            (Some(1), Some(partition_time), Some(stream_time)) => {
                Self { partition_time, stream_time }
            }
            _ => Self::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_and_foreign_text_is_ignored() {
        let times = OffsetMetadata { partition_time: 17, stream_time: 23 };
        assert_eq!(times.encode(), "1;17;23");
        assert_eq!(OffsetMetadata::decode("1;17;23"), times);
        for foreign in ["", "AQAB", "2;17;23", "1;17", "1;x;2"] {
            assert_eq!(OffsetMetadata::decode(foreign), OffsetMetadata::NONE, "{foreign}");
        }
    }
}
