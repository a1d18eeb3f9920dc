use streams_dsl::StreamsBuilder;

fn main() {
    let builder = StreamsBuilder::new();
    let names = builder.stream::<String, String>("names");
    let numbers = builder.stream::<String, i64>("numbers");
    names.merge(&numbers).to("all");
}
