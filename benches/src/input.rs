//! Input: keyed records drawn as the comparison draws them, and lines of text.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::task::Poll;

use broker_api::partitioner::partition_of;
use broker_api::{BatchBuilder, Broker, Clock, Error, Producer, ProducerEvent, TopicPartition};
use flate2::read::GzDecoder;

use crate::Result;
use crate::place::{INPUT, Place};
use crate::process::waker;

/// Bytes of a batch.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that may wait for the disk.
const IN_FLIGHT: usize = 32;
/// The time of the first record.
const START: i64 = 1_700_000_000_000;

/// Keys drawn at random, and the value that goes with all of them.
pub(crate) struct Keys {
    /// Sums of the keys' weights.
    sums: Vec<f64>,
    random: JavaRandom,
    value: Vec<u8>,
}

impl Keys {
    /// Others come with another `seed`.
    pub(crate) fn new(keys: usize, zipf: bool, value_bytes: usize, seed: u64) -> Self {
        let weights = (0..keys).map(|i| if zipf { 1.0 / (i + 1) as f64 } else { 1.0 });
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        let sums = sums.collect();
        let mut random = JavaRandom::new(seed);
        let value = random.bytes(value_bytes);
        Self { sums, random, value }
    }

    fn draw(&mut self) -> i64 {
        let point = self.random.double() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum < point) as i64
    }
}

/// `java.util.Random`, so that both sides of the comparison read the very same records.
struct JavaRandom(u64);

impl JavaRandom {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;

    fn new(seed: u64) -> Self {
        Self((seed ^ Self::MULTIPLIER) & ((1 << 48) - 1))
    }

    fn next(&mut self, bits: u32) -> u32 {
        self.0 = self.0.wrapping_mul(Self::MULTIPLIER).wrapping_add(11) & ((1 << 48) - 1);
        (self.0 >> (48 - bits)) as u32
    }

    fn double(&mut self) -> f64 {
        let high = u64::from(self.next(26)) << 27;
        (high + u64::from(self.next(27))) as f64 / (1u64 << 53) as f64
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 4);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next(32).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Writes each key once.
pub(crate) fn write_table(
    place: &Place,
    topic: &str,
    keys: usize,
    value_bytes: usize,
) -> Result<()> {
    let value = JavaRandom::new(43).bytes(value_bytes);
    let mut writer = Writer::new(place, topic)?;
    for key in 0..i64::try_from(keys)? {
        writer.add(START, Some(&key.to_be_bytes()), &value)?;
    }
    writer.finish()
}

/// Writes records, 100 for each millisecond of event time.
pub(crate) fn write_keyed(place: &Place, topic: &str, records: u64, keys: Keys) -> Result<()> {
    write_poisoned(place, topic, records, keys, u64::MAX)
}

/// The same, but the value of one record of `every` so many is empty.
pub(crate) fn write_poisoned(
    place: &Place,
    topic: &str,
    records: u64,
    mut keys: Keys,
    every: u64,
) -> Result<()> {
    let mut writer = Writer::new(place, topic)?;
    for i in 0..records {
        let key = keys.draw().to_be_bytes();
        let is_poison = i % every == every - 1;
        let value = if is_poison { &[] } else { &keys.value[..] };
        writer.add(START + i64::try_from(i / 100)?, Some(&key), value)?;
    }
    writer.finish()
}

/// Writes the lines of a compressed text, several times, without keys.
pub(crate) fn write_text(place: &Place, file: &Path, times: u64) -> Result<()> {
    let mut text = String::new();
    GzDecoder::new(File::open(file)?).read_to_string(&mut text)?;
    let mut writer = Writer::new(place, INPUT)?;
    for _ in 0..times {
        for line in text.lines() {
            writer.add(place.clock.now(), None, line.as_bytes())?;
        }
    }
    writer.finish()
}

/// Fills a topic.
struct Writer {
    producer: Box<dyn Producer>,
    /// With what is not sent yet.
    partitions: Vec<(TopicPartition, BatchBuilder)>,
    in_flight: usize,
}

impl Writer {
    fn new(place: &Place, topic: &str) -> Result<Self> {
        let producer = place.broker.producer(waker())?;
        let partition = |number| (TopicPartition::new(topic, number), BatchBuilder::new());
        let partitions = (0..place.partitions).map(partition).collect();
        Ok(Self { producer, partitions, in_flight: 0 })
    }

    /// Without a key it goes to the first partition.
    fn add(&mut self, timestamp: i64, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        let count = u32::try_from(self.partitions.len())?;
        let number = key.filter(|_| count > 1).map_or(0, |key| partition_of(key, count)) as usize;
        let batch = &mut self.partitions[number].1;
        batch.push(timestamp, key, Some(value), &[])?;
        if batch.bytes() >= BATCH_BYTES { self.send(number) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<()> {
        for number in 0..self.partitions.len() {
            if !self.partitions[number].1.is_empty() {
                self.send(number)?;
            }
        }
        self.wait_until_in_flight(0)
    }

    fn send(&mut self, number: usize) -> Result<()> {
        self.wait_until_in_flight(IN_FLIGHT - 1)?;
        let (partition, batch) = &mut self.partitions[number];
        let mut batch = batch.finish()?;
        while let Err(refused) = self.producer.append(partition, batch) {
            if refused.error != Error::Full {
                return Err(refused.error.into());
            }
            batch = *refused.submitted;
            std::thread::park();
        }
        self.in_flight += 1;
        Ok(())
    }

    fn wait_until_in_flight(&mut self, most: usize) -> Result<()> {
        while self.in_flight > most {
            match self.producer.poll() {
                Poll::Pending => std::thread::park(),
                Poll::Ready(ProducerEvent::Appended { .. }) => self.in_flight -= 1,
                Poll::Ready(ProducerEvent::Failed { error, .. }) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_the_numbers_that_java_draws() {
        // new java.util.Random(42): nextDouble() twice
        let mut random = JavaRandom::new(42);
        assert_eq!(random.double(), 0.7275636800328681);
        assert_eq!(random.double(), 0.6832234717598454);
        // new java.util.Random(42).nextInt() = -1170105035
        assert_eq!(JavaRandom::new(42).bytes(5)[..4], (-1_170_105_035i32).to_le_bytes());
    }

    #[test]
    fn zipf_draws_the_first_key_most_often() {
        let mut keys = Keys::new(100, true, 0, 42);
        let mut drawn = [0; 100];
        for _ in 0..10_000 {
            drawn[keys.draw() as usize] += 1;
        }
        assert!(drawn[0] > 1_700 && drawn[0] < 2_200, "{}", drawn[0]);
        assert!(drawn[0] > drawn[1] && drawn[1] > drawn[9]);
    }
}
