//! Kafka Streams for Rust, with the broker inside.
