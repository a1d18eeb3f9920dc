//! What each household used in each quarter of an hour, to be billed: one final result, although readings of
//! the meters come late. The same in two ways: an aggregation that speaks when a window closes, and a table of every
//! update that is suppressed until then. What is open in the end waits for a later reading.

mod shared;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use vltava::broker_api::client::Record;
use vltava::prelude::*;
use vltava::streams_dsl::{BufferConfig, Suppressed};

use shared::{clock, print, texts, time};

const MINUTE: Duration = Duration::from_secs(60);

fn topology() -> Result<Topology, Box<dyn Error>> {
    let builder = StreamsBuilder::new();
    let quarters = builder
        .stream::<String, i64>("readings")
        .group_by_key()
        .windowed_by(TimeWindows::of(15 * MINUTE).grace(10 * MINUTE));
    let bill = |quarter: &Windowed<String>, watt_hours: Option<i64>| {
        let Window { start, end } = quarter.window;
        let bill = watt_hours.map(|n| format!("{}-{} {n:>4} Wh", clock(start), clock(end)));
        (quarter.key.clone(), bill)
    };

    quarters
        .clone()
        .emit_strategy(EmitStrategy::on_window_close())
        .reduce(|sum, reading| sum + reading)
        .to_stream()
        .map(move |quarter, sum| bill(&quarter, sum))
        .to("bills");

    quarters
        .reduce(|sum, reading| sum + reading)
        .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
        .to_stream()
        .map(move |quarter, sum| bill(&quarter, sum))
        .to("suppressed");
    Ok(builder.build()?)
}

/// What two meters say of every five minutes of an hour: household, time, watt-hours. The one in the cellar sends
/// three readings at a time.
fn readings(begin: i64) -> Vec<(&'static str, i64, i64)> {
    let at = |n: i64| begin + n * 300_000 - 1_000;
    let mut readings = Vec::new();
    for n in 1..=12 {
        readings.push(("attic", at(n), 20 + 3 * n));
        if n % 3 == 0 {
            readings.extend([n - 2, n - 1, n].map(|n| ("cellar", at(n), 70 - n)));
        }
    }
    readings.push(("cellar", at(1), 1_000)); // late by an hour: its window is closed
    readings
}

/// Runs the example in a directory; answers what it has to say.
pub(crate) async fn run(dir: PathBuf) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    for topic in ["readings", "bills", "suppressed"] {
        vltava.ensure_topic(topic, 1).await?;
    }
    let streams = vltava.start(topology()?, vltava.settings("final-results")).await?;
    let producer = Producer::new(vltava.broker())?;
    for (household, time, watt_hours) in readings(time("18:00:00")?) {
        let record = Record::new(household, watt_hours.to_be_bytes().to_vec()).at(time);
        producer.send("readings", record).await?;
    }
    streams.caught_up().await?;
    streams.close().await?;

    let [mut bills, mut suppressed] =
        [texts(&vltava, "bills").await?, texts(&vltava, "suppressed").await?];
    bills.sort();
    suppressed.sort();
    vltava.close()?;
    let mut said: Vec<_> = bills
        .iter()
        .map(|(household, bill)| format!("{household:<6} {}", bill.as_deref().unwrap_or_default()))
        .collect();
    said.push("The last quarter is still open.".into());
    said.push(match bills == suppressed {
        true => "The suppressed table says the same.".into(),
        false => format!("The suppressed table differs: {suppressed:?}"),
    });
    Ok(said)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    print(run).await
}
