//! `vltava app reset`: an application begins anew, as with Kafka's `kafka-streams-application-reset`.
//!
//! It may be killed between any two steps. Then the application either refuses to start, because its
//! offsets rely on a topic that is gone, or starts in good order; and the command run again does what
//! is left. So the order matters: no offset moves while there is state that counts what lies behind
//! it, and what the application is known by (its offsets, `process.id`) outlives all the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_api::client::TransactionalProducer;
use broker_api::{
    Broker, CommittedOffset, Error, Offset, OffsetSpec, TopicDescription, TopicPartition,
};
use futures::executor::block_on;
use streams_core::task::{OffsetMetadata, OwnTimes, WrittenTopics};

use super::Failure;
use super::apps::{Apps, PROCESS_ID, Use};
use super::args::{Reset, To};
use super::topics::{existing, partitions, print};

#[cfg(test)]
mod tests;

pub(crate) fn run(broker: &Arc<dyn Broker>, apps: &Apps, args: &Reset) -> Result<(), Failure> {
    apps.check(&args.app)?;
    // Whoever does not read on what is said does not thereby stop it halfway.
    let mut said = Ok(());
    let mut say = |text| said = std::mem::replace(&mut said, Ok(())).and_then(|()| print(text));
    let dir = apps.dir(&args.app);
    if !dir.exists() {
        say(format!("there is no local state in {}\n", dir.display()));
    }
    for step in steps(broker, apps, args)? {
        if !args.dry_run {
            step.take(broker, &args.app)?;
        }
        say(step.told(args.dry_run));
    }
    say("What it has written to other topics stays there.\n".into());
    said
}

/// What is done at once.
enum Step {
    /// Deletes the local state; the directory stays, with the name of the process.
    State(PathBuf),
    Topic(String),
    Offsets(Moves),
    Directory(PathBuf),
}

/// What there is to do, in order.
fn steps(broker: &Arc<dyn Broker>, apps: &Apps, args: &Reset) -> Result<Vec<Step>, Failure> {
    let moves = moves(broker, apps, args)?;
    let (changelogs, repartition): (Vec<_>, Vec<_>) = apps
        .internal(&args.app)
        .into_iter()
        .partition(|(what, _)| matches!(what, Use::Changelog(_)));
    let topic = |(_, topic): (Use, &TopicDescription)| Step::Topic(topic.name.to_string());
    let dir = Some(apps.dir(&args.app)).filter(|dir| dir.exists());

    let mut steps: Vec<Step> = dir.clone().map(Step::State).into_iter().collect();
    steps.extend(changelogs.into_iter().map(topic));
    steps.extend((!moves.is_empty()).then_some(Step::Offsets(moves)));
    steps.extend(repartition.into_iter().map(topic));
    steps.extend(dir.map(Step::Directory));
    Ok(steps)
}

impl Step {
    fn take(&self, broker: &Arc<dyn Broker>, app: &str) -> Result<(), Failure> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |error: io::Error| Failure::State { message: error.to_string(), path }
        };
        match self {
            Self::State(dir) => empty(dir).map_err(failed(dir)),
            Self::Topic(name) => Ok(block_on(broker.admin().delete_topic(name))?),
            Self::Offsets(moves) => Ok(block_on(commit(broker, app, moves))?),
            Self::Directory(dir) => std::fs::remove_dir_all(dir).map_err(failed(dir)),
        }
    }

    /// What was done, or would be.
    fn told(&self, dry_run: bool) -> String {
        let did = |would, did| if dry_run { would } else { did };
        let deleted = did("would delete", "deleted");
        match self {
            Self::State(dir) => format!("{deleted} the local state in {}\n", dir.display()),
            Self::Topic(name) => format!("{deleted} topic {name}\n"),
            Self::Offsets(moves) => {
                let lines = moves.iter().map(|(tp, (was, to))| match was {
                    Some(was) if was == to => {
                        format!("{} the offset of {tp} at {to}\n", did("would keep", "kept"))
                    }
                    _ => {
                        let was = was.map_or("none".into(), |offset| offset.to_string());
                        let moved = did("would move", "moved");
                        format!("{moved} the offset of {tp} from {was} to {to}\n")
                    }
                });
                lines.collect()
            }
            Self::Directory(dir) => format!("{deleted} {}\n", dir.display()),
        }
    }
}

/// Deletes all that is in the directory of an application but the name of the process.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != PROCESS_ID {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Where a partition was read up to, if it was, and where reading is to begin.
type Moves = BTreeMap<TopicPartition, (Option<Offset>, Offset)>;

/// The offsets of all input topics. Those asked for are moved, or else all; the others stay.
fn moves(broker: &Arc<dyn Broker>, apps: &Apps, args: &Reset) -> Result<Moves, Failure> {
    let admin = broker.admin();
    let is_internal = |topic: &str| apps.owner(topic) == Some(args.app.as_str());
    let committed = block_on(admin.group_offsets(&args.app))?.into_iter();
    let mut moves: Moves = committed
        .filter(|(tp, _)| !is_internal(&tp.topic))
        .map(|(tp, committed)| (tp, (Some(committed.offset), committed.offset)))
        .collect();
    let topics: BTreeSet<String> = match &args.input_topics[..] {
        [] => moves.keys().map(|tp| tp.topic.to_string()).collect(),
        asked => asked.iter().cloned().collect(),
    };
    for name in topics {
        if is_internal(&name) {
            let reason = format!("{name} is an internal topic of the application; it is deleted");
            return Err(Failure::Argument { name: "--input-topic", reason });
        }
        let spec = match args.to {
            To::Earliest => OffsetSpec::Earliest,
            To::Latest => OffsetSpec::Stable,
        };
        let partitions = partitions(&existing(&**broker, &name)?);
        let asked: Vec<_> = partitions.iter().map(|tp| (tp.clone(), spec)).collect();
        for (tp, to) in partitions.into_iter().zip(block_on(admin.offsets(&asked))?) {
            moves.entry(tp).or_insert((None, to)).1 = to;
        }
    }
    Ok(moves)
}

/// Commits the offsets, all at once. Those that stay are committed as well, because what rides with
/// them names topics that are gone. They carry no times: the application learns those anew.
async fn commit(broker: &Arc<dyn Broker>, app: &str, moves: &Moves) -> Result<(), Error> {
    let metadata = OffsetMetadata::NONE.encode(&WrittenTopics::default(), &OwnTimes::default());
    let offsets = moves.iter().map(|(tp, (_, to))| {
        (tp.clone(), CommittedOffset { offset: *to, metadata: metadata.clone() })
    });
    let mut producer = TransactionalProducer::new(broker.clone(), format!("{app}-reset"))?;
    let mut transaction = producer.begin();
    transaction.send_offsets(app, offsets)?;
    transaction.commit().await
}
