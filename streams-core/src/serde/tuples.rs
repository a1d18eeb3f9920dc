//! Serdes of pairs and triples, from those of their parts.
//!
//! Byte layout: for each part its length (i32, big-endian; -1: null) and then its bytes, as Kafka writes the
//! entries of a list. Equal tuples have equal bytes if their parts have. The layout is versioned by the
//! type alone, like that of the other usual types: what is in topics and stores must stay readable.

use std::sync::Arc;

use bytes::Bytes;

use super::{DynSerde, HasSerde, Serde, SerdeError};

struct Tuple<Parts>(Parts);

macro_rules! tuple {
    ($($part:ident $at:tt),+) => {
        impl<$($part: HasSerde),+> HasSerde for ($($part,)+) {
            fn serde() -> DynSerde<Self> {
                Arc::new(Tuple(($($part::serde(),)+)))
            }
        }

        impl<$($part: 'static),+> Serde<($($part,)+)> for Tuple<($(DynSerde<$part>,)+)> {
            fn put(&self, value: &($($part,)+), out: &mut Vec<u8>) -> Result<(), SerdeError> {
                $(put_part(&*self.0.$at, &value.$at, out)?;)+
                Ok(())
            }

            fn get(&self, bytes: &[u8], owner: &Bytes) -> Result<($($part,)+), SerdeError> {
                let mut rest = bytes;
                let value = ($(take_part(&*self.0.$at, &mut rest, owner)?,)+);
                match rest.len() {
                    0 => Ok(value),
                    more => Err(SerdeError::new(format!("{more} bytes more than a tuple has"))),
                }
            }

            fn check(&self) -> Result<(), SerdeError> {
                $(self.0.$at.check()?;)+
                Ok(())
            }

            fn weight(&self, value: &($($part,)+)) -> usize {
                0 $(+ self.0.$at.weight(&value.$at))+
            }
        }
    };
}

tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);

const NULL: i32 = -1;

fn put_part<T: 'static>(
    serde: &dyn Serde<T>,
    part: &T,
    out: &mut Vec<u8>,
) -> Result<(), SerdeError> {
    if serde.is_null(part) {
        out.extend_from_slice(&NULL.to_be_bytes());
        return Ok(());
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    serde.put(part, out)?;
    let length = i32::try_from(out.len() - at - 4)
        .map_err(|_| SerdeError::new("a part of a tuple has more than 2 GiB"))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn take_part<T: 'static>(
    serde: &dyn Serde<T>,
    rest: &mut &[u8],
    owner: &Bytes,
) -> Result<T, SerdeError> {
    let cut = || SerdeError::new("a tuple is cut off");
    let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
    let length = i32::from_be_bytes(*length);
    if length == NULL {
        *rest = after;
        return serde.null().ok_or_else(|| SerdeError::new("a part of a tuple is null"));
    }
    let length = usize::try_from(length).map_err(|_| cut())?;
    let (part, after) = after.split_at_checked(length).ok_or_else(cut)?;
    *rest = after;
    serde.get(part, owner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Nested = ((Option<String>, i64), Bytes, ());

    fn bytes_of<T: HasSerde>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        T::serde().put(value, &mut out).unwrap();
        out
    }

    fn back<T: HasSerde>(bytes: &[u8]) -> Result<T, SerdeError> {
        let owner = Bytes::copy_from_slice(bytes);
        T::serde().get(&owner, &owner)
    }

    #[test]
    fn golden_bytes() {
        let pair = [&[0, 0, 0, 2, b'a', b'b'][..], &[0, 0, 0, 2, 0, 7]].concat();
        assert_eq!(bytes_of(&("ab".to_string(), 7i16)), pair);
        let triple = [&[0xff; 4][..], &[0, 0, 0, 0], &[0, 0, 0, 1, 1]].concat();
        assert_eq!(bytes_of(&(None::<i64>, String::new(), true)), triple);
    }

    #[test]
    fn wrong_bytes_are_refused_with_a_reason() {
        let whole = bytes_of(&("ab".to_string(), 7i64));
        for length in 0..whole.len() {
            let error = back::<(String, i64)>(&whole[..length]).unwrap_err();
            assert_eq!(error.to_string(), "a tuple is cut off", "{length} bytes");
        }
        let error = back::<(String, i64)>(&[&whole[..], &[0]].concat()).unwrap_err();
        assert_eq!(error.to_string(), "1 bytes more than a tuple has");
        let error = back::<(String, i64)>(&bytes_of(&("ab".to_string(), None::<i64>))).unwrap_err();
        assert_eq!(error.to_string(), "a part of a tuple is null");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn tuples_come_back_and_nothing_else_looks_like_them(
            name in proptest::option::of(".{0,5}"),
            number: i64,
            data in proptest::collection::vec(any::<u8>(), 0..9),
            noise in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let value: Nested = ((name, number), data.into(), ());
            let bytes = bytes_of(&value);
            prop_assert_eq!(back::<Nested>(&bytes).unwrap(), value);
            // What decodes is the encoding of what came out: one form for each value.
            if let Ok(value) = back::<(String, Option<i64>)>(&noise) {
                prop_assert_eq!(bytes_of(&value), noise);
            }
        }
    }
}
