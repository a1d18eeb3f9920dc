//! Counts the words of a text: the first contact with Vltava.
//!
//! Lines go into topic `lines`, are split into words (runs of letters and digits, in lower case),
//! counted in store `counts`, and every new count is written to topic `counts`. Kill it at any
//! moment and start it again: it goes on where its last commit ended, and the counts are exact.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flate2::read::MultiGzDecoder;
use futures::TryStreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vltava::broker_api::client::{Record, Transaction};
use vltava::broker_api::{Clock, CommittedOffset, SystemClock};
use vltava::prelude::*;
use vltava::streams_core::runtime::Metrics;

#[derive(Parser)]
struct Args {
    /// Directory of the broker and of the application's state
    #[arg(long, default_value = "./vltava-data", env = "VLTAVA_BROKER")]
    broker: PathBuf,
    /// Text to load, one record for each line; `.gz` is read too
    #[arg(long)]
    input: Option<PathBuf>,
    /// Load it so many times
    #[arg(long, default_value_t = 1)]
    repeat: u64,
    /// Stream threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Partitions of the topics
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// Write every single count, instead of merging those between two commits
    #[arg(long)]
    no_cache: bool,
    /// Stop when everything is counted, and show the commonest words
    #[arg(long)]
    exit_when_done: bool,
    /// The longest time in ms until a committed change is in the store's files
    #[arg(long, default_value_t = 30_000)]
    flush_ms: u64,
    /// How often to say how far it is, in ms
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    progress_ms: u64,
}

fn words(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn topology(no_cache: bool) -> Result<Topology, Box<dyn Error>> {
    let counts = Materialized::named("counts");
    let counts = if no_cache { counts.with_caching_disabled() } else { counts };
    let builder = StreamsBuilder::new();
    builder
        .stream::<(), String>("lines")
        .flat_map_values(|_, line| words(&line))
        .group_by(|_, word| word.clone())
        .count_with(counts)
        .to_stream_present()
        .to("counts");
    Ok(builder.build()?)
}

/// The loader's consumer group: its offset of `lines-0` is the number of lines that are loaded.
const LOADER: &str = "word-count-loader";
const TRANSACTION_BYTES: usize = 256 << 10;

/// The text, unpacked if need be.
fn open(input: &Path) -> Result<Box<dyn Read>, String> {
    let name = input.display();
    let file = File::open(input).map_err(|e| format!("{name}: {e}"))?;
    if input.is_dir() {
        return Err(format!("{name} is a directory"));
    }
    match input.extension() {
        Some(gz) if gz == "gz" => Ok(Box::new(MultiGzDecoder::new(file))),
        _ => Ok(Box::new(file)),
    }
}

/// Writes the lines in transactions. How far it came, and in which file, is committed together with
/// the lines, so that a load that was killed goes on where it was.
async fn load(vltava: &Vltava, input: &Path, repeat: u64) -> Result<(), Box<dyn Error>> {
    open(input)?; // says what is wrong with it, if anything
    let name = input.file_name().unwrap_or_default().display();
    let source = format!("{name} ({} bytes)", input.metadata()?.len());
    let mut loaded = 0;
    for (_, before) in vltava.broker().admin().group_offsets(LOADER).await? {
        loaded = before.offset;
        if before.metadata != source {
            let other = "use another --broker directory for another --input";
            return Err(format!("{} was loaded, this is {source}: {other}", before.metadata).into());
        }
    }

    let mut producer = TransactionalProducer::new(vltava.broker(), LOADER)?;
    let mut transaction = producer.begin();
    let (mut number, mut bytes) = (0, 0);
    for _ in 0..repeat {
        for line in BufReader::new(open(input)?).lines() {
            number += 1;
            let line = line.map_err(|e| format!("line {number}: {e}"))?;
            if number <= loaded {
                continue;
            }
            if bytes + line.len() > TRANSACTION_BYTES {
                commit(transaction, number - 1, &source).await?;
                (transaction, bytes) = (producer.begin(), 0);
            }
            bytes += line.len() + 100; // what a record takes besides, amply
            let sent = transaction.send("lines", Record::of_value(line));
            sent.map_err(|e| format!("line {number}: {e}"))?;
        }
    }
    Ok(commit(transaction, number.max(loaded), &source).await?)
}

async fn commit(mut transaction: Transaction<'_>, lines: i64, of: &str) -> Result<(), String> {
    let offset = CommittedOffset { offset: lines, metadata: of.into() };
    let at = TopicPartition::new("lines", 0);
    let error = |e| format!("line {lines}: {e}");
    transaction.send_offsets(LOADER, [(at, offset)]).map_err(error)?;
    transaction.commit().await.map_err(error)
}

async fn work(vltava: &Vltava, streams: &Streams, args: &Args) -> Result<(), Box<dyn Error>> {
    if let Some(input) = &args.input {
        load(vltava, input, args.repeat).await?;
    }
    streams.caught_up().await?;
    if !args.exit_when_done {
        streams.ended().await?; // only if it fails
    }
    Ok(())
}

async fn progress(streams: &Streams, every: Duration) {
    // A terminal is shown one line that changes.
    let (begin, end) = if std::io::stderr().is_terminal() { ("\r", "\x1b[K") } else { ("", "\n") };
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        let Metrics { consumed, restored, rebuilt, .. } = streams.metrics();
        let since_start = format!("{restored} changes replayed, {rebuilt} stores rebuilt");
        eprint!("{begin}{consumed} lines processed ({since_start}){end}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("word_count: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let vltava = Vltava::open(&args.broker)?;
    vltava.ensure_topic("lines", args.partitions).await?;
    vltava.ensure_topic("counts", args.partitions).await?;

    let clock = SystemClock::new();
    let settings = Settings {
        threads: args.threads,
        flush_interval: Duration::from_millis(args.flush_ms),
        ..vltava.settings("word-count")
    };
    let streams = vltava.start(topology(args.no_cache)?, settings).await?;

    let mut terminated = signal(SignalKind::terminate())?;
    let done = tokio::select! {
        done = work(&vltava, &streams, &args) => done,
        () = progress(&streams, Duration::from_millis(args.progress_ms)) => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminated.recv() => Ok(()),
    };
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    done?;
    let (metrics, seconds) = (streams.metrics(), clock.monotonic().as_secs_f64());
    streams.close().await?;

    if args.exit_when_done {
        let mut counts = BTreeMap::new();
        let consumer = Consumer::builder(vltava.broker()).topic("counts").until_end().build();
        let mut records = consumer.await?;
        while let Some(record) = records.try_next().await? {
            let word = String::from_utf8(record.key.unwrap_or_default().into())?;
            let count = i64::from_be_bytes(record.value.unwrap_or_default()[..].try_into()?);
            counts.insert(word, count);
        }
        let mut commonest: Vec<_> = counts.iter().collect();
        commonest.sort_by_key(|(word, count)| (-**count, *word));
        for (word, count) in commonest.into_iter().take(10) {
            println!("{count:>10}  {word}");
        }
    }
    let words = metrics.processed - metrics.consumed;
    println!(
        "{} lines, {words} words in {seconds:.1} s: {:.0} words/s",
        metrics.consumed,
        words as f64 / seconds,
    );
    vltava.close()?;
    Ok(())
}
