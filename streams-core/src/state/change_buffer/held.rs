//! An update that waits, and how it becomes bytes.

use broker_api::Timestamp;
use bytes::{Buf, BufMut, Bytes};

use crate::record::{Change, Headers, Record};
use crate::serde::{DynSerde, Serde, SerdeError, put_headers, put_sized, take_headers, take_sized};

/// The update of a key that waits.
#[derive(Clone, Debug)]
pub(super) struct Held<V> {
    /// Its place in the order.
    pub(super) time: Timestamp,
    /// What the key had before the first update that waits.
    pub(super) old: Option<V>,
    pub(super) new: Option<V>,
    pub(super) headers: Headers,
    /// How many bytes it takes encoded, where somebody asks.
    pub(super) bytes: usize,
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self { time: 0, old: None, new: None, headers: Headers::default(), bytes: 0 }
    }
}

impl<V> Held<V> {
    pub(super) fn into_record<K>(self, key: K, timestamp: Timestamp) -> Record<K, Change<V>> {
        let Self { new, old, headers, .. } = self;
        Record { key, value: Change::new(new, old), timestamp, headers }
    }
}

/// The layout is in the module above.
pub(super) struct HeldSerde<V>(pub(super) DynSerde<V>);

impl<V: 'static> HeldSerde<V> {
    fn put_part(&self, part: &Option<V>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        match part.as_ref().filter(|value| !self.0.is_null(value)) {
            Some(value) => {
                out.put_u8(1);
                put_sized(out, |out| self.0.put(value, out))
            }
            None => {
                out.put_u8(0);
                Ok(())
            }
        }
    }

    fn take_part(&self, from: &mut Bytes) -> Result<Option<V>, SerdeError> {
        match from.try_get_u8() {
            Ok(0) => Ok(None),
            Ok(1) => {
                let value = take_sized(from)?;
                self.0.get(&value, &value).map(Some)
            }
            _ => Err(SerdeError::new("a waiting update has no such part")),
        }
    }
}

impl<V: Send + 'static> Serde<Held<V>> for HeldSerde<V> {
    fn put(&self, held: &Held<V>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.put_i64(held.time);
        self.put_part(&held.old, out)?;
        self.put_part(&held.new, out)?;
        put_headers(&held.headers, out)
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<Held<V>, SerdeError> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let time = rest.try_get_i64();
        Ok(Held {
            time: time.map_err(|_| SerdeError::new("a waiting update is cut off"))?,
            old: self.take_part(&mut rest)?,
            new: self.take_part(&mut rest)?,
            headers: take_headers(rest)?,
            bytes: bytes.len(),
        })
    }

    fn weight(&self, held: &Held<V>) -> usize {
        let part =
            |part: &Option<V>| part.as_ref().map_or(size_of::<V>(), |value| self.0.weight(value));
        size_of::<Held<V>>() + part(&held.old) + part(&held.new)
    }
}
