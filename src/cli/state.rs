//! `vltava state`: stores as their changelogs tell them.

use std::collections::BTreeMap;
use std::io::Write;

use broker_api::{
    Broker, Isolation, Offset, OffsetSpec, RecordRef, Start, Timestamp, TopicDescription,
    TopicPartition,
};
use futures::executor::block_on;

use super::apps::Apps;
use super::args::Replay;
use super::reader::Reader;
use super::show::Shown;
use super::topics::{bounds, partitions, print};
use super::{Failure, Stop};

pub(crate) fn stores(broker: &dyn Broker, apps: &Apps, app: &str) -> Result<(), Failure> {
    let mut text = String::from("store\tpartition\tfirst offset\tend offset\n");
    for (store, topic) in apps.changelogs(app)? {
        for (partition, (first, end)) in bounds(broker, &topic)?.into_iter().enumerate() {
            text += &format!("{store}\t{partition}\t{first}\t{end}\n");
        }
    }
    print(text)
}

/// What a changelog says of one key.
struct Entry {
    value: Vec<u8>,
    offset: Offset,
    timestamp: Timestamp,
    append_time: Timestamp,
}

pub(crate) fn replay(
    broker: &dyn Broker,
    apps: &Apps,
    args: &Replay,
    stop: &Stop,
) -> Result<(), Failure> {
    let topic = changelog(apps, args)?;
    let printing = &args.printing;
    let only_key = args.only_key.as_deref().map(|key| printing.key_type.parse(key));
    let only_key =
        only_key.transpose().map_err(|reason| Failure::Argument { name: "--only-key", reason })?;
    let limits = limits(broker, args, &topic)?;
    let starts: Vec<_> = limits.keys().map(|tp| (tp.clone(), Start::Earliest)).collect();
    let mut reader = Reader::new(broker, Isolation::ReadCommitted, &starts)?;
    let mut store = BTreeMap::new();
    while reader.below(&limits) {
        if stop.requested() {
            return Err(Failure::Stopped);
        }
        let any = reader.fetch(|partition, append_time, record| {
            let key = record.key.unwrap_or_default();
            if record.offset < limits[partition] && only_key.as_ref().is_none_or(|k| k == key) {
                apply(&mut store, partition, append_time, &record);
            }
            Ok::<(), Failure>(())
        })?;
        if !any {
            std::thread::park();
        }
    }
    // The watermark rises before anything goes, so what was compacted meanwhile is noticed here.
    check_compaction(broker, &limits)?;
    print_entries(args, &store)
}

/// The contents: by key, and then by partition, should a key be in several.
type Contents = BTreeMap<(Vec<u8>, TopicPartition), Entry>;

fn apply(
    store: &mut Contents,
    partition: &TopicPartition,
    append_time: Timestamp,
    record: &RecordRef<'_>,
) {
    let key = (record.key.unwrap_or_default().to_vec(), partition.clone());
    match record.value {
        None => {
            store.remove(&key);
        }
        Some(value) => {
            let RecordRef { offset, timestamp, .. } = *record;
            store.insert(key, Entry { value: value.to_vec(), offset, timestamp, append_time });
        }
    }
}

fn print_entries(args: &Replay, store: &Contents) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut text = Vec::new();
    for ((key, partition), entry) in store {
        let Entry { offset, timestamp, append_time, .. } = *entry;
        let (key, value) = (Some(&key[..]), Some(&entry.value[..]));
        let shown = Shown { partition, offset, timestamp, append_time, key, value };
        text.clear();
        args.printing.show(&shown, &mut text)?;
        out.write_all(&text).map_err(Failure::Output)?;
    }
    out.flush().map_err(Failure::Output)
}

fn changelog(apps: &Apps, args: &Replay) -> Result<TopicDescription, Failure> {
    let mut known = apps.changelogs(&args.app)?;
    match known.iter().position(|(store, _)| *store == args.store) {
        Some(found) => Ok(known.swap_remove(found).1),
        None => {
            let names: Vec<_> = known.into_iter().map(|(store, _)| store).collect();
            let known = match names.is_empty() {
                true => "it has none here".into(),
                false => format!("it has: {}", names.join(", ")),
            };
            Err(Failure::UnknownStore { app: args.app.clone(), store: args.store.clone(), known })
        }
    }
}

/// Up to which offset (exclusive) each partition answers a question.
type Limits = BTreeMap<TopicPartition, Offset>;

/// How far each partition is to be read.
///
/// # Errors
/// If what is asked for has been compacted away, or is not written yet.
fn limits(broker: &dyn Broker, args: &Replay, topic: &TopicDescription) -> Result<Limits, Failure> {
    let partitions = partitions(topic);
    let offsets = |spec| {
        let asked: Vec<_> = partitions.iter().map(|tp| (tp.clone(), spec)).collect();
        block_on(broker.admin().offsets(&asked))
    };
    let ends = offsets(OffsetSpec::Stable)?;
    let limits = match (args.at_offset, args.at_time) {
        (Some(asked), _) => {
            let end = ends.iter().copied().max().unwrap_or(0);
            if asked >= end {
                return Err(Failure::NotYet { topic: topic.name.to_string(), end, asked });
            }
            ends.iter().map(|end| *end.min(&(asked + 1))).collect()
        }
        (None, Some(time)) => offsets(OffsetSpec::AppendedAfter(time))?,
        (None, None) => ends.clone(),
    };
    let limits = partitions.into_iter().zip(limits).collect();
    check_compaction(broker, &limits)?;
    check_deletion(broker, &limits)?;
    Ok(limits)
}

fn check_compaction(broker: &dyn Broker, limits: &Limits) -> Result<(), Failure> {
    for (partition, &asked) in limits.iter().filter(|(_, limit)| **limit > 0) {
        let compacted_below = block_on(broker.admin().horizon(partition))?.compacted_below;
        if asked < compacted_below {
            let partition = partition.clone();
            return Err(Failure::Compacted { partition, compacted_below, asked });
        }
    }
    Ok(())
}

fn check_deletion(broker: &dyn Broker, limits: &Limits) -> Result<(), Failure> {
    for (partition, &limit) in limits.iter().filter(|(_, limit)| **limit > 0) {
        let log_start = block_on(broker.admin().horizon(partition))?.log_start;
        if limit < log_start {
            return Err(Failure::Deleted { partition: partition.clone(), log_start });
        }
        if log_start > 0 {
            eprintln!(
                "vltava: the records of {partition} below offset {log_start} are deleted; what only they held is missing"
            );
        }
    }
    Ok(())
}
