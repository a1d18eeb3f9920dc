//! Pairs of values, as they travel through the repartition topic of a grouped table.

use std::sync::Arc;

use bytes::Bytes;
use streams_core::serde::{DynSerde, Serde};
use streams_core::{Change, SerdeError};

const OLD: u8 = 0;
const NEW: u8 = 1;
const BOTH: u8 = 2;

/// The serde of changes, in Kafka's layout, whose last byte says what is before it: the old value (0),
/// the new value (1), or the length of the new value as a varint, the new value and the old one (2).
/// A change without any value has no encoding: nobody sends one.
pub(crate) fn changes<V: 'static>(values: DynSerde<V>) -> DynSerde<Change<V>> {
    Arc::new(Changes(values))
}

struct Changes<V>(DynSerde<V>);

impl<V: 'static> Serde<Change<V>> for Changes<V> {
    fn put(&self, change: &Change<V>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        match (&change.new, &change.old) {
            (Some(new), Some(old)) => {
                let start = out.len();
                self.0.put(new, out)?;
                let length = u32::try_from(out.len() - start)
                    .map_err(|_| SerdeError::new("a value of 4 GiB or more"))?;
                out.splice(start..start, varint(length));
                self.0.put(old, out)?;
                out.push(BOTH);
            }
            (Some(new), None) => {
                self.0.put(new, out)?;
                out.push(NEW);
            }
            (None, Some(old)) => {
                self.0.put(old, out)?;
                out.push(OLD);
            }
            (None, None) => return Err(SerdeError::new("a change without any value")),
        }
        Ok(())
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Change<V>, SerdeError> {
        let (kind, values) = bytes.split_last().ok_or_else(cut_short)?;
        let value = |bytes| self.0.get(bytes, owner).map(Some);
        match *kind {
            OLD => Ok(Change::new(None, value(values)?)),
            NEW => Ok(Change::new(value(values)?, None)),
            BOTH => {
                let (length, values) = split_varint(values)?;
                let (new, old) = values.split_at_checked(length).ok_or_else(cut_short)?;
                Ok(Change::new(value(new)?, value(old)?))
            }
            other => Err(SerdeError::new(format!("no change of a table: its kind is {other}"))),
        }
    }

    fn weight(&self, change: &Change<V>) -> usize {
        [&change.new, &change.old].into_iter().flatten().map(|value| self.0.weight(value)).sum()
    }

    fn check(&self) -> Result<(), SerdeError> {
        self.0.check()
    }
}

fn cut_short() -> SerdeError {
    SerdeError::new("a change of a table that is cut short")
}

/// Zigzag, seven bits a byte, least significant first.
fn varint(n: u32) -> Vec<u8> {
    let mut z = u64::from(n) << 1;
    let mut out = Vec::with_capacity(5);
    while z >= 0x80 {
        out.push(z as u8 | 0x80);
        z >>= 7;
    }
    out.push(z as u8);
    out
}

fn split_varint(bytes: &[u8]) -> Result<(usize, &[u8]), SerdeError> {
    let mut z = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        z |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let is_negative = z & 1 == 1;
            let length = usize::try_from(z >> 1).ok().filter(|_| !is_negative);
            return Ok((length.ok_or_else(cut_short)?, &bytes[at + 1..]));
        }
    }
    Err(cut_short())
}

#[cfg(test)]
mod tests {
    use streams_core::HasSerde;

    use super::*;

    fn encoded(new: Option<&str>, old: Option<&str>) -> Vec<u8> {
        let (new, old) = (new.map(str::to_string), old.map(str::to_string));
        let (change, serde) = (Change::new(new, old), changes(String::serde()));
        let mut out = b"before".to_vec();
        serde.put(&change, &mut out).unwrap();
        let out = out.split_off(6);
        assert_eq!(serde.get(&out, &Bytes::new()).unwrap(), change);
        out
    }

    #[test]
    fn changes_have_kafkas_bytes() {
        assert_eq!(encoded(None, Some("old")), b"old\x00");
        assert_eq!(encoded(Some("new"), None), b"new\x01");
        assert_eq!(encoded(Some("newer"), Some("old")), b"\x0anewerold\x02");
        assert_eq!(encoded(Some(""), Some("")), b"\x00\x02");
        assert_eq!(encoded(Some(&"x".repeat(100)), Some("y"))[..2], [0xc8, 0x01]);
    }

    #[test]
    fn wrong_bytes_are_refused() {
        let serde = changes(String::serde());
        let bad: [&[u8]; 7] = [
            b"",
            b"x\x03",
            b"\x02",
            b"\x0aab\x02",
            b"\x01ab\x02",
            b"\xff\xff\xff\xff\xff\x02",
            b"\xff\x01",
        ];
        for bytes in bad {
            assert!(serde.get(bytes, &Bytes::new()).is_err(), "{bytes:?}");
        }
        assert!(serde.put(&Change::new(None, None), &mut Vec::new()).is_err());
    }
}
