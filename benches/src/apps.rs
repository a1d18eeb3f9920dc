//! The applications, as a user would write them.

use bytes::Bytes;
use streams_core::{BuildError, Topology};
use streams_dsl::{Consumed, Materialized, StreamsBuilder};

use crate::place::{INPUT, OUTPUT};
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
