//! Payments, some of which cannot be read and some of which nobody can book: each of these ends up in a topic
//! of dead letters, once, with the reason; all others are booked.

mod shared;

use std::error::Error;
use std::path::PathBuf;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use vltava::broker_api::client::Record;
use vltava::prelude::*;

use shared::{print, texts};

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    cents: i64,
    currency: String,
}
vltava::serde!(Payment => json);

const PAYMENTS: [(&str, &str); 6] = [
    ("anna", r#"{"cents": 1250, "currency": "EUR"}"#),
    ("bara", r#"{"cents": "lots"}"#),
    ("anna", r#"{"cents": 700, "currency": "CZK"}"#),
    ("cyril", r#"{"cents": 300, "currency": "XTS"}"#),
    ("anna", r#"{"cents": 250, "currency": "EUR"}"#),
    ("dana", "-"),
];

fn in_euro(payment: &Payment) -> i64 {
    match payment.currency.as_str() {
        "EUR" => payment.cents,
        "CZK" => payment.cents / 25,
        other => panic!("no rate for {other}"),
    }
}

fn topology() -> Result<Topology, Box<dyn Error>> {
    let builder = StreamsBuilder::new();
    builder
        .stream::<String, Payment>("payments")
        .map_values(|_, payment| in_euro(&payment))
        .group_by_key()
        .reduce(|sum, cents| sum + cents)
        .to_stream_present()
        .map_values(|_, cents| format!("{}.{:02}", cents / 100, cents % 100))
        .to("accounts");
    Ok(builder.build()?)
}

/// Runs the example in a directory; answers what it has to say.
pub(crate) async fn run(dir: PathBuf) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    for topic in ["payments", "accounts", "payments.dead"] {
        vltava.ensure_topic(topic, 1).await?;
    }
    let settings = Settings {
        deserialization_handler: log_and_continue(),
        processing_handler: log_and_continue(),
        dead_letter_topic: Some("payments.dead".into()),
        ..vltava.settings("bookkeeping")
    };
    let streams = vltava.start(topology()?, settings).await?;
    let producer = Producer::new(vltava.broker())?;
    for (who, payment) in PAYMENTS {
        producer.send("payments", Record::new(who.to_owned(), payment.to_owned()).at(0)).await?;
    }
    streams.caught_up().await?;
    streams.close().await?;

    let accounts = texts(&vltava, "accounts").await?;
    let anna = accounts.iter().rfind(|(who, _)| who == "anna").and_then(|(_, sum)| sum.clone());
    let mut said = vec![format!("anna has {} EUR", anna.unwrap_or_default())];
    let dead = Consumer::builder(vltava.broker()).topic("payments.dead").until_end().build();
    let dead: Vec<_> = dead.await?.try_collect().await?;
    for letter in dead {
        let header = |name: &str| {
            let name = format!("__streams.errors.{name}");
            let found = letter.headers.iter().find(|header| header.name == name);
            let value = found.and_then(|header| header.value.as_deref()).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        let who = String::from_utf8_lossy(letter.key.as_deref().unwrap_or_default()).into_owned();
        said.push(format!("{who}, offset {}: {}", header("offset"), header("exception")));
    }
    vltava.close()?;
    Ok(said)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    print(run).await
}
