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
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};
use streams_core::failure::Response;

use crate::input::Keys;
use crate::place::{INPUT, OTHER, Place};

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
    /// Counts records by key in windows of a second, one every half second.
    Window(KeyedInput),
    /// The same in windows that do not overlap: only the last count of each goes on.
    Suppress(KeyedInput),
    /// Looks each record's key up in a table that has them all.
    Join(KeyedInput),
    /// Joins two streams, of which each has half of the records, within a twentieth of a second.
    StreamJoin(KeyedInput),
    /// Counts records by key, some of which fail when they have been counted, and are left out.
    Poison {
        #[command(flatten)]
        input: KeyedInput,
        /// One record of so many fails.
        #[arg(long, default_value_t = 1_000)]
        every: u64,
        /// Partitions of the input, and so tasks of the one stream thread.
        #[arg(long, default_value_t = 8)]
        partitions: u32,
    },
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
        input::write_keyed(place, INPUT, self.records, self.keys(42))
    }

    /// Half of the records each.
    fn write_two(&self, place: &Place) -> Result<()> {
        input::write_keyed(place, INPUT, self.records / 2, self.keys(42))?;
        input::write_keyed(place, OTHER, self.records / 2, self.keys(43))
    }

    fn keys(&self, seed: u64) -> Keys {
        let zipf = matches!(self.distribution, Distribution::Zipf);
        Keys::new(self.keys, zipf, self.value_bytes, seed)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let partitions = match &arguments.workload {
        Workload::Poison { partitions, .. } => *partitions,
        _ => 1,
    };
    let place = Place::new(partitions)?;
    match arguments.workload {
        Workload::Count(input) => {
            input.write(&place)?;
            run::process(&place, "count", apps::count()?)?;
        }
        Workload::Window(input) => {
            input.write(&place)?;
            run::process(&place, "window", apps::window()?)?;
        }
        Workload::Suppress(input) => {
            input.write(&place)?;
            run::process(&place, "suppress", apps::suppress()?)?;
        }
        Workload::Join(input) => {
            input::write_table(&place, OTHER, input.keys, input.value_bytes)?;
            input.write(&place)?;
            run::process(&place, "join", apps::join()?)?;
        }
        Workload::StreamJoin(input) => {
            input.write_two(&place)?;
            run::process(&place, "stream-join", apps::stream_join()?)?;
        }
        Workload::Stateless(input) => {
            input.write(&place)?;
            run::process(&place, "stateless", apps::stateless()?)?;
        }
        Workload::Poison { input, every, .. } => {
            input::write_poisoned(&place, INPUT, input.records, input.keys(42), every.max(1))?;
            let mut settings = place.settings("poison");
            settings.processing_handler = Arc::new(|_| Response::resume());
            run::process_with(&place, settings, apps::poison()?)?;
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
