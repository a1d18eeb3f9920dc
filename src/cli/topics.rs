//! `vltava topics`.

use std::io::Write;

use broker_api::{
    Broker, Error, NewTopic, OffsetSpec, TopicConfig, TopicDescription, TopicPartition,
};
use futures::executor::block_on;

use super::Failure;
use super::apps::Apps;
use super::args::{CreateTopic, TopicsCommand};

fn create(broker: &dyn Broker, args: &CreateTopic) -> Result<(), Failure> {
    let mut config = TopicConfig::default();
    for (i, (name, value)) in args.configs.iter().enumerate() {
        if args.configs[..i].iter().any(|(before, _)| before == name) {
            let reason = format!("{name} is given twice");
            return Err(Failure::Argument { name: "--config", reason });
        }
        config.set(name, value)?;
    }
    let topic = NewTopic { name: args.name.clone(), partitions: args.partitions, config };
    block_on(broker.admin().create_topic(topic))?;
    print(format!("topic {} created with {} partitions\n", args.name, args.partitions))
}

pub(crate) fn run(
    broker: &dyn Broker,
    apps: impl FnOnce() -> Result<Apps, Failure>,
    command: &TopicsCommand,
) -> Result<(), Failure> {
    match command {
        TopicsCommand::Create(args) => create(broker, args),
        TopicsCommand::List => {
            let topics = block_on(broker.admin().topics())?;
            print(topics.iter().map(|topic| format!("{}\n", topic.name)).collect())
        }
        TopicsCommand::Describe { name } => describe(broker, name),
        TopicsCommand::Delete { name, force } => delete(broker, &apps()?, name, *force),
    }
}

/// Deletes a topic; one that an application needs, only by force.
fn delete(broker: &dyn Broker, apps: &Apps, name: &str, force: bool) -> Result<(), Failure> {
    if let Some((app, what)) = apps.internal_topic(name).filter(|_| !force) {
        let (topic, what, app) = (name.into(), what.to_string(), app.into());
        return Err(Failure::Internal { topic, what, app });
    }
    existing(broker, name)?;
    block_on(broker.admin().delete_topic(name))?;
    print(format!("topic {name} deleted\n"))
}

fn describe(broker: &dyn Broker, name: &str) -> Result<(), Failure> {
    let topic = existing(broker, name)?;
    let mut text = format!(
        "topic:       {}\nid:          {}\npartitions:  {}\n",
        topic.name, topic.id, topic.partitions
    );
    for (name, value) in topic.config.entries() {
        text += &format!("{name}={value}\n");
    }
    text += "\npartition  first offset  end offset\n";
    for (partition, (first, end)) in bounds(broker, &topic)?.into_iter().enumerate() {
        text += &format!("{partition:<9}  {first:<12}  {end}\n");
    }
    print(text)
}

/// Of each partition: the first offset that the log still has, and the end of what is durable.
pub(crate) fn bounds(
    broker: &dyn Broker,
    topic: &TopicDescription,
) -> Result<Vec<(i64, i64)>, Failure> {
    let all = |spec| {
        let asked: Vec<_> = partitions(topic).into_iter().map(|tp| (tp, spec)).collect();
        block_on(broker.admin().offsets(&asked))
    };
    Ok(all(OffsetSpec::Earliest)?.into_iter().zip(all(OffsetSpec::Stable)?).collect())
}

/// A topic that is there: to make one would not help who asks for it.
pub(crate) fn existing(broker: &dyn Broker, name: &str) -> Result<TopicDescription, Failure> {
    block_on(broker.admin().topic(name)).map_err(|error| match error {
        Error::UnknownTopic { topic } => Failure::UnknownTopic { topic },
        other => other.into(),
    })
}

/// All partitions of a topic.
pub(crate) fn partitions(topic: &TopicDescription) -> Vec<TopicPartition> {
    (0..topic.partitions).map(|i| TopicPartition::new(topic.name.clone(), i)).collect()
}

/// Prints to standard output.
pub(crate) fn print(text: String) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}
