//! Serdes for own types: JSON or bincode through serde, or any pair of functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DynSerde, Serde, SerdeError};

/// Gives own types their serde, in one line: `serde!(Order => json)` or `serde!(Order => bincode)`.
/// Several types may stand before the arrow, with commas between them. They must implement serde's
/// `Serialize` and `Deserialize`; then every operator finds their serde by itself ([`HasSerde`]).
///
/// - `json`: text, readable by everybody; see [`json`].
/// - `bincode`: compact binary; see `bincode`. Needs the feature `bincode`.
///
/// For another format implement [`HasSerde`] with [`from_fns`].
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use streams_core::serde::HasSerde;
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order {
///     customer: String,
///     cents: u64,
/// }
/// streams_core::serde!(Order => json);
///
/// let order = Order { customer: "Ada".into(), cents: 250 };
/// let mut out = Vec::new();
/// Order::serde().put(&order, &mut out)?;
/// assert_eq!(out, br#"{"customer":"Ada","cents":250}"#);
/// # Ok::<(), streams_core::SerdeError>(())
/// ```
///
/// [`HasSerde`]: crate::serde::HasSerde
/// [`json`]: crate::serde::json()
/// [`from_fns`]: crate::serde::from_fns()
#[macro_export]
macro_rules! serde {
    ($($type:ty),+ => json) => { $crate::serde!(@by json: $($type),+); };
    ($($type:ty),+ => bincode) => { $crate::serde!(@by bincode: $($type),+); };
    (@by $format:ident: $($type:ty),+) => {$(
        impl $crate::serde::HasSerde for $type {
            fn serde() -> $crate::serde::DynSerde<Self> {
                $crate::serde::$format()
            }
        }
    )+};
}

/// The JSON serde of a type. The bytes are UTF-8 text without white space, the fields in their order;
/// those of a `HashMap` or `HashSet` in any order, so that equal values may have different bytes. That
/// must not be in keys, nor in values on the left of a join by a foreign key: take `BTreeMap` there.
///
/// # Errors
/// Encoding fails for what JSON cannot express (maps whose keys are no text or numbers), decoding for
/// all that is not the JSON of the type. Infinite floats and NaN become `null`, which does not decode.
pub fn json<T: Serialize + DeserializeOwned + 'static>() -> DynSerde<T> {
    from_fns(
        |value: &T, out: &mut Vec<u8>| {
            serde_json::to_writer(out, value).map_err(|e| SerdeError::new(e.to_string()))
        },
        |bytes: &[u8]| {
            serde_json::from_slice(bytes)
                .map_err(|e| SerdeError::new(format!("not the JSON expected: {e}")))
        },
    )
}

/// A serde made of two functions.
pub struct FromFns<P, G> {
    put: P,
    get: G,
    last_len: AtomicUsize,
}

impl<T, P, G> Serde<T> for FromFns<P, G>
where
    P: Fn(&T, &mut Vec<u8>) -> Result<(), SerdeError> + Send + Sync + 'static,
    G: Fn(&[u8]) -> Result<T, SerdeError> + Send + Sync + 'static,
{
    fn put(&self, value: &T, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        let start = out.len();
        (self.put)(value, out)?;
        self.last_len.store(out.len() - start, Ordering::Relaxed);
        Ok(())
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<T, SerdeError> {
        (self.get)(bytes)
    }

    fn weight(&self, _: &T) -> usize {
        size_of::<T>() + self.last_len.load(Ordering::Relaxed)
    }
}

/// A serde made of an encoding and a decoding function, for any format.
///
/// ```
/// use streams_core::serde::{SerdeError, from_fns};
/// struct Celsius(f32);
/// let serde = from_fns(
///     |t: &Celsius, out: &mut Vec<u8>| Ok(out.extend(t.0.to_le_bytes())),
///     |bytes: &[u8]| {
///         let bytes = bytes.try_into().map_err(|_| SerdeError::new("four bytes expected"))?;
///         Ok(Celsius(f32::from_le_bytes(bytes)))
///     },
/// );
/// # let mut out = Vec::new();
/// # serde.put(&Celsius(1.0), &mut out).unwrap();
/// ```
pub fn from_fns<T, P, G>(put: P, get: G) -> DynSerde<T>
where
    T: 'static,
    P: Fn(&T, &mut Vec<u8>) -> Result<(), SerdeError> + Send + Sync + 'static,
    G: Fn(&[u8]) -> Result<T, SerdeError> + Send + Sync + 'static,
{
    Arc::new(FromFns { put, get, last_len: AtomicUsize::new(0) })
}
