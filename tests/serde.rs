//! Own types with `vltava::serde!`: what is written comes back, and what is not theirs is refused.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use vltava::serde::{DynSerde, HasSerde, bincode, json};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Payment {
    Cash,
    Card { number: String, limit: Option<u64> },
    Points(i128),
}

macro_rules! order {
    ($name:ident => $format:ident) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct $name {
            customer: String,
            amount: f64,
            big: Vec<u64>,
            note: Vec<u8>,
            payment: Payment,
            tags: BTreeMap<String, (bool, char)>,
        }
        vltava::serde!($name => $format);
    };
}

order!(JsonOrder => json);
order!(BincodeOrder => bincode);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct A(u8);
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct B(Vec<u128>);
vltava::serde!(A, B => bincode);

prop_compose! {
    fn order()(
        customer in ".*",
        amount in any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()),
        big in any::<Vec<u64>>(),
        note in any::<Vec<u8>>(),
        payment in prop_oneof![
            Just(Payment::Cash),
            (".*", any::<Option<u64>>()).prop_map(|(number, limit)| Payment::Card { number, limit }),
            any::<i128>().prop_map(Payment::Points),
        ],
        tags in proptest::collection::btree_map(".*", any::<(bool, char)>(), 0..5),
    ) -> JsonOrder {
        JsonOrder { customer, amount, big, note, payment, tags }
    }
}

fn bytes_of<T: 'static>(serde: &DynSerde<T>, value: &T) -> Vec<u8> {
    let mut out = vec![7];
    serde.put(value, &mut out).unwrap();
    assert_eq!(out.remove(0), 7, "what was there stays");
    out
}

fn get<T: 'static>(serde: &DynSerde<T>, bytes: &[u8]) -> Result<T, String> {
    serde.get(bytes, &Bytes::new()).map_err(|e| e.to_string())
}

proptest! {
    #[test]
    fn orders_come_back(order in order()) {
        let json = JsonOrder::serde();
        prop_assert_eq!(&get(&json, &bytes_of(&json, &order)).unwrap(), &order);
        let JsonOrder { customer, amount, big, note, payment, tags } = order;
        let order = BincodeOrder { customer, amount, big, note, payment, tags };
        let bincode = BincodeOrder::serde();
        prop_assert_eq!(&get(&bincode, &bytes_of(&bincode, &order)).unwrap(), &order);
    }

    /// An error or a value; never a panic, and (the test would not survive it) never an allocation
    /// as large as the bytes may claim.
    #[test]
    fn garbage_is_survived(bytes in any::<Vec<u8>>()) {
        let _ = (get(&JsonOrder::serde(), &bytes), get(&BincodeOrder::serde(), &bytes));
    }

    #[test]
    fn damage_is_survived(order in order(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let JsonOrder { customer, amount, big, note, payment, tags } = order;
        let order = BincodeOrder { customer, amount, big, note, payment, tags };
        let mut bytes = bytes_of(&BincodeOrder::serde(), &order);
        let at = at.index(bytes.len());
        prop_assert!(get(&BincodeOrder::serde(), &bytes[..at]).is_err(), "cut");
        bytes[at] = byte;
        let _ = get(&BincodeOrder::serde(), &bytes);
        bytes[at] = 0;
        bytes.push(0);
        let _ = get(&BincodeOrder::serde(), &bytes);
    }
}

#[test]
fn a_length_that_the_bytes_cannot_hold_is_refused_before_memory_is_taken() {
    let serde = bincode::<String>();
    for length in [1_u64 << 20, 1 << 32, 1 << 62, u64::MAX] {
        let bytes = [&[253][..], &length.to_le_bytes(), b"abc"].concat();
        let error = get(&serde, &bytes).unwrap_err();
        assert!(error.starts_with("not the bincode expected: "), "{error}");
        assert!(error.contains("LimitExceeded"), "{error}");
    }
}

#[test]
fn what_is_larger_in_memory_than_in_bytes_comes_back_at_every_size() {
    for numbers in [4_000, 5_000, 1_000_000, 1_100_000] {
        let value = B(vec![1; numbers]);
        let bytes = bytes_of(&B::serde(), &value);
        assert!(bytes.len() < numbers + 10);
        assert!(get(&B::serde(), &bytes).unwrap() == value, "{numbers}");
    }
}

#[test]
fn what_is_not_of_the_type_is_told() {
    let error = get(&json::<JsonOrder>(), b"{}").unwrap_err();
    assert!(error.contains("missing field `customer`"), "{error}");
    let error = get(&A::serde(), &[1, 2]).unwrap_err();
    assert_eq!(error, "not the bincode expected: 1 bytes too many");
}
