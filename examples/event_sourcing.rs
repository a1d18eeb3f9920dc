//! What was the price at the time of the order? Prices are known by their events only; folded into a versioned
//! table they are known for every moment of the last day. An order that reaches us late still has the price of when it was made.

mod shared;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use vltava::broker_api::client::Record;
use vltava::prelude::*;

use shared::{print, texts, time};

const DAY: Duration = Duration::from_secs(86_400);

/// The price in cents after an event: `=450` sets it, `+50` and `-50` change it.
fn apply(event: &str, price: i64) -> i64 {
    let cents = |text: &str| text.parse::<i64>().unwrap_or_default();
    match event.strip_prefix('=') {
        Some(new) => cents(new),
        None => price + cents(event),
    }
}

fn topology() -> Result<Topology, Box<dyn Error>> {
    let builder = StreamsBuilder::new();
    let prices = builder.stream::<String, String>("price-events").group_by_key().aggregate_with(
        || 0,
        |_, event, price| apply(&event, price),
        Materialized::versioned("prices", DAY),
    );
    builder
        .stream::<String, String>("orders")
        .left_join_table(&prices, |tea, order, price| match price {
            Some(cents) => format!("{order}: {tea} at {}.{:02}", cents / 100, cents % 100),
            None => format!("{order}: {tea} had no price then"),
        })
        .to("invoices");
    Ok(builder.build()?)
}

/// Runs the example in a directory; answers what it has to say.
pub(crate) async fn run(dir: PathBuf) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    for topic in ["price-events", "orders", "invoices"] {
        vltava.ensure_topic(topic, 1).await?;
    }
    let streams = vltava.start(topology()?, vltava.settings("event-sourcing")).await?;
    let producer = Producer::new(vltava.broker())?;
    let events = [
        ("price-events", "oolong", "=450", "08:00:00"),
        ("price-events", "sencha", "=380", "08:00:00"),
        ("price-events", "oolong", "+50", "12:00:00"),
        ("price-events", "oolong", "-120", "17:00:00"),
    ];
    let orders = [
        ("orders", "oolong", "order 1, in the evening", "18:30:00"),
        ("orders", "oolong", "order 2, at lunch", "12:30:00"), // reaches us late, like the next ones
        ("orders", "oolong", "order 3, in the morning", "11:59:59"),
        ("orders", "sencha", "order 4, in the morning", "09:00:00"),
        ("orders", "oolong", "order 5, at night", "07:00:00"),
    ];
    for part in [&events[..], &orders[..]] {
        for (topic, tea, value, at) in part {
            producer.send(topic, Record::new(*tea, *value).at(time(at)?)).await?;
        }
        streams.caught_up().await?;
    }
    streams.close().await?;
    let invoices = texts(&vltava, "invoices").await?;
    vltava.close()?;
    Ok(invoices.into_iter().filter_map(|(_, invoice)| invoice).collect())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    print(run).await
}
