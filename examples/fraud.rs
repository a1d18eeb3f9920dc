//! Payments that somebody else may have made: a card that pays in one country while its owner's phone is in another,
//! within ten minutes before or after. A large payment is also worth a call if nobody knows where the phone is. That
//! is known when no sign of it can come any more, which a *left* join waits for.

mod shared;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vltava::broker_api::client::Record;
use vltava::prelude::*;

use shared::{clock, print, texts, time};

const LOG: &str = include_str!("data/cards.log");
const MINUTE: Duration = Duration::from_secs(60);
const LARGE: i64 = 100_000;

/// What the bank hears of a card, in the order in which it hears it.
#[derive(Clone, Serialize, Deserialize)]
enum Event {
    Payment(Payment),
    PhoneIn(String),
}
vltava::serde!(Event => json);

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    time: i64,
    country: String,
    cents: i64,
    shop: String,
}
vltava::serde!(Payment => json);

impl Event {
    fn payment(self) -> Option<Payment> {
        match self {
            Self::Payment(payment) => Some(payment),
            Self::PhoneIn(_) => None,
        }
    }

    fn phone(self) -> Option<String> {
        match self {
            Self::PhoneIn(country) => Some(country),
            Self::Payment(_) => None,
        }
    }

    /// A line of the log: time, card, what it is about.
    fn parse(line: &str) -> Result<(i64, String, Self), Box<dyn Error>> {
        let words: Vec<_> = line.split(' ').collect();
        let (at, card, event) = match words[..] {
            [at, card, "phone", country] => (at, card, Self::PhoneIn(country.into())),
            [at, card, "pays", country, cents, shop] => {
                let (time, cents) = (time(at)?, cents.parse()?);
                let payment = Payment { time, country: country.into(), cents, shop: shop.into() };
                (at, card, Self::Payment(payment))
            }
            _ => return Err(format!("neither a payment nor a phone: {line}").into()),
        };
        Ok((time(at)?, card.into(), event))
    }
}

/// Why a payment should be looked at, if it should.
fn alert(payment: &Payment, phone: Option<&String>) -> Option<String> {
    let Payment { time, country, cents, shop } = payment;
    let why = match phone {
        Some(phone) if phone == country => return None,
        Some(phone) => format!("the phone is in {phone}"),
        None if *cents >= LARGE => "the phone is silent".into(),
        None => return None,
    };
    let (time, euros, cents) = (clock(*time), cents / 100, cents % 100);
    Some(format!("{time} {shop} in {country}, {euros}.{cents:02}: {why}"))
}

fn topology() -> Result<Topology, Box<dyn Error>> {
    let builder = StreamsBuilder::new();
    let events = builder.stream::<String, Event>("card-events");
    let payments = events.flat_map_values(|_card, event| event.payment());
    let phones = events.flat_map_values(|_card, event| event.phone());
    payments
        .left_join(
            &phones,
            |_card, payment, phone| alert(payment, phone),
            JoinWindows::of(10 * MINUTE).grace(5 * MINUTE),
        )
        .flat_map_values(|_card, alert| alert)
        .to("alerts");
    Ok(builder.build()?)
}

/// Runs the example in a directory; answers what it has to say.
pub(crate) async fn run(dir: PathBuf) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    vltava.ensure_topic("card-events", 1).await?;
    vltava.ensure_topic("alerts", 1).await?;
    let streams = vltava.start(topology()?, vltava.settings("fraud")).await?;

    let producer = Producer::new(vltava.broker())?;
    for line in LOG.lines().filter(|line| !line.starts_with('#')) {
        let (at, card, event) = Event::parse(line)?;
        let record = Record::new(card, serde_json::to_vec(&event)?).at(at);
        producer.send("card-events", record).await?;
    }
    streams.caught_up().await?;
    streams.close().await?;

    let alerts = texts(&vltava, "alerts").await?;
    vltava.close()?;
    let alerts = alerts.into_iter();
    Ok(alerts.map(|(card, alert)| format!("{card}  {}", alert.unwrap_or_default())).collect())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    print(run).await
}
