//! A processor written by hand, with a store and a punctuation: flood warnings for the Vltava.
//!
//! Gauges report the level of the river in centimetres. Every hour of event time the processor says
//! where the water has risen by more than half a metre since the hour before, and which gauges were silent.
//! Run it with a directory that does not exist yet: `cargo run --example custom_processor -- ./gauges`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use vltava::broker_api::client;
use vltava::prelude::*;

const MINUTE: i64 = 60_000;
const RISE_CM: i64 = 50;

/// Minute, gauge, level in cm: a wave that comes down the river, and a gauge that it tears away.
const REPORTS: [(i64, &str, i64); 14] = [
    (0, "Vyšší Brod", 95),
    (5, "České Budějovice", 110),
    (9, "Praha", 60),
    (62, "Vyšší Brod", 170),
    (66, "České Budějovice", 118),
    (70, "Praha", 61),
    (121, "Vyšší Brod", 176),
    (127, "České Budějovice", 212),
    (133, "Praha", 63),
    (184, "Vyšší Brod", 171),
    (191, "Praha", 139),
    (244, "Vyšší Brod", 160),
    (250, "Praha", 201),
    (300, "Praha", 204),
];

/// What is remembered of a gauge: its last level, and that of an hour before if it has reported since.
#[derive(Clone, Serialize, Deserialize)]
struct Gauge {
    level: i64,
    before: Option<i64>,
}

vltava::serde!(Gauge => json);

#[derive(Default)]
struct Warnings {
    gauges: Option<StoreHandle<KeyValueStore<String, Gauge>>>,
}

impl Processor for Warnings {
    type KIn = String;
    type VIn = i64;
    type KOut = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.gauges = Some(cx.store("gauges")?);
        cx.schedule(Duration::from_secs(3600), PunctuationKind::StreamTime)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let Some(gauges) = self.gauges else { return Ok(()) };
        cx.store(gauges).update(&record.key, |known, _| {
            let before = known.as_ref().map_or(record.value, |g| g.before.unwrap_or(g.level));
            *known = Some(Gauge { level: record.value, before: Some(before) });
            record.timestamp
        })?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let Some(gauges) = self.gauges else { return Ok(()) };
        for (gauge, Gauge { level, before }, _) in cx.store(gauges).all()? {
            let warning = match before {
                None => Some("silent for an hour".to_string()),
                Some(before) if level - before > RISE_CM => {
                    Some(format!("{level} cm, {} cm more than an hour ago", level - before))
                }
                Some(_) => None,
            };
            cx.store(gauges).put(gauge.clone(), Some(Gauge { level, before: None }), now)?;
            if let Some(warning) = warning {
                cx.forward(Record::new(gauge, warning, now));
            }
        }
        Ok(())
    }
}

fn topology() -> Result<Topology, BuildError> {
    let options = StoreOptions::default();
    let builder = StreamsBuilder::new();
    let (key, value) = (String::serde(), Gauge::serde());
    builder.add_state_store(StoreSpec::key_value("gauges", key, value, options));
    builder
        .stream::<String, i64>("levels")
        .process_with(Warnings::default, &["gauges"], "warnings")
        .to("warnings");
    builder.build()
}

/// Loads the reports, runs the application until it has seen them all, and answers its warnings.
pub async fn run(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    vltava.ensure_topic("levels", 1).await?;
    vltava.ensure_topic("warnings", 1).await?;
    let producer = Producer::new(vltava.broker())?;
    for (minute, gauge, level) in REPORTS {
        let level = level.to_be_bytes().to_vec();
        producer.send("levels", client::Record::new(gauge, level).at(minute * MINUTE)).await?;
    }

    let streams = vltava.start(topology()?, vltava.settings("flood-warnings")).await?;
    streams.caught_up().await?;
    streams.close().await?;

    let warnings = Consumer::builder(vltava.broker()).topic("warnings").until_end().build().await?;
    let warnings: Vec<_> = warnings.try_collect().await?;
    vltava.close()?;
    let text = |bytes: &Option<bytes::Bytes>| {
        String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
    };
    let line = |warning: &client::ConsumedRecord| {
        let minute = warning.timestamp / MINUTE;
        format!("minute {minute}: {}: {}", text(&warning.key), text(&warning.value))
    };
    Ok(warnings.iter().map(line).collect())
}

#[allow(dead_code)] // its test calls `run`
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("say in which directory the broker shall be")?;
    for warning in run(Path::new(&dir)).await? {
        println!("{warning}");
    }
    Ok(())
}
