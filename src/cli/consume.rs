//! `vltava consume`.

use std::io::Write;

use broker_api::{Broker, Error, OffsetSpec, Start, TopicPartition};
use futures::executor::block_on;

use super::args::{Consume, From};
use super::reader::Reader;
use super::show::Shown;
use super::{Failure, Stop, topics};

pub(crate) fn run(broker: &dyn Broker, args: &Consume, stop: &Stop) -> Result<(), Failure> {
    let mut reader = Reader::new(broker, args.isolation.into(), &starts(broker, args)?)?;
    let mut left = args.max_messages.unwrap_or(u64::MAX);
    let mut out = std::io::stdout().lock();
    let mut text = Vec::new();
    while left > 0 && !stop.requested() {
        let any = reader.fetch(|partition, append_time, record| {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            args.printing.show(&Shown::new(partition, append_time, &record), &mut text)
        });
        // What could be read is printed even if an error follows.
        out.write_all(&text).and_then(|()| out.flush()).map_err(Failure::Output)?;
        text.clear();
        if !any? {
            if args.until_end && reader.at_end() {
                break;
            }
            std::thread::park();
        }
    }
    Ok(())
}

/// Which partitions to read, and from where.
fn starts(broker: &dyn Broker, args: &Consume) -> Result<Vec<(TopicPartition, Start)>, Failure> {
    let topic = block_on(broker.admin().topic(&args.topic))?;
    let mut partitions = topics::partitions(&topic);
    if let Some(only) = args.partition {
        partitions.retain(|tp| tp.partition == only);
        if partitions.is_empty() {
            return Err(Failure::Broker(Error::UnknownPartition {
                topic: args.topic.clone(),
                partition: only,
                partitions: topic.partitions,
            }));
        }
    }
    let starts = match args.from {
        From::Beginning => vec![Start::Earliest; partitions.len()],
        From::Offset(offset) => vec![Start::At(offset); partitions.len()],
        From::End => {
            let asked: Vec<_> =
                partitions.iter().map(|tp| (tp.clone(), OffsetSpec::Stable)).collect();
            let ends = block_on(broker.admin().offsets(&asked))?;
            ends.into_iter().map(Start::At).collect()
        }
    };
    Ok(partitions.into_iter().zip(starts).collect())
}
