//! Mistakes in a declaration are found when the topology is built, and the error says what to do.

use std::time::Duration;

use streams_core::processor::{RecordTimes, TimestampExtractor};
use streams_core::serde::{HasSerde, from_fns, session_windowed, time_windowed};
use streams_core::state::StoreOptions;
use streams_core::topology::{Pattern, StoreSpec};
use streams_core::{BuildError, Windowed};
use streams_dsl::{
    BufferConfig, Consumed, Grouped, JoinWindows, Joined, KStream, Materialized, Named, Produced,
    Repartitioned, StreamJoined, StreamsBuilder, Suppressed, TimeWindows,
};

fn mistake(build: impl FnOnce(&StreamsBuilder)) -> BuildError {
    let builder = StreamsBuilder::new();
    build(&builder);
    builder.build().err().unwrap()
}

fn stream(b: &StreamsBuilder) -> KStream<String, String> {
    b.stream("a")
}

fn names(of: &'static str, name: &str) -> BuildError {
    BuildError::Name { of, name: name.into() }
}

fn twice(name: &str) -> BuildError {
    BuildError::DuplicateName { name: name.into() }
}

fn read_twice(topic: &str) -> BuildError {
    BuildError::TopicReadTwice { topic: topic.into() }
}

#[test]
fn names_of_operators_stores_and_topics_are_those_that_kafka_takes() {
    for bad in ["", ".", "..", "two words", "naïve", "a/b", "a\nb", &"x".repeat(250)] {
        let operator = mistake(|b| drop(stream(b).filter_with(|_, _| true, bad)));
        assert_eq!(operator, names("an operator", bad));
        let source = mistake(|b| drop(b.stream_with("a", Consumed::<(), String>::named(bad))));
        assert_eq!(source, names("an operator", bad));
        let sink = mistake(|b| stream(b).to_with("out", Produced::named(bad)));
        assert_eq!(sink, names("an operator", bad));
        let counts = |b: &StreamsBuilder| {
            stream(b).group_by_key().count_with(Materialized::named(bad));
        };
        assert_eq!(mistake(counts), names("a store", bad));
        let table = |b: &StreamsBuilder| {
            b.table_with("t", Consumed::<String, String>::default(), Materialized::named(bad));
        };
        assert_eq!(mistake(table), names("a store", bad));
        assert_eq!(mistake(|b| drop(b.stream::<(), String>(bad))), names("a topic", bad));
        assert_eq!(mistake(|b| stream(b).to(bad)), names("a topic", bad));
    }
    let longest = "x".repeat(249);
    let b = StreamsBuilder::new();
    stream(&b).filter_with(|_, _| true, "A.b_c-9").to(&*longest);
    b.build().unwrap();
}

#[test]
fn a_name_that_becomes_part_of_others_is_checked_too() {
    let repartitioned = |b: &StreamsBuilder| {
        stream(b).repartition_with(Repartitioned::named("by word"));
    };
    assert_eq!(mistake(repartitioned), names("an operator", "by word-repartition-filter"));
    let grouped = |b: &StreamsBuilder| {
        stream(b).group_by_with(|_, v| v.clone(), Grouped::named("by word")).count();
    };
    assert!(matches!(mistake(grouped), BuildError::Name { .. }));
    let joined = |b: &StreamsBuilder| {
        let windows = JoinWindows::of(Duration::from_secs(1));
        let other = b.stream::<String, String>("b");
        let config = StreamJoined::default().with_store_name("the store");
        stream(b).join_with(&other, |_, v, _| v.clone(), windows, config);
    };
    assert!(matches!(mistake(joined), BuildError::Name { .. }));
}

#[test]
fn the_error_says_which_name_and_what_is_allowed() {
    let error = mistake(|b| drop(stream(b).filter_with(|_, _| true, "two words")));
    assert_eq!(
        error.to_string(),
        "'two words' cannot be the name of an operator: a name has 1 to 249 characters, which are \
         letters (a-z, A-Z), digits, '.', '_' and '-', and is not '.' or '..'"
    );
}

#[test]
fn two_operators_or_two_stores_of_one_name() {
    let operators = |b: &StreamsBuilder| {
        stream(b).filter_with(|_, _| true, "same").filter_with(|_, _| true, "same");
    };
    assert_eq!(mistake(operators), twice("same"));
    let stores = |b: &StreamsBuilder| {
        stream(b).group_by_key().count_with(Materialized::named("same"));
        b.table_with("t", Consumed::<String, String>::default(), Materialized::named("same"));
    };
    assert_eq!(mistake(stores), twice("same"));
    let global_and_own = |b: &StreamsBuilder| {
        let (key, value) = (String::serde(), i64::serde());
        b.add_state_store(StoreSpec::key_value("same", key, value, StoreOptions::default()));
        b.global_table_with("t", Consumed::<(), String>::default(), Materialized::named("same"));
    };
    assert_eq!(mistake(global_and_own), twice("same"));
    let repartitions = |b: &StreamsBuilder| {
        stream(b).repartition_with(Repartitioned::named("same"));
        stream(b).repartition_with(Repartitioned::named("same"));
    };
    assert_eq!(mistake(repartitions), twice("same-repartition-filter"));
}

#[test]
fn an_operator_and_a_store_may_have_the_same_name() {
    let b = StreamsBuilder::new();
    stream(&b).group_by_key().count_with((Named::new("counts"), Materialized::named("counts")));
    b.build().unwrap();
}

#[test]
fn a_topic_is_read_once() {
    let stream_and_table = |b: &StreamsBuilder| {
        stream(b);
        b.table::<String, String>("a");
    };
    assert_eq!(mistake(stream_and_table), read_twice("a"));
    let table_and_global = |b: &StreamsBuilder| {
        b.table::<String, String>("t");
        b.global_table::<String, String>("t");
    };
    assert_eq!(mistake(table_and_global), read_twice("t"));
    let overlapping = |b: &StreamsBuilder| {
        stream(b);
        b.stream::<String, String>(["a", "b"]);
    };
    assert_eq!(mistake(overlapping), read_twice("a"));
    for pattern_first in [true, false] {
        let error = mistake(|b| {
            if pattern_first {
                b.stream::<String, String>(Pattern::wildcard("orders-*"));
            }
            b.stream::<String, String>("orders-eu");
            if !pattern_first {
                b.stream::<String, String>(Pattern::wildcard("orders-*"));
            }
        });
        assert_eq!(error, read_twice("orders-eu"));
    }
}

#[test]
fn streams_of_the_same_topics_are_one_source_in_whatever_order_they_are_named() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>(["a", "b"]).to("x");
    b.stream::<String, String>(["b", "a"]).to("y");
    assert_eq!(b.build().unwrap().subtopologies().len(), 1);
}

#[test]
fn a_pattern_does_not_match_what_the_application_makes_for_itself() {
    let b = StreamsBuilder::new();
    let all = b.stream::<String, String>(Pattern::wildcard("counts-*"));
    all.group_by_with(|_, v| v.clone(), Grouped::named("counts")).count();
    b.build().unwrap();
}

#[test]
fn a_stream_of_no_topic() {
    let error = mistake(|b| drop(b.stream::<String, String>(Vec::<String>::new())));
    assert!(error.to_string().contains("it reads no topic; name one at least"), "{error}");
}

#[test]
fn an_output_into_an_internal_topic() {
    let error = mistake(|b| {
        let words = stream(b);
        words.group_by_with(|_, v| v.clone(), Grouped::named("words")).count();
        words.to_with("words-repartition", Produced::named("spoils"));
    });
    let expected = BuildError::InternalTopic {
        node: "spoils".into(),
        topic: "words-repartition".into(),
        owner: "words-repartition-sink".into(),
    };
    assert_eq!(error, expected);
}

#[test]
fn a_repartition_topic_of_no_partitions() {
    let error = mistake(|b| {
        let none = Repartitioned::<String, String>::named("words").with_number_of_partitions(0);
        stream(b).repartition_with(none);
    });
    let expected = "'words-repartition': a topic has one partition at least, not 0";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn streams_of_two_builders() {
    let other = StreamsBuilder::new();
    let error = mistake(|b| drop(stream(b).merge(&stream(&other)))).to_string();
    assert_eq!(
        error,
        "'KSTREAM-MERGE-0000000001': it merges streams of two builders; make both with the same one"
    );
}

#[test]
fn a_topic_of_two_types() {
    let error = mistake(|b| {
        stream(b);
        b.stream::<String, i64>("a").to("out");
    });
    assert!(matches!(error, BuildError::TypeMismatch { .. }), "{error}");
}

#[test]
fn an_empty_topology_can_be_built_but_not_run() {
    assert!(StreamsBuilder::new().build().unwrap().subtopologies().is_empty());
}

/// The bytes of such a key do not tell of which windows it is, so its type brings no serde that works.
#[test]
fn a_windowed_key_that_nobody_has_a_serde_for_is_no_surprise_of_the_first_record() {
    type Key = Windowed<String>;
    let keyed = |b: &StreamsBuilder| stream(b).map(|k, v| (Windowed::new(k, 0, 10), v));
    let unknown = |build: &dyn Fn(&StreamsBuilder)| {
        let error = mistake(build);
        let text = error.to_string();
        assert!(matches!(error, BuildError::Invalid { .. }), "{text}");
        assert!(text.contains("give their serde by hand: serde::time_windowed or"), "{text}");
        text
    };
    let text = unknown(&|b| keyed(b).to_with("out", Produced::named("sink")));
    assert!(text.starts_with("'sink': "), "{text}");
    unknown(&|b| keyed(b).to_dynamic(|_| "out".into()));
    unknown(&|b| drop(keyed(b).group_by_key().count()));
    unknown(&|b| drop(b.stream::<Key, String>("windows")));
    unknown(&|b| drop(b.table::<Key, String>("windows")));
    unknown(&|b| keyed(b).map(|k, v| (v, Some((k, 1_i64)))).to("out"));

    let b = StreamsBuilder::new();
    let key = || time_windowed(String::serde(), 10);
    keyed(&b).to_with("out", Produced::with(key(), String::serde()));
    let sessions = Consumed::with(session_windowed(String::serde()), String::serde());
    b.stream_with("sessions", sessions).to("out");
    let windows = TimeWindows::of(Duration::from_secs(1));
    stream(&b).group_by_key().windowed_by(windows).count().to_stream().to("counts");
    b.build().unwrap();
}

#[test]
fn streams_of_one_topic_read_it_in_the_same_way() {
    type Consuming = fn() -> Consumed<String, String>;
    let usual: Consuming = Consumed::default;
    let times: Consuming = || {
        let own = |_: &String, value: &String, _: RecordTimes| value.len() as i64;
        Consumed::default().with_timestamp_extractor(TimestampExtractor::own(own))
    };
    let wall_clock: Consuming =
        || Consumed::default().with_timestamp_extractor(TimestampExtractor::wall_clock());
    let serde: Consuming = || {
        let put = |value: &String, out: &mut Vec<u8>| {
            out.extend(value.as_bytes());
            Ok(())
        };
        let get = |bytes: &[u8]| Ok(String::from_utf8_lossy(bytes).into_owned());
        Consumed::default().with_value_serde(from_fns(put, get))
    };
    let by_hand: Consuming = || Consumed::with(String::serde(), String::serde());
    let ways = [usual, times, wall_clock, serde, by_hand];
    let read = |b: &StreamsBuilder, first: Consuming, second: Consuming| {
        b.stream_with("a", first()).to("one");
        b.stream_with("a", second()).to("other");
    };
    for (one, first) in ways.iter().enumerate() {
        for (other, second) in ways.iter().enumerate() {
            if one == other || [one, other].iter().all(|way| [0, 4].contains(way)) {
                let b = StreamsBuilder::new();
                read(&b, *first, *second);
                b.build().unwrap();
            } else {
                let error = mistake(|b| read(b, *first, *second));
                assert_eq!(error, BuildError::ReadDifferently { topic: "a".into() });
            }
        }
    }
    let patterns = mistake(|b| {
        b.stream_with(Pattern::wildcard("a*"), usual());
        b.stream_with(Pattern::wildcard("a*"), times());
    });
    assert_eq!(patterns, BuildError::ReadDifferently { topic: "a*".into() });
}

#[test]
fn a_join_with_a_global_table_has_no_grace() {
    let grace = Joined::default().with_grace(Duration::from_millis(1));
    let error = mistake(|b| {
        let table = b.global_table::<String, String>("g");
        stream(b).join_global_with(&table, |k, _| k.clone(), |_, v, _| v.clone(), grace);
    });
    assert!(matches!(error, BuildError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("join a versioned table"), "{error}");
}

#[test]
fn windows_of_a_join_keep_something() {
    let joined = |b: &StreamsBuilder, grace| {
        let windows = JoinWindows::of(Duration::ZERO).grace(Duration::from_millis(grace));
        stream(b)
            .join(&b.stream("b"), |_, l: &String, r: &String| l.clone() + r, windows)
            .to("out");
    };
    let error = mistake(|b| joined(b, 0));
    assert!(matches!(error, BuildError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("give them a grace of a millisecond"), "{error}");

    let b = StreamsBuilder::new();
    joined(&b, 1);
    let driver = crate::driver(&b);
    for (topic, time) in [("a", 5), ("b", 5), ("b", 6)] {
        driver.input_topic(topic).pipe("k".to_string(), topic.to_string(), time).unwrap();
    }
    let out = driver.output_topic::<String, String>("out").read_all().unwrap();
    let out: Vec<_> = out.into_iter().map(|record| (record.value, record.timestamp)).collect();
    assert_eq!(out, [("ab".to_string(), 5)]);
}

/// However many ways lead through them.
#[test]
fn streams_that_are_split_and_merged_again_and_again_are_built() {
    let b = StreamsBuilder::new();
    let mut all = stream(&b).select_key(|k, _| k.clone());
    for _ in 0..40 {
        all = all.filter(|_, v| v.len() > 3).merge(&all.filter(|_, v| v.len() <= 3));
    }
    let other = b.stream("b");
    let windows = JoinWindows::of(Duration::from_secs(1));
    let joined = all.join(&other, |_, v, w: &String| v.clone() + w, windows);
    let windows = TimeWindows::of(Duration::from_secs(1));
    let closed = Suppressed::until_window_closes(BufferConfig::unbounded());
    let mut counts = joined.group_by_key().windowed_by(windows).count().to_stream_present();
    for _ in 0..40 {
        counts = counts.filter(|_, n| n % 2 == 0).merge(&counts.filter(|_, n| n % 2 == 1));
    }
    counts.to_table::<i64>().suppress(closed).to_stream().to("out");
    b.build().unwrap();
}
