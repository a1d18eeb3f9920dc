//! Automatic names and numbers, and repartition topics, as in Kafka.

use streams_core::HasSerde;
use streams_dsl::{
    Consumed, Grouped, KStream, Materialized, Named, Produced, Repartitioned, StreamsBuilder,
};

fn describe(build: impl FnOnce(&StreamsBuilder)) -> String {
    let builder = StreamsBuilder::new();
    build(&builder);
    builder.build().unwrap().describe()
}

fn stream(b: &StreamsBuilder) -> KStream<String, String> {
    b.stream("a")
}

/// The names of the nodes, in the order of the text.
fn nodes(text: &str) -> Vec<&str> {
    let kinds = ["Source: ", "Processor: ", "Sink: "];
    let name = |line: &'_ str| -> Option<usize> {
        kinds.iter().find_map(|k| line.find(k).map(|at| at + k.len()))
    };
    text.lines().filter_map(|l| name(l).and_then(|at| l[at..].split(' ').next())).collect()
}

#[test]
fn an_unnamed_materialized_wastes_a_number() {
    let plain = describe(|b| drop(stream(b).group_by_key().count()));
    assert!(
        plain.contains(
            "KSTREAM-AGGREGATE-0000000002 (stores: [KSTREAM-AGGREGATE-STATE-STORE-0000000001])"
        ),
        "{plain}"
    );
    let unnamed = describe(|b| {
        stream(b).group_by_key().count_with(Materialized::default());
    });
    assert!(
        unnamed.contains(
            "KSTREAM-AGGREGATE-0000000003 (stores: [KSTREAM-AGGREGATE-STATE-STORE-0000000002])"
        ),
        "{unnamed}"
    );
}

/// Example F25 of the semantics.
#[test]
fn a_counted_table_has_the_names_of_kafka() {
    let text = describe(|b| {
        let table = b.table::<String, String>("input-topic");
        table.group_by(|k, v| (v, k.clone())).count();
    });
    let expected = [
        "KSTREAM-SOURCE-0000000001",
        "KTABLE-SOURCE-0000000002",
        "KTABLE-SELECT-0000000003",
        "KSTREAM-SINK-0000000005",
        "KSTREAM-SOURCE-0000000006",
        "KTABLE-AGGREGATE-0000000007",
    ];
    assert_eq!(nodes(&text), expected);
    for of in [
        "2 (stores: [input-topic-STATE-STORE-0000000000])",
        "7 (stores: [KTABLE-AGGREGATE-STATE-STORE-0000000004])",
    ] {
        assert!(text.contains(of), "{of}: {text}");
    }
}

#[test]
fn a_given_name_uses_up_its_number() {
    let text = describe(|b| {
        b.stream_with("a", Consumed::<String, String>::named("in"))
            .filter_with(|_, _| true, "kept")
            .map_values_with(|_, v| v, Named::new("same"))
            .peek(|_, _| ())
            .to_with("out", Produced::named("end"));
    });
    assert_eq!(nodes(&text), ["in", "kept", "same", "KSTREAM-PEEK-0000000003", "end"]);
}

#[test]
fn each_aggregation_of_a_rekeyed_stream_has_its_own_topic() {
    let text = describe(|b| {
        let grouped = stream(b).select_key(|_, v| v.clone()).group_by_key();
        grouped.count();
        grouped.reduce(|_, new| new);
    });
    assert_eq!(
        text,
        "Topologies:
   Sub-topology: 0
    Source: KSTREAM-SOURCE-0000000000 (topics: [a])
      --> KSTREAM-KEY-SELECT-0000000001
    Processor: KSTREAM-KEY-SELECT-0000000001 (stores: [])
      --> KSTREAM-FILTER-0000000005, KSTREAM-FILTER-0000000010
      <-- KSTREAM-SOURCE-0000000000
    Processor: KSTREAM-FILTER-0000000005 (stores: [])
      --> KSTREAM-SINK-0000000004
      <-- KSTREAM-KEY-SELECT-0000000001
    Processor: KSTREAM-FILTER-0000000010 (stores: [])
      --> KSTREAM-SINK-0000000009
      <-- KSTREAM-KEY-SELECT-0000000001
    Sink: KSTREAM-SINK-0000000004 (topic: KSTREAM-AGGREGATE-STATE-STORE-0000000002-repartition)
      <-- KSTREAM-FILTER-0000000005
    Sink: KSTREAM-SINK-0000000009 (topic: KSTREAM-REDUCE-STATE-STORE-0000000007-repartition)
      <-- KSTREAM-FILTER-0000000010

  Sub-topology: 1
    Source: KSTREAM-SOURCE-0000000006 (topics: [KSTREAM-AGGREGATE-STATE-STORE-0000000002-repartition])
      --> KSTREAM-AGGREGATE-0000000003
    Processor: KSTREAM-AGGREGATE-0000000003 (stores: [KSTREAM-AGGREGATE-STATE-STORE-0000000002])
      --> none
      <-- KSTREAM-SOURCE-0000000006

  Sub-topology: 2
    Source: KSTREAM-SOURCE-0000000011 (topics: [KSTREAM-REDUCE-STATE-STORE-0000000007-repartition])
      --> KSTREAM-REDUCE-0000000008
    Processor: KSTREAM-REDUCE-0000000008 (stores: [KSTREAM-REDUCE-STATE-STORE-0000000007])
      --> none
      <-- KSTREAM-SOURCE-0000000011

"
    );
}

#[test]
fn the_aggregations_of_a_named_grouping_share_a_topic() {
    let text = describe(|b| {
        let grouped = stream(b).group_by_with(|_, v| v.clone(), Grouped::named("words"));
        grouped.count();
        grouped.reduce(|_, new| new);
    });
    let expected = [
        "KSTREAM-SOURCE-0000000000",
        "words",
        "words-repartition-filter",
        "words-repartition-sink",
        "words-repartition-source",
        "KSTREAM-AGGREGATE-0000000003",
        "KSTREAM-REDUCE-0000000008",
    ];
    assert_eq!(nodes(&text), expected);
}

#[test]
fn the_marker_of_a_changed_key_stays_until_a_topic() {
    let topics = |text: String| text.matches("(topic: ").count();
    let rekeyed = |b: &StreamsBuilder| stream(b).map(|k, v| (v, k)).filter(|_, _| true);
    assert_eq!(topics(describe(|b| drop(rekeyed(b).group_by_key().count()))), 1);
    assert_eq!(topics(describe(|b| drop(rekeyed(b).repartition().group_by_key().count()))), 1);
    assert_eq!(topics(describe(|b| drop(stream(b).merge(&rekeyed(b)).group_by_key().count()))), 1);
    let values_only = |b: &StreamsBuilder| stream(b).map_values(|_, v| v).peek(|_, _| ());
    assert_eq!(topics(describe(|b| drop(values_only(b).group_by_key().count()))), 0);
    let after_table = |b: &StreamsBuilder| rekeyed(b).to_table::<String>().to_stream();
    assert_eq!(topics(describe(|b| drop(after_table(b).group_by_key().count()))), 1);
}

#[test]
fn names_of_repartition_and_to_table() {
    let text = describe(|b| drop(stream(b).repartition()));
    assert!(
        text.contains(
            "Sink: KSTREAM-SINK-0000000002 (topic: KSTREAM-REPARTITION-0000000001-repartition)"
        ),
        "{text}"
    );
    let text = describe(|b| {
        stream(b).repartition_with(Repartitioned::named("r").with_number_of_partitions(3));
    });
    assert!(text.contains("Sink: r-repartition-sink (topic: r-repartition)"), "{text}");
    let text = describe(|b| drop(stream(b).select_key(|_, v| v.clone()).to_table::<String>()));
    let expected = [
        "KSTREAM-SOURCE-0000000000",
        "KSTREAM-KEY-SELECT-0000000001",
        "KSTREAM-FILTER-0000000005",
        "KSTREAM-SINK-0000000004",
        "KSTREAM-SOURCE-0000000006",
        "KSTREAM-TOTABLE-0000000002",
    ];
    assert_eq!(nodes(&text), expected);
}

#[test]
fn names_of_tables() {
    let text = describe(|b| drop(b.table::<String, String>("t").map_values(|_, v| v).to_stream()));
    let expected = [
        "KSTREAM-SOURCE-0000000001",
        "KTABLE-SOURCE-0000000002",
        "KTABLE-MAPVALUES-0000000003",
        "KTABLE-TOSTREAM-0000000004",
    ];
    assert_eq!(nodes(&text), expected);
    assert!(!text.contains("t-STATE-STORE"), "nothing needs the store: {text}");

    let text = describe(|b| {
        let consumed = Consumed::<String, String>::named("X");
        b.table_with("t", consumed, Materialized::named("s"))
            .filter_with(|_, _| true, Materialized::default());
    });
    assert_eq!(nodes(&text), ["X-source", "X", "KTABLE-FILTER-0000000003"]);
    assert!(text.contains("X (stores: [s])"), "{text}");
}

#[test]
fn streams_of_the_same_topics_are_one_source() {
    let text = describe(|b| {
        stream(b).filter(|_, _| true);
        stream(b).to("out");
    });
    let expected =
        ["KSTREAM-SOURCE-0000000000", "KSTREAM-FILTER-0000000001", "KSTREAM-SINK-0000000003"];
    assert_eq!(nodes(&text), expected);
}

#[test]
fn a_branch_takes_a_number_and_the_name_of_the_split() {
    let text = describe(|b| {
        let branches =
            stream(b).split().branch(|_, _| true).branch_with(|_, _| true, "-x").default_branch();
        assert_eq!(
            branches.keys().collect::<Vec<_>>(),
            [
                "KSTREAM-BRANCH-0000000001-x",
                "KSTREAM-BRANCH-00000000010",
                "KSTREAM-BRANCH-00000000011"
            ]
        );
        branches["KSTREAM-BRANCH-0000000001-x"].to("out");
    });
    assert!(text.contains("KSTREAM-SINK-0000000005"), "{text}");
}

#[test]
fn a_graph_can_be_built_again_after_more_was_added() {
    let b = StreamsBuilder::new();
    let all = stream(&b);
    let first = b.build().unwrap().describe();
    assert_eq!(b.build().unwrap().describe(), first);
    all.to_with("out", Produced::with(String::serde(), String::serde()));
    assert!(b.build().unwrap().describe().contains("(topic: out)"));
}
