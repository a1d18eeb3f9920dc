//! Headers inside stored values, for records that wait and come out later as they were.
//!
//! Byte layout (numbers are big-endian): length of the value (u32), the value, and for each header the
//! length of its name (u32), the name in UTF-8, the length of its value plus one (u32; 0: null), its value.

use std::sync::Arc;

use broker_api::Header;
use bytes::{Buf, Bytes};

use super::{DynSerde, Serde, SerdeError};
use crate::record::Headers;

/// The serde of a value together with the headers of its record.
pub fn with_headers<T: 'static>(value: DynSerde<T>) -> DynSerde<(T, Headers)> {
    Arc::new(WithHeaders(value))
}

struct WithHeaders<T>(DynSerde<T>);

impl<T: 'static> Serde<(T, Headers)> for WithHeaders<T> {
    fn put(&self, (value, headers): &(T, Headers), out: &mut Vec<u8>) -> Result<(), SerdeError> {
        put_sized(out, |out| self.0.put(value, out))?;
        put_headers(headers, out)
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<(T, Headers), SerdeError> {
        let mut rest = super::share(bytes, owner);
        let value = take_sized(&mut rest)?;
        Ok((self.0.get(&value, &value)?, take_headers(rest)?))
    }

    fn check(&self) -> Result<(), SerdeError> {
        self.0.check()
    }
}

/// Appends what `put` writes, with its length (u32) before it.
pub(crate) fn put_sized(
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>) -> Result<(), SerdeError>,
) -> Result<(), SerdeError> {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out)?;
    let length = length(out.len() - length_at - 4)?;
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// What [`put_sized`] has written.
pub(crate) fn take_sized(from: &mut Bytes) -> Result<Bytes, SerdeError> {
    let length = from.try_get_u32().map_err(|_| cut())? as usize;
    take(from, length)
}

/// Appends all headers.
pub(crate) fn put_headers(headers: &Headers, out: &mut Vec<u8>) -> Result<(), SerdeError> {
    for Header { name, value } in headers.as_slice() {
        out.extend_from_slice(&length(name.len())?.to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        let value_length = value.as_ref().map_or(0, |value| value.len() + 1);
        out.extend_from_slice(&length(value_length)?.to_be_bytes());
        out.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    Ok(())
}

/// The headers, which take the rest of a value.
pub(crate) fn take_headers(mut from: Bytes) -> Result<Headers, SerdeError> {
    let mut headers = Headers::default();
    while !from.is_empty() {
        let name = take_sized(&mut from)?;
        let name = std::str::from_utf8(&name);
        let name = name.map_err(|_| SerdeError::new("the name of a header is not UTF-8"))?.into();
        let length = from.try_get_u32().map_err(|_| cut())? as usize;
        let value = length.checked_sub(1).map(|length| take(&mut from, length)).transpose()?;
        headers.push(Header { name, value });
    }
    Ok(headers)
}

fn take(from: &mut Bytes, length: usize) -> Result<Bytes, SerdeError> {
    if length > from.len() {
        return Err(cut());
    }
    Ok(from.split_to(length))
}

fn length(length: usize) -> Result<u32, SerdeError> {
    u32::try_from(length).map_err(|_| SerdeError::new("it is above 4 GiB"))
}

fn cut() -> SerdeError {
    SerdeError::new("the stored value is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serde::HasSerde;

    fn value() -> (String, Headers) {
        let header = |name: &str, value: Option<&'static [u8]>| Header {
            name: name.into(),
            value: value.map(Bytes::from_static),
        };
        ("v".into(), vec![header("a", Some(b"x")), header("", None), header("b", Some(b""))].into())
    }

    #[test]
    fn golden_bytes() {
        let (serde, mut out) = (with_headers(String::serde()), Vec::new());
        serde.put(&value(), &mut out).unwrap();
        let golden = [
            &[0, 0, 0, 1, b'v'][..],
            &[0, 0, 0, 1, b'a', 0, 0, 0, 2, b'x'],
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 1, b'b', 0, 0, 0, 1],
        ];
        assert_eq!(out, golden.concat());
        assert_eq!(serde.get(&out, &Bytes::new()).unwrap(), value());
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_no_panic() {
        let (serde, mut out) = (with_headers(String::serde()), Vec::new());
        serde.put(&value(), &mut out).unwrap();
        let whole_headers = [5, 15, 23, 32];
        for length in (0..out.len()).filter(|length| !whole_headers.contains(length)) {
            assert!(serde.get(&out[..length], &Bytes::new()).is_err(), "{length} bytes");
        }
    }
}
