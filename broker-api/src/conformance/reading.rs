//! Order, positions, pausing and fairness.

use std::task::Poll;

use bytes::Bytes;

use super::check::{Check, batch_of_size};
use crate::{BatchBuilder, Error, Header, Offset, Start, View};

pub(super) fn records_come_in_offset_order_as_they_were_written(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let headers = [
        Header { name: "name".into(), value: Some(Bytes::from_static(b"\x00\xff")) },
        Header { name: "name".into(), value: None },
    ];
    let mut builder = BatchBuilder::new();
    builder.push(5, None, Some(b"no key"), &[]).expect("push");
    builder.push(-7, Some(b""), None, &headers).expect("push");
    builder.push(i64::MAX, Some(b"key"), Some(b""), &[]).expect("push");
    let written = builder.finish().expect("finish");

    let mut writer = check.writer();
    let bases: Vec<Offset> = (0..5).map(|_| writer.append(&tp, written.clone())).collect();
    assert!(bases.windows(2).all(|pair| pair[0] + 3 <= pair[1]), "{bases:?}");

    let mut reader = check.reader(std::slice::from_ref(&tp));
    reader.read_records(&tp, 3 * bases.len());
    let read = reader.batches(&tp);
    assert_eq!(read.len(), bases.len());
    for (batch, base) in read.iter().zip(bases) {
        assert_eq!((batch.base_offset(), batch.bytes()), (base, written.bytes()));
    }
}

pub(super) fn reading_starts_where_it_is_asked_to(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1);
    let mut writer = check.writer();
    writer.words(&tp[0], &["a"]);
    let b = writer.words(&tp[0], &["b"]);
    let mut earliest = check.reader(&tp);
    earliest.read_records(&tp[0], 2);
    let mut at = check.reader_from(View::Durable, &tp, Start::At(b));
    at.read_to_end();
    assert_eq!(at.values(&tp[0]), [(b, "b".into())]);
    let mut latest = check.reader_from(View::Durable, &tp, Start::Latest);
    latest.read_to_end();
    let c = writer.words(&tp[0], &["c"]);
    latest.read_records(&tp[0], 1);
    assert_eq!(latest.values(&tp[0]), [(c, "c".into())]);

    // Assigning again moves.
    latest.assign(&tp, Start::Earliest);
    latest.read_records(&tp[0], 3);
    assert_eq!(latest.values(&tp[0])[1..], [(b, "b".into()), (c, "c".into())]);
}

pub(super) fn reading_from_the_middle_of_a_batch(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1);
    let mut writer = check.writer();
    writer.words(&tp[0], &["a"]);
    let base = writer.words(&tp[0], &["b", "c", "d"]);
    let mut reader = check.reader_from(View::Durable, &tp, Start::At(base + 2));
    reader.read_to_end();
    // The reader of this suite skips what lies below the position asked for, as every reader must.
    assert_eq!(reader.values(&tp[0]), [(base + 2, "d".into())]);
}

pub(super) fn paused_partitions_keep_their_place(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let mut writer = check.writer();
    let mut reader = check.reader(&tps);
    for tp in &tps {
        writer.words(tp, &["a"]);
        reader.read_records(tp, 1);
    }
    reader.fetcher.pause(&tps[..1]);
    writer.words(&tps[0], &["b"]);
    for i in 2..5 {
        writer.words(&tps[1], &["b"]);
        reader.read_records(&tps[1], i);
        assert_eq!(reader.values(&tps[0]).len(), 1, "a paused partition was read");
    }
    reader.fetcher.resume(&tps[..1]);
    reader.read_records(&tps[0], 2);
    assert_eq!(reader.values(&tps[0])[1].1, "b");

    // Moving a paused partition does not resume it; leaving it and coming back does.
    reader.fetcher.pause(&tps[..1]);
    reader.assign(&tps[..1], Start::Earliest);
    writer.words(&tps[1], &["c"]);
    reader.read_records(&tps[1], 5);
    assert_eq!(reader.values(&tps[0]), [], "a paused partition was read");
    reader.fetcher.unassign(&tps[..1]);
    reader.assign(&tps[..1], Start::Earliest);
    reader.read_records(&tps[0], 2);
}

pub(super) fn unassigned_partitions_are_left_out(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let mut writer = check.writer();
    let mut reader = check.reader(&tps);
    reader.read_to_end();
    reader.fetcher.unassign(&tps[..1]);
    writer.words(&tps[0], &["unseen"]);
    writer.words(&tps[1], &["seen"]);
    reader.read_records(&tps[1], 1);
    assert_eq!(reader.values(&tps[0]), [], "an unassigned partition was read");
}

pub(super) fn every_partition_gets_its_turn(check: &mut Check<'_>) {
    const BATCHES: usize = 30;
    let tps = check.topic("topic", 3);
    let mut writer = check.writer();
    let batch = batch_of_size(100);
    for _ in 0..BATCHES {
        for tp in &tps {
            writer.append(tp, batch.clone());
        }
    }
    let budget = 4 * batch.bytes().len();
    let mut reader = check.reader(&tps);
    let mut read = vec![0; tps.len()];
    while read.iter().sum::<usize>() < tps.len() * BATCHES {
        let fetched = reader.fetch(budget).expect("fetch");
        let bytes: usize =
            fetched.iter().flat_map(|f| &f.batches).map(|batch| batch.bytes().len()).sum();
        // "About": a broker may finish the batch that passes the budget.
        assert!(bytes <= budget + batch.bytes().len(), "{bytes} bytes for a budget of {budget}");
        read = tps.iter().map(|tp| reader.values(tp).len()).collect();
        // By the time that one is half read, every other has been read from.
        let half_read = read.iter().any(|count| *count > BATCHES / 2);
        assert!(!half_read || !read.contains(&0), "one partition starves another: {read:?}");
    }
}

pub(super) fn a_batch_above_the_budget_is_still_read(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let mut writer = check.writer();
    for _ in 0..3 {
        writer.append(&tp, batch_of_size(10_000));
    }
    let mut reader = check.reader(std::slice::from_ref(&tp));
    while reader.values(&tp).len() < 3 {
        reader.fetch(1).expect("fetch");
    }
}

pub(super) fn positions_outside_the_log_are_out_of_range(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1);
    check.writer().words(&tp[0], &["a", "b"]);
    let beyond = check.end(&tp[0]) + 1;
    let mut reader = check.reader_from(View::Durable, &tp, Start::At(beyond));
    // Again and again, until it is assigned anew.
    for _ in 0..2 {
        match reader.fetch(1 << 20) {
            Err(Error::OffsetOutOfRange { partition, offset, .. }) => {
                assert_eq!((&partition, offset), (&tp[0], beyond));
            }
            other => panic!("expected OffsetOutOfRange, got {other:?}"),
        }
    }
    reader.assign(&tp, Start::Earliest);
    reader.read_records(&tp[0], 2);
    assert!(matches!(reader.poll(1 << 20), Poll::Pending | Poll::Ready(Ok(_))));
}
