use streams_core::HasSerde;
use streams_dsl::{Produced, StreamsBuilder};

fn main() {
    let builder = StreamsBuilder::new();
    builder
        .stream::<String, String>("words")
        .group_by_key()
        .count()
        .to_stream()
        .to_with("counts", Produced::with(String::serde(), String::serde()));
}
