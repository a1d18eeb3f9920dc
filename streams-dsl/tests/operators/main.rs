//! The operators: names, null rules, times, tables.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests too

mod aggregates;
mod async_map;
mod cached_joins;
mod cogroup;
mod configurations;
mod foreign_keys;
mod grouped_tables;
mod held_back;
mod joins_of_windows;
mod lru_tables;
mod mistakes;
mod model;
mod names;
mod nulls;
mod optimization;
mod parts;
mod processors;
mod sessions;
mod sources_and_sinks;
mod stream_joins;
mod stream_table_joins;
mod suppress;
mod table_joins;
mod tables;
mod transforms;
mod versioned_tables;
mod windows;
mod windows_model;

use streams_core::HasSerde;
use streams_core::test_driver::TopologyTestDriver;
use streams_dsl::StreamsBuilder;

/// Runs what was built.
fn driver(builder: &StreamsBuilder) -> TopologyTestDriver {
    TopologyTestDriver::new(builder.build().unwrap()).unwrap()
}

/// Pipes a record into topic `a`, and answers what came out of topic `out` as (key, value, time).
fn step<K: HasSerde, V: HasSerde, K2: HasSerde, V2: HasSerde>(
    driver: &TopologyTestDriver,
    key: K,
    value: V,
    timestamp: i64,
) -> Vec<(K2, V2, i64)> {
    driver.input_topic("a").pipe(key, value, timestamp).unwrap();
    let out = driver.output_topic("out").read_all().unwrap();
    out.into_iter().map(|record| (record.key, record.value, record.timestamp)).collect()
}

fn s(text: &str) -> String {
    text.to_string()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}
