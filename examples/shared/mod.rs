//! What the examples share.

#![allow(dead_code)] // each uses its part

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;

use futures::TryStreamExt;
use vltava::prelude::*;

/// All records of a topic, in order for each partition, as text.
pub(crate) async fn texts(
    vltava: &Vltava,
    topic: &str,
) -> Result<Vec<(String, Option<String>)>, Box<dyn Error>> {
    let consumer = Consumer::builder(vltava.broker()).topic(topic).until_end().build();
    let records: Vec<_> = consumer.await?.try_collect().await?;
    let text = |bytes: Option<_>| bytes.map(|b: bytes::Bytes| String::from_utf8(b.into()));
    let texts = records.into_iter().map(|record| {
        let (key, value) = (text(record.key).transpose()?, text(record.value).transpose()?);
        Ok((key.unwrap_or_default(), value))
    });
    texts.collect()
}

/// Runs an example in a directory that is gone afterwards, and prints what it says.
pub(crate) async fn print<R>(run: impl FnOnce(PathBuf) -> R) -> Result<(), Box<dyn Error>>
where
    R: Future<Output = Result<Vec<String>, Box<dyn Error>>>,
{
    let dir = tempfile::tempdir()?;
    for line in run(dir.path().to_owned()).await? {
        println!("{line}");
    }
    Ok(())
}

/// Milliseconds since the epoch of a time of day like `09:14:05`, on the day of the examples.
pub(crate) fn time(text: &str) -> Result<i64, std::num::ParseIntError> {
    let mut seconds = 0;
    for part in text.split(':') {
        seconds = seconds * 60 + part.parse::<i64>()?;
    }
    Ok(MIDNIGHT + seconds * 1_000)
}

/// The time of day, like `09:14`.
pub(crate) fn clock(time: i64) -> String {
    let minutes = (time - MIDNIGHT) / 60_000;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// 2 March 2026.
const MIDNIGHT: i64 = 1_772_409_600_000;
