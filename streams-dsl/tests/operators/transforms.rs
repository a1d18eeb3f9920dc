//! Values of tables that are transformed by code with stores.

use streams_core::failure::{ErrorHandlers, log_and_continue};
use streams_core::processor::{InitContext, StoreAccess, StoreHandle};
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::topology::StoreSpec;
use streams_core::{BuildError, HasSerde, ProcessError};
use streams_dsl::{Materialized, Named, ProcessorSupplier, StreamsBuilder, ValueTransformer};

use crate::{driver, s, step};

type Row = (String, Option<String>, i64);

/// Says how often a key was asked for.
#[derive(Default)]
struct Counting {
    store: Option<StoreHandle<KeyValueStore<String, i64>>>,
}

impl ValueTransformer for Counting {
    type Key = String;
    type VIn = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.store = Some(cx.store("asked")?);
        Ok(())
    }

    fn transform(
        &mut self,
        key: &String,
        value: Option<String>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<String>, ProcessError> {
        let store = stores.store(self.store.unwrap());
        let asked = 1 + store.get(key)?.map_or(0, |(asked, _)| *asked);
        store.put(key.clone(), Some(asked), 0)?;
        if value.as_deref() == Some("bad") {
            return Err(ProcessError::user("it is bad"));
        }
        Ok(value.filter(|value| value != "hide").map(|value| format!("{value}{asked}")))
    }
}

fn store() -> StoreSpec {
    // Nobody forwards what is put into it.
    let options = StoreOptions::default();
    StoreSpec::key_value("asked", String::serde(), i64::serde(), options)
}

struct WithStore;

impl ProcessorSupplier for WithStore {
    type Processor = Counting;

    fn processor(&self) -> Counting {
        Counting::default()
    }

    fn stores(&self) -> Vec<StoreSpec> {
        vec![store()]
    }
}

#[test]
fn a_transformer_sees_deletions_and_has_stores() {
    let b = StreamsBuilder::new();
    b.table::<String, String>("a").transform_values(WithStore).to_stream().to("out");
    let driver = driver(&b);
    let out = |value: Option<&str>, time| -> Vec<Row> {
        step(&driver, s("k"), value.map(str::to_string), time)
    };
    assert_eq!(out(Some("v"), 1), [(s("k"), Some(s("v1")), 1)]);
    assert_eq!(out(None, 2), [(s("k"), None, 2)]);
    assert_eq!(out(Some("hide"), 3), [(s("k"), None, 3)]);
    assert_eq!(out(Some("v"), 4), [(s("k"), Some(s("v4")), 4)]);
}

#[test]
fn a_transformer_that_fails_leaves_nothing_in_its_stores() {
    let b = StreamsBuilder::new();
    b.table::<String, String>("a").transform_values(WithStore).to_stream().to("out");
    let handlers = ErrorHandlers { processing: log_and_continue(), ..Default::default() };
    let settings = TestDriverSettings { handlers, ..Default::default() };
    let driver = TopologyTestDriver::with_settings(b.build().unwrap(), settings).unwrap();
    let out = |value: &str, time| -> Vec<Row> { step(&driver, s("k"), Some(s(value)), time) };
    assert_eq!(out("a", 1), [(s("k"), Some(s("a1")), 1)]);
    assert_eq!(out("bad", 2), []);
    assert_eq!(out("bad", 3), []);
    assert_eq!(out("b", 4), [(s("k"), Some(s("b2")), 4)]);
    assert_eq!(driver.dropped().get("not processed"), Some(&2));
}

#[test]
fn a_transformed_table_can_be_joined_kept_or_not() {
    for kept in [false, true] {
        let b = StreamsBuilder::new();
        b.add_state_store(store());
        let source = b.table::<String, String>("a");
        let make = || Counting::default();
        let transformed = match kept {
            true => source.transform_values_with(make, &["asked"], Materialized::named("kept")),
            false => source.transform_values_with(make, &["asked"], Named::new("named")),
        };
        let other = b.table::<String, String>("b");
        other.join(&transformed, |_, o, t| format!("{o}-{t}")).to_stream().to("out");
        let driver = driver(&b);
        driver.input_topic("a").pipe(s("k"), s("v"), 1).unwrap();
        for _ in 0..2 {
            driver.input_topic("b").pipe(s("k"), s("o"), 2).unwrap();
        }
        let out = driver.output_topic::<String, String>("out").read_all().unwrap();
        let values: Vec<_> = out.into_iter().map(|record| record.value).collect();
        // What is kept is as it was said; what is not is asked for anew.
        assert_eq!(values, if kept { ["o-v1", "o-v1"] } else { ["o-v2", "o-v3"] });
    }
}

#[test]
fn names_of_transformed_tables() {
    let b = StreamsBuilder::new();
    b.add_state_store(store());
    let table = b.table::<String, String>("a");
    table.transform_values(WithStore);
    table.transform_values_with(Counting::default, &["asked"], Materialized::named("kept"));
    let text = b.build().err().unwrap().to_string();
    assert!(text.contains("asked"), "two stores of one name: {text}");

    let b = StreamsBuilder::new();
    b.add_state_store(store());
    let table = b.table::<String, String>("a");
    table.transform_values_with(Counting::default, &["asked"], Named::new("x"));
    table.transform_values_with(Counting::default, &["asked"], Materialized::named("kept"));
    let text = b.build().unwrap().describe();
    assert!(text.contains("Processor: x (stores: [asked])"), "{text}");
    let unnamed = "Processor: KTABLE-TRANSFORMVALUES-0000000004 (stores: [";
    let stores = text.split_once(unnamed).unwrap().1.split_once(']').unwrap().0;
    assert!(stores.contains("asked") && stores.contains("kept"), "{text}");
}
