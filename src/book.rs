//! The chapters of the book, so that their examples are tests.

macro_rules! chapters {
    ($($name:ident: $file:literal,)*) => {
        $(#[doc = include_str!($file)] struct $name;)*
    };
}

chapters! {
    Tutorial1: "../docs/tutorial/1-word-count.md",
    Tutorial2: "../docs/tutorial/2-own-types.md",
    Tutorial3: "../docs/tutorial/3-windows.md",
    Tutorial4: "../docs/tutorial/4-final-results.md",
    Tutorial5: "../docs/tutorial/5-tables.md",
    Tutorial6: "../docs/tutorial/6-windowed-join.md",
    AsyncOperators: "../docs/operators/async.md",
    Clients: "../docs/clients.md",
    Errors: "../docs/errors.md",
    Testing: "../docs/testing.md",
    ComingFromKafkaStreams: "../docs/coming-from-kafka-streams.md",
    Dsl: "../docs/dsl.md",
    Aggregations: "../docs/operators/aggregations.md",
    Stateless: "../docs/operators/stateless.md",
    StreamJoins: "../docs/operators/stream-joins.md",
    Cogroup: "../docs/operators/cogroup.md",
    ForeignKeys: "../docs/operators/foreign-keys.md",
    GlobalTables: "../docs/operators/global-tables.md",
    Processors: "../docs/operators/processors.md",
    ExactlyOnce: "../docs/exactly-once.md",
    Guarantees: "../docs/guarantees.md",
    Sessions: "../docs/operators/sessions.md",
    Stores: "../docs/operators/stores.md",
    StreamTableJoins: "../docs/operators/stream-table-joins.md",
    Suppress: "../docs/operators/suppress.md",
    Tables: "../docs/operators/tables.md",
    VersionedTables: "../docs/operators/versioned-tables.md",
    Windows: "../docs/operators/windows.md",
}
