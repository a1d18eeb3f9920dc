//! What is left of that which one record lets go, as its operator's bookmark remembers it.
//!
//! The record's headers belong to it, as all that it lets go gets them, and the record may be gone by
//! then. Where they are too long for a bookmark, the operator does not stop, but lets everything go at
//! once: then nothing has to be remembered.
//!
//! Layout, as in [`with_headers`]: 1 (u8, the version), a time (i64, big-endian), the place of the last entry
//! that was let go (which the store understands), with their length before them; then the headers.

use bytes::Bytes;
use streams_core::processor::{Bookmark, Context};
use streams_core::serde::{HasSerde, with_headers};
use streams_core::{Data, Headers, ProcessError, SerdeError};

const VERSION: u8 = 1;
const HEAD: usize = 1 + 8;

/// What is still to be let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Up to which time.
    pub(crate) until: i64,
    /// What comes after this place; empty: everything.
    pub(crate) after: Bytes,
    /// The headers of the record that lets it go.
    pub(crate) headers: Headers,
}

impl Rest {
    /// What a bookmark says; `None`: nothing is left.
    pub(crate) fn at<K: Data, V: Data>(
        bookmark: Bookmark,
        cx: &Context<'_, K, V>,
    ) -> Result<Option<Self>, ProcessError> {
        match cx.bookmark(bookmark) {
            [] => Ok(None),
            bytes => Self::decode(bytes).map(Some).map_err(|error| wrong(&error)),
        }
    }

    /// Remembers it.
    pub(crate) fn remember<K: Data, V: Data>(
        &self,
        bookmark: Bookmark,
        cx: &mut Context<'_, K, V>,
    ) -> Result<(), ProcessError> {
        let bytes = self.clone().encode().map_err(|error| wrong(&error))?;
        cx.set_bookmark(bookmark, bytes)
    }

    /// The same, unless it is too long; answers whether it is remembered.
    pub(crate) fn remember_if_short<K: Data, V: Data>(
        &self,
        bookmark: Bookmark,
        cx: &mut Context<'_, K, V>,
    ) -> Result<bool, ProcessError> {
        match self.remember(bookmark, cx) {
            Ok(()) => Ok(true),
            Err(ProcessError::Bookmark { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn encode(self) -> Result<Vec<u8>, SerdeError> {
        let place = [&[VERSION][..], &self.until.to_be_bytes(), &self.after].concat();
        let mut bytes = Vec::new();
        with_headers(Bytes::serde()).put(&(place.into(), self.headers), &mut bytes)?;
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, SerdeError> {
        let bytes = Bytes::copy_from_slice(bytes);
        let (place, headers) = with_headers(Bytes::serde()).get(&bytes, &bytes)?;
        let until = place.get(1..).and_then(|rest| rest.first_chunk());
        match (place.first(), until) {
            (Some(&VERSION), Some(until)) => {
                let until = i64::from_be_bytes(*until);
                Ok(Self { until, after: place.slice(HEAD..), headers })
            }
            _ => Err(SerdeError::new("its version is not known; is it of a later release?")),
        }
    }
}

fn wrong(error: &SerdeError) -> ProcessError {
    ProcessError::user(format!("the bookmark of what is left to be forwarded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let mut headers = Headers::default();
        headers.push(broker_api::Header { name: "h".into(), value: None });
        let rest = Rest { until: 258, after: Bytes::from_static(b"ab"), headers };
        let bytes = rest.clone().encode().unwrap();
        assert_eq!(bytes, b"\0\0\0\x0b\x01\0\0\0\0\0\0\x01\x02ab\0\0\0\x01h\0\0\0\0");
        assert_eq!(Rest::decode(&bytes).unwrap(), rest);
        for bad in [&b"x"[..], b"\0\0\0\x02\x01\0", b"\0\0\0\x09\x02\0\0\0\0\0\0\x01\x02"] {
            assert!(Rest::decode(bad).is_err(), "{bad:?}");
        }
    }
}
