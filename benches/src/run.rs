//! Runs an application over all of its input, or lets it restore its state, and prints what that
//! took.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::executor::block_on;
use streams_core::Topology;
use streams_core::runtime::{Settings, Streams};

use crate::Result;
use crate::place::{INPUT, OTHER, OUTPUT, Place};
use crate::process::{cpu_seconds, thread_seconds};

/// How often progress is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// A moment of a run.
struct Moment {
    wall: f64,
    cpu: f64,
    threads: BTreeMap<String, f64>,
}

impl Moment {
    fn now(place: &Place) -> Result<Self> {
        Ok(Self { wall: place.seconds(), cpu: cpu_seconds()?, threads: thread_seconds()? })
    }

    /// Records per second and per CPU-second from here to `end`.
    fn rates(&self, end: &Self, records: u64) -> (f64, f64) {
        let records = records as f64;
        (records / (end.wall - self.wall), records / (end.cpu - self.cpu).max(0.01))
    }

    /// The CPU-seconds of each thread from here to `end`, as JSON.
    fn threads(&self, end: &Self) -> String {
        let spent = end.threads.iter().map(|(name, seconds)| {
            let spent = seconds - self.threads.get(name).unwrap_or(&0.0);
            format!("\"{name}\":{spent:.2}")
        });
        spent.collect::<Vec<_>>().join(",")
    }
}

/// Processes all records of the input with default settings.
pub(crate) fn process(place: &Place, app: &str, topology: Topology) -> Result<()> {
    process_with(place, place.settings(app), topology)
}

/// Processes all records of the input.
pub(crate) fn process_with(place: &Place, settings: Settings, topology: Topology) -> Result<()> {
    let app = &*settings.application_id.clone();
    let total = place.end(INPUT)? + place.end(OTHER)?;
    let start = Moment::now(place)?;
    let streams = place.start(settings, topology)?;
    let half = wait_until_consumed(place, &streams, total / 2)?;
    block_on(streams.caught_up())?;
    let end = Moment::now(place)?;
    let consumed = streams.metrics().consumed;
    block_on(streams.close())?;
    if consumed != total {
        return Err(format!("{consumed} records were processed instead of {total}").into());
    }
    let (second_rate, second_cpu_rate) = half.1.rates(&end, total - half.0);
    let second_half = format!(
        ",\"second_half_records_per_s\":{second_rate:.0},\
         \"second_half_records_per_cpu_s\":{second_cpu_rate:.0}"
    );
    print(place, app, false, total, (&start, &end), &second_half)
}

/// Waits until so many records are processed; answers how many there were, and when.
fn wait_until_consumed(place: &Place, streams: &Streams, records: u64) -> Result<(u64, Moment)> {
    loop {
        let consumed = streams.metrics().consumed;
        if consumed >= records {
            return Ok((consumed, Moment::now(place)?));
        }
        if streams.state() >= streams_core::runtime::State::PendingShutdown {
            block_on(streams.ended())?;
        }
        std::thread::park_timeout(GLANCE);
    }
}

/// Restores the state of an application that has processed its input before.
pub(crate) fn restore(place: &Place, app: &str, topology: Topology) -> Result<()> {
    let start = Moment::now(place)?;
    let streams = place.start(place.settings(app), topology)?;
    block_on(streams.running())?;
    let end = Moment::now(place)?;
    let restored = streams.metrics().restored;
    block_on(streams.close())?;
    print(place, app, true, restored, (&start, &end), "")
}

fn print(
    place: &Place,
    app: &str,
    restore: bool,
    records: u64,
    (start, end): (&Moment, &Moment),
    second_half: &str,
) -> Result<()> {
    let repartitioned = place.end(&format!("{app}-counts-repartition"))?;
    let outputs = place.end(OUTPUT)?;
    let (rate, cpu_rate) = start.rates(end, records);
    let (wall, cpu) = (end.wall - start.wall, end.cpu - start.cpu);
    println!(
        "{{\"app\":\"{app}\",\"restore\":{restore},\"guarantee\":\"eos\",\"topic\":\"{INPUT}\",\
         \"records\":{records},\"repartitioned\":{repartitioned},\"wall_s\":{wall:.2},\
         \"app_cpu_s\":{cpu:.2},\"broker_cpu_s\":0.00,\"records_per_s\":{rate:.0},\
         \"records_per_cpu_s\":{cpu_rate:.0}{second_half},\"outputs\":{outputs},\
         \"threads\":{{{}}}}}",
        start.threads(end)
    );
    Ok(())
}
