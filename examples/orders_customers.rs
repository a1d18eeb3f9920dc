//! Orders with the names of their customers: a join by a foreign key, over topics with different
//! numbers of partitions. A customer who changes the name changes all orders of hers.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use vltava::broker_api::client::Record;
use vltava::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    customer: String,
    item: String,
}
vltava::serde!(Order => json);

fn topology() -> Result<Topology, Box<dyn Error>> {
    let builder = StreamsBuilder::new();
    let customers = builder.table::<String, String>("customers");
    builder
        .table::<String, Order>("orders")
        .left_join_on_foreign_key(
            &customers,
            |_, order| order.customer.clone(),
            |_, order, name| match name {
                Some(name) => format!("{} for {name}", order.item),
                None => format!("{} for customer {}, who is not known", order.item, order.customer),
            },
        )
        .to_stream()
        .to("orders-with-names");
    Ok(builder.build()?)
}

/// What the output topic says of each order in the end.
async fn orders(vltava: &Vltava) -> Result<Vec<String>, Box<dyn Error>> {
    let mut orders = BTreeMap::new();
    let consumer = Consumer::builder(vltava.broker()).topic("orders-with-names").until_end();
    let mut records = consumer.build().await?;
    while let Some(record) = records.try_next().await? {
        let order = String::from_utf8(record.key.unwrap_or_default().into())?;
        let text = String::from_utf8(record.value.unwrap_or_default().into())?;
        orders.insert(order, text);
    }
    Ok(orders.into_iter().map(|(order, text)| format!("  {order}: {text}")).collect())
}

/// Runs the example in a directory; answers what it has to say.
pub(crate) async fn run(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let vltava = Vltava::open(dir)?;
    vltava.ensure_topic("orders", 3).await?;
    vltava.ensure_topic("customers", 2).await?;
    vltava.ensure_topic("orders-with-names", 3).await?;
    let streams = vltava.start(topology()?, vltava.settings("orders-customers")).await?;
    let producer = Producer::new(vltava.broker())?;
    let order = |id: &str, customer: &str, item: &str| -> Result<_, serde_json::Error> {
        let order = Order { customer: customer.into(), item: item.into() };
        Ok(Record::new(id.to_owned(), serde_json::to_vec(&order)?))
    };

    producer.send("customers", Record::new("c1", "Anna")).await?;
    producer.send("customers", Record::new("c2", "Bedřich")).await?;
    for (id, customer, item) in [
        ("o1", "c1", "a boat"),
        ("o2", "c2", "a bridge"),
        ("o3", "c1", "oars"),
        ("o4", "c3", "a map"),
    ] {
        producer.send("orders", order(id, customer, item)?).await?;
    }
    streams.caught_up().await?;
    let mut said = vec!["Four orders:".to_owned()];
    said.extend(orders(&vltava).await?);

    producer.send("customers", Record::new("c1", "Hana")).await?;
    producer.send("orders", order("o2", "c3", "a bridge")?).await?;
    streams.caught_up().await?;
    said.push("Anna is called Hana now, and the bridge is for somebody else:".to_owned());
    said.extend(orders(&vltava).await?);

    streams.close().await?;
    vltava.close()?;
    Ok(said)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    for line in run(dir.path()).await? {
        println!("{line}");
    }
    Ok(())
}
