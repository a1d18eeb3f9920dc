//! The layout byte by byte, and what happens to bytes that are not what was written.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::{Batch, BatchBuilder, Cursor, HEADER_LEN, Header, RecordRef};
use crate::Error;

fn header(name: &str, value: Option<&'static [u8]>) -> Header {
    Header { name: name.into(), value: value.map(Bytes::from_static) }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Worked out by hand from the description of record batches in Kafka's documentation, the
/// checksum by a bitwise CRC-32C.
fn golden() -> Vec<u8> {
    let mut bytes = Vec::new();
    let fields = [
        "0000000000000000", // base offset
        "00000098",         // length of what follows: 152
        "ffffffff",         // partition leader epoch: none
        "02",               // magic
        "299331af",         // CRC-32C of what follows
        "0000",             // attributes
        "00000002",         // last offset delta
        "00000000000003e8", // base timestamp: 1000
        "0000000000000514", // max timestamp: 1300
        "ffffffffffffffff", // producer id: none
        "ffff",             // producer epoch: none
        "ffffffff",         // base sequence: none
        "00000003",         // three records
        // 8 bytes: attributes, timestamp +0, offset +0, key of 1, value of 1, no headers
        "10 00 00 00 02 6b 02 76 00",
        // 13 bytes: timestamp -2, offset +1, no key, no value, headers h=x and n=null
        "1a 00 03 02 01 01 04 02 68 02 78 02 6e 01",
        // 78 bytes: timestamp +300, offset +2, key of 0, value of 70 (and after it: no headers)
        "9c01 00 d804 04 00 8c01",
    ];
    fields.iter().for_each(|field| bytes.extend(hex(field)));
    bytes.extend([b'y'; 70]);
    bytes.push(0);
    bytes
}

#[test]
fn the_bytes_are_kafkas() {
    let mut builder = BatchBuilder::new();
    builder.push(1_000, Some(b"k"), Some(b"v"), &[]).unwrap();
    let headers = [header("h", Some(b"x")), header("n", None)];
    builder.push(998, None, None, &headers).unwrap();
    builder.push(1_300, Some(b""), Some(&[b'y'; 70]), &[]).unwrap();
    let batch = builder.finish().unwrap();
    assert_eq!(batch.bytes()[..], golden());
}

#[test]
fn kafkas_bytes_are_understood() {
    let batch = Batch::parse(golden().into()).unwrap().assigned(500, 7);
    assert_eq!((batch.base_offset(), batch.next_offset(), batch.count()), (500, 503, 3));
    assert_eq!((batch.max_timestamp(), batch.append_time()), (1_300, 7));
    let records: Vec<RecordRef<'_>> = batch.records().map(Result::unwrap).collect();
    assert_eq!((records[0].offset, records[0].timestamp), (500, 1_000));
    assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!((records[1].offset, records[1].timestamp), (501, 998));
    assert_eq!((records[1].key, records[1].value), (None, None));
    let headers = records[1].headers.to_vec().unwrap();
    assert_eq!(headers, [header("h", Some(b"x")), header("n", None)]);
    assert_eq!((records[2].offset, records[2].timestamp), (502, 1_300));
    assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), Some(&[b'y'; 70][..])));
}

#[test]
fn a_batch_may_span_more_than_its_records() {
    let batch = BatchBuilder::new().finish_spanning(4).unwrap();
    assert_eq!(batch.bytes().len(), HEADER_LEN);
    assert_eq!(batch.bytes()[17..21], hex("6cfa5a8f"), "the checksum, worked out apart");
    assert_eq!((batch.count(), batch.next_offset()), (0, 5));
    assert_eq!(batch.records().count(), 0);
    assert_eq!(Batch::parse(batch.bytes().clone()), Ok(batch));

    let mut builder = BatchBuilder::new();
    builder.push_at(3, 0, None, None, &[]).unwrap();
    builder.push_at(7, 0, None, None, &[]).unwrap();
    assert!(builder.finish_spanning(6).is_err());
    let batch = builder.finish_spanning(9).unwrap().assigned(100, 0);
    let offsets: Vec<_> = batch.records().map(|record| record.unwrap().offset).collect();
    assert_eq!((offsets, batch.next_offset()), (vec![103, 107], 110));
}

#[test]
fn impossible_batches_cannot_be_built() {
    let mut builder = BatchBuilder::new();
    assert!(builder.finish().is_err());
    assert!(builder.push_at(-1, 0, None, None, &[]).is_err());
    builder.push_at(5, 0, None, None, &[]).unwrap();
    assert!(builder.push_at(5, 0, None, None, &[]).is_err(), "offsets must rise");
    assert!(builder.push_at(i32::MAX, 0, None, None, &[]).is_err());
    assert_eq!(builder.len(), 1);
    builder.push_at(i32::MAX - 1, 0, None, None, &[]).unwrap();
    assert!(builder.push(0, None, None, &[]).is_err());
    let batch = builder.finish().unwrap();
    assert_eq!((batch.count(), batch.next_offset()), (2, i64::from(i32::MAX)));
    assert!(builder.is_empty() && builder.bytes() == 0, "the builder begins anew");
}

/// Changes bytes and puts a checksum that fits.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = golden();
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn what_is_not_understood_is_refused() {
    let refused = |change: fn(&mut Vec<u8>)| {
        let parsed = Batch::parse(forged(change).into());
        assert!(matches!(parsed, Err(Error::InvalidBatch { .. })), "{parsed:?}");
    };
    refused(|bytes| bytes[7] = 1); // base offset
    refused(|bytes| bytes[16] = 1); // magic
    refused(|bytes| bytes[22] = 4); // zstd
    refused(|bytes| bytes[22] = 8); // log append time
    refused(|bytes| bytes[22] = 32); // control
    refused(|bytes| bytes[22] = 64); // delete horizon
    refused(|bytes| bytes[23] = 0x80); // last offset delta below 0
    refused(|bytes| bytes[26] = 1); // more records than offsets
    refused(|bytes| bytes[57] = 0x80); // count below 0
    assert!(Batch::parse(forged(|bytes| bytes[22] = 16).into()).is_ok(), "transactional");
}

#[test]
fn records_that_do_not_fit_their_count_are_errors() {
    let read = |count: u8| {
        let bytes = forged(|bytes| {
            bytes[60] = count;
            bytes[26] = 9;
        });
        let batch = Batch::parse(bytes.into()).unwrap();
        batch.records().collect::<Result<Vec<_>, _>>().map(|records| records.len())
    };
    assert_eq!(read(3), Ok(3));
    assert!(read(2).is_err(), "bytes behind the last record");
    assert!(read(4).is_err(), "a record that is not there");
}

#[test]
fn a_cursor_of_another_batch_does_no_harm() {
    let large = Batch::parse(golden().into()).unwrap();
    let mut cursor = Cursor::default();
    large.next_record(&mut cursor).unwrap().unwrap();
    let small = BatchBuilder::new().finish_spanning(0).unwrap();
    assert!(small.next_record(&mut cursor).unwrap().is_err());
    assert!(small.next_record(&mut cursor).is_none());
}

type Owned = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn records() -> impl Strategy<Value = Vec<Owned>> {
    let bytes = || option::of(vec(any::<u8>(), 0..200));
    let headers = vec((".{0,8}", bytes()), 0..3);
    vec((any::<i64>(), bytes(), bytes(), headers), 1..20)
}

fn encode(records: &[Owned]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (timestamp, key, value, headers) in records {
        let headers = headers.iter().map(|(name, value)| Header {
            name: name.clone(),
            value: value.clone().map(Bytes::from),
        });
        let headers: Vec<Header> = headers.collect();
        builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers).unwrap();
    }
    builder.finish().unwrap()
}

fn owned(record: RecordRef<'_>) -> Result<Owned, Error> {
    let headers = record.headers.to_vec()?.into_iter();
    let headers = headers.map(|h| (h.name, h.value.map(|value| value.to_vec())));
    let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
    Ok((record.timestamp, key, value, headers.collect()))
}

/// Reads everything there is to read; gives up at the first error.
fn decode(batch: &Batch) -> Result<Vec<Owned>, Error> {
    batch.records().map(|record| owned(record?)).collect()
}

fn decode_by_cursor(batch: &Batch) -> Result<Vec<Owned>, Error> {
    let mut cursor = Cursor::default();
    std::iter::from_fn(|| batch.next_record(&mut cursor)).map(|record| owned(record?)).collect()
}

/// Always the same cases.
fn seeded() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn records_come_back_as_they_were(records in records(), base in 0..i64::MAX / 2) {
        let built = encode(&records);
        let batch = Batch::parse(built.bytes().clone()).unwrap().assigned(base, 1);
        prop_assert_eq!(&batch, &built.assigned(base, 1));
        prop_assert_eq!(batch.max_timestamp(), records.iter().map(|r| r.0).max().unwrap());
        let offsets: Vec<i64> = batch.records().map(|record| record.unwrap().offset).collect();
        prop_assert!(offsets.into_iter().eq(base..base + records.len() as i64));
        prop_assert_eq!(decode_by_cursor(&batch), Ok(records.clone()));
        prop_assert_eq!(decode(&batch), Ok(records));
    }

    #[test]
    fn a_cut_batch_is_refused(records in records(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&records).bytes().clone();
        let cut = bytes.slice(..cut.index(bytes.len()));
        prop_assert!(Batch::parse(cut).is_err());
    }

    #[test]
    fn a_changed_byte_is_refused_or_without_effect(
        records in records(),
        at in any::<prop::sample::Index>(),
        bits in 1..=255u8,
    ) {
        let mut bytes = encode(&records).bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        match Batch::parse(bytes.into()) {
            Err(error) => prop_assert!(matches!(error, Error::InvalidBatch { .. }), "{}", error),
            // Nobody reads the leader epoch, and the checksum does not cover it.
            Ok(batch) => {
                prop_assert!((12..16).contains(&at), "byte {}", at);
                prop_assert_eq!(decode(&batch), Ok(records));
            }
        }
    }

    #[test]
    fn damage_with_a_good_checksum_never_panics(
        records in records(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
    ) {
        let mut bytes = encode(&records).bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(batch) = Batch::parse_trusted(bytes.into()) {
            let batch = batch.assigned(i64::MAX - 1, 0);
            prop_assert_eq!(decode(&batch).is_ok(), decode_by_cursor(&batch).is_ok());
        }
    }

    #[test]
    fn arbitrary_records_never_panic(
        count in 0..1_000i32,
        noise in vec(prop_oneof![0..4u8, any::<u8>()], 0..300),
    ) {
        let mut bytes = golden()[..HEADER_LEN].to_vec();
        bytes.extend(noise);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[23..27].copy_from_slice(&count.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let batch = Batch::parse_trusted(bytes.into()).unwrap();
        prop_assert_eq!(decode(&batch).is_ok(), decode_by_cursor(&batch).is_ok());
    }
}

#[test]
fn every_byte_of_the_golden_batch_matters() {
    for at in 0..golden().len() {
        for bit in 0..8 {
            let mut bytes = golden();
            bytes[at] ^= 1 << bit;
            let parsed = Batch::parse(bytes.into());
            assert_eq!(parsed.is_ok(), (12..16).contains(&at), "byte {at}, bit {bit}");
        }
    }
}
