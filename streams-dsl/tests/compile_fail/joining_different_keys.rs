use std::time::Duration;

use streams_dsl::{JoinWindows, StreamsBuilder};

fn main() {
    let builder = StreamsBuilder::new();
    let windows = JoinWindows::of(Duration::from_secs(1));
    let names = builder.stream::<String, String>("names");
    let numbers = builder.stream::<i64, String>("numbers");
    names.join(&numbers, |_, name, number| format!("{name}{number}"), windows);

    let names = builder.table::<String, String>("name-of");
    let numbers = builder.table::<i64, String>("number-of");
    names.join(&numbers, |_, name, number| format!("{name}{number}"));
}
