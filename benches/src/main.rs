//! Workloads, timed: one line of JSON for each run, with the fields that the comparison with Kafka
//! Streams prints (see `docs/performance.md` and `scripts/compare`).
//!
//! Broker and application run in this process, with their default settings: commits are synced.
//! The input is written first, and not timed. The time of a run is that from the start of the
//! application until the last record is processed and durable; its CPU time is what the whole
//! process took meanwhile, as `/proc/self/stat` tells it.

mod apps;
mod input;
mod latency;
mod place;
mod process;
mod run;
mod words;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::input::Keys;
use crate::place::Place;

/// What any part of a workload may fail with.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Times stream applications on the embedded broker.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Counts records by key.
    Count(KeyedInput),
    /// Maps values and filters away every tenth key.
    Stateless(KeyedInput),
    /// Builds a table, deletes its state, and restores it.
    Restore(KeyedInput),
    /// Counts the words of a text.
    Wordcount {
        /// A text, compressed with gzip.
        file: PathBuf,
        /// How many times it is read.
        #[arg(default_value_t = 20)]
        times: u64,
    },
    /// Measures the time from a record to its result at a reader that sees what is durable.
    Latency {
        /// Records per second.
        #[arg(default_value_t = 1_000)]
        rate: u64,
        /// How long, in seconds.
        #[arg(default_value_t = 20)]
        seconds: u64,
    },
}

/// Records with 8-byte keys, 100 for each millisecond of event time.
#[derive(clap::Args)]
struct KeyedInput {
    /// How many records.
    records: u64,
    /// How many keys.
    keys: usize,
    /// How often each key comes.
    #[arg(value_enum, default_value_t = Distribution::Uniform)]
    distribution: Distribution,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Distribution {
    Uniform,
    /// The n-th key 1/n as often as the first.
    Zipf,
}

impl KeyedInput {
    fn write(&self, place: &Place) -> Result<()> {
        let zipf = matches!(self.distribution, Distribution::Zipf);
        let keys = Keys::new(self.keys, zipf, self.value_bytes);
        input::write_keyed(place, self.records, keys)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let place = Place::new()?;
    match arguments.workload {
        Workload::Count(input) => {
            input.write(&place)?;
            run::process(&place, "count", apps::count()?)?;
        }
        Workload::Stateless(input) => {
            input.write(&place)?;
            run::process(&place, "stateless", apps::stateless()?)?;
        }
        Workload::Wordcount { file, times } => {
            input::write_text(&place, &file, times)?;
            run::process(&place, "wordcount", apps::word_count()?)?;
        }
        Workload::Restore(input) => {
            input.write(&place)?;
            run::process(&place, "table", apps::table()?)?;
            place.close()?;
            let place = place.opened_again_without_state()?;
            run::restore(&place, "table", apps::table()?)?;
            return place.close();
        }
        Workload::Latency { rate, seconds } => latency::measure(&place, rate, seconds)?,
    }
    place.close()
}
