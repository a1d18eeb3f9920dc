use streams_dsl::StreamsBuilder;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.table::<String, i64>("customer-of-order");
    let customers = builder.table::<String, String>("customers");
    orders.join_on_foreign_key(&customers, |_, customer| *customer, |_, _, name| name.clone());
}
