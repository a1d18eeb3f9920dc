//! Reading batches.

use bytes::Bytes;

use super::{
    AT_ATTRIBUTES, AT_BASE_TIMESTAMP, AT_COUNT, AT_CRC, AT_LAST_OFFSET_DELTA, AT_LENGTH, AT_MAGIC,
    AT_MAX_TIMESTAMP, HEADER_LEN, Header, varint,
};
use crate::error::Error;
use crate::types::{Offset, Timestamp};

/// An immutable record batch with its place in a partition. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    base_offset: Offset,
    next_offset: Offset,
    append_time: Timestamp,
    bytes: Bytes,
}

/// The attribute of batches that were written in a transaction. It changes nothing for readers.
const TRANSACTIONAL: u16 = 0b1_0000;

impl Batch {
    pub(super) fn built(bytes: Bytes, last_offset_delta: i32) -> Self {
        let next_offset = Offset::from(last_offset_delta) + 1;
        Self { base_offset: 0, next_offset, append_time: 0, bytes }
    }

    /// Takes bytes for a batch at base offset 0 after checking layout and checksum.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`], saying what does not fit. Batches that are compressed, hold control
    /// records or have timestamps of another kind are not understood.
    pub fn parse(bytes: Bytes) -> Result<Self, Error> {
        let batch = Self::parse_trusted(bytes)?;
        let stated = u32_at(&batch.bytes, AT_CRC);
        let found = crc32c::crc32c(&batch.bytes[AT_ATTRIBUTES..]);
        if stated != found {
            return Err(invalid(format!("checksum {found:08x} instead of {stated:08x}")));
        }
        Ok(batch)
    }

    /// As [`Batch::parse`], for bytes whose integrity is known: the checksum is not looked at.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`].
    pub fn parse_trusted(bytes: Bytes) -> Result<Self, Error> {
        if bytes.len() < HEADER_LEN {
            return Err(invalid(format!("{} bytes are too few", bytes.len())));
        }
        if bytes[AT_MAGIC] != 2 {
            return Err(invalid(format!("magic {} instead of 2", bytes[AT_MAGIC])));
        }
        let length = i32_at(&bytes, AT_LENGTH);
        if usize::try_from(length).ok() != Some(bytes.len() - AT_LENGTH - 4) {
            return Err(invalid(format!("length {length} does not fit {} bytes", bytes.len())));
        }
        let attributes = u16::from_be_bytes([bytes[AT_ATTRIBUTES], bytes[AT_ATTRIBUTES + 1]]);
        if attributes & 0b111 != 0 {
            return Err(invalid(format!("compression codec {} is not supported", attributes & 7)));
        }
        if attributes & !TRANSACTIONAL != 0 {
            return Err(invalid(format!("attributes {attributes:#06x} are not supported")));
        }
        let base_offset = i64_at(&bytes, 0);
        if base_offset != 0 {
            return Err(invalid(format!("base offset {base_offset} instead of 0")));
        }
        let (last, count) = (i32_at(&bytes, AT_LAST_OFFSET_DELTA), i32_at(&bytes, AT_COUNT));
        if last < 0 || count < 0 || i64::from(count) > i64::from(last) + 1 {
            return Err(invalid(format!("{count} records up to offset delta {last}")));
        }
        Ok(Self::built(bytes, last))
    }

    /// The same records at another place.
    pub fn assigned(mut self, base_offset: Offset, append_time: Timestamp) -> Self {
        self.next_offset = base_offset.saturating_add(self.next_offset - self.base_offset);
        self.base_offset = base_offset;
        self.append_time = append_time;
        self
    }

    /// The offset of its first record.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Where reading goes on after this batch.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// When the broker appended it (0: not yet).
    pub fn append_time(&self) -> Timestamp {
        self.append_time
    }

    /// How many records it holds.
    pub fn count(&self) -> usize {
        i32_at(&self.bytes, AT_COUNT) as usize
    }

    /// The highest timestamp of its records.
    pub fn max_timestamp(&self) -> Timestamp {
        i64_at(&self.bytes, AT_MAX_TIMESTAMP)
    }

    /// Its bytes in Kafka's layout, with base offset 0.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its records in offset order.
    pub fn records(&self) -> Records<'_> {
        Records {
            rest: &self.bytes[HEADER_LEN..],
            left: self.count(),
            base_offset: self.base_offset,
            base_timestamp: i64_at(&self.bytes, AT_BASE_TIMESTAMP),
        }
    }

    /// A cursor that reads the records one by one without borrowing the batch between calls:
    /// start with [`Cursor::default`].
    ///
    /// # Errors
    /// [`Error::InvalidBatch`] if the records do not fit their count.
    pub fn next_record(&self, cursor: &mut Cursor) -> Option<Result<RecordRef<'_>, Error>> {
        let mut records = if cursor.at == 0 {
            self.records()
        } else {
            Records {
                rest: self.bytes.get(cursor.at..).unwrap_or_default(),
                left: cursor.left,
                base_offset: self.base_offset,
                base_timestamp: cursor.base_timestamp,
            }
        };
        let record = records.next();
        *cursor = Cursor {
            at: self.bytes.len() - records.rest.len(),
            left: records.left,
            base_timestamp: records.base_timestamp,
        };
        record
    }
}

/// A place between two records of a batch. It carries what every record needs of the header, so
/// that this is read once per batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// From the start of the batch; 0 before the first record.
    at: usize,
    left: usize,
    base_timestamp: Timestamp,
}

/// A record that borrows from its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its time.
    pub timestamp: Timestamp,
    /// Its key; may be null.
    pub key: Option<&'a [u8]>,
    /// Its value; may be null.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of a record, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Headers<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Decodes them.
    ///
    /// # Errors
    /// [`Error::InvalidBatch`] if their names are not UTF-8.
    pub fn to_vec(&self) -> Result<Vec<Header>, Error> {
        let mut rest = self.rest;
        let cut = || invalid("a header is cut off".into());
        (0..self.left)
            .map(|_| {
                let name = take_bytes(&mut rest).ok_or_else(cut)?.unwrap_or_default();
                let name = std::str::from_utf8(name)
                    .map_err(|_| invalid("a header's name is not UTF-8".into()))?;
                let value = take_bytes(&mut rest).ok_or_else(cut)?;
                Ok(Header { name: name.into(), value: value.map(Bytes::copy_from_slice) })
            })
            .collect()
    }
}

/// Iterates over the records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: usize,
    base_offset: Offset,
    base_timestamp: Timestamp,
}

impl<'a> Records<'a> {
    #[inline]
    fn parse(&mut self) -> Option<RecordRef<'a>> {
        let length = usize::try_from(varint::get(&mut self.rest)?).ok()?;
        let mut body = self.rest.get(..length)?;
        self.rest = &self.rest[length..];
        body = body.get(1..)?; // attributes: unused
        let timestamp = self.base_timestamp.wrapping_add(varint::get(&mut body)?);
        let offset = self.base_offset.wrapping_add(varint::get(&mut body)?);
        let key = take_bytes(&mut body)?;
        let value = take_bytes(&mut body)?;
        let left = usize::try_from(varint::get(&mut body)?).ok()?;
        (left <= body.len()).then_some(())?;
        Some(RecordRef { offset, timestamp, key, value, headers: Headers { rest: body, left } })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        match self.parse() {
            Some(record) if self.left > 0 || self.rest.is_empty() => Some(Ok(record)),
            Some(_) => Some(Err(invalid("bytes behind the last record".into()))),
            None => {
                self.left = 0;
                Some(Err(invalid("a record is cut off".into())))
            }
        }
    }
}

#[inline]
fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::get(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    let taken = bytes.get(..length)?;
    *bytes = &bytes[length..];
    Some(Some(taken))
}

fn invalid(reason: String) -> Error {
    Error::InvalidBatch { reason }
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    u32_at(bytes, at) as i32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    (i64::from(i32_at(bytes, at)) << 32) | i64::from(u32_at(bytes, at + 4))
}
