//! What can be said on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use broker_api::{Isolation, Offset, Timestamp};
use broker_embedded::MAX_PARTITIONS;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::show::Printing;

/// Looks into and writes to the directory of an embedded broker.
#[derive(Debug, Parser)]
#[command(
    name = "vltava",
    version,
    after_help = "Examples:
  vltava topics create lines --partitions 4
  vltava produce lines book.txt
  vltava consume lines --until-end --max-messages 10
  vltava consume counts --value-type i64 --until-end
  vltava state replay --app word-count --store counts --value-type i64
  vltava app reset --app word-count

Exit codes: 0 done, 1 error, 2 command line not understood, 130 interrupted before all was written."
)]
pub(crate) struct Cli {
    /// The directory of the broker. One process at a time can have it open
    #[arg(
        long,
        env = "VLTAVA_BROKER",
        default_value = "./vltava-data",
        global = true,
        value_name = "DIR"
    )]
    pub(crate) broker: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Write lines to a topic, each as one record
    Produce(Produce),
    /// Print the records of a topic
    Consume(Consume),
    /// Look into the state of applications, as their changelogs tell it
    #[command(subcommand)]
    State(StateCommand),
    /// See which applications there are, and make one begin anew
    #[command(subcommand)]
    App(AppCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Create a topic, and the broker's directory if it does not exist
    Create(CreateTopic),
    /// Print the names of all topics
    List,
    /// Print a topic's settings and where its partitions begin and end
    Describe {
        /// The topic
        name: String,
    },
    /// Delete a topic and its records, at once and for ever
    Delete {
        /// The topic
        name: String,
        /// Even if it is an internal topic of an application, which then does not start any more
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vltava topics create lines --partitions 4
  vltava topics create prices --partitions 1 --config cleanup.policy=compact
  vltava topics create events --partitions 2 --config retention.bytes=1073741824

Settings: cleanup.policy (delete, compact or compact,delete), retention.bytes, retention.ms, vltava.retention.by (wall-clock or stream-time), min.compaction.lag.ms, max.message.bytes.")]
pub(crate) struct CreateTopic {
    /// The topic: 1 to 249 characters of a-z A-Z 0-9 . _ -
    pub(crate) name: String,
    /// How many partitions; cannot be changed later
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    pub(crate) partitions: u32,
    /// A setting, as name=value; may be repeated
    #[arg(long = "config", value_name = "K=V", value_parser = setting)]
    pub(crate) configs: Vec<(String, String)>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A line becomes a value; its line feed is not part of it. With --key-separator the text before
the first separator becomes the key. A record with a key goes to the partition that Kafka's
default partitioner would choose, lines without keys go to the partitions in turn.

Examples:
  vltava produce lines book.txt
  printf 'apple\\t3\\npear\\t5\\n' | vltava produce prices --key-separator '\\t'"
)]
pub(crate) struct Produce {
    /// The topic
    pub(crate) topic: String,
    /// What separates key and value; \t, \n, \\ and \xHH stand for the bytes they usually mean
    #[arg(long, value_name = "S", value_parser = separator)]
    pub(crate) key_separator: Option<Separator>,
    /// The file to read; standard input if missing
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --until-end and --max-messages it goes on until it is interrupted (Ctrl-C).
Records of one partition come in the order of their offsets.

Examples:
  vltava consume lines --from end
  vltava consume lines --partition 0 --from 1000 --max-messages 5
  vltava consume counts --value-type i64 --until-end --format '%p %o %k=%v\\n'"
)]
pub(crate) struct Consume {
    /// The topic
    pub(crate) topic: String,
    /// Where to begin: beginning, end, or an offset (in every partition that is read)
    #[arg(long, default_value = "beginning", value_name = "beginning|end|OFFSET")]
    pub(crate) from: From,
    /// Read this partition only
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    pub(crate) max_messages: Option<u64>,
    /// Stop when all that is there has been printed
    #[arg(long)]
    pub(crate) until_end: bool,
    #[command(flatten)]
    pub(crate) printing: Printing,
    /// Which transactions are shown. In an embedded broker no transaction is ever open, so that
    /// both show the same
    #[arg(long, value_enum, default_value = "read-committed")]
    pub(crate) isolation: IsolationArg,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// List the stores of an application that have a changelog
    Stores {
        /// The application's id
        #[arg(long, value_name = "APP")]
        app: String,
    },
    /// Print a store's contents, rebuilt from its changelog alone
    Replay(Replay),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Entries are ordered by the bytes of their keys. For each, the placeholders of --format speak of
the changelog record that wrote it. The contents must fit into memory.

The past can be told as far back as compaction has not removed it; where it has, the command says
so and fails.

Examples:
  vltava state replay --app word-count --store counts --value-type i64
  vltava state replay --app word-count --store counts --value-type i64 --only-key river
  vltava state replay --app word-count --store counts --value-type i64 --at-time 1767225600000"
)]
pub(crate) struct Replay {
    /// The application's id
    #[arg(long, value_name = "APP")]
    pub(crate) app: String,
    /// The store
    #[arg(long, value_name = "STORE")]
    pub(crate) store: String,
    /// As after the changelog record at this offset (in each partition)
    #[arg(long, value_name = "N", conflicts_with = "at_time", value_parser = clap::value_parser!(i64).range(0..i64::MAX))]
    pub(crate) at_offset: Option<Offset>,
    /// As of this time: with all that the broker had appended by then, in milliseconds since 1970
    #[arg(long, value_name = "T")]
    pub(crate) at_time: Option<Timestamp>,
    /// This key only, written as --key-type prints it
    #[arg(long, value_name = "K")]
    pub(crate) only_key: Option<String>,
    #[command(flatten)]
    pub(crate) printing: Printing,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// List the applications: those that have committed offsets or local state here
    List {
        #[command(flatten)]
        state: StateDir,
    },
    /// Make an application begin anew: without state, at the beginning of its input
    Reset(Reset),
}

#[derive(Debug, Args)]
pub(crate) struct StateDir {
    /// Where the applications keep their local state: Settings::state_dir. Default: state/ in the
    /// broker's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Deletes the application's local state, its changelog and repartition topics, and moves its
committed offsets; says what it does. Topics that the application has written stay as they are.
It cannot run meanwhile: the directory would be in use. If it is interrupted, run it again.

Examples:
  vltava app reset --app word-count --dry-run
  vltava app reset --app word-count
  vltava app reset --app word-count --input-topic lines --to latest"
)]
pub(crate) struct Reset {
    /// The application's id
    #[arg(long, value_name = "APP")]
    pub(crate) app: String,
    /// Move the offsets of this topic; may be repeated. Without it: of all that the application
    /// has read
    #[arg(long = "input-topic", value_name = "T")]
    pub(crate) input_topics: Vec<String>,
    /// Where reading begins: with the first record that is there, or with those to come
    #[arg(long, value_enum, default_value = "earliest")]
    pub(crate) to: To,
    #[command(flatten)]
    pub(crate) state: StateDir,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where an application that was reset begins to read.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum To {
    Earliest,
    Latest,
}

/// Where consuming begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Beginning,
    End,
    Offset(Offset),
}

impl FromStr for From {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            _ => match s.parse() {
                Ok(offset) if offset >= 0 => Ok(Self::Offset(offset)),
                _ => Err("expected beginning, end or an offset (0 or more)".into()),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum IsolationArg {
    /// Committed ones
    #[value(alias = "read_committed")]
    ReadCommitted,
    /// Also open and aborted ones
    #[value(alias = "read_uncommitted")]
    ReadUncommitted,
}

impl std::convert::From<IsolationArg> for Isolation {
    fn from(arg: IsolationArg) -> Self {
        match arg {
            IsolationArg::ReadCommitted => Self::ReadCommitted,
            IsolationArg::ReadUncommitted => Self::ReadUncommitted,
        }
    }
}

/// Bytes between a key and a value; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Separator(pub(crate) Vec<u8>);

fn separator(s: &str) -> Result<Separator, String> {
    let bytes = super::show::unescape(s)?;
    if bytes.is_empty() { Err("it cannot be empty".into()) } else { Ok(Separator(bytes)) }
}

fn setting(s: &str) -> Result<(String, String), String> {
    let (name, value) = s.split_once('=').ok_or("expected name=value")?;
    Ok((name.into(), value.into()))
}
