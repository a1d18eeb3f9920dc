//! The applications, as a user would write them.

use std::time::Duration;

use bytes::Bytes;
use streams_core::processor::{Context, Processor};
use streams_core::{BuildError, ProcessError, Record, Topology};
use streams_dsl::{
    BufferConfig, Consumed, JoinWindows, Materialized, StreamsBuilder, Suppressed, TimeWindows,
};

use crate::place::{INPUT, OTHER, OUTPUT};
use crate::words;

/// How many records each key has had.
pub(crate) fn count() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    builder
        .stream::<i64, Bytes>(INPUT)
        .map_values(|_, value| value)
        .group_by_key()
        .count_with(Materialized::named("counts"))
        .to_stream()
        .to(OUTPUT);
    builder.build()
}

/// How many records each key has had; those without a value fail when they have been counted.
pub(crate) fn poison() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    let input = builder.stream::<i64, Bytes>(INPUT).map_values(|_, value| value);
    let counts = input.clone().group_by_key().count_with(Materialized::named("counts"));
    counts.to_stream().to(OUTPUT);
    input.process(|| Picky);
    builder.build()
}

/// Fails for want of a value.
struct Picky;

impl Processor for Picky {
    type KIn = i64;
    type VIn = Bytes;
    type KOut = ();
    type VOut = ();

    fn process(
        &mut self,
        record: Record<i64, Bytes>,
        _: &mut Context<'_, (), ()>,
    ) -> Result<(), ProcessError> {
        if record.value.is_empty() { Err(ProcessError::user("no value")) } else { Ok(()) }
    }
}

/// How many records each key has had in each second, and in each that begins at half of one.
pub(crate) fn window() -> Result<Topology, BuildError> {
    let second = Duration::from_secs(1);
    let builder = StreamsBuilder::new();
    builder
        .stream::<i64, Bytes>(INPUT)
        .map_values(|_, value| value)
        .group_by_key()
        .windowed_by(TimeWindows::of(second).grace(second).advance_by(second / 2))
        .count_with(Materialized::named("counts"))
        .to_stream()
        .to(OUTPUT);
    builder.build()
}

/// How many records each key has had in each second, said once.
pub(crate) fn suppress() -> Result<Topology, BuildError> {
    let second = Duration::from_secs(1);
    let builder = StreamsBuilder::new();
    builder
        .stream::<i64, Bytes>(INPUT)
        .group_by_key()
        .windowed_by(TimeWindows::of(second))
        .count_with(Materialized::named("counts"))
        .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
        .to_stream()
        .to(OUTPUT);
    builder.build()
}

/// What a table says of each record's key.
pub(crate) fn join() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    let table = builder.table::<i64, Bytes>(OTHER);
    builder
        .stream::<i64, Bytes>(INPUT)
        .map_values(|_, value| value)
        .join_table(&table, |_, _, found| found.clone())
        .to(OUTPUT);
    builder.build()
}

/// Pairs of records with equal keys that are near each other.
pub(crate) fn stream_join() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    let other = builder.stream::<i64, Bytes>(OTHER);
    builder
        .stream::<i64, Bytes>(INPUT)
        .join(&other, |_, _, right| right.clone(), JoinWindows::of(Duration::from_millis(50)))
        .to(OUTPUT);
    builder.build()
}

/// Nine records of ten, unchanged.
pub(crate) fn stateless() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    builder
        .stream::<i64, Bytes>(INPUT)
        .map_values(|_, value| value)
        .filter(|key, _| key % 10 != 0)
        .to(OUTPUT);
    builder.build()
}

/// How often each word occurs, through a repartition topic.
pub(crate) fn word_count() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    builder
        .stream::<(), String>(INPUT)
        .flat_map_values(|(), line| {
            words::split(&line.to_lowercase()).map(str::to_owned).collect::<Vec<_>>()
        })
        .group_by(|(), word| word.clone())
        .count_with(Materialized::named("counts"))
        .to_stream()
        .to(OUTPUT);
    builder.build()
}

/// The last value of each key.
pub(crate) fn table() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    builder
        .table_with(
            INPUT,
            Consumed::<i64, Bytes>::default(),
            Materialized::named("table").with_caching_disabled(),
        )
        .filter(|_, _| false);
    builder.build()
}

/// The last value of each key, passed on at once.
pub(crate) fn last_value() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    builder
        .stream::<i64, i64>(INPUT)
        .group_by_key()
        .reduce_with(|_, new| new, Materialized::named("last").with_caching_disabled())
        .to_stream()
        .to(OUTPUT);
    builder.build()
}
