//! Where event times come from, where records go to, and what people see of it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_api::BatchBuilder;
use streams_core::failure::{ErrorHandler, ErrorHandlers, Response};
use streams_core::processor::{Partitions, TimestampExtractor};
use streams_core::serde::{DynSerde, from_fns};
use streams_core::test_driver::{TestDriverError, TestDriverSettings, TopologyTestDriver};
use streams_core::topology::Pattern;
use streams_core::{HasSerde, ProcessError, Record};
use streams_dsl::{Consumed, Materialized, Printed, Produced, Repartitioned, StreamsBuilder};

use crate::{driver, s, step};

type Row = (String, String, i64);

fn extracting(extractor: TimestampExtractor<String, String>) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    let consumed = Consumed::default().with_timestamp_extractor(extractor);
    b.stream_with::<String, String>("a", consumed).to("out");
    driver(&b)
}

fn pipe(driver: &TopologyTestDriver, value: &str, ts: i64) -> Vec<Row> {
    step(driver, s("k"), s(value), ts)
}

#[test]
fn a_record_without_an_event_time_stops_the_application_unless_something_else_is_said() {
    let fail = extracting(TimestampExtractor::fail_on_invalid());
    let error = fail.input_topic("a").pipe(s("k"), s("v"), -1).unwrap_err().to_string();
    assert!(error.contains("timestamp"), "{error}");

    let skip = extracting(TimestampExtractor::log_and_skip_on_invalid());
    assert!(pipe(&skip, "v", -1).is_empty());
    assert_eq!(pipe(&skip, "v", 5), [(s("k"), s("v"), 5)]);
    assert_eq!(skip.dropped()["no event time"], 1);

    let partition = extracting(TimestampExtractor::use_partition_time_on_invalid());
    pipe(&partition, "v", 7);
    pipe(&partition, "v", 3);
    assert_eq!(pipe(&partition, "v", -1), [(s("k"), s("v"), 7)]);
    let unknown = extracting(TimestampExtractor::use_partition_time_on_invalid());
    assert!(unknown.input_topic("a").pipe(s("k"), s("v"), -1).is_err());
}

#[test]
fn the_wall_clock_and_functions_give_event_times() {
    let wall = extracting(TimestampExtractor::wall_clock());
    wall.advance_wall_clock(Duration::from_millis(90)).unwrap();
    assert_eq!(pipe(&wall, "v", -1), [(s("k"), s("v"), 90)]);

    let own = TimestampExtractor::own(|_: &String, value: &String, times| {
        assert_eq!(times.record, 1);
        value.parse().unwrap_or(times.partition)
    });
    let own = extracting(own);
    assert_eq!(pipe(&own, "40", 1), [(s("k"), s("40"), 40)]);
    assert_eq!(pipe(&own, "no time", 1), [(s("k"), s("no time"), 40)]);
    assert!(pipe(&own, "-3", 1).is_empty());
}

#[test]
fn the_deletions_of_a_table_have_their_own_times() {
    let b = StreamsBuilder::new();
    let at = TimestampExtractor::own(|_: &String, value: &i64, _| *value);
    let consumed = Consumed::default().with_timestamp_extractor(at);
    b.table_with("a", consumed, Materialized::default()).to_stream().to("out");
    let driver = driver(&b);
    let rows: Vec<(String, Option<i64>, i64)> = step(&driver, s("k"), Some(30_i64), 1);
    assert_eq!(rows, [(s("k"), Some(30), 30)]);
    let rows: Vec<(String, Option<i64>, i64)> = step(&driver, s("k"), None::<i64>, 2);
    assert_eq!(rows, [(s("k"), None, 2)]);
}

/// Of two partitions, the one whose next record is oldest by its extracted time goes first.
#[test]
fn f24_the_oldest_head_goes_first_whatever_its_partition_has_seen() {
    use broker_api::{TaskId, TopicPartition};
    use streams_core::state::{LossyEngine, StateEngine};
    use streams_core::task::{OutputTopic, RecordQueue, Task, TaskSettings, WrittenTopics};

    let b = StreamsBuilder::new();
    let minus = TimestampExtractor::own(|_: &(), value: &i64, _| *value);
    let consumed = Consumed::default().with_timestamp_extractor(minus);
    b.stream_with::<(), i64>("a", consumed).to("out");
    let topology = b.build().unwrap();
    let engines = LossyEngine::new().open("0_0".as_ref(), &[]).unwrap();
    let topics = |topic: &str| Ok(OutputTopic::unlimited(topic.into(), 1));
    let id = TaskId { subtopology: 0, partition: 0 };
    let built = topology.build_task(id, TaskSettings::default(), engines, &topics).unwrap();
    let queue = |partition: u32, times: &[i64]| {
        let mut queue = RecordQueue::new(TopicPartition::new("a", partition), 0, 0, -1);
        let mut batch = BatchBuilder::new();
        for time in times {
            batch.push(0, None, Some(&time.to_be_bytes()), &[]).unwrap();
        }
        let batch = batch.finish().unwrap();
        queue.add(vec![batch.assigned(0, 0)], times.len() as i64, true);
        queue
    };
    let queues = vec![queue(0, &[5, 3]), queue(1, &[2, 4])];
    let mut task = Task::new(built, queues, Vec::new(), WrittenTopics::default());
    task.process(10).unwrap();
    let sealed = task.seal().unwrap();
    let times: Vec<i64> = sealed.batches[0].1.records().map(|r| r.unwrap().timestamp).collect();
    // Nothing is known of 3 before 5 is gone.
    assert_eq!(times, [2, 4, 5, 3]);
}

#[test]
fn a_partitioner_may_answer_no_partition_or_several() {
    let b = StreamsBuilder::new();
    let choose = |_: &String, value: &String, count: u32| {
        assert_eq!(count, 1);
        match value.as_str() {
            "nowhere" => Partitions::Nowhere,
            "twice" => Partitions::Many(vec![0, 0]),
            "none of many" => Partitions::Many(vec![]),
            _ => Partitions::ByKey,
        }
    };
    b.stream::<String, String>("a").to_with("out", Produced::default().with_partitioner(choose));
    let driver = driver(&b);
    assert!(pipe(&driver, "nowhere", 1).is_empty());
    assert!(pipe(&driver, "none of many", 1).is_empty());
    assert_eq!(pipe(&driver, "twice", 1).len(), 1, "each partition once");
    assert_eq!(pipe(&driver, "v", 1).len(), 1);
    assert_eq!(driver.dropped()["no partition"], 2);
}

#[test]
fn a_repartition_topic_may_drop_what_its_partitioner_sends_nowhere() {
    let b = StreamsBuilder::new();
    let choose = |key: &String, _: &String, _: u32| match key.as_str() {
        "x" => Partitions::Nowhere,
        _ => Partitions::One(0),
    };
    let repartitioned = Repartitioned::default().with_partitioner(choose);
    b.stream::<String, String>("a").repartition_with(repartitioned).to("out");
    let driver = driver(&b);
    assert!(step::<_, _, String, String>(&driver, s("x"), s("v"), 1).is_empty());
    assert_eq!(step::<_, _, String, String>(&driver, s("k"), s("v"), 1).len(), 1);
}

#[test]
fn the_topic_of_each_record_is_chosen() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a").to_dynamic(|record| format!("{}-out", record.key));
    let described = b.build().unwrap().describe();
    assert!(
        described.contains("Sink: KSTREAM-SINK-0000000001 (extractor class: operators::"),
        "{described}"
    );
    let driver = driver(&b);
    for (key, value) in [("x", "1"), ("y", "2"), ("x", "3")] {
        driver.input_topic("a").pipe(s(key), s(value), 1).unwrap();
    }
    let values = |topic: &str| -> Vec<String> {
        let out = driver.output_topic::<String, String>(topic).read_all().unwrap();
        out.into_iter().map(|record| record.value).collect()
    };
    assert_eq!((values("x-out"), values("y-out")), (vec![s("1"), s("3")], vec![s("2")]));
}

#[test]
fn a_topic_that_can_never_be_is_not_chosen() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a").to_dynamic(|record| record.key.clone());
    let error = driver(&b).input_topic("a").pipe(s("bad name"), s("v"), 1).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("'bad name'") && error.contains("A-Z"), "{error}");
}

#[test]
fn a_panic_in_a_serde_a_partitioner_or_a_function_of_topics_or_times_names_its_node() {
    fn fragile() -> DynSerde<String> {
        from_fns(
            |text: &String, out: &mut Vec<u8>| {
                assert!(text != "put", "no luck");
                out.extend(text.bytes());
                Ok(())
            },
            |bytes: &[u8]| {
                assert!(bytes != b"get", "no luck");
                Ok(String::from_utf8_lossy(bytes).into_owned())
            },
        )
    }
    for (value, node) in
        [("get", "from"), ("time", "from"), ("put", "to"), ("partition", "to"), ("topic", "chosen")]
    {
        let b = StreamsBuilder::new();
        let lucky = move |text: &str, what: &str| assert!(text != what, "no luck");
        let times = TimestampExtractor::own(move |_: &String, text: &String, times| {
            lucky(text, "time");
            times.record
        });
        let consumed = Consumed::with(String::serde(), fragile()).with_name("from");
        let read = b.stream_with("a", consumed.with_timestamp_extractor(times));
        let produced = Produced::named("to").with_value_serde(fragile());
        read.to_with(
            "out",
            produced.with_partitioner(move |_: &String, text: &String, _| {
                lucky(text, "partition");
                0
            }),
        );
        let topic = move |record: &Record<String, String>| {
            lucky(&record.value, "topic");
            s("other")
        };
        read.to_dynamic_with(topic, Produced::named("chosen"));
        let error = driver(&b).input_topic("a").pipe(s("k"), s(value), 1).unwrap_err();
        let (node, message) = (Some(node.into()), s("no luck"));
        assert_eq!(error, TestDriverError::Process(ProcessError::Panic { node, message }));
    }
}

#[test]
fn a_panic_that_was_put_off_is_not_what_the_next_one_is_said_to_be() {
    let b = StreamsBuilder::new();
    let times = TimestampExtractor::own(|_: &String, text: &String, times| {
        assert!(text != "time", "no luck");
        times.record
    });
    let consumed = Consumed::named("from").with_timestamp_extractor(times);
    let read = b.stream_with::<String, String>(["a", "b"], consumed);
    read.filter_with(|_, text| panic!("no luck with {text}"), "filter");
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = errors.clone();
    let processing: ErrorHandler = Arc::new(move |failure| {
        seen.lock().unwrap().push(failure.error.to_string());
        Response::resume()
    });
    let handlers = ErrorHandlers { processing, ..ErrorHandlers::default() };
    let settings = TestDriverSettings { handlers, ..TestDriverSettings::default() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    for value in ["time", "value"] {
        driver.input_topic("a").pipe(s("k"), s(value), 1).unwrap();
    }
    let errors = errors.lock().unwrap();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("'from'") && errors[1].contains("'filter'"), "{errors:?}");
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn printed_records_have_a_label() {
    let (b, to) = (StreamsBuilder::new(), Shared::default());
    let stream = b.stream::<String, String>("a");
    stream.print(Printed::to_writer(to.clone()));
    let short = Printed::to_writer(to.clone()).with_label("short");
    stream.print(short.with_mapper(|_, value: &String| value.to_uppercase()));
    assert!(b.build().unwrap().describe().contains("KSTREAM-PRINTER-0000000001"));
    driver(&b).input_topic("a").pipe(s("k"), s("v"), 1).unwrap();
    let printed = String::from_utf8(to.0.lock().unwrap().clone()).unwrap();
    assert_eq!(printed, "[KSTREAM-SOURCE-0000000000]: \"k\", \"v\"\n[short]: V\n");
}

#[test]
fn a_topology_is_drawn_for_people() {
    let b = StreamsBuilder::new();
    let rates = b.global_table_with::<String, String>(
        "rates",
        Consumed::default(),
        Materialized::named("rates-store"),
    );
    let orders = Pattern::matching("\"orders\"", |topic| topic.starts_with("orders"));
    b.stream::<String, String>(orders)
        .left_join_global(&rates, |_, v| v.clone(), |_, v, _| v.clone())
        .select_key(|_, v| v.clone())
        .group_by_key()
        .count_with(Materialized::named("counts"))
        .to_stream_present()
        .to("counts");
    let golden = r##"flowchart TD
  subgraph sub0 ["Sub-topology 0 (global store)"]
    n0["KSTREAM-SOURCE-0000000000"]
    n1["KTABLE-SOURCE-0000000001"]
    s1[("rates-store")]
    n0 --> n1
    n1 --- s1
  end
  subgraph sub1 ["Sub-topology 1"]
    n2["KSTREAM-SOURCE-0000000002"]
    n3["KSTREAM-LEFTJOIN-0000000003"]
    n4["KSTREAM-KEY-SELECT-0000000004"]
    n5["counts-repartition-filter"]
    n6["counts-repartition-sink"]
    n2 --> n3
    n3 --> n4
    n4 --> n5
    n5 --> n6
  end
  subgraph sub2 ["Sub-topology 2"]
    n7["counts-repartition-source"]
    n8["KSTREAM-AGGREGATE-0000000005"]
    n9["KTABLE-TOSTREAM-0000000009"]
    n10["KSTREAM-SINK-0000000010"]
    s0[("counts")]
    n7 --> n8
    n8 --> n9
    n8 --- s0
    n9 --> n10
  end
  t0(["rates"]) --> n0
  t1(["#quot;orders#quot;"]) --> n2
  n6 --> t2(["counts-repartition"])
  t2 --> n7
  n10 --> t3(["counts"])
"##;
    assert_eq!(b.build().unwrap().to_mermaid(), golden);
}

#[test]
fn a_pattern_reads_all_topics_that_are_like_it() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>(Pattern::wildcard("orders-*")).to("out");
    b.stream::<String, String>("other").to("other-out");
    let topology = b.build().unwrap();
    let described = topology.describe();
    assert!(
        described.contains("Source: KSTREAM-SOURCE-0000000000 (topics: orders-*)\n"),
        "{described}"
    );
    let existing = ["orders-1", "orders-2", "other", "out"];
    let resolved = topology.with_topics(existing.into_iter()).unwrap();
    assert_eq!(resolved.subtopologies()[0].sources, ["orders-1", "orders-2"]);
    assert_eq!(resolved.describe(), described);

    let driver = TopologyTestDriver::new(topology).unwrap();
    for topic in ["orders-b", "orders-a"] {
        driver.input_topic(topic).pipe(s("k"), s(topic), 1).unwrap();
    }
    assert!(driver.input_topic("elsewhere").pipe(s("k"), s("v"), 1).is_err());
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    let values: Vec<String> = out.into_iter().map(|record| record.value).collect();
    assert_eq!(values, ["orders-b", "orders-a"]);
}

#[test]
fn streams_of_one_pattern_are_one_source() {
    let b = StreamsBuilder::new();
    let even = Pattern::matching("even", |topic| topic.len() % 2 == 0);
    for pattern in [Pattern::wildcard("a*"), Pattern::wildcard("a*"), even.clone(), even] {
        let name = pattern.as_str().to_owned();
        b.stream::<String, String>(pattern).map_values(move |_, v| format!("{name} {v}")).to("out");
    }
    let driver = TopologyTestDriver::new(b.build().unwrap()).unwrap();
    driver.input_topic("abc").pipe(s("k"), s("v"), 1).unwrap();
    driver.input_topic("bc").pipe(s("k"), s("w"), 2).unwrap();
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    let values: Vec<_> = out.into_iter().map(|record| record.value).collect();
    assert_eq!(values, ["a* v", "a* v", "even w", "even w"]);
}

#[test]
fn a_topic_that_two_patterns_match_or_none_is_refused() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>(Pattern::wildcard("a*")).to("out");
    b.stream::<String, String>(Pattern::wildcard("*b")).to("out");
    let refused = b.build().unwrap().with_topics(["a", "b", "ab"].into_iter()).err().unwrap();
    assert!(refused.to_string().contains("'ab' is read by two sources"), "{refused}");
    let waits = b.build().unwrap().with_topics(["b"].into_iter()).unwrap();
    assert_eq!(waits.followed().collect::<Vec<_>>(), ["b"], "the other waits for its first topic");
}

#[test]
fn a_pattern_reads_what_the_application_itself_writes_but_not_its_internal_topics() {
    use streams_core::topology::Pattern;
    let b = StreamsBuilder::new();
    b.stream::<String, String>("raw").to("orders-raw");
    let all = b.stream::<String, String>(Pattern::wildcard("*orders-*"));
    all.group_by(|_, value| value.clone()).count_with(Materialized::named("orders-counts"));
    all.to("out");
    let driver = TopologyTestDriver::new(b.build().unwrap()).unwrap();
    driver.input_topic("raw").pipe(s("k"), s("v"), 1).unwrap();
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    assert_eq!(out.len(), 1, "{out:?}");
}

#[test]
fn two_streams_of_one_topic_are_merged_into_one() {
    let b = StreamsBuilder::new();
    let stream = || b.stream::<String, String>("a");
    stream().merge(&stream()).to("out");
    assert_eq!(pipe(&driver(&b), "v", 1), [(s("k"), s("v"), 1)]);
}
