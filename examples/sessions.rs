//! Visits of a web site, from its log of clicks: a visit is what a visitor clicks without a pause of more than half
//! an hour. A click that comes late, as the logs of several servers are merged, may make one visit of two.

mod shared;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vltava::broker_api::client::Record;
use vltava::prelude::*;

use shared::{clock, print, texts, time};

const LOG: &str = include_str!("data/clicks.log");
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Serialize, Deserialize)]
struct Click {
    time: i64,
    page: String,
}
vltava::serde!(Click => json);

/// The clicks of a visit, in order.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Visit(Vec<Click>);
vltava::serde!(Visit => json);

impl Visit {
    fn with(mut self, clicks: impl IntoIterator<Item = Click>) -> Self {
        self.0.extend(clicks);
        self.0.sort_by_key(|click| click.time);
        self
    }

    fn text(&self) -> String {
        let pages: Vec<_> = self.0.iter().map(|click| click.page.as_str()).collect();
        pages.join(" ")
    }
}

fn topology() -> Result<Topology, Box<dyn Error>> {
    let builder = StreamsBuilder::new();
    builder
        .stream::<String, Click>("clicks")
        .group_by_key()
        .windowed_by(SessionWindows::of(30 * MINUTE).grace(20 * MINUTE))
        .aggregate(
            Visit::default,
            |_visitor, click, visit| visit.with([click]),
            |_visitor, earlier, later| earlier.with(later.0),
        )
        .to_stream()
        .map(|session, visit| {
            let Window { start, end } = session.window;
            let key = format!("{} {}-{}", session.key, clock(start), clock(end));
            (key, visit.map(|visit| visit.text()))
        })
        .to("visits");
    Ok(builder.build()?)
}

/// Runs the example in a directory; answers what it has to say.
pub(crate) async fn run(dir: PathBuf) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    vltava.ensure_topic("clicks", 1).await?;
    vltava.ensure_topic("visits", 1).await?;
    let streams = vltava.start(topology()?, vltava.settings("sessions")).await?;

    let producer = Producer::new(vltava.broker())?;
    for line in LOG.lines().filter(|line| !line.starts_with('#')) {
        let [at, visitor, page] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("not a click: {line}").into());
        };
        let click = Click { time: time(at)?, page: page.into() };
        let record = Record::new(visitor.to_owned(), serde_json::to_vec(&click)?).at(click.time);
        producer.send("clicks", record).await?;
    }
    streams.caught_up().await?;
    let late = streams.metrics().dropped.get("closed window").copied().unwrap_or_default();
    streams.close().await?;

    // A visit that went on, or was merged with another, is deleted: what is left are the visits.
    let mut visits = BTreeMap::new();
    for (visit, text) in texts(&vltava, "visits").await? {
        match text {
            Some(text) => drop(visits.insert(visit, text)),
            None => drop(visits.remove(&visit)),
        }
    }
    vltava.close()?;
    let mut said: Vec<_> = visits.iter().map(|(visit, text)| format!("{visit}  {text}")).collect();
    said.push(format!("too late: {late}"));
    Ok(said)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    print(run).await
}
