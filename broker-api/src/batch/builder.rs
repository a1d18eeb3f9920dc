//! Building batches.

use bytes::Bytes;

use super::{
    AT_ATTRIBUTES, AT_BASE_TIMESTAMP, AT_COUNT, AT_CRC, AT_LAST_OFFSET_DELTA, AT_LENGTH, AT_MAGIC,
    AT_MAX_TIMESTAMP, AT_PRODUCER_ID, Batch, HEADER_LEN, Header, varint,
};
use crate::error::Error;
use crate::types::Timestamp;

/// Collects records into one [`Batch`].
#[derive(Debug, Default)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    count: i32,
    base_offset_delta: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    /// The size of the batch before: the next one will need about as much.
    last_size: usize,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its encoded size so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the batch would pass the layout's limit of 2 GiB.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), Error> {
        let delta = self.base_offset_delta;
        self.push_at(delta, timestamp, key, value, headers)
    }

    /// Appends a record at a given distance from the base offset; distances must rise. For
    /// rewriting batches of which some records are gone.
    ///
    /// # Errors
    /// As [`BatchBuilder::push`]; [`Error::InvalidBatch`] if the distance does not rise.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), Error> {
        if offset_delta < self.base_offset_delta {
            return Err(Error::InvalidBatch {
                reason: format!("offset delta {offset_delta} does not rise"),
            });
        }
        if self.count == 0 {
            // And somewhat more, as no two are alike: to grow is to copy all of it.
            self.bytes.reserve(self.last_size + self.last_size / 8);
            self.bytes.resize(HEADER_LEN, 0);
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let body = 1
            + varint::len(timestamp_delta)
            + varint::len(i64::from(offset_delta))
            + bytes_len(key)
            + bytes_len(value)
            + varint::len(headers.len() as i64)
            + headers
                .iter()
                .map(|h| bytes_len(Some(h.name.as_bytes())) + bytes_len(h.value.as_deref()))
                .sum::<usize>();
        let size = self.bytes.len() + body + 10;
        if size > i32::MAX as usize || offset_delta == i32::MAX {
            return Err(Error::TooLarge {
                what: "a record batch".into(),
                size: size as u64,
                limit: i32::MAX as u64,
                setting: "the batch layout's limit",
            });
        }
        let out = &mut self.bytes;
        out.reserve(body + 10);
        varint::put(body as i64, out);
        out.push(0); // attributes: unused
        varint::put(timestamp_delta, out);
        varint::put(i64::from(offset_delta), out);
        put_bytes(key, out);
        put_bytes(value, out);
        varint::put(headers.len() as i64, out);
        for header in headers {
            put_bytes(Some(header.name.as_bytes()), out);
            put_bytes(header.value.as_deref(), out);
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        self.base_offset_delta = offset_delta + 1;
        Ok(())
    }

    /// The finished batch, at base offset 0; the builder is empty again.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`] if it is empty.
    pub fn finish(&mut self) -> Result<Batch, Error> {
        let last = self.base_offset_delta - 1;
        self.finish_spanning(last)
    }

    /// The finished batch, at base offset 0, covering offsets up to `last_offset_delta` even if its
    /// last records are gone. The batch may be empty of records then.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`] if `last_offset_delta` lies below its last record.
    pub fn finish_spanning(&mut self, last_offset_delta: i32) -> Result<Batch, Error> {
        if last_offset_delta < 0 || last_offset_delta < self.base_offset_delta - 1 {
            return Err(Error::InvalidBatch { reason: "a batch must hold a record".into() });
        }
        let built = std::mem::take(self);
        self.last_size = built.bytes.len();
        let mut bytes = built.bytes;
        // A batch may live long in memory: what it does not need goes back.
        if bytes.capacity() - bytes.len() > bytes.len() / 4 {
            bytes.shrink_to_fit();
        }
        if bytes.is_empty() {
            bytes.resize(HEADER_LEN, 0);
        }
        let length = (bytes.len() - AT_LENGTH - 4) as i32;
        let mut set = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        set(AT_LENGTH, &length.to_be_bytes());
        set(AT_LENGTH + 4, &(-1i32).to_be_bytes()); // partition leader epoch: none
        set(AT_MAGIC, &[2]);
        set(AT_LAST_OFFSET_DELTA, &last_offset_delta.to_be_bytes());
        set(AT_BASE_TIMESTAMP, &built.base_timestamp.to_be_bytes());
        set(AT_MAX_TIMESTAMP, &built.max_timestamp.to_be_bytes());
        set(AT_PRODUCER_ID, &[0xff; 14]); // no producer id, epoch and sequence: -1 each
        set(AT_COUNT, &built.count.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[AT_ATTRIBUTES..]);
        bytes[AT_CRC..AT_ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
        Ok(Batch::built(Bytes::from(bytes), last_offset_delta))
    }
}

/// The length that stands before bytes: -1 for null.
#[inline]
fn stated_len(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    varint::len(stated_len(bytes)) + bytes.unwrap_or_default().len()
}

#[inline]
fn put_bytes(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    varint::put(stated_len(bytes), out);
    out.extend_from_slice(bytes.unwrap_or_default());
}
