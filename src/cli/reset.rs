//! `vltava app reset`: an application begins anew, as with Kafka's `kafka-streams-application-reset`.
//!
//! The order of the steps matters if it is killed between them: from the moment that a changelog is
//! gone the application refuses to start, until its offsets are reset as well. Run again, it does
//! what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use broker_api::client::TransactionalProducer;
use broker_api::{Broker, CommittedOffset, Offset, OffsetSpec, TopicPartition};
use futures::executor::block_on;

use super::Failure;
use super::apps::{Apps, Use};
use super::args::{Reset, To};
use super::topics::{partitions, print};

pub(crate) fn run(broker: &Arc<dyn Broker>, apps: &Apps, args: &Reset) -> Result<(), Failure> {
    apps.check(&args.app)?;
    let (changelogs, repartition): (Vec<_>, Vec<_>) = apps
        .internal(&args.app)
        .into_iter()
        .partition(|(what, _)| matches!(what, Use::Changelog(_)));
    let offsets = offsets(broker, apps, args)?;

    delete_state(apps.dir(&args.app), args)?;
    for (_, topic) in changelogs {
        delete_topic(broker, &topic.name, args)?;
    }
    reset_offsets(broker, &offsets, args)?;
    for (_, topic) in repartition {
        delete_topic(broker, &topic.name, args)?;
    }
    print("What it has written to other topics stays there.\n".into())
}

fn delete_state(dir: PathBuf, args: &Reset) -> Result<(), Failure> {
    let shown = dir.display();
    if !dir.exists() {
        return print(format!("there is no local state in {shown}\n"));
    }
    if args.dry_run {
        return print(format!("would delete the local state in {shown}\n"));
    }
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::State { message: error.to_string(), path: dir })
        }
        _ => print(format!("deleted the local state in {shown}\n")),
    }
}

fn delete_topic(broker: &Arc<dyn Broker>, name: &str, args: &Reset) -> Result<(), Failure> {
    if args.dry_run {
        return print(format!("would delete topic {name}\n"));
    }
    block_on(broker.admin().delete_topic(name))?;
    print(format!("deleted topic {name}\n"))
}

/// Where a partition was read up to, if it was, and where reading is to begin.
type Moves = BTreeMap<TopicPartition, (Option<Offset>, Offset)>;

/// The offsets of the input topics: those asked for, or else all that the application has read.
fn offsets(broker: &Arc<dyn Broker>, apps: &Apps, args: &Reset) -> Result<Moves, Failure> {
    let admin = broker.admin();
    let is_internal = |topic: &str| apps.owner(topic) == Some(args.app.as_str());
    let committed: BTreeMap<_, _> = block_on(admin.group_offsets(&args.app))?.into_iter().collect();
    let topics: BTreeSet<&str> = match &args.input_topics[..] {
        [] => committed.keys().map(|tp| &*tp.topic).filter(|topic| !is_internal(topic)).collect(),
        asked => asked.iter().map(String::as_str).collect(),
    };
    let mut moves = Moves::new();
    for name in topics {
        if is_internal(name) {
            let reason = format!("{name} is an internal topic of the application; it is deleted");
            return Err(Failure::Argument { name: "--input-topic", reason });
        }
        let spec = match args.to {
            To::Earliest => OffsetSpec::Earliest,
            To::Latest => OffsetSpec::Stable,
        };
        let partitions = partitions(&block_on(admin.topic(name))?);
        let asked: Vec<_> = partitions.iter().map(|tp| (tp.clone(), spec)).collect();
        for (tp, to) in partitions.into_iter().zip(block_on(admin.offsets(&asked))?) {
            let was = committed.get(&tp).map(|committed| committed.offset);
            moves.insert(tp, (was, to));
        }
    }
    Ok(moves)
}

/// Commits the offsets, all at once. They carry no times: the application learns those anew.
fn reset_offsets(broker: &Arc<dyn Broker>, moves: &Moves, args: &Reset) -> Result<(), Failure> {
    if !args.dry_run && !moves.is_empty() {
        let offsets = moves.iter().map(|(tp, (_, to))| {
            (tp.clone(), CommittedOffset { offset: *to, metadata: String::new() })
        });
        let commit = async {
            let id = format!("{}-reset", args.app);
            let mut producer = TransactionalProducer::new(broker.clone(), id)?;
            let mut transaction = producer.begin();
            transaction.send_offsets(&args.app, offsets)?;
            transaction.commit().await
        };
        block_on(commit)?;
    }
    let did = if args.dry_run { "would move" } else { "moved" };
    let lines = moves.iter().map(|(tp, (was, to))| {
        let was = was.map_or("none".into(), |offset| offset.to_string());
        format!("{did} the offset of {tp} from {was} to {to}\n")
    });
    print(lines.collect())
}
