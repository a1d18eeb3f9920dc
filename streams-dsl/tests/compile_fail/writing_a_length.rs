use streams_dsl::StreamsBuilder;

fn main() {
    let builder = StreamsBuilder::new();
    builder.stream::<String, String>("words").map_values(|_, word| word.len()).to("lengths");
}
