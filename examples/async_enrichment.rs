//! Orders get the name of their customer, which another service knows: it is asked for many orders at once, and answers
//! in whatever order it likes. The orders stay in theirs.

mod shared;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use vltava::broker_api::client::Record;
use vltava::prelude::*;

use shared::{print, texts};

const ORDERS: [(&str, &str); 6] = [
    ("o-1", "c-3"),
    ("o-2", "c-1"),
    ("o-3", "c-2"),
    ("o-4", "c-9"),
    ("o-5", "c-1"),
    ("o-6", "c-3"),
];

/// The service: the smaller the number, the longer it takes.
async fn name_of(customer: String) -> Result<String, String> {
    let (number, name) = match customer.as_str() {
        "c-1" => (1, "Anna"),
        "c-2" => (2, "Bara"),
        "c-3" => (3, "Cyril"),
        other => return Err(format!("there is no customer {other}")),
    };
    for _ in 0..10 - 3 * number {
        tokio::task::yield_now().await; // others go first
    }
    Ok(name.into())
}

fn topology() -> Result<Topology, Box<dyn Error>> {
    let builder = StreamsBuilder::new();
    let config = AsyncConfig::new().concurrency(4).timeout(Duration::from_secs(5));
    builder
        .stream::<String, String>("orders")
        .map_values_async_with(|_, customer| name_of(customer), config)
        .to("named-orders");
    Ok(builder.build()?)
}

/// Runs the example in a directory; answers what it has to say.
pub(crate) async fn run(dir: PathBuf) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    for topic in ["orders", "named-orders", "orders.dead"] {
        vltava.ensure_topic(topic, 1).await?;
    }
    let settings = Settings {
        processing_handler: log_and_continue(),
        dead_letter_topic: Some("orders.dead".into()),
        ..vltava.settings("enrichment")
    };
    let producer = Producer::new(vltava.broker())?;
    for (order, customer) in ORDERS {
        producer.send("orders", Record::new(order.to_owned(), customer.to_owned()).at(0)).await?;
    }
    let streams = vltava.start(topology()?, settings).await?;
    streams.caught_up().await?;
    streams.close().await?;

    let named = texts(&vltava, "named-orders").await?.into_iter();
    let mut said: Vec<String> =
        named.map(|(order, name)| format!("{order} {}", name.unwrap_or_default())).collect();
    for (order, customer) in texts(&vltava, "orders.dead").await? {
        said.push(format!("dead: {order} {}", customer.unwrap_or_default()));
    }
    vltava.close()?;
    Ok(said)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    print(run).await
}
