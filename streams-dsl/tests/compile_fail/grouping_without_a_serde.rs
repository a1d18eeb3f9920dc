use streams_core::HasSerde;
use streams_core::serde::DynSerde;
use streams_dsl::{Consumed, StreamsBuilder};

#[derive(Clone)]
struct Order;

fn count_orders(orders: DynSerde<Order>) {
    let builder = StreamsBuilder::new();
    builder
        .stream_with("orders", Consumed::with(String::serde(), orders))
        .group_by(|customer, _| customer.clone())
        .count();
}

fn main() {}
