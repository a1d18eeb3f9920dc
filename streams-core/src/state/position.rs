//! How far in its changelog a store has come, and the bytes that say so beside its entries.
//!
//! Byte layout (big-endian), format 3; formats 1 and 2 lack what is marked so, and are still read:
//!
//! | at | field |
//! |---|---|
//! | 0 | format, u8 |
//! | 1 | next offset, i64 |
//! | 9 | stream time, i64 |
//! | 17 | topic id, u128 |
//! | 33 | length of the cluster id, u16 |
//! | 35 | cluster id, UTF-8 |
//! | then, format 3 | the letter for the kind of store, u8 |
//! | then, formats 2 and 3 | how many partitions beyond the first, u16; their next offsets, i64 each |
//! | last 4 | CRC-32C of everything before, u32 (in every format) |

use std::path::Path;

use broker_api::{Offset, Timestamp, TopicId};

use super::StoreKind;
use crate::error::StateError;

const FORMAT: u8 = 3;
/// Without the kind.
const ANY_KIND: u8 = 2;
/// Without the kind and other partitions.
const ONE_PARTITION: u8 = 1;
const FIXED: usize = 35;
const CRC: usize = 4;

/// Stands beside the entries of a store and says what they are: the fold of one changelog
/// partition up to an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The broker whose changelog it is. At most 65,535 bytes.
    pub cluster_id: String,
    /// The changelog topic.
    pub topic_id: TopicId,
    /// The first record of the changelog that is not in the store.
    pub next_offset: Offset,
    /// The same for partitions 1, 2, … of a topic that one store follows whole; else empty. At most
    /// 65,535.
    pub others: Vec<Offset>,
    /// The stream time of the store itself as of that offset, -1 if it keeps none: nothing has
    /// vanished from it that a store of this time would show.
    pub stream_time: Timestamp,
    /// What kind of store has laid its entries out; `None`: an earlier version, which did not say.
    pub kind: Option<StoreKind>,
}

impl Position {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let cluster_id = &self.cluster_id.as_bytes()[..self.cluster_id.len().min(u16::MAX.into())];
        let others = &self.others[..self.others.len().min(u16::MAX.into())];
        let mut out = Vec::with_capacity(FIXED + cluster_id.len() + 3 + others.len() * 8 + CRC);
        let format = match self.kind {
            Some(_) => FORMAT,
            None if others.is_empty() => ONE_PARTITION,
            None => ANY_KIND,
        };
        out.push(format);
        out.extend_from_slice(&self.next_offset.to_be_bytes());
        out.extend_from_slice(&self.stream_time.to_be_bytes());
        out.extend_from_slice(&self.topic_id.0.to_be_bytes());
        out.extend_from_slice(&(cluster_id.len() as u16).to_be_bytes());
        out.extend_from_slice(cluster_id);
        out.extend(self.kind.map(|kind| kind.letter() as u8));
        if format != ONE_PARTITION {
            out.extend_from_slice(&(others.len() as u16).to_be_bytes());
            others.iter().for_each(|offset| out.extend_from_slice(&offset.to_be_bytes()));
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out
    }

    /// The position that these bytes say; `path` is where they lie, for messages.
    ///
    /// # Errors
    /// [`StateError::Corrupt`], [`StateError::NewerFormat`].
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, StateError> {
        let corrupt = |reason: &str| StateError::Corrupt {
            path: path.to_owned(),
            reason: format!("position: {reason}"),
        };
        let (body, crc) = bytes.split_last_chunk::<CRC>().ok_or_else(|| corrupt("cut off"))?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(corrupt("its checksum does not fit"));
        }
        let format = match body.first() {
            Some(&format @ (ONE_PARTITION | ANY_KIND | FORMAT)) => format,
            Some(&newer) if newer > FORMAT => {
                return Err(StateError::NewerFormat {
                    path: path.to_owned(),
                    found: newer.into(),
                    supported: FORMAT.into(),
                });
            }
            _ => return Err(corrupt("of no known format")),
        };
        Self::decode_body(&body[1..], format).ok_or_else(|| corrupt("its fields do not fit"))
    }

    fn decode_body(mut rest: &[u8], format: u8) -> Option<Self> {
        let next_offset = i64::from_be_bytes(take(&mut rest)?);
        let stream_time = i64::from_be_bytes(take(&mut rest)?);
        let topic_id = TopicId(u128::from_be_bytes(take(&mut rest)?));
        let length = u16::from_be_bytes(take(&mut rest)?);
        let (cluster_id, mut rest) = rest.split_at_checked(length.into())?;
        let cluster_id = std::str::from_utf8(cluster_id).ok()?.to_owned();
        let kind = match format {
            FORMAT => {
                let [letter] = take(&mut rest)?;
                Some(StoreKind::of_letter(letter.into())?)
            }
            _ => None,
        };
        let mut others = Vec::new();
        if format != ONE_PARTITION {
            for _ in 0..u16::from_be_bytes(take(&mut rest)?) {
                others.push(i64::from_be_bytes(take(&mut rest)?));
            }
        }
        let position = Self { cluster_id, topic_id, next_offset, others, stream_time, kind };
        rest.is_empty().then_some(position)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position {
            cluster_id: "cé".into(),
            topic_id: TopicId(0x0102),
            next_offset: 258,
            others: Vec::new(),
            stream_time: -1,
            kind: None,
        }
    }

    #[test]
    fn golden_bytes_of_a_kind() {
        let of_kind = Position { kind: Some(StoreKind::WindowByTime), ..position() };
        let mut golden = vec![3, 0, 0, 0, 0, 0, 0, 1, 2];
        golden.extend([0xff; 8]);
        golden.extend([0; 14]);
        golden.extend([1, 2, 0, 3, b'c', 0xc3, 0xa9, b'W', 0, 0]);
        let bytes = of_kind.encode();
        let (body, crc) = bytes.split_last_chunk::<4>().unwrap();
        assert_eq!(body, golden);
        assert_eq!(*crc, crc32c::crc32c(&golden).to_be_bytes());
        assert_eq!(Position::decode(&bytes, Path::new("p")).unwrap(), of_kind);
        let several = Position { others: vec![1, -2], ..of_kind };
        assert_eq!(Position::decode(&several.encode(), Path::new("p")).unwrap(), several);
    }

    #[test]
    fn golden_bytes() {
        let mut golden = vec![1, 0, 0, 0, 0, 0, 0, 1, 2];
        golden.extend([0xff; 8]);
        golden.extend([0; 14]);
        golden.extend([1, 2, 0, 3, b'c', 0xc3, 0xa9]);
        golden.extend([0x5a, 0x50, 0x72, 0xd5]);
        assert_eq!(position().encode(), golden);
        assert_eq!(Position::decode(&golden, Path::new("p")).unwrap(), position());
    }

    #[test]
    fn golden_bytes_of_several_partitions() {
        let several = Position { others: vec![1, -2], ..position() };
        let mut golden = vec![2, 0, 0, 0, 0, 0, 0, 1, 2];
        golden.extend([0xff; 8]);
        golden.extend([0; 14]);
        golden.extend([1, 2, 0, 3, b'c', 0xc3, 0xa9, 0, 2]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        let bytes = several.encode();
        let (body, crc) = bytes.split_last_chunk::<4>().unwrap();
        assert_eq!(body, golden);
        assert_eq!(*crc, crc32c::crc32c(&golden).to_be_bytes());
        assert_eq!(Position::decode(&bytes, Path::new("p")).unwrap(), several);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = Position { kind: Some(StoreKind::Session), ..position() }.encode();
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(Position::decode(&damaged, Path::new("p")).is_err(), "bit {at}");
        }
        for length in 0..bytes.len() {
            assert!(Position::decode(&bytes[..length], Path::new("p")).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = position().encode();
        bytes[0] = 4;
        let body = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..body]).to_be_bytes();
        bytes[body..].copy_from_slice(&crc);
        let error = Position::decode(&bytes, Path::new("p")).unwrap_err();
        assert!(matches!(error, StateError::NewerFormat { found: 4, supported: 3, .. }));
    }
}
