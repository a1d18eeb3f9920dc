//! Record batches in the layout of Kafka's message format v2: the unit that moves, is checksummed
//! and is stored.
//!
//! Records are appended to a [`BatchBuilder`], which becomes a [`Batch`]; a batch is read as
//! [`RecordRef`]s that borrow from it. The base offset stands outside the checksum, so that the
//! broker can assign it without touching the rest: here it is kept beside the bytes, and those say 0.
//!
//! ```
//! use broker_api::BatchBuilder;
//! let mut builder = BatchBuilder::new();
//! builder.push(1_000, Some(b"key"), Some(b"value"), &[])?;
//! let batch = builder.finish()?.assigned(42, 1_001);
//! let record = batch.records().next().unwrap()?;
//! assert_eq!((record.offset, record.timestamp), (42, 1_000));
//! assert_eq!((record.key, record.value), (Some(&b"key"[..]), Some(&b"value"[..])));
//! # Ok::<(), broker_api::Error>(())
//! ```
//!
//! Byte layout (big-endian; the CRC-32C covers everything from `attributes` on):
//!
//! | at | field | | at | field |
//! |---|---|---|---|---|
//! | 0 | base offset, i64 | | 27 | base timestamp, i64 |
//! | 8 | length of the rest, i32 | | 35 | max timestamp, i64 |
//! | 12 | partition leader epoch, i32 | | 43 | producer id, i64 |
//! | 16 | magic = 2, i8 | | 51 | producer epoch, i16 |
//! | 17 | crc, u32 | | 53 | base sequence, i32 |
//! | 21 | attributes, i16 | | 57 | record count, i32 |
//! | 23 | last offset delta, i32 | | 61 | records |

mod builder;
mod reader;
#[cfg(test)]
mod tests;
mod varint;

pub use builder::BatchBuilder;
pub use reader::{Batch, Cursor, Headers, RecordRef, Records};

/// The bytes of a batch before its first record.
pub const HEADER_LEN: usize = 61;

pub(crate) const AT_LENGTH: usize = 8;
pub(crate) const AT_MAGIC: usize = 16;
pub(crate) const AT_CRC: usize = 17;
pub(crate) const AT_ATTRIBUTES: usize = 21;
pub(crate) const AT_LAST_OFFSET_DELTA: usize = 23;
pub(crate) const AT_BASE_TIMESTAMP: usize = 27;
pub(crate) const AT_MAX_TIMESTAMP: usize = 35;
pub(crate) const AT_PRODUCER_ID: usize = 43;
pub(crate) const AT_COUNT: usize = 57;

/// A header of a record: a name and a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Its name; names may repeat.
    pub name: String,
    /// Its value; may be null.
    pub value: Option<bytes::Bytes>,
}
