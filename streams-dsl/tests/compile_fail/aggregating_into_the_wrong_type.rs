use streams_dsl::{KTable, Materialized, StreamsBuilder};

fn lengths(builder: &StreamsBuilder) -> KTable<String, u64> {
    let words = builder.stream::<String, String>("words").group_by_key();
    words.aggregate(|| 0u64, |_, word, sum| (sum + word.len() as u64).to_string())
}

fn counts(builder: &StreamsBuilder) {
    let words = builder.stream::<String, String>("words").group_by_key();
    words.count_with(Materialized::<String, String>::named("counts"));
}

fn main() {}
