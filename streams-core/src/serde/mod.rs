//! How keys and values become bytes.
//!
//! A [`Serde`] encodes and decodes one type. The usual types bring theirs through [`HasSerde`]:
//! integers and floats (big-endian, as in Kafka), `bool`, `String`, [`Text`], [`Bytes`], `Vec<u8>`,
//! `()`, `Option<T>`, and pairs and triples of such types. Own types get theirs in one line,
//! [`serde!`](crate::serde!). Every operator also takes a serde by hand.
//!
//! Nullability is in the type: `Option<T>` carries nulls, `()` stands for "whatever it is, null
//! too", and every other type has none.
//!
//! Stores find entries by their encoded keys, caches by `Eq + Hash`: equal keys must have equal
//! bytes. (Floats and unordered maps break this; do not use them in keys.) Values on the left of a
//! join by a foreign key must have the same bytes each time they are encoded, also after they were
//! decoded: `BTreeMap` and `BTreeSet` in them, not `HashMap` and `HashSet`.
//!
//! ```
//! use streams_core::serde::{HasSerde, Serde};
//! let serde = <i64 as HasSerde>::serde();
//! let mut out = Vec::new();
//! serde.put(&5, &mut out)?;
//! assert_eq!(out, [0, 0, 0, 0, 0, 0, 0, 5]);
//! assert_eq!(serde.get(&out, &bytes::Bytes::new())?, 5);
//! # Ok::<(), streams_core::SerdeError>(())
//! ```

#[cfg(feature = "bincode")]
mod bincode;
mod formats;
#[cfg(test)]
mod fuzz_tests;
mod primitives;
mod text;
mod tuples;
mod windowed;
mod with_headers;

use std::any::TypeId;
use std::sync::Arc;

use bytes::Bytes;

pub use crate::error::SerdeError;
#[cfg(feature = "bincode")]
pub use bincode::bincode;
pub use formats::{FromFns, from_fns, json};
pub use primitives::nullable;
pub use text::Text;
pub use windowed::{session_windowed, time_windowed};
pub use with_headers::with_headers;
pub(crate) use with_headers::{put_headers, put_sized, take_headers, take_sized};

/// Encodes and decodes values of one type.
pub trait Serde<T>: Send + Sync + 'static {
    /// Appends the bytes of a value that is not null.
    ///
    /// # Errors
    /// [`SerdeError`] if the value has no encoding; `out` may then hold part of it.
    fn put(&self, value: &T, out: &mut Vec<u8>) -> Result<(), SerdeError>;

    /// Decodes a value. `bytes` lies within `owner` where that is not empty, so that types like
    /// [`Bytes`] can share it instead of copying.
    ///
    /// # Errors
    /// [`SerdeError`] if the bytes are not an encoding.
    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<T, SerdeError>;

    /// Whether this value is written as null.
    fn is_null(&self, _value: &T) -> bool {
        false
    }

    /// The value that null stands for, if the type has one.
    fn null(&self) -> Option<T> {
        None
    }

    /// Whether values can be written and read at all, which is asked when a topology is built. A serde
    /// that is made of others passes the question on to them.
    ///
    /// # Errors
    /// [`SerdeError`] that says what to use instead.
    fn check(&self) -> Result<(), SerdeError> {
        Ok(())
    }

    /// Tells serdes apart; those of one type are taken for equal, whatever they hold.
    fn kind(&self) -> TypeId {
        TypeId::of::<Self>()
    }

    /// About how many bytes of memory the value takes.
    fn weight(&self, _value: &T) -> usize {
        size_of::<T>()
    }
}

/// A shared serde.
pub type DynSerde<T> = Arc<dyn Serde<T>>;

/// A type that brings its serde.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no serde, so its values cannot be written or read",
    label = "needs a serde for `{Self}`",
    note = "for a type of your own declare one (`vltava::serde!({Self} => json)`) or implement `HasSerde`",
    note = "for a number of the standard library cast it to one that has a serde (a `usize` to `i64` or `u64`)",
    note = "for a collection, a longer tuple or a type of another crate make a struct of your own, or give a serde by hand: the `_with` form of the operator takes one, for instance `json()`"
)]
pub trait HasSerde: Sized + 'static {
    /// The serde.
    fn serde() -> DynSerde<Self>;
}

/// Encodes a value: `None` if it is null.
///
/// # Errors
/// As [`Serde::put`].
pub fn encode<'a, T: 'static>(
    serde: &dyn Serde<T>,
    value: &T,
    scratch: &'a mut Vec<u8>,
) -> Result<Option<&'a [u8]>, SerdeError> {
    if serde.is_null(value) {
        return Ok(None);
    }
    scratch.clear();
    serde.put(value, scratch)?;
    Ok(Some(scratch))
}

/// Shares `bytes` with its owner, or copies it where it has none.
#[inline]
fn share(bytes: &[u8], owner: &Bytes) -> Bytes {
    if owner.is_empty() || bytes.is_empty() {
        return Bytes::copy_from_slice(bytes);
    }
    let (start, end) = (owner.as_ptr() as usize, owner.as_ptr() as usize + owner.len());
    let at = bytes.as_ptr() as usize;
    if at >= start && at + bytes.len() <= end {
        owner.slice(at - start..at - start + bytes.len())
    } else {
        Bytes::copy_from_slice(bytes)
    }
}
