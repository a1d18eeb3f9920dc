//! What the two sides of a foreign-key join say to each other, and its bytes (`docs/formats.md`).

use std::sync::Arc;

use bytes::Bytes;
use streams_core::serde::{DynSerde, Serde};
use streams_core::{Data, SerdeError};

const VERSION: u8 = 1;
const HAS_HASH: u8 = 1;
const HAS_VALUE: u8 = 2;
const IS_DUE: u8 = 4;
const HAS_GONE: u8 = 8;

/// The bytes of a foreign key's length in front of it.
pub(crate) const LENGTH: usize = 4;

/// A row of the left table tells the right side which key it refers to, or does not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription<K> {
    pub(crate) instruction: Instruction,
    /// Where the row is, and the answer has to go.
    pub(crate) partition: u32,
    /// The row's key.
    pub(crate) key: K,
    /// The hash of the row's value; `None`: it is deleted.
    pub(crate) hash: Option<u128>,
}

/// What the right side does with a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Forget it, and say nothing.
    Forget = 0,
    /// Forget it, and answer that there is no value.
    ForgetAndAnswer = 1,
    /// Keep it, and answer, also that there is no value.
    Answer = 2,
    /// Keep it, and answer if there is a value.
    AnswerIfFound = 3,
}

/// A subscription as the right side keeps it, below the key that it refers to and the row's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) partition: u32,
    pub(crate) hash: u128,
}

/// The right side's value for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response<V> {
    /// Where the row is.
    pub(crate) partition: u32,
    /// The hash of the row's value that this answers to.
    pub(crate) hash: Option<u128>,
    /// `None`: there is none.
    pub(crate) value: Option<V>,
    /// Whether the left side waits for it, whatever it says.
    pub(crate) is_due: bool,
    /// If it comes because the right row was deleted: the encoded key of that. Then there is no value.
    pub(crate) gone: Option<Bytes>,
}

/// The serde of subscriptions: version, instruction, flags, partition, the hash if there is one, the key.
pub(crate) fn subscriptions<K: Data>(key: DynSerde<K>) -> DynSerde<Subscription<K>> {
    Arc::new(Subscriptions(key))
}

/// The serde of responses: version, flags, partition, the hash if there is one, the value or the key of what
/// is gone, if there is one.
pub(crate) fn responses<V: Data>(value: DynSerde<V>) -> DynSerde<Response<V>> {
    Arc::new(Responses(value))
}

/// The serde of subscribers: version, partition, hash.
pub(crate) fn subscribers() -> DynSerde<Subscriber> {
    Arc::new(Subscribers)
}

struct Subscriptions<K>(DynSerde<K>);

impl<K: Data> Serde<Subscription<K>> for Subscriptions<K> {
    fn put(&self, value: &Subscription<K>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.extend([VERSION, value.instruction as u8, flags(value.hash.is_some(), false)]);
        put_head(value.partition, value.hash, out);
        self.0.put(&value.key, out)
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Subscription<K>, SerdeError> {
        let mut from = Reader::new(bytes)?;
        let instruction = match from.u8()? {
            0 => Instruction::Forget,
            1 => Instruction::ForgetAndAnswer,
            2 => Instruction::Answer,
            3 => Instruction::AnswerIfFound,
            other => return Err(wrong(&format!("its instruction is {other}"))),
        };
        let flags = from.flags(HAS_HASH)?;
        let (partition, hash) = (from.u32()?, from.hash(flags)?);
        Ok(Subscription { instruction, partition, hash, key: self.0.get(from.rest, owner)? })
    }

    fn check(&self) -> Result<(), SerdeError> {
        self.0.check()
    }

    fn weight(&self, value: &Subscription<K>) -> usize {
        size_of::<Subscription<K>>() + self.0.weight(&value.key)
    }
}

struct Responses<V>(DynSerde<V>);

impl<V: Data> Serde<Response<V>> for Responses<V> {
    fn put(&self, response: &Response<V>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        let due = u8::from(response.is_due) * IS_DUE;
        let gone = u8::from(response.gone.is_some()) * HAS_GONE;
        out.extend([
            VERSION,
            flags(response.hash.is_some(), response.value.is_some()) | due | gone,
        ]);
        put_head(response.partition, response.hash, out);
        out.extend(response.gone.iter().flatten());
        response.value.as_ref().map_or(Ok(()), |value| self.0.put(value, out))
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Response<V>, SerdeError> {
        let mut from = Reader::new(bytes)?;
        let flags = from.flags(HAS_HASH | HAS_VALUE | IS_DUE | HAS_GONE)?;
        let (partition, hash) = (from.u32()?, from.hash(flags)?);
        let (value, gone) = match flags & (HAS_VALUE | HAS_GONE) {
            0 => from.end().map(|()| (None, None))?,
            HAS_VALUE => (Some(self.0.get(from.rest, owner)?), None),
            HAS_GONE => (None, Some(Bytes::copy_from_slice(from.rest))),
            _ => return Err(wrong("it has a value that is gone")),
        };
        Ok(Response { partition, hash, value, is_due: flags & IS_DUE != 0, gone })
    }

    fn check(&self) -> Result<(), SerdeError> {
        self.0.check()
    }

    fn weight(&self, response: &Response<V>) -> usize {
        let value = response.value.as_ref().map_or(0, |v| self.0.weight(v));
        size_of::<Response<V>>() + value + response.gone.as_ref().map_or(0, Bytes::len)
    }
}

struct Subscribers;

impl Serde<Subscriber> for Subscribers {
    fn put(&self, value: &Subscriber, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.push(VERSION);
        put_head(value.partition, Some(value.hash), out);
        Ok(())
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<Subscriber, SerdeError> {
        let mut from = Reader::new(bytes)?;
        let subscriber = Subscriber { partition: from.u32()?, hash: from.u128()? };
        from.end().map(|()| subscriber)
    }
}

/// The key of a subscriber: the length of the foreign key, the foreign key, the row's own.
pub(crate) fn combined_key<KO: 'static, K: 'static>(
    (foreign, own): (&dyn Serde<KO>, &dyn Serde<K>),
    foreign_key: &KO,
    key: &K,
) -> Result<Bytes, SerdeError> {
    let mut out = prefix(foreign, foreign_key)?;
    own.put(key, &mut out)?;
    Ok(out.into())
}

/// What the keys of all subscribers of a foreign key begin with, and no others.
pub(crate) fn prefix<KO: 'static>(
    serde: &dyn Serde<KO>,
    foreign_key: &KO,
) -> Result<Vec<u8>, SerdeError> {
    let mut out = vec![0; LENGTH];
    serde.put(foreign_key, &mut out)?;
    let length = u32::try_from(out.len() - LENGTH)
        .map_err(|_| SerdeError::new("a foreign key of 4 GiB or more"))?;
    out[..LENGTH].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// The smallest key that comes after all that begin with these bytes.
pub(crate) fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            break;
        }
    }
    prefix
}

fn flags(has_hash: bool, has_value: bool) -> u8 {
    u8::from(has_hash) * HAS_HASH + u8::from(has_value) * HAS_VALUE
}

fn put_head(partition: u32, hash: Option<u128>, out: &mut Vec<u8>) {
    out.extend(partition.to_be_bytes());
    out.extend(hash.map(u128::to_be_bytes).iter().flatten());
}

/// Takes fields off the front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Behind the version, which must be known.
    fn new(bytes: &'a [u8]) -> Result<Self, SerdeError> {
        let mut reader = Self { rest: bytes };
        match reader.u8()? {
            VERSION => Ok(reader),
            other => Err(wrong(&format!("its version is {other}; is it of a later release?"))),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SerdeError> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or_else(|| wrong("it is cut short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, SerdeError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, SerdeError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u128(&mut self) -> Result<u128, SerdeError> {
        self.take().map(u128::from_be_bytes)
    }

    fn flags(&mut self, known: u8) -> Result<u8, SerdeError> {
        let flags = self.u8()?;
        match flags & !known {
            0 => Ok(flags),
            _ => Err(wrong(&format!("its flags are {flags}"))),
        }
    }

    fn hash(&mut self, flags: u8) -> Result<Option<u128>, SerdeError> {
        (flags & HAS_HASH != 0).then(|| self.u128()).transpose()
    }

    fn end(&self) -> Result<(), SerdeError> {
        match self.rest {
            [] => Ok(()),
            _ => Err(wrong("something follows its end")),
        }
    }
}

fn wrong(reason: &str) -> SerdeError {
    SerdeError::new(format!("no record of a foreign-key join: {reason}"))
}

#[cfg(test)]
mod tests {
    use streams_core::HasSerde;

    use super::*;

    const HASH: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

    fn golden<T: PartialEq + std::fmt::Debug + 'static>(
        serde: &DynSerde<T>,
        value: &T,
        bytes: &[u8],
    ) {
        let mut out = Vec::new();
        serde.put(value, &mut out).unwrap();
        assert_eq!(out, bytes);
        assert_eq!(&serde.get(&out, &Bytes::new()).unwrap(), value);
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn the_bytes_of_foreign_key_joins_stay_as_they_are() {
        let hash = HASH.to_be_bytes();
        let serde = subscriptions(String::serde());
        let all = [
            (Instruction::Forget, 0),
            (Instruction::ForgetAndAnswer, 1),
            (Instruction::Answer, 2),
            (Instruction::AnswerIfFound, 3),
        ];
        for (instruction, code) in all {
            let (key, hash_given) = ("row".to_string(), Some(HASH));
            let subscription = Subscription { instruction, partition: 7, key, hash: hash_given };
            let bytes = joined(&[&[1, code, 1, 0, 0, 0, 7], &hash, b"row"]);
            golden(&serde, &subscription, &bytes);
        }
        let (instruction, key) = (Instruction::Answer, "row".to_string());
        let deleted = Subscription { instruction, partition: 258, key, hash: None };
        golden(&serde, &deleted, b"\x01\x02\x00\x00\x00\x01\x02row");

        let serde = responses(String::serde());
        let response = |hash, value: Option<&str>| {
            let value = value.map(str::to_string);
            Response { partition: 7, hash, value, is_due: false, gone: None }
        };
        let bytes = joined(&[&[1, 3, 0, 0, 0, 7], &hash, b"value"]);
        golden(&serde, &response(Some(HASH), Some("value")), &bytes);
        golden(&serde, &response(Some(HASH), None), &joined(&[&[1, 1, 0, 0, 0, 7], &hash]));
        golden(&serde, &response(None, Some("")), &[1, 2, 0, 0, 0, 7]);
        golden(&serde, &response(None, None), &[1, 0, 0, 0, 0, 7]);
        let due = Response { is_due: true, ..response(None, None) };
        golden(&serde, &due, &[1, 4, 0, 0, 0, 7]);
        let gone = Response { gone: Some("fk".into()), ..response(Some(HASH), None) };
        golden(&serde, &gone, &joined(&[&[1, 9, 0, 0, 0, 7], &hash, b"fk"]));

        let subscriber = Subscriber { partition: 7, hash: HASH };
        golden(&subscribers(), &subscriber, &joined(&[&[1, 0, 0, 0, 7], &hash]));

        let serdes = (&*String::serde() as &dyn Serde<String>, &*String::serde());
        let key = combined_key(serdes, &"fk".to_string(), &"row".to_string()).unwrap();
        assert_eq!(&key[..], b"\0\0\0\x02fkrow");
    }

    #[test]
    fn wrong_bytes_are_refused() {
        let serde = subscriptions(String::serde());
        let bad: [&[u8]; 7] = [
            b"",
            b"\x02\x02\x00\0\0\0\x07row",
            b"\x01\x04\x00\0\0\0\x07row",
            b"\x01\x02\x02\0\0\0\x07row",
            b"\x01\x02\x01\0\0\0\x07row",
            b"\x01\x02\x00\0\0\0",
            b"\x01\x02\x00\0\0\0\x07\xff",
        ];
        for bytes in bad {
            assert!(serde.get(bytes, &Bytes::new()).is_err(), "{bytes:?}");
        }
        let bad: [&[u8]; 5] = [
            b"\x01\x10\0\0\0\x07",
            b"\x01\x0a\0\0\0\x07",
            b"\x01\x00\0\0\0\x07more",
            b"\x01\x01\0\0\0\x07",
            b"\x01\x02",
        ];
        for bytes in bad {
            assert!(responses(String::serde()).get(bytes, &Bytes::new()).is_err(), "{bytes:?}");
        }
        let mut subscriber = Vec::new();
        subscribers().put(&Subscriber { partition: 1, hash: 2 }, &mut subscriber).unwrap();
        assert!(subscribers().get(&subscriber[..20], &Bytes::new()).is_err());
        subscriber.push(0);
        assert!(subscribers().get(&subscriber, &Bytes::new()).is_err());
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_that_begins_with_it() {
        assert_eq!(end_of(vec![0, 0, 0, 1, b'a']), [0, 0, 0, 1, b'b']);
        assert_eq!(end_of(vec![0, 0, 0, 1, 0xff]), [0, 0, 0, 2]);
    }
}
