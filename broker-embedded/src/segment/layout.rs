//! The bytes of a segment's log: its head and the header of each batch. Big-endian; CRC-32C.

use broker_api::{Offset, Timestamp, TopicId};
use bytes::Bytes;

use crate::codec::{Put, Take};

/// The newest format that this version reads, and the one that it writes.
pub(super) const FORMAT: u32 = 2;
const MAGIC: u64 = u64::from_be_bytes(*b"VLTVSEGM");

/// The head has this length, and its checksum in its last four bytes, in every format.
pub(super) const HEAD_LEN: usize = 128;
pub(super) const BATCH_HEADER_LEN: usize = 32;

/// What the head of a log says. Written last, when everything is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) topic: TopicId,
    pub(super) partition: u32,
    /// The segment stands for the offsets from here…
    pub(super) base: Offset,
    /// …to here, exclusive, whatever records compaction has left of them.
    pub(super) next: Offset,
    /// Bytes after the head.
    pub(super) data_len: u64,
    pub(super) batches: u64,
    pub(super) max_append_time: Timestamp,
    /// The checksum over the checksums of all batches: tells two logs of the same base apart.
    pub(super) data_crc: u32,
    /// Of segments that overlap, the one with the highest is the newest.
    pub(super) generation: u64,
    /// The highest timestamp of all records; the lowest there is if it has none.
    pub(super) max_timestamp: Timestamp,
}

/// Why a head cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    Damaged(String),
    Newer(u32),
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.u64(MAGIC);
        out.u32(FORMAT);
        out.u32(self.partition);
        out.u128(self.topic.0);
        out.i64(self.base);
        out.i64(self.next);
        out.u64(self.data_len);
        out.u64(self.batches);
        out.i64(self.max_append_time);
        out.u32(self.data_crc);
        out.u64(self.generation);
        out.i64(self.max_timestamp);
        out.resize(HEAD_LEN - 4, 0);
        out.u32(crc32c::crc32c(&out));
        out
    }

    pub(super) fn decode(bytes: &[u8; HEAD_LEN]) -> Result<Self, BadHead> {
        let damaged = |reason: &str| BadHead::Damaged(reason.into());
        let (body, crc) = bytes.split_at(HEAD_LEN - 4);
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return Err(damaged("the checksum of the head does not match"));
        }
        let mut take = Take::new(Bytes::copy_from_slice(body));
        let mut decode = || {
            let (magic, format) = (take.u64()?, take.u32()?);
            let partition = take.u32()?;
            let head = Self {
                topic: TopicId(take.u128()?),
                partition,
                base: take.i64()?,
                next: take.i64()?,
                data_len: take.u64()?,
                batches: take.u64()?,
                max_append_time: take.i64()?,
                data_crc: take.u32()?,
                generation: take.u64()?,
                max_timestamp: take.i64()?,
            };
            Ok::<_, crate::codec::Malformed>((magic, format, head))
        };
        match decode() {
            Ok((MAGIC, FORMAT, head)) => Ok(head),
            Ok((MAGIC, format, _)) if format > FORMAT => Err(BadHead::Newer(format)),
            _ => Err(damaged("this is not the head of a segment")),
        }
    }
}

/// What the checksums of a segment's batches start from: batches of another segment do not verify.
pub(super) fn seed(topic: TopicId, partition: u32, base: Offset) -> u32 {
    let mut identity = Vec::with_capacity(28);
    identity.u128(topic.0);
    identity.u32(partition);
    identity.i64(base);
    crc32c::crc32c(&identity)
}

/// Precedes the bytes of each batch. The checksum covers the rest of it and those bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) crc: u32,
    pub(super) length: u32,
    pub(super) base: Offset,
    pub(super) next: Offset,
    pub(super) append_time: Timestamp,
}

impl BatchHeader {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.crc);
        out.u32(self.length);
        out.i64(self.base);
        out.i64(self.next);
        out.i64(self.append_time);
    }

    /// Needs [`BATCH_HEADER_LEN`] bytes.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut take = Take::new(bytes.clone());
        Some(Self {
            crc: take.u32().ok()?,
            length: take.u32().ok()?,
            base: take.i64().ok()?,
            next: take.i64().ok()?,
            append_time: take.i64().ok()?,
        })
    }
}

/// The checksum of a batch with its header, of which the first four bytes are skipped.
pub(super) fn batch_crc(seed: u32, header_and_bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, &header_and_bytes[4..])
}
