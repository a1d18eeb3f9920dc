//! The settings of the embedded broker, with the defaults that a careful operator would choose.

use std::time::Duration;

use broker_api::Error;

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged data survives a power cut: it was synced.
    #[default]
    Synced,
    /// Acknowledged data survives the death of the process, and was handed to the operating
    /// system, which a power cut may outrun (as Kafka's default). Synced soon after.
    Os,
}

/// The settings of the embedded broker. All sizes are bytes.
///
/// ```
/// use broker_embedded::{Durability, Settings};
/// let settings = Settings { durability: Durability::Os, ..Settings::default() };
/// assert_eq!(settings.max_commit_bytes, 64 << 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What an acknowledgement means. Default: [`Durability::Synced`].
    pub durability: Durability,
    /// A journal file is retired when it is larger than this. Default: 256 MiB.
    pub journal_file_bytes: u64,
    /// How many retired journal files are kept before what they still hold is copied to segments.
    /// Default: 2.
    pub retired_journal_files: usize,
    /// Newest batches that are kept in memory, over all partitions. Default: 64 MiB.
    pub memory_tail_bytes: usize,
    /// Accepted but not yet durable data; above it, submissions are refused with `Full`.
    /// Default: 128 MiB.
    pub max_queued_bytes: usize,
    /// The largest commit. Default: 64 MiB.
    pub max_commit_bytes: usize,
    /// The journal writer puts no more than this (or one entry) into one frame. Default: 8 MiB.
    pub max_frame_bytes: usize,
    /// A segment file is closed when it is larger than this. Default: 256 MiB.
    pub segment_bytes: u64,
    /// How many segment files are open at most, but for those that a compaction is about to replace.
    /// The others are opened again when they are read. A file that is read in long stretches takes
    /// two descriptors. Default: 256.
    pub max_open_segments: usize,
    /// The memory that a compaction takes for keys; with more keys than fit, it reads its input
    /// several times. Default: 64 MiB.
    pub compaction_memory_bytes: usize,
    /// Disk space kept aside, so that on a full disk commits of input that was already read,
    /// deletions and retention still go through. 0: none. Default: 16 MiB.
    pub reserve_bytes: u64,
    /// How long nothing must come before the journal is sealed, which proves to a later recovery
    /// that all of it was durable. Default: 50 ms.
    pub seal_after: Duration,
    /// With [`Durability::Os`]: the longest time between a write and its sync. Default: 100 ms.
    pub sync_every: Duration,
    /// A transactional id that was not used for so long, and has no transactor, is forgotten (Kafka's
    /// `transactional.id.expiration.ms`). [`Duration::MAX`]: never. Default: 7 days.
    pub transactional_id_expiration: Duration,
    /// A group that has not committed for so long, and has had no member, is forgotten with its
    /// offsets (Kafka's `offsets.retention.minutes`, there 7 days). Default: [`Duration::MAX`], never:
    /// an application that was stopped for longer would begin anew, on top of the state it has.
    pub offsets_retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            journal_file_bytes: 256 << 20,
            retired_journal_files: 2,
            memory_tail_bytes: 64 << 20,
            max_queued_bytes: 128 << 20,
            max_commit_bytes: 64 << 20,
            max_frame_bytes: 8 << 20,
            segment_bytes: 256 << 20,
            max_open_segments: 256,
            compaction_memory_bytes: 64 << 20,
            reserve_bytes: 16 << 20,
            seal_after: Duration::from_millis(50),
            sync_every: Duration::from_millis(100),
            transactional_id_expiration: Duration::from_secs(7 * 24 * 60 * 60),
            offsets_retention: Duration::MAX,
        }
    }
}

impl Settings {
    /// Checks that the settings are possible together.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let check = |possible: bool, name: &str, value: u64, expected: &str| {
            let (name, value, expected) = (name.into(), value.to_string(), expected.into());
            if possible { Ok(()) } else { Err(Error::InvalidConfig { name, value, expected }) }
        };
        // A frame may take a file past its size by a whole commit; places in it are 32 bits.
        let file = self.journal_file_bytes;
        let possible = (8 << 10..=2 << 30).contains(&file);
        check(possible, "journal_file_bytes", file, "8 KiB to 2 GiB")?;
        let commit = self.max_commit_bytes;
        let possible = (1..=512 << 20).contains(&commit);
        check(possible, "max_commit_bytes", commit as u64, "1 to 512 MiB")?;
        let frame = self.max_frame_bytes;
        check(frame <= 512 << 20, "max_frame_bytes", frame as u64, "up to 512 MiB")
    }
}
