//! Own types in the compact binary format of the crate bincode.

use bincode::config::{Configuration, Limit, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DynSerde, SerdeError, from_fns};

/// The bincode serde of a type: version 2 in its standard configuration (little-endian, small
/// numbers in one byte), without names of fields. A type whose fields change, or change places, no
/// longer reads what was written before.
///
/// bincode is no longer maintained; its format is frozen. Memory for decoding is bounded by the
/// size of the encoding, whatever that claims to contain. The depth of types that contain
/// themselves is not: do not decode those from sources that are not trusted.
///
/// # Errors
/// Decoding fails for all that is not the encoding of the type, bytes behind it included, and for
/// types that ask the format what comes next (serde's `untagged`, `flatten`, `skip_serializing_if`).
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Order {
///     customer: String,
///     cents: u64,
/// }
/// streams_core::serde!(Order => bincode);
///
/// # use streams_core::serde::HasSerde;
/// let mut out = Vec::new();
/// Order::serde().put(&Order { customer: "Ada".into(), cents: 250 }, &mut out)?;
/// assert_eq!(out, b"\x03Ada\xfa"); // 250, the last number that takes one byte
/// # Ok::<(), streams_core::SerdeError>(())
/// ```
pub fn bincode<T: Serialize + DeserializeOwned + 'static>() -> DynSerde<T> {
    from_fns(
        |value: &T, out: &mut Vec<u8>| {
            let done = bincode::serde::encode_into_std_write(value, out, standard());
            done.map(|_| ()).map_err(|e| SerdeError::new(e.to_string()))
        },
        // A number that takes one byte here may take 16 in memory. So much is allowed for the
        // smallest of these sizes that the bytes fit in; no record is larger than the last.
        |bytes: &[u8]| match bytes.len() {
            ..=0xfff => decode::<T, { 16 << 12 }>(bytes),
            0x1000..=0xf_ffff => decode::<T, { 16 << 20 }>(bytes),
            _ => decode::<T, { 16 << 26 }>(bytes),
        },
    )
}

fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, SerdeError> {
    let config: Configuration<_, _, Limit<LIMIT>> = standard().with_limit::<LIMIT>();
    let (value, length) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|e| SerdeError::new(format!("not the bincode expected: {e}")))?;
    if length < bytes.len() {
        let more = bytes.len() - length;
        return Err(SerdeError::new(format!("not the bincode expected: {more} bytes too many")));
    }
    Ok(value)
}
