//! Serdes of the usual types.

use std::sync::Arc;

use bytes::Bytes;

use super::{DynSerde, HasSerde, Serde, SerdeError, share};

macro_rules! fixed_width {
    ($($type:ty),*) => {$(
        impl HasSerde for $type {
            fn serde() -> DynSerde<Self> {
                struct FixedWidth;
                impl Serde<$type> for FixedWidth {
                    fn put(&self, value: &$type, out: &mut Vec<u8>) -> Result<(), SerdeError> {
                        out.extend_from_slice(&value.to_be_bytes());
                        Ok(())
                    }
                    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<$type, SerdeError> {
                        bytes.try_into().map(<$type>::from_be_bytes).map_err(|_| {
                            let (found, wanted) = (bytes.len(), size_of::<$type>());
                            SerdeError::new(format!(
                                "{found} bytes instead of the {wanted} of {}", stringify!($type)
                            ))
                        })
                    }
                }
                Arc::new(FixedWidth)
            }
        }
    )*};
}

fixed_width!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, f32, f64);

struct Plain;

impl Serde<bool> for Plain {
    fn put(&self, value: &bool, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.push(u8::from(*value));
        Ok(())
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<bool, SerdeError> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(SerdeError::new("not a bool: expected one byte, 0 or 1")),
        }
    }
}

impl HasSerde for bool {
    fn serde() -> DynSerde<Self> {
        Arc::new(Plain)
    }
}

impl Serde<String> for Plain {
    fn put(&self, value: &String, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<String, SerdeError> {
        utf8(bytes).map(str::to_owned)
    }

    fn weight(&self, value: &String) -> usize {
        size_of::<String>() + value.len()
    }
}

impl HasSerde for String {
    fn serde() -> DynSerde<Self> {
        Arc::new(Plain)
    }
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, SerdeError> {
    std::str::from_utf8(bytes)
        .map_err(|e| SerdeError::new(format!("not UTF-8: byte {} does not fit", e.valid_up_to())))
}

impl Serde<Bytes> for Plain {
    fn put(&self, value: &Bytes, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Bytes, SerdeError> {
        Ok(share(bytes, owner))
    }

    fn weight(&self, value: &Bytes) -> usize {
        size_of::<Bytes>() + value.len()
    }
}

impl HasSerde for Bytes {
    fn serde() -> DynSerde<Self> {
        Arc::new(Plain)
    }
}

impl Serde<Vec<u8>> for Plain {
    fn put(&self, value: &Vec<u8>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn get(&self, bytes: &[u8], _: &Bytes) -> Result<Vec<u8>, SerdeError> {
        Ok(bytes.to_vec())
    }

    fn weight(&self, value: &Vec<u8>) -> usize {
        size_of::<Vec<u8>>() + value.len()
    }
}

impl HasSerde for Vec<u8> {
    fn serde() -> DynSerde<Self> {
        Arc::new(Plain)
    }
}

impl Serde<()> for Plain {
    fn put(&self, (): &(), _: &mut Vec<u8>) -> Result<(), SerdeError> {
        Ok(())
    }

    fn get(&self, _: &[u8], _: &Bytes) -> Result<(), SerdeError> {
        Ok(())
    }

    fn is_null(&self, (): &()) -> bool {
        true
    }

    fn null(&self) -> Option<()> {
        Some(())
    }
}

impl HasSerde for () {
    fn serde() -> DynSerde<Self> {
        Arc::new(Plain)
    }
}

/// Null is `None`; everything else is the inner serde's.
struct Nullable<T>(DynSerde<T>);

impl<T: 'static> Serde<Option<T>> for Nullable<T> {
    fn put(&self, value: &Option<T>, out: &mut Vec<u8>) -> Result<(), SerdeError> {
        value.as_ref().map_or(Ok(()), |value| self.0.put(value, out))
    }

    fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<Option<T>, SerdeError> {
        self.0.get(bytes, owner).map(Some)
    }

    fn is_null(&self, value: &Option<T>) -> bool {
        value.is_none()
    }

    fn null(&self) -> Option<Option<T>> {
        Some(None)
    }

    fn check(&self) -> Result<(), SerdeError> {
        self.0.check()
    }

    fn weight(&self, value: &Option<T>) -> usize {
        value.as_ref().map_or(size_of::<Option<T>>(), |value| self.0.weight(value))
    }
}

impl<T: HasSerde> HasSerde for Option<T> {
    fn serde() -> DynSerde<Self> {
        nullable(T::serde())
    }
}

/// The serde of `Option<T>` over one of `T`.
pub fn nullable<T: 'static>(inner: DynSerde<T>) -> DynSerde<Option<T>> {
    Arc::new(Nullable(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round<T: HasSerde + PartialEq + std::fmt::Debug>(value: T) -> Vec<u8> {
        let serde = T::serde();
        let mut out = Vec::new();
        serde.put(&value, &mut out).unwrap();
        assert_eq!(serde.get(&out, &Bytes::new()).unwrap(), value);
        out
    }

    #[test]
    fn values_come_back_in_kafkas_bytes() {
        assert_eq!(round(-2i32), [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(round(1.5f64), 1.5f64.to_be_bytes());
        assert_eq!(round("é".to_string()), [0xc3, 0xa9]);
        assert_eq!(round(Some(7u8)), [7]);
        round(true);
        round(vec![1u8, 2]);
    }

    #[test]
    fn wrong_bytes_are_refused_with_a_reason() {
        let error = i64::serde().get(b"abc", &Bytes::new()).unwrap_err();
        assert_eq!(error.to_string(), "3 bytes instead of the 8 of i64");
        let error = String::serde().get(b"ab\xff", &Bytes::new()).unwrap_err();
        assert_eq!(error.to_string(), "not UTF-8: byte 2 does not fit");
    }

    #[test]
    fn nulls_live_in_option_and_unit_only() {
        assert_eq!(Option::<i64>::serde().null(), Some(None));
        assert_eq!(<()>::serde().null(), Some(()));
        assert_eq!(i64::serde().null(), None);
        assert!(Option::<i64>::serde().is_null(&None));
        assert!(!Option::<String>::serde().is_null(&Some(String::new())));
        // tells "whatever it is" from null
        assert!(!Option::<()>::serde().is_null(&Some(())));
    }

    #[test]
    fn bytes_share_their_owner() {
        let owner = Bytes::from_static(b"hello world");
        let taken = Bytes::serde().get(&owner[6..], &owner).unwrap();
        assert_eq!(taken.as_ptr(), owner[6..].as_ptr());
        let elsewhere = b"other".to_vec();
        assert_eq!(Bytes::serde().get(&elsewhere, &owner).unwrap(), &b"other"[..]);
    }
}
