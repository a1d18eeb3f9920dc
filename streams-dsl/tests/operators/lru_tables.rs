//! Tables that hold only so many keys.

use std::time::Duration;

use streams_core::state::StoreOptions;
use streams_core::topology::StoreSpec;
use streams_core::{BuildError, HasSerde};
use streams_dsl::{Consumed, Materialized, SessionWindows, StreamsBuilder, TimeWindows};

use crate::windows::ms;
use crate::{driver, s, some, step};

/// Counts, of two keys at most.
fn counts() -> StreamsBuilder {
    let b = StreamsBuilder::new();
    let kept = Materialized::named("counts").lru_map(2);
    b.stream::<String, String>("a").group_by_key().count_with(kept).to_stream().to("out");
    b
}

#[test]
fn a_key_that_was_dropped_is_counted_anew_and_nothing_is_said_of_its_end() {
    let driver = driver(&counts());
    let mut out: Vec<(String, i64, i64)> = Vec::new();
    for (time, key) in ["a", "b", "a", "c", "a", "b", "c"].into_iter().enumerate() {
        out.extend(step(&driver, s(key), s("-"), time as i64));
    }
    let expected = [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3), ("b", 1), ("c", 1)];
    let expected = expected.into_iter().enumerate();
    assert_eq!(out, expected.map(|(at, (k, n))| (s(k), n, at as i64)).collect::<Vec<_>>());
    let store = driver.key_value_store::<String, i64>("counts").unwrap();
    assert_eq!(store.all().unwrap(), [(s("b"), 1), (s("c"), 1)]);
}

#[test]
fn after_a_crash_a_table_has_the_keys_that_it_had_and_the_oldest_times_go_first() {
    let driver = driver(&counts());
    let out = |key: &str, time| step::<_, _, String, i64>(&driver, s(key), s("-"), time);
    let store = || driver.key_value_store::<String, i64>("counts").unwrap().all().unwrap();
    for (time, key) in ["a", "b", "a", "c"].into_iter().enumerate() {
        out(key, time as i64);
    }
    driver.commit().unwrap();
    driver.crash().unwrap();
    assert_eq!(store(), [(s("a"), 2), (s("c"), 1)]);
    driver.key_value_store::<String, i64>("counts").unwrap().get(&s("a")).unwrap();
    driver.crash().unwrap(); // and what was read since is forgotten
    assert_eq!(out("b", 4), [(s("b"), 1, 4)]);
    assert_eq!(store(), [(s("b"), 1), (s("c"), 1)]);
    driver.commit().unwrap();
    driver.crash().unwrap();
    assert_eq!(store(), [(s("b"), 1), (s("c"), 1)]);
}

#[test]
fn a_join_finds_what_a_table_still_has() {
    let b = StreamsBuilder::new();
    let kept = Materialized::named("names").lru_map(1);
    let names = b.table_with::<String, String>("names", Consumed::default(), kept);
    let ids = b.stream::<String, String>("a");
    ids.left_join_table(&names, |_, _, name| name.cloned().unwrap_or_default()).to("out");
    let driver = driver(&b);
    for (key, name) in [("1", "Amy"), ("2", "Bob")] {
        driver.input_topic("names").pipe(s(key), some(name), 0).unwrap();
    }
    assert_eq!(step(&driver, s("1"), s("-"), 1), [(s("1"), s(""), 1)]);
    assert_eq!(step(&driver, s("2"), s("-"), 2), [(s("2"), s("Bob"), 2)]);
}

#[test]
fn a_global_table_may_hold_only_so_many_keys_too() {
    let b = StreamsBuilder::new();
    let kept = Materialized::named("names").lru_map(1);
    let names = b.global_table_with::<String, String>("names", Consumed::default(), kept);
    let ids = b.stream::<String, String>("a");
    ids.join_global(&names, |key, _| key.clone(), |_, _, name| name.clone()).to("out");
    let driver = driver(&b);
    for (key, name) in [("1", "Amy"), ("2", "Bob")] {
        driver.input_topic("names").pipe(s(key), some(name), 0).unwrap();
    }
    assert!(step::<_, _, String, String>(&driver, s("1"), s("-"), 1).is_empty());
    assert_eq!(step(&driver, s("2"), s("-"), 2), [(s("2"), s("Bob"), 2)]);
}

fn mistake(build: impl FnOnce(&StreamsBuilder)) -> String {
    let b = StreamsBuilder::new();
    build(&b);
    let Err(error @ BuildError::Invalid { .. }) = b.build() else { panic!("it was built") };
    error.to_string()
}

#[test]
fn what_cannot_hold_only_so_many_keys_is_said_when_the_topology_is_built() {
    let none = mistake(|b| {
        let kept = Materialized::named("counts").lru_map(0);
        b.stream::<String, String>("a").group_by_key().count_with(kept);
    });
    assert!(none.contains("'counts': it holds no entry at all"), "{none}");
    let versioned = mistake(|b| {
        let kept = Materialized::versioned("v", Duration::from_secs(1)).lru_map(1);
        b.table_with::<String, String>("a", Consumed::default(), kept);
    });
    assert!(versioned.contains("a versioned table keeps every key"), "{versioned}");
    let windowed = mistake(|b| {
        let windows = b.stream::<String, String>("a").group_by_key();
        let windows = windows.windowed_by(TimeWindows::of(ms(1)));
        windows.count_with(Materialized::named("w").lru_map(1));
    });
    assert!(windowed.contains("windows go by their age"), "{windowed}");
    let sessions = mistake(|b| {
        let sessions = b.stream::<String, String>("a").group_by_key();
        let sessions = sessions.windowed_by(SessionWindows::of(ms(1)));
        sessions.count_with(Materialized::named("w").lru_map(1));
    });
    assert!(sessions.contains("windows go by their age"), "{sessions}");
    let options = StoreOptions { max_entries: Some(1), ..StoreOptions::default() };
    let late = StoreOptions { forward_on_seal: true, ..options };
    let store = |options| StoreSpec::key_value("s", String::serde(), i64::serde(), options);
    let late = mistake(|b| {
        b.add_state_store(store(late));
    });
    assert!(late.contains("cannot forward at the seal"), "{late}");
    let copy = store(options).copy_of("a").err().unwrap().to_string();
    assert!(copy.contains("without max_entries"), "{copy}");
}
