//! What a windowed store does beyond storing, and the settings of its changelog.

use broker_api::{CleanupPolicy, RetentionBy, Timestamp, TopicConfig};

/// What a windowed store does beyond storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowedOptions {
    /// Changes are written to a changelog.
    pub logged: bool,
    /// Changes are forwarded at the seal, merged by key and window (caching), as with
    /// [`StoreOptions::forward_on_seal`](crate::state::StoreOptions::forward_on_seal).
    pub forward_on_seal: bool,
    /// Forwarded changes come with the value before.
    pub keep_old: bool,
    /// How long windows are kept, in milliseconds of stream time.
    pub retention: Timestamp,
    /// Windows are also found by time, whatever their key.
    pub by_time: bool,
    /// Values are added beside each other ([`add`](super::WindowStore::add)) and none is ever replaced,
    /// as in the stores of a join: there is nothing to compact in the changelog.
    pub duplicates: bool,
    /// Nearly all is asked for one window at a time ([`get`](super::WindowStore::get),
    /// [`put`](super::WindowStore::put)), as for counts in tumbling and hopping windows. That is then
    /// several times faster, and scans are slower. Of no effect on sessions, and with `by_time`.
    pub points: bool,
    /// Operators look into it for updates that may come late: what has expired is kept for them, and
    /// only for them, until the store's time has gone on by as many milliseconds more. 0: nobody does.
    pub look_back: Timestamp,
}

/// A changelog keeps what has expired for a day more, as in Kafka.
const DAY: Timestamp = 24 * 60 * 60 * 1000;

impl WindowedOptions {
    /// Logged, not forwarded at the seal, without old values, not found by time, not looked into; kept for
    /// `retention` milliseconds.
    pub fn new(retention: Timestamp) -> Self {
        Self {
            logged: true,
            forward_on_seal: false,
            keep_old: false,
            retention,
            by_time: false,
            duplicates: false,
            points: false,
            look_back: 0,
        }
    }

    /// The settings of the changelog of such a store. It is compacted, unless there is nothing to
    /// compact, and records go when they are older than the newest one by the retention and a day: by
    /// the time of records and not by the wall clock, or what comes of input of last year would
    /// be gone at once. With windows longer than a day (`size`, in milliseconds) it is the retention and
    /// a window, as a window counts by its start, and may have been updated up to its end. It is more
    /// where operators look back further than that.
    pub fn changelog(&self, size: Timestamp) -> TopicConfig {
        // An entry is looked for until the third mark after it has expired; its last update came up to a
        // window after its start.
        let seen = self.look_back.saturating_mul(3).saturating_add(size);
        let more = match self.look_back {
            0 => size.max(DAY),
            _ => size.max(DAY).max(seen),
        };
        let retention = self.retention.saturating_add(more);
        TopicConfig {
            cleanup_policy: match self.duplicates {
                true => CleanupPolicy::Delete,
                false => CleanupPolicy::CompactDelete,
            },
            retention_ms: Some(u64::try_from(retention).unwrap_or_default()),
            retention_by: RetentionBy::StreamTime,
            ..TopicConfig::default()
        }
    }
}
