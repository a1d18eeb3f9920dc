use streams_dsl::{KTable, StreamsBuilder};

fn counts(builder: &StreamsBuilder) -> KTable<String, String> {
    builder.stream::<String, String>("words").group_by_key().count()
}

fn main() {}
