//! Random input against plain models.

use std::collections::BTreeMap;

use streams_dsl::{Consumed, Materialized, StreamsBuilder};

use crate::{driver, s};

/// The same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn materialized<V: streams_core::HasSerde>(name: &str, caching: bool) -> Materialized<String, V> {
    let named = Materialized::named(name);
    if caching { named } else { named.with_caching_disabled() }
}

#[test]
fn counts_and_sums_equal_a_plain_map() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let caching = seed % 2 == 0;
        let by_parity =
            b.stream::<(), i64>("a").group_by(|(), n| s(if n % 2 == 0 { "even" } else { "odd" }));
        by_parity.count_with(materialized("counts", caching)).to_stream_present().to("out");
        by_parity.reduce_with(|a, b| a + b, materialized("sums", caching));
        let driver = driver(&b);
        let mut model: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let mut outputs = Vec::new();
        for _ in 0..100 {
            let n = random.below(1000) as i64;
            driver.input_topic("a").pipe((), n, random.below(50) as i64).unwrap();
            let entry = model.entry(s(if n % 2 == 0 { "even" } else { "odd" })).or_default();
            *entry = (entry.0 + 1, entry.1 + n);
            outputs.push(entry.0);
        }
        let out = driver.output_topic::<String, i64>("out").read_all().unwrap();
        assert_eq!(out.iter().map(|r| r.value).collect::<Vec<_>>(), outputs, "seed {seed}");
        let store = |name| driver.key_value_store::<String, i64>(name).unwrap().all().unwrap();
        let expected = |pick: fn(&(i64, i64)) -> i64| -> Vec<_> {
            model.iter().map(|(key, both)| (key.clone(), pick(both))).collect()
        };
        assert_eq!(store("counts"), expected(|both| both.0), "seed {seed}");
        assert_eq!(store("sums"), expected(|both| both.1), "seed {seed}");
    }
}

/// Whether and where a table is kept changes what is said on the way, never what it says last.
#[test]
fn a_filtered_table_is_the_filter_of_the_table() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let b = StreamsBuilder::new();
        let plain = b.table::<String, i64>("a").filter(|_, n| n % 3 != 0);
        plain.to_stream().to("plain");
        let stored = b
            .table_with("b", Consumed::default(), materialized::<i64>("s", seed % 2 == 0))
            .filter_not_with(|_, n| n % 3 == 0, materialized("f", seed % 3 == 0));
        stored.map_values(|_, n| n).to_stream().to("stored");
        let driver = driver(&b);
        let mut model: BTreeMap<String, i64> = BTreeMap::new();
        for time in 0..200 {
            let key = format!("k{}", random.below(6));
            let value = (random.below(4) > 0).then(|| random.below(20) as i64);
            driver.input_topic("a").pipe(key.clone(), value, time).unwrap();
            driver.input_topic("b").pipe(key.clone(), value, time).unwrap();
            match value.filter(|n| n % 3 != 0) {
                Some(value) => drop(model.insert(key, value)),
                None => drop(model.remove(&key)),
            }
        }
        for topic in ["plain", "stored"] {
            let mut last: BTreeMap<String, i64> = BTreeMap::new();
            for record in driver.output_topic::<String, Option<i64>>(topic).read_all().unwrap() {
                match record.value {
                    Some(value) => drop(last.insert(record.key, value)),
                    None => drop(last.remove(&record.key)),
                }
            }
            assert_eq!(last, model, "{topic}, seed {seed}");
        }
        let kept = driver.key_value_store::<String, i64>("f").unwrap().all().unwrap();
        assert_eq!(kept, model.into_iter().collect::<Vec<_>>(), "seed {seed}");
    }
}
