//! Serdes for own types: JSON through serde, or any pair of functions.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DynSerde, Serde, SerdeError};

/// Values as JSON text.
#[derive(Debug, Default)]
pub struct Json<T> {
    last_len: AtomicUsize,
    marker: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + 'static> Serde<T> for Json<T> {
    fn put(&self, value: &T, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        let start = out.len();
        serde_json::to_writer(&mut *out, value).map_err(|e| SerdeError::new(e.to_string()))?;
        self.last_len.store(out.len() - start, Ordering::Relaxed);
        Ok(())
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<T, SerdeError> {
        serde_json::from_slice(bytes)
            .map_err(|e| SerdeError::new(format!("not the JSON expected: {e}")))
    }

    fn weight(&self, _: &T) -> usize {
        size_of::<T>() + self.last_len.load(Ordering::Relaxed)
    }
}

/// The JSON serde of a type.
pub fn json<T: Serialize + DeserializeOwned + 'static>() -> DynSerde<T> {
    Arc::new(Json { last_len: AtomicUsize::new(0), marker: PhantomData })
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
